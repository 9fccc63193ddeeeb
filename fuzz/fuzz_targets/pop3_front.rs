//! What anybody could say as a POP3 client.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::front("pop3", input.0, &input.1));
