//! What anybody could say as a client that submits mail.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::front("submission", input.0, &input.1));
