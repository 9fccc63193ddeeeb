//! A passwd-file of any text is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let lines = text.lines().count();
    assert!(gatepost::fuzzing::passwd_file(text).is_none_or(|users| users <= lines));
});
