#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_broker_fuzz::websocket::reader::fuzz_reader(data));
