//! The same bytes give the same frames however they are cut.
#![no_main]

use gatepost_wire::fuzzing::{Frame, Framer};
use libfuzzer_sys::fuzz_target;

fn frames(pieces: &[&[u8]]) -> Vec<(bool, Vec<u8>)> {
    let mut framer = Framer::new(256, 4096);
    let mut seen = Vec::new();
    for piece in pieces {
        framer.push(piece);
        while let Some(frame) = framer.next_frame() {
            match frame {
                Frame::Command => {
                    seen.push((framer.is_broken(), framer.command().to_vec()));
                    framer.finish();
                }
                Frame::Literal(literal) if literal.size <= 64 => framer.accept(),
                Frame::Literal(_) => {
                    if !framer.reject() {
                        return seen;
                    }
                }
                Frame::Lost => return seen,
            }
        }
    }
    seen
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (at, bytes) = input;
    let (a, b) = bytes.split_at(usize::from(at).min(bytes.len()));
    let whole = frames(&[&bytes]);
    assert_eq!(frames(&[a, b]), whole);
    let single: Vec<&[u8]> = bytes.chunks(1).collect();
    assert_eq!(frames(&single), whole);
});
