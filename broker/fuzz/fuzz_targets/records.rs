#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| cauce_broker_fuzz::record::stand_in::fuzz_records(data));
