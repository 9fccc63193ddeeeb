//! How what proves who somebody is is offered.

/// How credentials are offered. Each is also a setting, but for the bare command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// A password is shown.
    Password(PasswordMechanism),
    /// A token is shown.
    Token(TokenMechanism),
    /// SASL EXTERNAL (RFC 4422, appendix A): the client's certificate.
    External,
    /// A proof is shown that the client knows a password.
    Scram(ScramMechanism),
}

/// A mechanism that shows a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordMechanism {
    /// SASL PLAIN (RFC 4616).
    Plain,
    /// SASL LOGIN.
    Login,
    /// The protocol's own command (IMAP's LOGIN), allowed wherever passwords are.
    Command,
}

/// A mechanism that shows a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenMechanism {
    /// SASL OAUTHBEARER (RFC 7628).
    OAuthBearer,
    /// SASL XOAUTH2, which Google and Microsoft had before it.
    XOAuth2,
}

/// A mechanism that proves the knowledge of a password (RFC 5802).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScramMechanism {
    /// SASL SCRAM-SHA-256 (RFC 7677).
    Unbound,
    /// SASL SCRAM-SHA-256-PLUS: the same, bound to the TLS beneath it.
    Bound,
}

impl Mechanism {
    /// PLAIN.
    pub const PLAIN: Self = Self::Password(PasswordMechanism::Plain);
    /// LOGIN.
    pub const LOGIN: Self = Self::Password(PasswordMechanism::Login);
    /// The protocol's own command.
    pub const COMMAND: Self = Self::Password(PasswordMechanism::Command);
    /// OAUTHBEARER.
    pub const OAUTHBEARER: Self = Self::Token(TokenMechanism::OAuthBearer);
    /// XOAUTH2.
    pub const XOAUTH2: Self = Self::Token(TokenMechanism::XOAuth2);
    /// SCRAM-SHA-256.
    pub const SCRAM: Self = Self::Scram(ScramMechanism::Unbound);
    /// SCRAM-SHA-256-PLUS.
    pub const SCRAM_PLUS: Self = Self::Scram(ScramMechanism::Bound);

    /// The SASL mechanisms, as they are named in the configuration and on the wire.
    pub const SASL: [Self; 7] =
        [Self::PLAIN, Self::LOGIN, Self::OAUTHBEARER, Self::XOAUTH2, Self::External, Self::SCRAM, Self::SCRAM_PLUS];

    /// The SASL mechanism of this name, in whatever case it has.
    pub fn named(name: &[u8]) -> Option<Self> {
        Self::SASL.into_iter().find(|known| known.name().as_bytes().eq_ignore_ascii_case(name))
    }

    /// Its name on the wire, in logs and in metric labels.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PLAIN => "PLAIN",
            Self::LOGIN => "LOGIN",
            Self::COMMAND => "command",
            Self::OAUTHBEARER => "OAUTHBEARER",
            Self::XOAUTH2 => "XOAUTH2",
            Self::External => "EXTERNAL",
            Self::SCRAM => "SCRAM-SHA-256",
            Self::SCRAM_PLUS => "SCRAM-SHA-256-PLUS",
        }
    }

    /// Whether it shows a token rather than a password.
    pub const fn shows_token(self) -> bool {
        matches!(self, Self::Token(_))
    }

    /// Whether it is one of the SCRAM mechanisms.
    pub const fn is_scram(self) -> bool {
        matches!(self, Self::Scram(_))
    }

    /// Whether it proves a user's name without anything that could be passed on to a back end. Its messages
    /// need what a front doesn't have (a certificate, a directory, a secret), so that a front only carries them.
    pub const fn is_carried(self) -> bool {
        matches!(self, Self::External | Self::Scram(_))
    }
}
