//! SMTP (RFC 5321) in its three uses: submission with a log-in (RFC 6409, RFC 4954), mail that comes in, and LMTP (RFC 2033)
//! within a site; with STARTTLS (RFC 3207) and enhanced status codes (RFC 3463, RFC 5248).
//!
//! Grammar and words belong here, and the course of mail; where mail goes, whoever asks the machines knows.

mod back;
mod content;
mod envelope;
mod front;
mod handover;
mod order;
mod receiver;
mod reply;
mod words;

use std::sync::LazyLock;
use std::time::Duration;

use back::Aim;
use content::number;
pub use content::{Chunk, Content, Scanned};
pub use envelope::{Mailbox, Parameter, Recipient, Sender};
pub use handover::{Fault, Grant, Handover};
pub use receiver::{Event, Receiver, Step};
pub use reply::{Replies, Reply};
pub use words::{OwnReply, chunk_taken};

use crate::limits::{HELO_BYTES_MAX, TRACE_BYTES_MAX};
use crate::protocols::{
    Back, BackSetup, ClientTls, Course, Inband, LastWords, LogInMachines, Offers, Protocol, Refusal,
};
use crate::text::printable;

/// Submission's row in the table.
pub(crate) const SUBMISSION: Protocol = Protocol {
    name: "submission",
    title: "Submission",
    port: 587,
    tls_port: Some(465),
    course: Course::Submission(LogInMachines {
        front: |setup, rules| Box::new(front::Front::new(setup, rules)),
        back: |setup, login| Box::new(back::Back::new(setup, Dialect::Smtp, Aim::LogIn(login))),
    }),
    login_name: "submission-login",
    ..COMMON
};

/// SMTP's row in the table: mail that comes in.
pub(crate) const SMTP: Protocol = Protocol { name: "smtp", title: "SMTP", port: 25, login_name: "smtp", ..COMMON };

/// LMTP's row in the table.
pub(crate) const LMTP: Protocol = Protocol {
    name: "lmtp",
    title: "LMTP",
    port: 24,
    course: Course::Mail(Dialect::Lmtp),
    look: |setup| Box::new(back::Back::new(setup, Dialect::Lmtp, Aim::Look)),
    login_name: "lmtp",
    ..COMMON
};

/// What holds for all three, where a row does not say otherwise; what is left empty, each says.
const COMMON: Protocol = Protocol {
    name: "",
    title: "",
    port: 0,
    tls_port: None,
    // None is registered; this is the one that Exim's clients name.
    alpn: b"smtp",
    course: Course::Mail(Dialect::Smtp),
    look: |setup| Box::new(back::Back::new(setup, Dialect::Smtp, Aim::Look)),
    turned_away,
    passed_counts,
    learnt: EXTENSIONS,
    tells_early: true,
    inband: Inband::Xclient,
    idle_min: (Duration::from_mins(5), "RFC 5321, section 4.5.3.2.7"),
    login_name: "",
};

/// Which of the two is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// One reply for a message.
    Smtp,
    /// One reply for each of its recipients.
    Lmtp,
}

impl Dialect {
    /// The state machine towards a server to which mail is handed over: done, it is ready for the first message.
    pub fn back(self, setup: BackSetup) -> Box<dyn Back> {
        Box::new(back::Back::new(setup, self, Aim::HandOver))
    }

    const fn greets_as(self) -> &'static str {
        match self {
            Self::Smtp => "ESMTP",
            Self::Lmtp => "LMTP",
        }
    }

    const fn hello(self) -> &'static str {
        match self {
            Self::Smtp => "EHLO",
            Self::Lmtp => "LHLO",
        }
    }
}

/// Extensions of which clients are told those that every back end has. Others are left out, since what they promise
/// stands in their parameters or depends on the whole path (BURL, DELIVERBY, REQUIRETLS).
const EXTENSIONS: &[&str] = &[PIPELINING, EIGHT_BIT, UTF8, DSN, STATUS_CODES, CHUNKING, BINARY, SIZE, "VRFY"];

/// The extension by which commands need not wait for one another (RFC 2920).
const PIPELINING: &str = "PIPELINING";
/// The extension by which replies carry enhanced status codes (RFC 2034).
const STATUS_CODES: &str = "ENHANCEDSTATUSCODES";
/// The extension by which content comes in chunks, of which BDAT says how long each is (RFC 3030).
const CHUNKING: &str = "CHUNKING";
/// The extension that says how large a message may be (RFC 1870).
const SIZE: &str = "SIZE";
/// The extension by which content may have bytes beyond ASCII, and BODY's value that says so (RFC 6152).
const EIGHT_BIT: &str = "8BITMIME";
/// The extension by which reports are asked for (RFC 3461).
const DSN: &str = "DSN";
/// The extension by which addresses may have letters beyond ASCII (RFC 6531).
const UTF8: &str = "SMTPUTF8";
/// The extension by which a message need not consist of lines, and BODY's value that says so (RFC 3030, section 3).
const BINARY: &str = "BINARYMIME";

