//! Who may administer: people with passwords, and tokens for programs, each with a role. Kept in one file of the state
//! folder, which command line and console change, and which is read again when it has changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gatepost_wire::Secret;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::auth::hash;
use crate::stamp::Stamp;

/// The file's name in the state folder.
const FILE_NAME: &str = "administrators.json";
/// Bytes of a token that nobody can guess.
const TOKEN_BYTES: usize = 32;
/// By which a token is known where it shouldn't be.
const TOKEN_PREFIX: &str = "gatepost_";
/// Shortest password of an administrator.
const PASSWORD_CHARS_MIN: usize = 10;
/// Longest name of a person, and longest label of a token.
pub(super) const NAME_CHARS_MAX: usize = 64;
const TOKENS_MAX: usize = 1000;

/// What somebody may do. From the viewer on, each may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    /// Send the records of another Gatepost's log, and nothing else. For tokens alone.
    Sender,
    /// See everything but secrets.
    Viewer,
    /// End sessions, empty back ends, move users, ban networks.
    Operator,
    /// Change settings and administrators, and stop the server.
    Admin,
}

impl Role {
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Viewer => "viewer",
            Self::Operator => "operator",
            Self::Admin => "admin",
        }
    }

    /// Whether a token of this role may send records to the log.
    pub(super) fn may_send(self) -> bool {
        self == Self::Sender || self >= Self::Operator
    }
}

impl std::str::FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Sender, Self::Viewer, Self::Operator, Self::Admin]
            .into_iter()
            .find(|role| role.name() == text)
            .ok_or("expected viewer, operator or admin, or for a token sender")
    }
}

/// Somebody who has shown who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Person {
    /// A person's name, or a token's label.
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// What the file holds.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    people: BTreeMap<String, KeptPerson>,
    tokens: Vec<KeptToken>,
}

