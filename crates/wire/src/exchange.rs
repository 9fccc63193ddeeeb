//! The server's side of a SASL exchange (RFC 4422), alike in every protocol: what differs is how lines are wrapped.

use crate::protocols::{Ask, Mechanism, OAuthHints, Offered, PasswordMechanism, ScramMechanism, TokenMechanism};
use crate::sasl;
use crate::secret::Secret;

/// An exchange that waits for the client's next message: what that holds.
#[derive(Debug)]
pub(crate) enum Exchange {
    Plain,
    LoginUser,
    /// `None`: nobody can have the name that was said.
    LoginPassword {
        user: Option<String>,
    },
    Token(TokenMechanism),
    External,
    Scram(ScramMechanism),
    /// What is said to a challenge that was only carried.
    Reply,
    /// Nothing more: the client has read why its token is refused, and must say so before it is told.
    Dismissal,
}

/// What a message leads to.
#[derive(Debug)]
pub(crate) enum Turn {
    /// The client is told this, in base64, and answers.
    Challenge(Exchange, String),
    /// The outside must know.
    Ask(Ask),
    /// The client has read why its token is refused.
    Dismissed,
    /// It is no base64.
    Malformed,
}

impl Turn {
    /// Where the protocol's own command leads, by which a name and a password are said; `None`: nobody can have such.
    pub(crate) fn by_command(said: Option<(String, Secret)>) -> Self {
        Self::Ask(Ask::Begin(with_password(PasswordMechanism::Command, said)))
    }
}

impl Exchange {
    /// Begins one, perhaps with a first message in base64 (RFC 4959, RFC 5034).
    pub(crate) fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Turn {
        let exchange = match mechanism {
            Mechanism::Password(PasswordMechanism::Plain | PasswordMechanism::Command) => Self::Plain,
            Mechanism::Password(PasswordMechanism::Login) => Self::LoginUser,
            Mechanism::Token(by) => Self::Token(by),
            Mechanism::External => Self::External,
            Mechanism::Scram(by) => Self::Scram(by),
        };
        match initial {
            Some(initial) => exchange.take(initial),
            None => exchange.prompt(),
        }
    }

    /// Goes on with what the outside has to say.
    pub(crate) fn carry(message: &[u8]) -> Turn {
        Turn::Challenge(Self::Reply, sasl::encode(message))
    }

    /// A token is refused: the reason comes as a challenge, which the client must answer first (RFC 7628, section 3.2.3).
    pub(crate) fn refuse_token(by: TokenMechanism, hints: &OAuthHints) -> Turn {
        Turn::Challenge(Self::Dismissal, sasl::token_refused(by, hints))
    }

    /// Whether whatever comes next ends it.
    pub(crate) fn is_dismissal(&self) -> bool {
        matches!(self, Self::Dismissal)
    }

    /// Takes the client's next message, in base64.
    pub(crate) fn take(self, base64: &[u8]) -> Turn {
        if self.is_dismissal() {
            // Whatever it says, it has been answered.
            return Turn::Dismissed;
        }
        let Some(message) = sasl::decode(base64) else { return Turn::Malformed };
        let offered = match self {
            Self::LoginUser => return Self::LoginPassword { user: sasl::user_name(message.expose()) }.prompt(),
            Self::Reply | Self::Dismissal => return Turn::Ask(Ask::Reply(message)),
            Self::LoginPassword { user } => {
                with_password(PasswordMechanism::Login, user.zip(sasl::password(message.expose())))
            }
            Self::Plain => with_password(PasswordMechanism::Plain, sasl::plain(&message)),
            Self::Token(by @ TokenMechanism::OAuthBearer) => with_token(by, sasl::oauth_bearer(&message)),
            Self::Token(by @ TokenMechanism::XOAuth2) => with_token(by, sasl::xoauth2(&message)),
            Self::External => Offered::External(message),
            Self::Scram(by) => Offered::Scram(by, message),
        };
        Turn::Ask(Ask::Begin(offered))
    }

    fn prompt(self) -> Turn {
        let text = match self {
            Self::LoginUser => sasl::LOGIN_PROMPTS[0],
            Self::LoginPassword { .. } => sasl::LOGIN_PROMPTS[1],
            Self::Plain | Self::Token(_) | Self::External | Self::Scram(_) | Self::Reply | Self::Dismissal => "",
        };
        Turn::Challenge(self, text.to_owned())
    }
}

/// What a name and a password offer; `None`: nobody can have such.
fn with_password(by: PasswordMechanism, said: Option<(String, Secret)>) -> Offered {
    said.map_or(Offered::Malformed(Mechanism::Password(by)), |(user, password)| Offered::Password(by, user, password))
}

/// What a token offers, and the name with it, where one is given.
fn with_token(by: TokenMechanism, said: Option<(Option<String>, Secret)>) -> Offered {
    said.map_or(Offered::Malformed(Mechanism::Token(by)), |(user, token)| Offered::Token(by, user, token))
}