/// A refusal's code, as SMTP's answers have it; its text is [`Refusal::text`].
const fn code(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::BadCredentials => "535 5.7.8",
        Refusal::Disabled | Refusal::Expired => "525 5.7.13",
        Refusal::TlsRequired => "530 5.7.0",
        Refusal::TooMany | Refusal::Guessing | Refusal::Unavailable => "454 4.7.0",
        Refusal::Forbidden => "550 5.7.1",
        Refusal::ShuttingDown => "421 4.3.2",
        Refusal::TimedOut => "421 4.4.2",
        Refusal::Misbehaved => "421 4.7.0",
    }
}

/// See [`Protocol::passed_counts`].
fn passed_counts(text: &str) -> bool {
    text.starts_with('5')
}

/// The codes of whoever is turned away: the first reply is 220, 421 or 554 (RFC 5321, section 4.3.2).
const fn code_outside(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::Forbidden => "554 5.7.1",
        Refusal::Unavailable => "421 4.3.0",
        Refusal::TooMany | Refusal::Guessing => "421 4.7.0",
        other => code(other),
    }
}

/// See [`Protocol::turned_away`].
fn turned_away(refusal: Refusal) -> &'static [u8] {
    static WORDS: LazyLock<LastWords> =
        LazyLock::new(|| LastWords::new(|refusal| format!("{} {}\r\n", code_outside(refusal), refusal.text())));
    WORDS.of(refusal)
}

/// The last words (RFC 5321, section 3.8), in this text or the refusal's own.
fn bye(refusal: Refusal, text: Option<&str>, out: &mut Vec<u8>) {
    let status = match code(refusal).split_once(' ') {
        Some(("421", status)) => status,
        _ => "4.7.0",
    };
    say(out, &format!("421 {status} {}", text.unwrap_or(refusal.text())));
}

/// A command as the log may show it. Whatever else there is may be a password that nobody asked for.
fn told(word: &[u8], argument: &[u8]) -> String {
    let is_shown = match word {
        b"EHLO" | b"HELO" | b"LHLO" | b"MAIL" | b"RCPT" | b"BDAT" | b"XCLIENT" => true,
        b"STARTTLS" | b"DATA" | b"RSET" | b"NOOP" | b"VRFY" | b"HELP" | b"QUIT" => argument.is_empty(),
        _ => false,
    };
    let line = [word, b" ", argument].concat();
    if is_shown { printable(line.trim_ascii_end(), TRACE_BYTES_MAX) } else { "[struck out]".to_owned() }
}

/// Agrees to TLS, or gives what is said in its stead.
fn starttls(tls: ClientTls, argument: &[u8], out: &mut Vec<u8>) -> Result<(), &'static str> {
    match tls {
        _ if !argument.is_empty() => Err("501 5.5.4 This command takes no argument."),
        ClientTls::Offered => {
            say(out, "220 2.0.0 Begin TLS negotiation now.");
            Ok(())
        }
        ClientTls::Up => Err("503 5.5.1 TLS is already active."),
        ClientTls::Never => Err("502 5.5.1 TLS is not available here."),
    }
}

/// What a client calls itself, if it is one word.
fn hello_name(argument: &[u8]) -> Option<&str> {
    let name = std::str::from_utf8(argument).ok()?;
    let is_word = !name.is_empty() && !name.contains(|c: char| c.is_control() || c == ' ');
    (is_word && name.len() <= HELO_BYTES_MAX).then_some(name)
}

/// The extensions that are offered, as EHLO lists them.
fn extensions(protocol: &'static Protocol, offers: Offers) -> impl Iterator<Item = String> {
    offers.names(protocol).map(move |name| match offers.number() {
        Some(number) if name == SIZE => format!("{name} {number}"),
        _ => name.to_owned(),
    })
}

/// Whether a line announces a piece of a message: should it make no sense, what follows must not be read as commands.
fn announces_chunk(line: &[u8]) -> bool {
    line.split(u8::is_ascii_whitespace).next().is_some_and(|word| word.eq_ignore_ascii_case(b"BDAT"))
}

fn say(out: &mut Vec<u8>, line: &str) {
    out.extend_from_slice(line.as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// One reply of several lines.
fn say_lines(out: &mut Vec<u8>, code: u16, lines: &[String]) {
    for (n, line) in lines.iter().enumerate() {
        let separator = if n + 1 == lines.len() { ' ' } else { '-' };
        say(out, &format!("{code}{separator}{line}"));
    }
}
