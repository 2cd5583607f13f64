//! Runs [`moltbot_fuzz::config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| moltbot_fuzz::config(data));
