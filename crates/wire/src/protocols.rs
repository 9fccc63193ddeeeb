//! What every protocol has in common: the events and steps of its two state machines, the refusals it
//! must have words for, and the table in which it is one row.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::time::Duration;

use crate::imap;
use crate::pop3;
use crate::secret::Secret;
use crate::sieve;
use crate::smtp;

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
    /// What a client comes for, and the state machine towards it.
    pub course: Course,
    /// Builds the state machine towards a back end.
    pub back: fn(BackSetup) -> Box<dyn Back>,
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

/// What a session is for.
#[derive(Debug, Clone, Copy)]
pub enum Course {
    /// A user logs in; from then on bytes only pass.
    LogIn(fn(FrontSetup) -> Box<dyn Front>),
    /// As that, and what passes is mail.
    Submission(fn(FrontSetup) -> Box<dyn Front>),
    /// Nobody logs in: mail is taken for users. The machine is a [`smtp::Receiver`].
    Mail(smtp::Dialect),
}

impl Course {
    /// Builds the state machine of a log-in, where there is one.
    pub fn front(self, setup: FrontSetup) -> Option<Box<dyn Front>> {
        match self {
            Self::LogIn(build) | Self::Submission(build) => Some(build(setup)),
            Self::Mail(_) => None,
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

/// Which of a protocol's [`Protocol::learnt`] capabilities there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offers {
    /// One bit for each, in the table's order.
    bits: u64,
    /// The number that stands with one of them: SMTP's SIZE, in bytes.
    number: Option<NonZeroU64>,
}

impl Offers {
    /// None of them, as long as nothing is known.
    pub const NONE: Self = Self { bits: 0, number: None };

    /// Those that stand in a back end's list, words divided by spaces; a number stands as `NAME=NUMBER`.
    pub fn of(protocol: &Protocol, list: &str) -> Self {
        let mut offers = Self::NONE;
        for word in list.split(' ') {
            let (word, number) = word.split_once('=').unwrap_or((word, ""));
            let Some(at) = protocol.learnt.iter().position(|name| word.eq_ignore_ascii_case(name)) else { continue };
            offers.bits |= 1 << at;
            offers.number = number.parse().ok().or(offers.number);
        }
        offers
    }

    /// What both have: of their numbers the smaller one, since no number is no limit.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let number = match (self.number, other.number) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        Self { bits: self.bits & other.bits, number }
    }

    /// What is left without these.
    #[must_use]
    pub fn without(self, protocol: &Protocol, names: &[&str]) -> Self {
        let bits = protocol.learnt.iter().enumerate().filter(|(_, name)| names.contains(name)).map(|(n, _)| 1 << n);
        Self { bits: self.bits & !bits.sum::<u64>(), ..self }
    }

    /// Their names, in the table's order.
    pub fn names(self, protocol: &'static Protocol) -> impl Iterator<Item = &'static str> {
        protocol.learnt.iter().enumerate().filter(move |(n, _)| self.bits & (1 << n) != 0).map(|(_, name)| *name)
    }

    /// The number that stands with one of them.
    pub const fn number(self) -> Option<NonZeroU64> {
        self.number
    }
}

/// Every protocol. Listeners, configuration sections, metric labels and fuzz targets follow from it.
pub static PROTOCOLS: &[Protocol] =
    &[imap::PROTOCOL, pop3::PROTOCOL, sieve::PROTOCOL, smtp::SUBMISSION, smtp::SMTP, smtp::LMTP];

/// The state machine towards a client, from the greeting to the log-in.
pub trait Front: Send {
    /// Takes one event, appends what is to be sent to `out` and says what to do next. What is in `out`
    /// goes to the client before the step is carried out.
    fn step(&mut self, event: Event<'_>, out: &mut Vec<u8>) -> Step;

    /// The few facts that outlive STARTTLS.
    fn carry(&self) -> Carry;

    /// What the client said before its log-in that the back end should hear.
    fn introduction(&self) -> Introduction;

    /// Whether it waits for the client's next message of an exchange.
    fn is_exchanging(&self) -> bool;

    /// What the client sent behind its log-in: it belongs to the back end.
    fn take_rest(&mut self) -> Vec<u8>;

    /// What was understood since this was last asked, a line each with secrets struck out; kept only
    /// where [`FrontSetup::trace`] asks for it.
    fn take_trace(&mut self) -> Vec<String>;
}

/// What a client said before its log-in that the back end should hear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Introduction {
    /// What it said of itself (IMAP's ID).
    pub id: Vec<(String, String)>,
    /// It wants UTF-8 (POP3's UTF8, RFC 6856).
    pub utf8: bool,
    /// What it called itself (SMTP's EHLO).
    pub helo: Option<String>,
}

/// What happens to a [`Front`].
#[derive(Debug)]
pub enum Event<'a> {
    /// The connection stands (and TLS with it, if [`FrontSetup::tls`] says so).
    Start,
    /// The TLS that [`Step::StartTls`] asked for is up, and this is the new front.
    TlsUp,
    /// The client sent this.
    Input(&'a [u8]),
    /// The question of [`Step::Ask`] is answered.
    Answer(Answer),
    /// The session must end, and the client be told.
    Close(Refusal),
}

/// What a [`Front`] wants done.
#[derive(Debug)]
pub enum Step {
    /// More input.
    Read,
    /// Throw away all that was received, begin TLS, and build a new front.
    StartTls,
    /// Find out whether this is right; the answer comes by [`Event::Answer`].
    Ask(Ask),
    /// The log-in is done and the client told: relay from here on.
    Through,
    /// The session is over.
    Close(Outcome),
}

/// A question that only the outside can answer.
#[derive(Debug)]
pub enum Ask {
    /// May this user in?
    Login(Credentials),
    /// The first message of a mechanism whose messages are only carried here ([`Mechanism::is_carried`]).
    Exchange(Mechanism, Secret),
    /// What the client says to the [`Answer::Challenge`].
    Reply(Mechanism, Secret),
    /// Credentials that no user can have (an empty password, a malformed message): nobody need be asked,
    /// but it counts, is logged and answered as [`Refusal::BadCredentials`] like any wrong password.
    Malformed(Mechanism),
}

/// What a client offered as proof of who it is.
#[derive(Debug)]
pub struct Credentials {
    /// How it was offered.
    pub mechanism: Mechanism,
    /// The name, as the client wrote it; empty where a token says whose it is.
    pub user: String,
    /// What proves it.
    pub proof: Proof,
}

/// What a client proves its name with.
#[derive(Debug)]
pub enum Proof {
    /// A password.
    Password(Secret),
    /// An OAuth 2 access token (RFC 6750).
    Token(Secret),
}

impl Proof {
    /// A second copy, as [`Secret::duplicate`].
    #[must_use]
    pub fn duplicate(&self) -> Self {
        match self {
            Self::Password(password) => Self::Password(password.duplicate()),
            Self::Token(token) => Self::Token(token.duplicate()),
        }
    }
}

/// How credentials are offered. Each is also a setting, but for the bare command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// SASL PLAIN (RFC 4616).
    Plain,
    /// SASL LOGIN.
    Login,
    /// SASL OAUTHBEARER (RFC 7628).
    OAuthBearer,
    /// SASL XOAUTH2, which Google and Microsoft had before it.
    XOAuth2,
    /// SASL EXTERNAL (RFC 4422, appendix A): the client's certificate.
    External,
    /// SASL SCRAM-SHA-256 (RFC 7677).
    Scram,
    /// The same, bound to the TLS beneath it.
    ScramPlus,
    /// The protocol's own command (IMAP's LOGIN), allowed wherever passwords are.
    Command,
}

impl Mechanism {
    /// The SASL mechanisms, as they are named in the configuration and on the wire.
    pub const SASL: [Self; 7] =
        [Self::Plain, Self::Login, Self::OAuthBearer, Self::XOAuth2, Self::External, Self::Scram, Self::ScramPlus];

