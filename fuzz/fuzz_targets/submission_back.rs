//! What anybody could say as a back end for submission.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::back(
    "submission",
    &["EHLO us\r\n", "STARTTLS\r\n"],
    input.0,
    &input.1
));
