//! What anybody could say as a ManageSieve client.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::front("sieve", input.0, &input.1));
