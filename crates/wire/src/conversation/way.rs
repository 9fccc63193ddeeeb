//! How a log-in is said to a back end: by which mechanism, and in which lines.

use std::collections::VecDeque;

use crate::protocols::{BackLogin, LogInBy, Mechanism, PasswordMechanism, TokenMechanism};
use crate::sasl;
use crate::secret::Secret;

/// A log-in in the words of one mechanism.
pub(crate) enum Way<'l> {
    /// The protocol's own command.
    Command { name: &'l str, password: &'l Secret },
    /// An exchange.
    Sasl(Sasl<'l>),
}

/// A log-in in the messages of a SASL mechanism.
pub(crate) enum Sasl<'l> {
    /// `act_as`: whose mail is wanted; empty where it is one's own.
    Plain {
        act_as: &'l str,
        name: &'l str,
        password: &'l Secret,
    },
    Login {
        name: &'l str,
        password: &'l Secret,
    },
    Token {
        by: TokenMechanism,
        name: &'l str,
        token: &'l Secret,
    },
}

/// Every way to say a log-in that may be used, the best first.
fn ways(login: &BackLogin) -> impl Iterator<Item = Way<'_>> {
    let name = login.user.as_str();
    let ways = match &login.by {
        LogInBy::Token(token) => {
            let with = |by| Some(Way::Sasl(Sasl::Token { by, name, token }));
            [with(TokenMechanism::OAuthBearer), with(TokenMechanism::XOAuth2), None]
        }
        // Only PLAIN can act for somebody else.
        LogInBy::Master { name: master, password } => {
            [Some(Way::Sasl(Sasl::Plain { act_as: name, name: master, password })), None, None]
        }
        LogInBy::Password(password) => [
            Some(Way::Sasl(Sasl::Plain { act_as: "", name, password })),
            Some(Way::Command { name, password }),
            Some(Way::Sasl(Sasl::Login { name, password })),
        ],
    };
    ways.into_iter().flatten().filter(|way| login.mechanism.is_none_or(|only| only == way.mechanism()))
}

impl<'l> Way<'l> {
    /// The best that the back end `takes`, or the only one that is set.
    pub(crate) fn choose(login: &'l BackLogin, takes: impl Fn(&Self) -> bool) -> Option<Self> {
        ways(login).find(takes)
    }

    /// How it is called in the configuration and the log.
    pub(crate) fn mechanism(&self) -> Mechanism {
        match self {
            Self::Command { .. } => Mechanism::COMMAND,
            Self::Sasl(sasl) => sasl.mechanism(),
        }
    }

    /// As [`Sasl::token`].
    pub(crate) fn token(&self) -> Option<TokenMechanism> {
        match self {
            Self::Command { .. } => None,
            Self::Sasl(sasl) => sasl.token(),
        }
    }
}

impl<'l> Sasl<'l> {
    /// As [`Way::choose`], of a protocol that has no command of its own to log in by.
    pub(crate) fn choose(login: &'l BackLogin, takes: impl Fn(&Self) -> bool) -> Option<Self> {
        let mut exchanges = ways(login).filter_map(|way| match way {
            Way::Command { .. } => None,
            Way::Sasl(sasl) => Some(sasl),
        });
        exchanges.find(takes)
    }

    /// By which mechanism a token is shown; `None`: a password is.
    pub(crate) fn token(&self) -> Option<TokenMechanism> {
        match self {
            Self::Token { by, .. } => Some(*by),
            Self::Plain { .. } | Self::Login { .. } => None,
        }
    }

    fn mechanism(&self) -> Mechanism {
        match self {
            Self::Plain { .. } => Mechanism::Password(PasswordMechanism::Plain),
            Self::Login { .. } => Mechanism::Password(PasswordMechanism::Login),
            Self::Token { by, .. } => Mechanism::Token(*by),
        }
    }

    /// Its name on the wire.
    pub(crate) fn name(&self) -> &'static str {
        self.mechanism().name()
    }

    /// Its messages, ours alone, in base64.
    fn messages(&self) -> Vec<Secret> {
        match self {
            Self::Plain { act_as, name, password } => {
                vec![encode(sasl::plain_message(act_as, name, password).expose())]
            }
            Self::Login { name, password } => vec![encode(name.as_bytes()), encode(password.expose())],
            Self::Token { by, name, token } => vec![encode(sasl::token_message(*by, name, token).expose())],
        }
    }

    /// The lines of the exchange: the command, with the first message in it where that `may_follow`, and each further
    /// message, all as the protocol will `write` them.
    pub(crate) fn lines(
        &self,
        command: &str,
        write: impl Fn(Secret) -> Secret,
        may_follow: impl FnOnce(&Secret) -> bool,
    ) -> VecDeque<Secret> {
        let mut messages = self.messages().into_iter().map(write);
        let mut lines = VecDeque::new();
        // LOGIN's first word is the server's.
        let is_servers = matches!(self, Self::Login { .. });
        match messages.next() {
            Some(first) if !is_servers && may_follow(&first) => {
                lines.push_back(line(&[command.as_bytes(), b" ", first.expose()]));
            }
            first => {
                lines.push_back(line(&[command.as_bytes()]));
                lines.extend(first.map(|message| line(&[message.expose()])));
            }
        }
        lines.extend(messages.map(|message| line(&[message.expose()])));
        lines
    }

    /// The lines of an exchange that AUTH begins (RFC 4954, RFC 5034): with its first message in the first of them where
    /// that `is_inline`, and no longer than it may be.
    pub(crate) fn auth_lines(&self, is_inline: bool, line_bytes_max: usize) -> VecDeque<Secret> {
        let command = format!("AUTH {}", self.name());
        let fits = |first: &Secret| command.len() + first.expose().len() + " \r\n".len() <= line_bytes_max;
        self.lines(&command, |message| message, |first| is_inline && fits(first))
    }
}

/// One line, made in one piece so that no copy of a secret is left behind.
pub(crate) fn line(words: &[&[u8]]) -> Secret {
    let mut pieces = words.to_vec();
    pieces.push(b"\r\n");
    Secret::new(pieces.concat())
}

/// A secret message in base64, which is no less secret.
fn encode(message: &[u8]) -> Secret {
    Secret::new(sasl::encode(message).into_bytes())
}
