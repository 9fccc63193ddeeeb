//! A message's content is the same however it is cut, ends where it ends, and holds no other end.
#![no_main]

use gatepost_wire::smtp::{Content, Scanned};
use libfuzzer_sys::fuzz_target;

/// What is passed on, whether it is sound, and where it ended.
fn read(pieces: &[&[u8]]) -> (Vec<u8>, bool, Option<usize>) {
    let (mut content, mut passed, mut offset) = (Content::default(), Vec::new(), 0);
    for piece in pieces {
        let Scanned { dot, part, taken, is_end } = content.scan(piece);
        // Once it is not sound, nothing is passed on any more.
        if content.is_sound() {
            passed.extend(dot.then_some(b'.'));
            passed.extend_from_slice(part);
        }
        offset += taken;
        if is_end {
            return (passed, content.is_sound(), Some(offset));
        }
        assert_eq!(taken, piece.len());
    }
    (passed, content.is_sound(), None)
}

fuzz_target!(|input: (u16, Vec<u8>)| {
    let (at, bytes) = input;
    let (a, b) = bytes.split_at(usize::from(at).min(bytes.len()));
    let (passed, is_sound, end) = read(&[&bytes]);
    for pieces in [vec![a, b], bytes.chunks(1).collect()] {
        let cut = read(&pieces);
        assert_eq!((cut.1, cut.2), (is_sound, end));
        if is_sound {
            assert_eq!(cut.0, passed);
        }
    }
    let lines = [b"\r\n", &passed[..]].concat();
    assert!(!lines.windows(5).any(|five| five == b"\r\n.\r\n"));
    if let Some(end) = end.filter(|_| is_sound) {
        // The reference: the first dot on a line by itself, and nothing but whole lines before it.
        let whole = [b"\r\n", &bytes[..]].concat();
        let first = whole.windows(5).position(|five| five == b"\r\n.\r\n").expect("an end");
        assert_eq!((end, &bytes[..first]), (first + 3, &passed[..]));
        assert!(passed.is_empty() || passed.ends_with(b"\r\n"));
        let bare = |pair: &[u8]| (pair[0] == b'\r') != (pair[1] == b'\n');
        assert!(!lines[1..].windows(2).skip(1).any(bare));
    }
});
