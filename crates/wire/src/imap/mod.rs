//! IMAP (RFC 9051, RFC 3501) before log-in, with SASL-IR (RFC 4959), LITERAL- (RFC 7888), ID (RFC 2971)
//! and the response codes of RFC 5530.
//!
//! Grammar and words belong here; the course of a log-in, which is no protocol's own, is `conversation`'s.

mod back;
mod front;
mod syntax;

use std::time::Duration;

use crate::protocols::{Course, Inband, Protocol, Refusal};
use crate::text::begins_with_any;

/// IMAP's row in the table.
pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "imap",
    title: "IMAP",
    port: 143,
    tls_port: Some(993),
    alpn: b"imap",
    course: Course::LogIn(|setup| Box::new(front::Front::new(setup))),
    back: |setup| Box::new(back::Back::new(setup)),
    turned_away,
    passed_counts,
    learnt: &["IMAP4rev2"],
    tells_early: false,
    inband: Inband::Id,
    idle_min: (Duration::from_mins(30), "RFC 9051, section 5.4"),
    login_name: "imap-login",
};

/// The one place where a refusal becomes IMAP's words: a response code and a text.
const fn words(refusal: Refusal) -> (&'static str, &'static str) {
    match refusal {
        Refusal::BadCredentials => ("[AUTHENTICATIONFAILED]", "Authentication failed."),
        Refusal::Disabled => ("[CONTACTADMIN]", "This account is disabled."),
        Refusal::Expired => ("[EXPIRED]", "This account or its password has expired."),
        Refusal::TlsRequired => ("[PRIVACYREQUIRED]", "Passwords are only taken under TLS."),
        Refusal::TooMany => ("[LIMIT]", "Too many connections, try again later."),
        Refusal::Guessing => ("[LIMIT]", "Too many failed log-ins, try again later."),
        Refusal::Forbidden => ("[CONTACTADMIN]", "Access from your address is not allowed."),
        Refusal::Unavailable => ("[UNAVAILABLE]", "Temporarily unavailable, try again later."),
        Refusal::ShuttingDown => ("[UNAVAILABLE]", "The server ends this session."),
        Refusal::TimedOut => ("[UNAVAILABLE]", "Log-in took too long."),
        Refusal::Misbehaved => ("[CLIENTBUG]", "Too many errors."),
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    !begins_with_any(text, &["[LIMIT]", "[INUSE]"])
}

/// See [`Protocol::turned_away`].
fn turned_away(refusal: Refusal) -> &'static [u8] {
    match refusal {
        Refusal::TooMany => b"* BYE [LIMIT] Too many connections, try again later.\r\n",
        Refusal::Guessing => b"* BYE [LIMIT] Too many failed log-ins, try again later.\r\n",
        Refusal::Forbidden => b"* BYE [CONTACTADMIN] Access from your address is not allowed.\r\n",
        Refusal::ShuttingDown => b"* BYE [UNAVAILABLE] The server ends this session.\r\n",
        Refusal::TimedOut => b"* BYE [UNAVAILABLE] Log-in took too long.\r\n",
        Refusal::BadCredentials
        | Refusal::Disabled
        | Refusal::Expired
        | Refusal::TlsRequired
        | Refusal::Unavailable
        | Refusal::Misbehaved => b"* BYE [UNAVAILABLE] Temporarily unavailable, try again later.\r\n",
    }
}