impl Kept {
    fn refuse_token_of(&self, name: &str) -> Result<(), String> {
        if self.tokens.iter().any(|token| token.label == name) {
            return Err(format!("there is a token {name:?} already"));
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.people.is_empty() && self.tokens.is_empty()
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptPerson {
    role: Role,
    /// `{ARGON2ID}…`
    password: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct KeptToken {
    label: String,
    role: Role,
    /// The SHA-256 of the token: it is random, so that nothing slower is needed.
    sha256: String,
    made: String,
}

/// A person or a token, as lists show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Listed {
    pub(crate) name: String,
    pub(crate) role: Role,
    /// password or token.
    pub(crate) by: &'static str,
    /// When a token was made.
    pub(crate) made: Option<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Accounts {
    path: PathBuf,
    read: Mutex<Read>,
}

/// The file as it was read last.
#[derive(Debug, Default)]
struct Read {
    stamp: Option<Stamp>,
    kept: Kept,
}

impl Accounts {
    /// Those that this state folder has.
    pub(crate) fn of(state: &Path) -> Self {
        Self { path: state.join(FILE_NAME), read: Mutex::default() }
    }

    /// Whether there is nobody yet: then whoever reads the log may become the first. With a token somebody may read it
    /// who is to do no more than that.
    pub(super) fn has_nobody(&self) -> Result<bool, String> {
        Ok(self.current()?.kept.is_empty())
    }

    pub(crate) fn list(&self) -> Result<Vec<Listed>, String> {
        let read = self.current()?;
        let people = read.kept.people.iter().map(|(name, person)| Listed {
            name: name.clone(),
            role: person.role,
            by: "password",
            made: None,
        });
        let tokens = read.kept.tokens.iter().map(|token| Listed {
            name: token.label.clone(),
            role: token.role,
            by: "token",
            made: Some(token.made.clone()),
        });
        Ok(people.chain(tokens).collect())
    }

    /// The person's role and hash; `None`: nobody has this name.
    pub(super) fn person(&self, name: &str) -> Result<Option<(Role, String)>, String> {
        Ok(self.current()?.kept.people.get(name).map(|person| (person.role, person.password.clone())))
    }

    /// Whose token this is. Takes as long whoever's it is.
    pub(super) fn by_token(&self, token: &str) -> Result<Option<Person>, String> {
        self.by_token_digest(&digest(token))
    }

    /// As [`Accounts::by_token`], where only the token's digest is remembered.
    pub(super) fn by_token_digest(&self, shown: &str) -> Result<Option<Person>, String> {
        let read = self.current()?;
        let mut found = None;
        for kept in &read.kept.tokens {
            if kept.sha256.as_bytes().ct_eq(shown.as_bytes()).into() {
                found = Some(Person { name: kept.label.clone(), role: kept.role });
            }
        }
        Ok(found)
    }

    /// Adds a person, or changes their role and password.
    pub(crate) fn set(&self, name: &str, role: Role, password: &Secret) -> Result<(), String> {
        check_name(name)?;
        if role == Role::Sender {
            return Err("sender is for tokens: a person is a viewer, operator or admin".into());
        }
        let password = hash_of(password)?;
        self.change(|kept| {
            kept.refuse_token_of(name)?;
            kept.people.insert(name.to_owned(), KeptPerson { role, password });
            Ok(())
        })
    }

    /// Adds the first person; false: there is somebody already.
    pub(super) fn set_first(&self, name: &str, password: &Secret) -> Result<bool, String> {
        check_name(name)?;
        let password = hash_of(password)?;
        let mut is_first = false;
        self.change(|kept| {
            is_first = kept.is_empty();
            if is_first {
                kept.people.insert(name.to_owned(), KeptPerson { role: Role::Admin, password });
            }
            Ok(())
        })?;
        Ok(is_first)
    }

    /// Removes a person or a token.
    pub(crate) fn remove(&self, name: &str) -> Result<(), String> {
        self.change(|kept| {
            let tokens = kept.tokens.len();
            kept.tokens.retain(|token| token.label != name);
            if kept.people.remove(name).is_none() && kept.tokens.len() == tokens {
                return Err(format!("there is neither a person nor a token {name:?}"));
            }
            Ok(())
        })
    }

    /// Makes a token, which is shown this once.
    pub(crate) fn add_token(&self, label: &str, role: Role) -> Result<String, String> {
        check_name(label)?;
        let token = format!("{TOKEN_PREFIX}{}", random_text()?);
        let made = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
        self.change(|kept| {
            kept.refuse_token_of(label)?;
            // One name is one asker in the log, and is removed by it.
            if kept.people.contains_key(label) {
                return Err(format!("there is an administrator {label:?}: give the token another name"));
            }
            if kept.tokens.len() >= TOKENS_MAX {
                return Err(format!("there are {TOKENS_MAX} tokens already"));
            }
            kept.tokens.push(KeptToken { label: label.to_owned(), role, sha256: digest(&token), made });
            Ok(())
        })?;
        Ok(token)
    }

    /// The file as it is now.
    fn current(&self) -> Result<MutexGuard<'_, Read>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = match Stamp::of(&self.path) {
            Ok(stamp) => Some(stamp),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{}: can't be read: {error}", self.path.display())),
        };
        if stamp != read.stamp {
            let kept = match stamp {
                Some(_) => self.read_file()?,
                None => Kept::default(),
            };
            *read = Read { stamp, kept };
        }
        Ok(read)
    }

    fn read_file(&self) -> Result<Kept, String> {
        let failed = |error: String| format!("{}: can't be read: {error}", self.path.display());
        let bytes = std::fs::read(&self.path).map_err(|error| failed(error.to_string()))?;
        serde_json::from_slice(&bytes).map_err(|error| failed(error.to_string()))
    }

    fn change(&self, work: impl FnOnce(&mut Kept) -> Result<(), String>) -> Result<(), String> {
        let failed = |error: std::io::Error| format!("{}: can't be written: {error}", self.path.display());
        // The command line and the server may change it at the same moment.
        let _lock = self.lock().map_err(failed)?;
        let mut read = self.current()?;
        let mut kept = read.kept.clone();
        work(&mut kept)?;
        self.write(&kept).map_err(failed)?;
        // What others see when they look is what was written.
        read.stamp = None;
        Ok(())
    }

    /// Held by one who changes the file, of all processes.
    fn lock(&self) -> std::io::Result<std::fs::File> {
        if let Some(folder) = self.path.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let path = self.path.with_extension("lock");
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        self.give(&file);
        rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
        Ok(file)
    }

    /// Writes the file anew, whole or not at all.
    fn write(&self, kept: &Kept) -> std::io::Result<()> {
        crate::whole_file::write(&self.path, &serde_json::to_vec_pretty(kept)?, |file| {
            self.give(file);
            Ok(())
        })
    }

    /// What root makes here is the server's: the folder says whose that is.
    fn give(&self, file: &File) {
        if rustix::process::geteuid().is_root()
            && let Some(Ok(folder)) = self.path.parent().map(std::fs::metadata)
        {
            let _ = std::os::unix::fs::fchown(file, Some(folder.uid()), Some(folder.gid()));
        }
    }
}

/// A text that nobody can guess.
pub(super) fn random_text() -> Result<String, String> {
    let mut random = [0; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(|error| format!("the system gives no randomness: {error}"))?;
    Ok(BASE64_URL_SAFE_NO_PAD.encode(random))
}

/// What is kept of a text that nobody can guess.
pub(crate) fn digest(text: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(text.as_bytes()))
}

/// What is kept of a password that is good enough.
fn hash_of(password: &Secret) -> Result<String, String> {
    let length = String::from_utf8_lossy(password.expose()).chars().count();
    if length < PASSWORD_CHARS_MIN {
        return Err(format!("a password of an administrator has at least {PASSWORD_CHARS_MIN} characters"));
    }
    hash::make(password).map_err(|error| error.to_string())
}

fn check_name(name: &str) -> Result<(), String> {
    let is_sound = !name.is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@' | '+'));
    if is_sound { Ok(()) } else { Err(format!("{name:?}: a name is up to {NAME_CHARS_MAX} letters, digits and -_.@+")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_and_tokens_come_and_go_and_secrets_are_not_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let accounts = Accounts::of(folder.path());
        assert_eq!(accounts.has_nobody(), Ok(true));
        let password = Secret::new(b"a long password".to_vec());
        assert!(accounts.set("kim", Role::Admin, &Secret::new(b"short".to_vec())).is_err());
        assert!(accounts.set("kim <x>", Role::Admin, &password).is_err());
        assert_eq!(accounts.set_first("kim", &password), Ok(true));
        assert_eq!(accounts.set_first("lee", &password), Ok(false));
        let token = accounts.add_token("grafana", Role::Viewer).expect("a token");
        assert!(accounts.add_token("grafana", Role::Admin).is_err());
        assert!(accounts.add_token("kim", Role::Viewer).is_err(), "a name is one asker's");
        assert!(accounts.set("grafana", Role::Viewer, &password).is_err());
        // Another process sees it.
        let other = Accounts::of(folder.path());
        let (role, stored) = other.person("kim").expect("a file").expect("kim");
        assert_eq!(role, Role::Admin);
        assert_eq!(hash::verify(&stored, &password), Ok(true));
        let grafana = Person { name: "grafana".into(), role: Role::Viewer };
        assert_eq!(other.by_token(&token), Ok(Some(grafana)));
        assert_eq!(other.by_token(&format!("{token}x")), Ok(None));
        let text = std::fs::read_to_string(folder.path().join(FILE_NAME)).expect("a file");
        assert!(!text.contains("a long password") && !text.contains(&token));
        assert_eq!(std::fs::metadata(folder.path().join(FILE_NAME)).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(accounts.remove("kim"), Ok(()));
        assert_eq!(accounts.has_nobody(), Ok(false), "the token may be somebody's who reads the log");
        assert_eq!(accounts.set_first("lee", &password), Ok(false));
        assert_eq!(accounts.remove("grafana"), Ok(()));
        assert!(accounts.remove("grafana").is_err(), "there is nothing left to remove");
        assert_eq!(other.by_token(&token), Ok(None), "it is read again");
    }
}
