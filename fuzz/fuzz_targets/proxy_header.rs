//! A sender of the PROXY protocol says anything: no panic, and a header is never longer than what came.
#![no_main]

use gatepost_wire::proxy_header::{Parsed, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Parsed::Header { length, .. } = parse(bytes) {
        assert!(length <= bytes.len());
        for cut in 0..length {
            assert_eq!(parse(&bytes[..cut]), Parsed::Partial);
        }
    }
});
