//! IMAP (RFC 9051, RFC 3501) before log-in, with SASL-IR (RFC 4959), LITERAL- (RFC 7888), ID (RFC 2971)
//! and the response codes of RFC 5530.
//!
//! Grammar and words belong here; the course of a log-in, which is no protocol's own, is `conversation`'s.

mod back;
mod front;
mod syntax;

use std::sync::LazyLock;
use std::time::Duration;

use crate::protocols::{Course, Inband, LastWords, LogInMachines, Protocol, Refusal};
use crate::text::begins_with_any;

/// IMAP's row in the table.
pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "imap",
    title: "IMAP",
    port: 143,
    tls_port: Some(993),
    alpn: b"imap",
    course: Course::LogIn(LogInMachines {
        front: |setup, rules| Box::new(front::Front::new(setup, rules)),
        back: |setup, login| Box::new(back::Back::new(setup, Some(login))),
    }),
    look: |setup| Box::new(back::Back::new(setup, None)),
    turned_away,
    passed_counts,
    learnt: &["IMAP4rev2"],
    tells_early: false,
    inband: Inband::Id,
    idle_min: (Duration::from_mins(30), "RFC 9051, section 5.4"),
    login_name: "imap-login",
};

/// A refusal's code, as IMAP's answers have it; its text is [`Refusal::text`].
const fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadCredentials => "[AUTHENTICATIONFAILED]",
        Refusal::Disabled | Refusal::Forbidden => "[CONTACTADMIN]",
        Refusal::Expired => "[EXPIRED]",
        Refusal::TlsRequired => "[PRIVACYREQUIRED]",
        Refusal::TooMany | Refusal::Guessing => "[LIMIT]",
        Refusal::Unavailable | Refusal::ShuttingDown | Refusal::TimedOut => "[UNAVAILABLE]",
        Refusal::Misbehaved => "[CLIENTBUG]",
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    !begins_with_any(text, &["[LIMIT]", "[INUSE]", "[SERVERBUG]", "[CORRUPTION]"])
}

/// See [`Protocol::turned_away`].
fn turned_away(refusal: Refusal) -> &'static [u8] {
    static WORDS: LazyLock<LastWords> =
        LazyLock::new(|| LastWords::new(|refusal| format!("* BYE {} {}\r\n", code(refusal), refusal.text())));
    WORDS.of(refusal)
}
