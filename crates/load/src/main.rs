//! Load generator and stand-in back end for measuring IMAP proxies.
fn main() {}