    /// Its name on the wire, in logs and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::OAuthBearer => "OAUTHBEARER",
            Self::XOAuth2 => "XOAUTH2",
            Self::External => "EXTERNAL",
            Self::Scram => "SCRAM-SHA-256",
            Self::ScramPlus => "SCRAM-SHA-256-PLUS",
            Self::Command => "command",
        }
    }

    /// Whether it carries a token rather than a password.
    pub const fn takes_token(self) -> bool {
        matches!(self, Self::OAuthBearer | Self::XOAuth2)
    }

    /// Whether it is one of the SCRAM mechanisms.
    pub const fn is_scram(self) -> bool {
        matches!(self, Self::Scram | Self::ScramPlus)
    }

    /// Whether it proves a user's name without anything that could be passed on to a back end. Its messages
    /// need what a front doesn't have (a certificate, a directory, a secret), so that a front only carries them.
    pub const fn is_carried(self) -> bool {
        matches!(self, Self::External | Self::Scram | Self::ScramPlus)
    }
}

/// The answer to an [`Ask`].
#[derive(Debug)]
pub enum Answer {
    /// The exchange goes on: the client is told this, and its reply comes by [`Ask::Reply`].
    Challenge(Vec<u8>),
    /// The back end took the log-in.
    Welcome(Welcome),
    /// It is refused, in this protocol's own words.
    Refused(Refusal),
    /// The back end refused it in words that the client should see (a quota, a maintenance notice):
    /// its status text without the tag, free of control characters.
    Passed(String),
}

