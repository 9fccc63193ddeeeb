//! POP3 (RFC 1939) before log-in, with CAPA (RFC 2449), STLS (RFC 2595), AUTH (RFC 5034), response codes (RFC 2449,
//! RFC 3206) and UTF8 (RFC 6856).
//!
//! Grammar and words belong here; the course of a log-in, which is no protocol's own, is `conversation`'s.

mod back;
mod front;

use std::sync::LazyLock;
use std::time::Duration;

use crate::protocols::{Course, Inband, LastWords, LogInMachines, Protocol, Refusal};
use crate::text::begins_with_any;

/// POP3's row in the table.
pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "pop3",
    title: "POP3",
    port: 110,
    tls_port: Some(995),
    alpn: b"pop3",
    course: Course::LogIn(LogInMachines {
        front: |setup, rules| Box::new(front::Front::new(setup, rules)),
        back: |setup, login| Box::new(back::Back::new(setup, Some(login))),
    }),
    look: |setup| Box::new(back::Back::new(setup, None)),
    turned_away,
    passed_counts,
    learnt: &["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "UTF8"],
    tells_early: true,
    inband: Inband::Xclient,
    idle_min: (Duration::from_mins(10), "RFC 1939, section 3"),
    login_name: "pop3-login",
};

/// A refusal's code, as POP3's answers have it: `[AUTH]` for whatever is wrong with the user, `[SYS/TEMP]` for what will pass
/// (RFC 3206). Its text is [`Refusal::text`].
const fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadCredentials | Refusal::Disabled | Refusal::Expired | Refusal::TlsRequired | Refusal::Forbidden => {
            "[AUTH]"
        }
        Refusal::TooMany | Refusal::Guessing | Refusal::Unavailable | Refusal::ShuttingDown | Refusal::TimedOut => {
            "[SYS/TEMP]"
        }
        Refusal::Misbehaved => "[SYS/PERM]",
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    !begins_with_any(text, &["[IN-USE]", "[LOGIN-DELAY]", "[SYS/"])
}

/// See [`Protocol::turned_away`].
fn turned_away(refusal: Refusal) -> &'static [u8] {
    static WORDS: LazyLock<LastWords> =
        LazyLock::new(|| LastWords::new(|refusal| format!("-ERR {} {}\r\n", code(refusal), refusal.text())));
    WORDS.of(refusal)
}
