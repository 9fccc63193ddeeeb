//! The server's side of a SASL exchange (RFC 4422), alike in every protocol: what differs is how lines are wrapped.

use crate::protocols::{Ask, Mechanism, OAuthHints, Offered};
use crate::sasl;
use crate::secret::Secret;

/// An exchange that waits for the client's next message.
#[derive(Debug)]
pub(crate) struct Exchange {
    mechanism: Mechanism,
    awaits: Awaits,
}

/// What the next message holds.
#[derive(Debug)]
enum Awaits {
    /// All that the mechanism has to say, or the first of it.
    Message,
    LoginUser,
    LoginPassword {
        user: Option<String>,
    },
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
        Self::Ask(Ask { mechanism: Mechanism::Command, offered: with_password(said) })
    }
}

impl Exchange {
    /// Begins one, perhaps with a first message in base64 (RFC 4959, RFC 5034).
    pub(crate) fn begin(mechanism: Mechanism, initial: Option<&[u8]>) -> Turn {
        let awaits = if mechanism == Mechanism::Login { Awaits::LoginUser } else { Awaits::Message };
        let exchange = Self { mechanism, awaits };
        match initial {
            Some(initial) => exchange.take(initial),
            None => exchange.prompt(),
        }
    }

    /// Goes on with what the outside has to say.
    pub(crate) fn carry(mechanism: Mechanism, message: &[u8]) -> Turn {
        Turn::Challenge(Self { mechanism, awaits: Awaits::Reply }, sasl::encode(message))
    }

    /// A token is refused: the reason comes as a challenge, which the client must answer first (RFC 7628, section
    /// 3.2.3). `None`: the mechanism has no such thing.
    pub(crate) fn refuse_token(mechanism: Mechanism, hints: &OAuthHints) -> Option<Turn> {
        let reason = sasl::token_refused(mechanism.of_token()?, hints);
        Some(Turn::Challenge(Self { mechanism, awaits: Awaits::Dismissal }, reason))
    }

    /// Whether whatever comes next ends it.
    pub(crate) fn is_dismissal(&self) -> bool {
        matches!(self.awaits, Awaits::Dismissal)
    }

    /// Takes the client's next message, in base64.
    pub(crate) fn take(self, base64: &[u8]) -> Turn {
        let Self { mechanism, awaits } = self;
        if matches!(awaits, Awaits::Dismissal) {
            // Whatever it says, it has been answered.
            return Turn::Dismissed;
        }
        let Some(message) = sasl::decode(base64) else { return Turn::Malformed };
        let offered = match awaits {
            Awaits::LoginUser => {
                let user = sasl::user_name(message.expose());
                return Self { mechanism, awaits: Awaits::LoginPassword { user } }.prompt();
            }
            Awaits::LoginPassword { user } => with_password(user.zip(sasl::password(message.expose()))),
            Awaits::Reply | Awaits::Dismissal => Offered::Reply(message),
            Awaits::Message => match mechanism {
                Mechanism::OAuthBearer => with_token(sasl::oauth_bearer(&message)),
                Mechanism::XOAuth2 => with_token(sasl::xoauth2(&message)),
                Mechanism::Plain | Mechanism::Login | Mechanism::Command => with_password(sasl::plain(&message)),
                Mechanism::External | Mechanism::Scram | Mechanism::ScramPlus => Offered::Opening(message),
            },
        };
        Turn::Ask(Ask { mechanism, offered })
    }

    fn prompt(self) -> Turn {
        let text = match self.awaits {
            Awaits::LoginUser => sasl::LOGIN_PROMPTS[0],
            Awaits::LoginPassword { .. } => sasl::LOGIN_PROMPTS[1],
            Awaits::Message | Awaits::Reply | Awaits::Dismissal => "",
        };
        Turn::Challenge(self, text.to_owned())
    }
}

/// What a name and a password offer; `None`: nobody can have such.
fn with_password(said: Option<(String, Secret)>) -> Offered {
    said.map_or(Offered::Malformed, |(user, password)| Offered::Password(user, password))
}

/// What a token offers, and the name with it, where one is given.
fn with_token(said: Option<(Option<String>, Secret)>) -> Offered {
    said.map_or(Offered::Malformed, |(user, token)| Offered::Token(user, token))
}