/// What the back end said when it took the log-in.
#[derive(Debug, Clone, Default)]
pub struct Welcome {
    /// Whole lines that came before its OK and are the client's to see.
    pub untagged: Vec<u8>,
    /// The text of its OK line, without tag and line end.
    pub status: Vec<u8>,
    /// Its capabilities after log-in, where the protocol has them.
    pub capabilities: Option<String>,
}

/// Why a client can't have what it wants. The enum is closed: a new reason doesn't compile until every
/// protocol has words for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Wrong password or unknown user, which no client may tell apart.
    BadCredentials,
    /// The account is disabled; only said after the right password.
    Disabled,
    /// The account or its password has expired; only said after the right password.
    Expired,
    /// Passwords are only taken under TLS.
    TlsRequired,
    /// A limit on connections is reached.
    TooMany,
    /// Too many log-ins failed, from this address or of this user.
    Guessing,
    /// An access rule forbids this address.
    Forbidden,
    /// A directory or back end is out of reach: never the user's fault.
    Unavailable,
    /// Gatepost is stopping.
    ShuttingDown,
    /// The log-in took longer than allowed.
    TimedOut,
    /// The client broke the protocol, or the limits on errors.
    Misbehaved,
}

impl Refusal {
    /// Whether it counts as a failed log-in.
    pub const fn counts(self) -> bool {
        matches!(self, Self::BadCredentials | Self::Disabled | Self::Expired | Self::Guessing)
    }
}

/// How a conversation before log-in ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The client said goodbye.
    LoggedOut,
    /// It was told this.
    Refused(Refusal),
}

/// TLS towards a client, as far as its front must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientTls {
    /// Not to be had on this listener.
    Never,
    /// STARTTLS is offered.
    Offered,
    /// It is up.
    Up,
}

/// What outlives STARTTLS, and nothing else does: counts that a client must not be able to reset, and
/// one fact about how it reads answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carry {
    /// Wrong commands so far.
    pub errors: u32,
    /// Failed log-ins so far.
    pub auth_errors: u32,
    /// It asked for the capabilities, and so may not read them out of response codes.
    pub asked_capabilities: bool,
}

