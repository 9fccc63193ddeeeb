//! The state machine towards a client: what it is told, what it asks, and what it must know to begin.

use std::num::NonZeroU32;

use super::{Mechanism, Offers, PasswordMechanism, Refusal, ScramMechanism, TokenMechanism};
use crate::secret::Secret;

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
    /// where [`ClientSetup::trace`] asks for it.
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
    /// The connection stands (and TLS with it, if [`ClientSetup::tls`] says so).
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
    /// A log-in begins: is this right?
    Begin(Offered),
    /// It goes on: the client says this to the [`Answer::Challenge`].
    Reply(Secret),
}

/// What a client offers to show who it is.
#[derive(Debug)]
pub enum Offered {
    /// A name, as the client wrote it, and a password. `None`: credentials that no user can have (an empty password, a
    /// malformed message). Nobody need be asked, but it counts, is logged and answered as [`Refusal::BadCredentials`] like
    /// any wrong password.
    Password(PasswordMechanism, Option<(String, Secret)>),
    /// An OAuth 2 access token (RFC 6750), and the name, unless the token alone is to say whose it is. `None`: as with a
    /// password.
    Token(TokenMechanism, Option<(Option<String>, Secret)>),
    /// The message of EXTERNAL, which is only carried here ([`Mechanism::is_carried`]).
    External(Secret),
    /// The first message of SCRAM, which is only carried here.
    Scram(ScramMechanism, Secret),
}

impl Ask {
    /// By which mechanism a token was to be shown; `None`: none was.
    pub(crate) const fn token(&self) -> Option<TokenMechanism> {
        match self {
            Self::Begin(Offered::Token(by, _)) => Some(*by),
            Self::Begin(_) | Self::Reply(_) => None,
        }
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

/// What a conversation with a client must know to begin, whether the client logs in or brings mail.
#[derive(Debug, Clone)]
pub struct ClientSetup {
    /// This node's name, said in the greeting.
    pub name: String,
    /// The text of the greeting.
    pub greeting: String,
    /// TLS towards this client.
    pub tls: ClientTls,
    /// What every back end is known to offer.
    pub offers: Offers,
    /// Wrong commands after which the session ends; `None`: no limit.
    pub max_errors: Option<NonZeroU32>,
    /// What was kept from before STARTTLS.
    pub carry: Carry,
    /// Keep what is said, for the log.
    pub trace: bool,
}

/// How a client may log in on this connection.
#[derive(Debug, Clone)]
pub struct LogInRules {
    /// Whether passwords and tokens may be said on it as it is now.
    pub takes_secrets: bool,
    /// Somebody can check a password, so that the protocol's own command is taken too.
    pub has_password_command: bool,
    /// The SASL mechanisms that are offered, in order.
    pub mechanisms: Vec<Mechanism>,
    /// What a client is told whose token is refused.
    pub oauth: OAuthHints,
    /// Whether questions about identity (IMAP's ID) are answered before it.
    pub id: bool,
    /// Failed ones after which the session ends; `None`: no limit.
    pub max_auth_errors: Option<NonZeroU32>,
}
