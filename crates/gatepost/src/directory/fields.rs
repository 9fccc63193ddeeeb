//! What directories of several kinds read alike: an account's fields, from texts. Where a text comes from is each one's own.

use crate::config::Network;

/// The items of a list in one text, divided by commas or blanks.
pub(super) fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|item| !item.is_empty())
}

/// The networks an account may be used from.
pub(super) fn networks<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Vec<Network>, String> {
    let parse = |text: &str| Network::parse(text).ok_or_else(|| format!("{text:?} is no network"));
    texts.into_iter().map(parse).collect()
}

/// The services an account is for, in whatever case they are written.
pub(super) fn services<'t>(names: impl IntoIterator<Item = &'t str>) -> Vec<String> {
    names.into_iter().map(str::to_lowercase).collect()
}

/// A port.
pub(super) fn port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| format!("port {text:?} is no port"))
}
