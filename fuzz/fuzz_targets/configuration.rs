//! A configuration of any text is read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    gatepost::fuzzing::configuration(text);
});
