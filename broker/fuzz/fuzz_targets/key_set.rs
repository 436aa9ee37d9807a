#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_broker::auth::fuzz::fuzz_key_set(data));
