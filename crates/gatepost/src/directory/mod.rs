//! Directories: who has an account, and where their mail lives.
//!
//! A directory answers one question, [`Directory::find`]. Adding one is a file here and an arm in
//! [`open`]; it knows neither passwords in clear nor back ends.

pub(crate) mod passwd_file;
pub(crate) mod sqlite;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use crate::config::{self, DirectoryKind, Names, Network, Problem};
use crate::log::Logger;

/// An account as a directory knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name of a back end, or a host.
    pub(crate) place: Option<String>,
    /// The port, where the place is a host.
    pub(crate) port: Option<u16>,
    /// `{SCHEME}hash`.
    pub(crate) password: Option<String>,
    /// Log-ins are refused, once the password is right.
    pub(crate) disabled: bool,
    /// The only addresses it may log in from; empty: all.
    pub(crate) networks: Vec<Network>,
}

/// A directory that can't answer. The text is for the administrator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault(pub(crate) String);

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What asking a directory gives.
pub(crate) type Finding<'a> = Pin<Box<dyn Future<Output = Result<Option<Entry>, Fault>> + Send + 'a>>;

/// A source of accounts.
pub(crate) trait Directory: Send + Sync {
    /// The account with exactly this name.
    fn find<'a>(&'a self, user: &'a str) -> Finding<'a>;
}

/// Opens the directory that `settings` describe.
pub(crate) fn open(settings: &config::Directory, names: &Names, log: &Logger) -> Result<Arc<dyn Directory>, Problem> {
    match &settings.kind {
        DirectoryKind::Sqlite { path } => {
            let opened = sqlite::Sqlite::open(path).map_err(|fault| path.problem(fault))?;
            Ok(Arc::new(opened))
        }
        DirectoryKind::PasswdFile { path } => {
            let opened =
                passwd_file::PasswdFile::open(path, names.clone(), log).map_err(|fault| path.problem(fault))?;
            Ok(Arc::new(opened))
        }
    }
}
