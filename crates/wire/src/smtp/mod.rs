//! SMTP (RFC 5321) as mail is submitted (RFC 6409): before log-in, with AUTH (RFC 4954), STARTTLS (RFC 3207) and enhanced
//! status codes (RFC 3463, RFC 4954, RFC 5248).

mod back;
mod front;
mod reply;

pub use reply::Reply;

use std::time::Duration;

use crate::protocols::{Inband, Protocol, Refusal};

/// Submission's row in the table.
pub(crate) const SUBMISSION: Protocol = Protocol {
    name: "submission",
    title: "submission",
    port: 587,
    tls_port: Some(465),
    // None is registered; this is the one that Exim's clients name.
    alpn: b"smtp",
    front: |setup| Box::new(front::Front::new(setup)),
    back: |setup| Box::new(back::Back::new(setup)),
    turned_away,
    passed_counts,
    learnt: EXTENSIONS,
    tells_early: true,
    inband: Inband::Xclient,
    idle_min: (Duration::from_mins(5), "RFC 5321, section 4.5.3.2.7"),
    login_name: "submission-login",
};

/// Extensions of which clients are told those that every back end has. Others are left out, since what they promise
/// stands in their parameters or depends on the whole path (BURL, DELIVERBY, REQUIRETLS).
const EXTENSIONS: &[&str] =
    &["PIPELINING", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES", "CHUNKING", "BINARYMIME", SIZE, "VRFY"];

/// The extension that says how large a message may be (RFC 1870).
const SIZE: &str = "SIZE";

/// The one place where a refusal becomes SMTP's words: a reply code, an enhanced status code and a text.
const fn words(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::BadCredentials => ("535 5.7.8", "Authentication failed."),
        Refusal::Disabled => ("525 5.7.13", "This account is disabled."),
        Refusal::Expired => ("525 5.7.13", "This account or its password has expired."),
        Refusal::TlsRequired => ("530 5.7.0", "Passwords are only taken under TLS."),
        Refusal::TooMany => ("454 4.7.0", "Too many connections, try again later."),
        Refusal::Guessing => ("454 4.7.0", "Too many failed log-ins, try again later."),
        Refusal::Forbidden => ("550 5.7.1", "Access from your address is not allowed."),
        Refusal::Unavailable => ("454 4.7.0", "Temporarily unavailable, try again later."),
        Refusal::ShuttingDown => ("421 4.3.2", "The server is shutting down."),
        Refusal::TimedOut => ("421 4.4.2", "Log-in took too long."),
        Refusal::Misbehaved => ("421 4.7.0", "Too many errors."),
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    text.starts_with('5')
}

/// See [`Protocol::turned_away`]. The first reply is 220, 421 or 554 (RFC 5321, section 4.3.2).
fn turned_away(refusal: Refusal) -> &'static [u8] {
    match refusal {
        Refusal::TooMany => b"421 4.7.0 Too many connections, try again later.\r\n",
        Refusal::Guessing => b"421 4.7.0 Too many failed log-ins, try again later.\r\n",
        Refusal::Forbidden => b"554 5.7.1 Access from your address is not allowed.\r\n",
        Refusal::ShuttingDown => b"421 4.3.2 The server is shutting down.\r\n",
        Refusal::TimedOut => b"421 4.4.2 Log-in took too long.\r\n",
        Refusal::BadCredentials
        | Refusal::Disabled
        | Refusal::Expired
        | Refusal::TlsRequired
        | Refusal::Unavailable
        | Refusal::Misbehaved => b"421 4.3.0 Temporarily unavailable, try again later.\r\n",
    }
}