impl Carry {
    /// Counts a wrong command; true: it was one too many.
    pub(crate) fn count_error(&mut self, max: Option<NonZeroU32>) -> bool {
        self.errors += 1;
        max.is_some_and(|max| self.errors >= max.get())
    }

    /// Counts a failed log-in; true: it was one too many.
    pub(crate) fn count_failure(&mut self, max: Option<NonZeroU32>) -> bool {
        self.auth_errors += 1;
        max.is_some_and(|max| self.auth_errors >= max.get())
    }
}

/// Where a client gets a token that is good here (RFC 7628, section 3.2.2).
#[derive(Debug, Clone, Default)]
pub struct OAuthHints {
    /// The scope that a token must have.
    pub scope: Option<String>,
    /// The provider's `OpenID` configuration, a URL.
    pub configuration: Option<String>,
}

/// What a [`Front`] must know to begin.
#[derive(Debug, Clone)]
pub struct FrontSetup {
    /// This node's name, said in the greeting.
    pub name: String,
    /// The text of the greeting.
    pub greeting: String,
    /// TLS towards this client.
    pub tls: ClientTls,
    /// Whether passwords are taken now, on this connection.
    pub passwords: bool,
    /// SASL mechanisms offered on this connection, in order.
    pub mechanisms: Vec<Mechanism>,
    /// Somebody can check a password, so that the protocol's own command is taken too.
    pub has_passwords: bool,
    /// What a client is told whose token is refused.
    pub oauth: OAuthHints,
    /// Whether questions about identity (IMAP's ID) are answered.
    pub id: bool,
    /// What every back end is known to offer.
    pub offers: Offers,
    /// Wrong commands after which the session ends; `None`: no limit.
    pub max_errors: Option<NonZeroU32>,
    /// Failed log-ins after which the session ends; `None`: no limit.
    pub max_auth_errors: Option<NonZeroU32>,
    /// What was kept from before STARTTLS.
    pub carry: Carry,
    /// Keep what is said, for the log.
    pub trace: bool,
}

/// The state machine towards a back end, from its greeting to its answer to the log-in.
pub trait Back: Send {
    /// Takes one event, appends what is to be sent to `out` and says what to do next. After any step but
    /// [`BackStep::Read`] and [`BackStep::StartTls`] the conversation is over, and no event may follow.
    fn step(&mut self, event: BackEvent<'_>, out: &mut Vec<u8>) -> BackStep;

    /// What the back end sent behind its answer: it belongs to the client.
    fn take_rest(&mut self) -> Vec<u8>;

    /// As [`Front::take_trace`], of both directions.
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
    /// What was aimed at is done: logged in, or found in order.
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
    /// The master's name, where its password is used in the user's stead.
    pub master: Option<String>,
    /// The user's password or token, or the master's password.
    pub proof: Proof,
    /// The only mechanism to be used, where one is set; else the best that is offered.
    pub mechanism: Option<Mechanism>,
}

/// What a conversation with a back end is for.
#[derive(Debug)]
pub enum BackAim {
    /// To log in.
    LogIn(BackLogin),
    /// To hand over mail, for which nobody logs in ([`smtp`] alone).
    Deliver,
    /// To see whether it would take log-ins, and to leave politely: [`BackStep::Done`] comes with an empty welcome.
    Check,
}

/// What a [`Back`] must know to begin.
#[derive(Debug)]
pub struct BackSetup {
    /// STARTTLS is required.
    pub starttls: bool,
    /// What it is for.
    pub aim: BackAim,
    /// The client; `None`: nothing of it is announced.
    pub client: Option<ClientFacts>,
    /// What the client said before its log-in.
    pub introduction: Introduction,
    /// Our own greeting, by which a loop is seen: our name and its text.
    pub own_greeting: String,
    /// Keep what is said, for the log.
    pub trace: bool,
}
