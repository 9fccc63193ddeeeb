//! What proves who somebody is, and how it is offered.

use crate::secret::Secret;

/// What a name is proved with.
#[derive(Debug)]
pub enum Proof {
    /// A password.
    Password(Secret),
    /// An OAuth 2 access token (RFC 6750).
    Token(Secret),
}

impl Proof {
    /// What must stay secret of it.
    pub const fn secret(&self) -> &Secret {
        match self {
            Self::Password(secret) | Self::Token(secret) => secret,
        }
    }

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

/// A mechanism that carries a token.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TokenMechanism {
    /// As [`Mechanism::OAuthBearer`].
    OAuthBearer,
    /// As [`Mechanism::XOAuth2`].
    XOAuth2,
}

impl Mechanism {
    /// The SASL mechanisms, as they are named in the configuration and on the wire.
    pub const SASL: [Self; 7] =
        [Self::Plain, Self::Login, Self::OAuthBearer, Self::XOAuth2, Self::External, Self::Scram, Self::ScramPlus];

    /// The SASL mechanism of this name, in whatever case it has.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::SASL.into_iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
    }

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
        self.of_token().is_some()
    }

    /// Which it is of those that carry a token.
    pub(crate) const fn of_token(self) -> Option<TokenMechanism> {
        match self {
            Self::OAuthBearer => Some(TokenMechanism::OAuthBearer),
            Self::XOAuth2 => Some(TokenMechanism::XOAuth2),
            Self::Plain | Self::Login | Self::External | Self::Scram | Self::ScramPlus | Self::Command => None,
        }
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
