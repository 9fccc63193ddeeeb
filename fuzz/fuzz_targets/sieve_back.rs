//! What anybody could say as a ManageSieve back end.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::back("sieve", &["STARTTLS\r\n"], input.0, &input.1));
