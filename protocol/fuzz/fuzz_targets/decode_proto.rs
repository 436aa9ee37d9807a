#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_protocol::fuzzing::fuzz_decode_proto(data));
