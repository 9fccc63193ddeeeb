//! What anybody could say as a server to which mail is handed over by LMTP.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| gatepost_fuzz::back(
    "lmtp",
    &["LHLO us\r\n", "STARTTLS\r\n"],
    input.0,
    &input.1
));
