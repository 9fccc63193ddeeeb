//! By whose credentials a user logs in at a back end.

use std::sync::Arc;

use gatepost_wire::{BackLogin, LogInBy, Mechanism, Secret};

use super::Backend;
use crate::directory::{Entry, KeptSecret};

/// A log-in that may act for every user.
#[derive(Debug)]
pub(crate) struct Master {
    pub(super) name: String,
    /// Put between the user's name and the master's.
    pub(super) separator: Option<char>,
    pub(super) password: Secret,
}

/// Whose credentials a user's log-in is by, as the configuration and the account decide before anybody shows any.
#[derive(Clone, Copy)]
pub(crate) enum LogInAs<'a> {
    /// What the user has shown is passed on.
    User,
    /// A password that the directory holds.
    Directory(&'a KeptSecret),
    /// The back end's master.
    Master(&'a Arc<Master>),
}

/// What a user has shown that can be passed on.
#[derive(Clone, Copy)]
pub(crate) enum Shown<'c> {
    Password(&'c Secret),
    Token(&'c Secret),
}

/// The credentials themselves, as they are said to a back end.
pub(crate) enum Credentials<'c> {
    /// What the user has shown.
    User(Shown<'c>),
    /// A password that the directory holds.
    Directory(KeptSecret),
    /// The back end's master log-in.
    Master(Arc<Master>),
}

impl Backend {
    /// Whose a log-in here is by, of the user whose account this is.
    pub(crate) fn log_in_as<'a>(&'a self, entry: Option<&'a Entry>) -> LogInAs<'a> {
        match (&self.master, entry.and_then(|entry| entry.login_password.as_ref())) {
            (Some(master), _) => LogInAs::Master(master),
            (None, Some(password)) => LogInAs::Directory(password),
            (None, None) => LogInAs::User,
        }
    }
}

impl LogInAs<'_> {
    /// Whether only the user's own credentials let in.
    pub(crate) fn is_own(self) -> bool {
        matches!(self, Self::User)
    }

    /// With what the user has shown; `None`: that can't be passed on, and there is nothing else.
    pub(crate) fn with(self, shown: Option<Shown<'_>>) -> Option<Credentials<'_>> {
        match self {
            Self::User => shown.map(Credentials::User),
            Self::Directory(password) => Some(Credentials::Directory(password.clone())),
            Self::Master(master) => Some(Credentials::Master(Arc::clone(master))),
        }
    }
}

impl std::fmt::Display for LogInAs<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::User => f.write_str("with the user's own password"),
            Self::Directory(_) => f.write_str("with a password that the directory holds"),
            Self::Master(master) => write!(f, "by the master log-in of {:?}", master.name),
        }
    }
}

impl Credentials<'_> {
    /// The log-in of `user` by them, by this mechanism or the best.
    pub(super) fn log_in(&self, user: &str, mechanism: Option<Mechanism>) -> BackLogin {
        let own = |password: &Secret| LogInBy::Password(password.duplicate());
        let (user, by) = match self {
            Self::User(Shown::Password(password)) => (user.to_owned(), own(password)),
            Self::User(Shown::Token(token)) => (user.to_owned(), LogInBy::Token(token.duplicate())),
            Self::Directory(password) => (user.to_owned(), own(password.secret())),
            Self::Master(master) => {
                let Master { name, separator, password } = &**master;
                match separator {
                    Some(separator) => (format!("{user}{separator}{name}"), own(password)),
                    None => {
                        let (name, password) = (name.clone(), password.duplicate());
                        (user.to_owned(), LogInBy::Master { name, password })
                    }
                }
            }
        };
        BackLogin { user, by, mechanism }
    }
}
