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
        Self::Ask(Ask::Begin(Offered::Password(PasswordMechanism::Command, said)))
    }
}

impl Exchange {
    /// Begins one, perhaps with a first message in base64 (RFC 4959, RFC 5034).
    pub(crate) fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Turn {
        let exchange = match mechanism {
            // The command is no mechanism's name, and nobody names it.
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
        let offered = match (self, sasl::decode(base64)) {
            // Whatever it says, it has been answered.
            (Self::Dismissal, _) => return Turn::Dismissed,
            (_, None) => return Turn::Malformed,
            (Self::LoginUser, Some(message)) => {
                return Self::LoginPassword { user: sasl::user_name(message.expose()) }.prompt();
            }
            (Self::Reply, Some(message)) => return Turn::Ask(Ask::Reply(message)),
            (Self::LoginPassword { user }, Some(message)) => {
                Offered::Password(PasswordMechanism::Login, user.zip(sasl::password(message.expose())))
            }
            (Self::Plain, Some(message)) => Offered::Password(PasswordMechanism::Plain, sasl::plain(&message)),
            (Self::Token(by @ TokenMechanism::OAuthBearer), Some(message)) => {
                Offered::Token(by, sasl::oauth_bearer(&message))
            }
            (Self::Token(by @ TokenMechanism::XOAuth2), Some(message)) => Offered::Token(by, sasl::xoauth2(&message)),
            (Self::External, Some(message)) => Offered::External(message),
            (Self::Scram(by), Some(message)) => Offered::Scram(by, message),
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
