//! A client sends any message of a SCRAM exchange: no panic, and what is read says again what was sent.
#![no_main]

use gatepost_wire::Secret;
use gatepost_wire::scram::{client_final, client_first};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let message = Secret::new(input.to_vec());
    if let Some(first) = client_first(&message) {
        assert_eq!([first.header.as_bytes(), first.bare.as_bytes()].concat(), input);
        assert!(!first.user.is_empty() && !first.nonce.is_empty());
    }
    if let Some(last) = client_final(&message) {
        assert!(input.starts_with(last.without_proof.as_bytes()));
    }
});
