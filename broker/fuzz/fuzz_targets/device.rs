#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_broker::shelly::fuzz_device(data));
