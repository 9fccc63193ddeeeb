//! The state machine towards a mail server: what it is told, what comes of it, and what it must know to begin.

use std::net::SocketAddr;

use super::{Introduction, Mechanism, Welcome};
use crate::secret::Secret;

/// The state machine towards a back end, from its greeting to its answer to the log-in.
pub trait Back: Send {
    /// Takes one event, appends what is to be sent to `out` and says what to do next. After any step but
    /// [`BackStep::Read`] and [`BackStep::StartTls`] the conversation is over, and no event may follow.
    fn step(&mut self, event: BackEvent<'_>, out: &mut Vec<u8>) -> BackStep;

    /// What the back end sent behind its answer: it belongs to the client.
    fn take_rest(&mut self) -> Vec<u8>;

    /// As [`Front::take_trace`](super::Front::take_trace): what the back end said, and that we logged in.
    fn take_trace(&mut self) -> Vec<String>;
}

/// What happens to a [`Back`].
#[derive(Debug)]
pub enum BackEvent<'a> {
    /// The back end sent this.
    Input(&'a [u8]),
    /// The TLS that [`BackStep::StartTls`] asked for is up.
    TlsUp,
    /// The back end closed the connection.
    Closed,
}

/// What a [`Back`] wants done.
#[derive(Debug)]
pub enum BackStep {
    /// More input.
    Read,
    /// Begin TLS, then send [`BackEvent::TlsUp`].
    StartTls,
    /// What it was built for is done: logged in, ready for mail, or found in order.
    Done(Welcome),
    /// The back end refuses this user: wrong credentials.
    BadCredentials,
    /// The back end refuses this user in words of its own, to be passed on.
    Passed(String),
    /// The back end can't serve now, or not at all.
    Fault(BackFault),
}

/// What is wrong with a back end, whose administrator is told; its clients see an outage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackFault {
    /// Its first line is no greeting of this protocol, or turns us away. The text is what it said.
    Greeting(String),
    /// It greeted with our own greeting: the map leads back to Gatepost.
    Loop,
    /// STARTTLS is required here and it offers none, or refused it.
    NoStartTls,
    /// It sent data behind its answer to STARTTLS, which an attacker could have placed there.
    TrailingBytes,
    /// It offers no way to log in that can be used here.
    NoMechanism,
    /// It takes no credentials in clear, and was not to be met under TLS.
    WantsTls,
    /// It does not understand our log-in, which may be this user's alone.
    NotUnderstood,
    /// It says that it can't serve at the moment. The text is what it said.
    Unavailable(String),
    /// It broke the protocol. The text says how.
    Protocol(&'static str),
    /// It ended the conversation. The text is what it said.
    Bye(String),
    /// It ended the conversation without a word.
    Closed,
}

/// The client, as it is announced to a back end.
#[derive(Debug, Clone)]
pub struct ClientFacts {
    /// Where it is, and where it connected to; `None`: that goes another way.
    pub addresses: Option<(SocketAddr, SocketAddr)>,
    /// The session's name in our log.
    pub session: String,
    /// The client's name in the DNS, where it was asked for and leads back to its address.
    pub name: Option<String>,
}

impl ClientFacts {
    /// The XCLIENT command by which Dovecot's POP3 and `ManageSieve` take them.
    pub(crate) fn xclient(&self) -> String {
        let address = self.addresses.map(|(client, _)| {
            let (ip, port) = (client.ip().to_canonical(), client.port());
            format!(" ADDR={ip} PORT={port}")
        });
        format!("XCLIENT{} SESSION={}\r\n", address.unwrap_or_default(), self.session)
    }
}

impl std::fmt::Display for BackFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Greeting(text) => write!(f, "its greeting is not one that can be used: {text:?}"),
            Self::Loop => f.write_str(
                "it greets with our own name and greeting: the map leads back to Gatepost, or two Gateposts have the same `name`",
            ),
            Self::NoStartTls => f.write_str("TLS is required, but it offers no STARTTLS or refused it"),
            Self::TrailingBytes => f.write_str("it sent data behind its answer to STARTTLS"),
            Self::NoMechanism => f.write_str("it offers no way to log in that can be used for this user"),
            Self::WantsTls => f.write_str("it takes log-ins under TLS alone: see the back end's `tls`"),
            Self::NotUnderstood => f.write_str("it does not understand our log-in"),
            Self::Unavailable(text) => write!(f, "it says that it can't serve now: {text:?}"),
            Self::Protocol(what) => write!(f, "it broke the protocol: {what}"),
            Self::Bye(text) => write!(f, "it ended the conversation: {text:?}"),
            Self::Closed => f.write_str("it closed the connection"),
        }
    }
}

/// As whom to log in at a back end.
#[derive(Debug)]
pub struct BackLogin {
    /// Whose mail is wanted.
    pub user: String,
    /// By whose credentials.
    pub by: LogInBy,
    /// The only mechanism to be used, where one is set; else the best that is offered.
    pub mechanism: Option<Mechanism>,
}

/// By whose credentials somebody logs in at a back end.
#[derive(Debug)]
pub enum LogInBy {
    /// A password of the user's own.
    Password(Secret),
    /// An OAuth 2 access token (RFC 6750) of the user's own.
    Token(Secret),
    /// Those of a master, who may act for any user.
    Master {
        /// Its name.
        name: String,
        /// Its password.
        password: Secret,
    },
}

/// What a [`Back`] must know to begin.
#[derive(Debug)]
pub struct BackSetup {
    /// STARTTLS is required.
    pub starttls: bool,
    /// The client; `None`: nothing of it is announced.
    pub client: Option<ClientFacts>,
    /// What the client said before its log-in.
    pub introduction: Introduction,
    /// Our own greeting, by which a loop is seen: our name and its text.
    pub own_greeting: String,
    /// Keep what is said, for the log.
    pub trace: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_fault_says_what_it_is_with_the_back_ends_own_words_in_quotes() {
        let words = "421\r\n";
        let faults = [
            BackFault::Greeting(words.into()),
            BackFault::Loop,
            BackFault::NoStartTls,
            BackFault::TrailingBytes,
            BackFault::NoMechanism,
            BackFault::WantsTls,
            BackFault::NotUnderstood,
            BackFault::Unavailable(words.into()),
            BackFault::Protocol("it says two things"),
            BackFault::Bye(words.into()),
            BackFault::Closed,
        ];
        let said = faults.map(|fault| fault.to_string());
        for (n, text) in said.iter().enumerate() {
            assert!(text.contains("it"), "of the back end: {text:?}");
            assert!(!text.contains(['\r', '\n']), "one line of the log: {text:?}");
            assert!(!said[..n].contains(text), "{text:?} is said twice");
        }
    }
}
