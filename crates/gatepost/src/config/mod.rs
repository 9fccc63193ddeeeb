//! The configuration: the file as written becomes the settings as meant, once, with every error found.
//!
//! A file for each subject, with the one definition of each of its settings (`section!`), the types of what is meant, and
//! what must hold of several settings together. What is done by them, and opening the files that they name, doesn't belong
//! here.

// Macros are known from where they are defined on.
#[macro_use]
mod values;
#[macro_use]
mod section;

mod access;
mod admin;
mod backend;
mod defence;
mod directory;
mod edit;
mod effective;
mod link;
mod listener;
mod log;
mod map;
mod networks;
mod problem;
mod query;
mod reader;
mod reference;
mod root;
mod service;
mod single;
mod template;
mod tls;
mod traces;
mod trust;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use access::{AccessRule, Action, Limits};
pub(crate) use admin::{Admin, AdminSettings, SOCKET_NAME};
pub(crate) use backend::{Backend, HostOrder, MasterLogin, is_host, split_port};
pub(crate) use defence::Defence;
pub(crate) use directory::{
    Abilities, AccountSource, DatabaseTls, Directory, DirectoryKind, Http, HttpForm, Ldap, LdapFields, LdapScope,
    LdapUrl, LdapVerify, OAuth2, OAuth2Client, SecretHeader, Several, Sql, TokenCheck,
};
pub(crate) use edit::{Change, Field, Form, Lists, TablePath, apply, settings_of};
pub(crate) use effective::Effective;
pub(crate) use link::{Announce, Link};
pub(crate) use listener::Listener;
pub(crate) use log::{Level, Log, LogFormat, LogRule, LogTarget, OTHER_SERVICES, Period, Rotate, SyslogServer};
pub(crate) use map::{Cache, Completion, Map, MapRule, Names};
pub(crate) use networks::Network;
pub(crate) use problem::{NamedFile, Problem, Problems, Warning};
pub(crate) use query::{Dialect, Parameter, Query};
pub(crate) use reader::head_of;
pub(crate) use reference::{reference, reference_json};
pub(crate) use root::{Dns, Threads};
pub(crate) use service::{Authenticate, HeloCheck, MailSettings, Plaintext, Rates, ReverseDns, Service, Task};
pub(crate) use single::{Host, single_backend};
pub(crate) use template::{Template, split as split_name};
pub(crate) use tls::{CertificateFiles, CertificateName, ClientCertificates, Tls, TlsMode, TlsVersion};
pub(crate) use traces::Traces;
pub(crate) use trust::Trust;
use trust::is_this_machine;
pub(crate) use values::Shape;
#[cfg(test)]
pub(crate) use values::{Max, Size};

/// All settings of one Gatepost, as meant.
#[derive(Debug, Clone)]
pub(crate) struct Config {
    pub(crate) name: String,
    /// The folder for what Gatepost keeps.
    pub(crate) state: PathBuf,
    /// How long a stop waits for sessions to end.
    pub(crate) drain: Duration,
    pub(crate) threads: Threads,
    pub(crate) log: Log,
    pub(crate) tls: Tls,
    pub(crate) access: Vec<AccessRule>,
    pub(crate) services: Vec<Service>,
    pub(crate) map: Map,
    /// How users' names are completed where a listener says nothing else.
    pub(crate) names: Names,
    pub(crate) backends: Vec<Backend>,
    pub(crate) dns: Dns,
    pub(crate) directories: Vec<Directory>,
    /// `None`: guessing is not looked for.
    pub(crate) defence: Option<Defence>,
    pub(crate) admin: Admin,
    /// `None`: no traces are made.
    pub(crate) traces: Option<Traces>,
}

impl Config {
    /// The only embedded directory, or the one of this name: what it is called, and its file. An error says why there is none.
    pub(crate) fn embedded(&self, wanted: Option<&str>) -> Result<(&str, &NamedFile), String> {
        let embedded = self.directories.iter().filter_map(|directory| match &directory.kind {
            DirectoryKind::Accounts { source: AccountSource::Sqlite { path }, .. } => {
                Some((directory.name.as_str(), path))
            }
            _ => None,
        });
        let found: Vec<_> = embedded.filter(|(name, _)| wanted.is_none_or(|wanted| wanted == *name)).collect();
        match (&found[..], wanted) {
            ([one], _) => Ok(*one),
            ([], Some(name)) => {
                Err(format!("there is no embedded {} in the configuration", head_of("directory", name)))
            }
            ([], None) => Err("the configuration has no embedded directory: its users are kept elsewhere".into()),
            (several, _) => {
                let names: Vec<_> = several.iter().map(|(name, _)| *name).collect();
                Err(format!("there are several embedded directories, name one: {}", names.join(", ")))
            }
        }
    }

    /// The listeners of all services.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listener> {
        self.services.iter().flat_map(|service| &service.listeners)
    }
}

/// A sound configuration with what was noticed while reading it.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    /// Every setting in force.
    pub(crate) effective: Effective,
}

/// What could be made out of a file, sound or not: the files that it names can be looked at before its
/// own mistakes are mended, and all that is wrong be said at once.
#[derive(Debug)]
pub(crate) struct Draft {
    pub(crate) config: Config,
    pub(crate) warnings: Vec<Warning>,
    pub(crate) problems: Vec<Problem>,
    effective: Effective,
}

impl Draft {
    /// One of a configuration that is sound already.
    pub(crate) fn of(config: Config) -> Self {
        let effective = Effective::default();
        Self { config, warnings: Vec::new(), problems: Vec::new(), effective }
    }

    /// The configuration, if nothing is wrong with the file.
    pub(crate) fn sound(self) -> Result<Loaded, Problems> {
        let Self { config, warnings, problems, effective } = self;
        Problems::check(problems, Loaded { config, warnings, effective })
    }
}

/// Reads and checks the file at `path`.
pub(crate) fn load(path: &Path) -> Result<Loaded, Problems> {
    draft(path)?.sound()
}

/// Reads the file at `path` as far as that goes.
pub(crate) fn draft(path: &Path) -> Result<Draft, Problems> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::NotFound => "; name one with --config, or try `gatepost serve --to HOST`",
            _ => "",
        };
        Problems::one(Problem::file(path, format!("can't be read: {error}{hint}")))
    })?;
    parse(path, &text)
}

/// As [`draft`], for a text that stands in the file at `path`.
pub(crate) fn parse(path: &Path, text: &str) -> Result<Draft, Problems> {
    root::build(path, text)
}

/// What is made of a file with a service, a back end and this.
#[cfg(test)]
fn parse_small(more: &str) -> Draft {
    let text = format!("[imap]\n[map]\ndefault = \"a\"\n[backend.a]\nhost = \"127.0.0.1\"\n{more}\n");
    parse(Path::new("gatepost.toml"), &text).expect("a file")
}

/// A number without a fraction, however it is written.
pub(crate) fn whole_number(value: &serde_json::Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        (number.fract() == 0.0).then(|| format!("{number:.0}").parse().ok())?
    })
}
