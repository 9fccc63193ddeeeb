//! `ManageSieve` (RFC 5804) before log-in.
//!
//! Grammar and words belong here; the course of a log-in, which is no protocol's own, is `conversation`'s.

mod back;
mod front;

use std::sync::LazyLock;
use std::time::Duration;

use crate::protocols::{Course, Inband, LastWords, LogInMachines, Protocol, Refusal};
use crate::text::begins_with_any;

/// `ManageSieve`'s row in the table.
pub(crate) const PROTOCOL: Protocol = Protocol {
    name: "sieve",
    title: "ManageSieve",
    port: 4190,
    // None is registered.
    tls_port: None,
    alpn: b"managesieve",
    course: Course::LogIn(LogInMachines {
        front: |setup, rules| Box::new(front::Front::new(setup, rules)),
        back: |setup, login| Box::new(back::Back::new(setup, Some(login))),
    }),
    look: |setup| Box::new(back::Back::new(setup, None)),
    turned_away,
    passed_counts,
    learnt: EXTENSIONS,
    tells_early: true,
    inband: Inband::Xclient,
    idle_min: (Duration::from_mins(30), "RFC 5804, section 1.2"),
    login_name: "managesieve-login",
};

/// Extensions of the language, of which clients are told those that every back end has: IANA's registry, and
/// Pigeonhole's own.
const EXTENSIONS: &[&str] = &[
    "fileinto",
    "reject",
    "ereject",
    "envelope",
    "encoded-character",
    "vacation",
    "vacation-seconds",
    "subaddress",
    "comparator-i;ascii-numeric",
    "comparator-i;unicode-casemap",
    "relational",
    "regex",
    "imap4flags",
    "copy",
    "include",
    "variables",
    "body",
    "enotify",
    "environment",
    "mailbox",
    "mailboxid",
    "date",
    "index",
    "ihave",
    "duplicate",
    "mime",
    "foreverypart",
    "extracttext",
    "enclose",
    "replace",
    "editheader",
    "special-use",
    "mboxmetadata",
    "servermetadata",
    "imapsieve",
    "spamtest",
    "spamtestplus",
    "virustest",
    "extlists",
    "fcc",
    "convert",
    "redirect-dsn",
    "redirect-deliverby",
    "vnd.dovecot.environment",
    "vnd.dovecot.debug",
    "vnd.dovecot.pipe",
    "vnd.dovecot.filter",
    "vnd.dovecot.execute",
    "vnd.dovecot.report",
    "vnd.dovecot.imapsieve",
];

/// A refusal's response code with the blank behind it, or nothing; its text is [`Refusal::text`].
const fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadCredentials | Refusal::Disabled | Refusal::Expired | Refusal::Forbidden | Refusal::Misbehaved => "",
        Refusal::TlsRequired => "(ENCRYPT-NEEDED) ",
        Refusal::TooMany | Refusal::Guessing | Refusal::Unavailable | Refusal::ShuttingDown | Refusal::TimedOut => {
            "(TRYLATER) "
        }
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    !begins_with_any(text, &["(QUOTA", "(TRYLATER"])
}

/// See [`Protocol::turned_away`].
fn turned_away(refusal: Refusal) -> &'static [u8] {
    static WORDS: LazyLock<LastWords> =
        LazyLock::new(|| LastWords::new(|refusal| format!("BYE {}\"{}\"\r\n", code(refusal), refusal.text())));
    WORDS.of(refusal)
}
