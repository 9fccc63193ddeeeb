//! What a back end could say that mail is handed over to.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<(u8, Vec<u8>)>)| gatepost_fuzz::handover(input.0, &input.1));
