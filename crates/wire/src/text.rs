//! Text from peers.

/// As it may stand in a log or be passed on: one line, printable, of bounded length.
pub(crate) fn printable(text: &[u8], bytes_max: usize) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(bytes_max)]);
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
