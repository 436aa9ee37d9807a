#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_broker::websocket::handshake::fuzz_handshake(data));
