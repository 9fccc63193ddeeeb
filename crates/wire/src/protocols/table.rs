//! The table of protocols: what a row has, and the list of them.

use std::time::Duration;

use super::{Back, BackLogin, BackSetup, ClientSetup, Front, LogInRules, Refusal};
use crate::{imap, pop3, sieve, smtp};

/// A protocol Gatepost speaks: one row of [`PROTOCOLS`].
#[derive(Debug)]
pub struct Protocol {
    /// Its name in the configuration, in logs and in metric labels.
    pub name: &'static str,
    /// What a person calls it.
    pub title: &'static str,
    /// The port of its clear and STARTTLS listeners, and of back ends unless set.
    pub port: u16,
    /// The port of its implicit TLS listener, and of back ends with implicit TLS unless set, where one is registered.
    pub tls_port: Option<u16>,
    /// Its identifier in TLS' application-layer protocol negotiation (RFC 7301 registry).
    pub alpn: &'static [u8],
    /// What a client comes for, and the state machines for that.
    pub course: Course,
    /// Builds the state machine that sees whether a back end would serve, and leaves politely: on our own behalf, so that its
    /// setup names no client and introduces none. [`BackStep::Done`](super::BackStep::Done) comes with what the back end is
    /// known to offer, where [`Protocol::tells_early`].
    pub look: fn(BackSetup) -> Box<dyn Back>,
    /// What a client in clear is told when it is turned away before any conversation.
    pub turned_away: fn(Refusal) -> &'static [u8],
    /// Whether a refusal in the back end's own words is a failure of the user's, rather than a limit.
    pub passed_counts: fn(&str) -> bool,
    /// Capabilities that a client is only promised where every back end has them; at most 64.
    pub learnt: &'static [&'static str],
    /// Whether a back end says them before a log-in, so that looking at it is enough.
    pub tells_early: bool,
    /// How a back end is told the client's address within the conversation.
    pub inband: Inband,
    /// The shortest time-out without a byte after the log-in, and where that stands.
    pub idle_min: (Duration, &'static str),
    /// The name under which Dovecot logs its log-ins, which filters against guessing know.
    pub login_name: &'static str,
}

/// Builds the state machine that logs in at a back end.
pub type BuildBack = fn(BackSetup, BackLogin) -> Box<dyn Back>;

/// The two state machines of a log-in.
#[derive(Debug, Clone, Copy)]
pub struct LogInMachines {
    /// Builds the one towards the client.
    pub front: fn(ClientSetup, LogInRules) -> Box<dyn Front>,
    /// Builds the one towards the back end.
    pub back: BuildBack,
}

/// What a session is for.
#[derive(Debug, Clone, Copy)]
pub enum Course {
    /// A user logs in; from then on bytes only pass.
    LogIn(LogInMachines),
    /// As that, and what passes is mail.
    Submission(LogInMachines),
    /// Nobody logs in: mail is taken for users, by a [`smtp::Receiver`], and handed over
    /// ([`Dialect::back`](smtp::Dialect::back)).
    Mail(smtp::Dialect),
}

impl Course {
    /// The state machines of a log-in, where there is one.
    pub const fn log_in(self) -> Option<LogInMachines> {
        match self {
            Self::LogIn(machines) | Self::Submission(machines) => Some(machines),
            Self::Mail(_) => None,
        }
    }

    /// How mail is handed over, where nobody logs in for that.
    pub const fn dialect(self) -> Option<smtp::Dialect> {
        match self {
            Self::Mail(dialect) => Some(dialect),
            Self::LogIn(_) | Self::Submission(_) => None,
        }
    }
}

/// How a protocol tells a back end on whose behalf somebody connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inband {
    /// Fields of the ID command.
    Id,
    /// The XCLIENT command.
    Xclient,
}

/// Every protocol. Listeners, tables of the configuration and their forms, names in the log and labels of metrics follow from
/// it.
pub static PROTOCOLS: &[Protocol] =
    &[imap::PROTOCOL, pop3::PROTOCOL, sieve::PROTOCOL, smtp::SUBMISSION, smtp::SMTP, smtp::LMTP];
