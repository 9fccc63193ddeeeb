//! Dovecot's passwd-file: `user:{SCHEME}hash:uid:gid:gecos:home:shell:extra fields`.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Accounts, Answering, Bar, Entry, Fault, KeptSecret, Location, Who, fields};
use crate::config::{Level, Names};
use crate::log::Logger;
use crate::stamp::Stamp;

/// How often the file is asked whether it has changed.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A line with little in it, by which room for all users is made at once.
const LINE_BYTES_USUAL: usize = 32;

/// A passwd-file, read again when it changes.
pub(crate) struct PasswdFile {
    path: PathBuf,
    names: Names,
    log: Logger,
    state: Mutex<State>,
}

/// The users, each with its fields as they stand in the file: most are never asked for, and an account that is read
/// takes many times the room.
#[derive(Debug, Default)]
struct Users(HashMap<Box<str>, Box<str>>);

#[derive(Debug)]
struct State {
    users: Arc<Users>,
    /// `None`: the file was gone, and is to be read when it is back.
    stamp: Option<Stamp>,
    checked: Instant,
    /// What was last complained of.
    complaint: Option<Fault>,
}

impl PasswdFile {
    /// Reads the file, which must be there.
    pub(crate) fn open(path: &Path, names: Names, log: &Logger) -> Result<Self, Fault> {
        let (users, stamp) = read(path, &names)?;
        let state = Mutex::new(State { users, stamp: Some(stamp), checked: Instant::now(), complaint: None });
        Ok(Self { path: path.to_owned(), names, state, log: log.clone() })
    }

    /// The users as the file has them now. While a changed file can't be read, the old ones hold.
    fn users(&self) -> Arc<Users> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.checked.elapsed() >= CHECK_INTERVAL {
            state.checked = Instant::now();
            self.look(&mut state);
        }
        Arc::clone(&state.users)
    }

    /// Reads a changed file. One that can't be taken is complained of once.
    fn look(&self, state: &mut State) {
        let found = Stamp::of(&self.path);
        if let (Ok(found), Some(known)) = (&found, &state.stamp)
            && found == known
        {
            return;
        }
        let result = match found {
            Ok(stamp) => {
                state.stamp = Some(stamp);
                read(&self.path, &self.names)
            }
            Err(error) => {
                state.stamp = None;
                Err(Fault(format!("can't be read: {error}")))
            }
        };
        match result {
            Ok((users, stamp)) => {
                state.users = users;
                state.stamp = Some(stamp);
                state.complaint = None;
            }
            Err(fault) if state.complaint.as_ref() != Some(&fault) => {
                self.log
                    .record(Level::Error, "directory", "a changed passwd-file was not taken, the users before it hold")
                    .with("file", self.path.display().to_string())
                    .with("fault", fault.0.as_str())
                    .write();
                state.complaint = Some(fault);
            }
            Err(_) => {}
        }
    }
}

impl Accounts for PasswdFile {
    fn is_exact(&self) -> bool {
        true
    }

    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move { Ok(self.users().get(&who.user)) })
    }
}

fn read(path: &Path, names: &Names) -> Result<(Arc<Users>, Stamp), Fault> {
    let fault = |error: std::io::Error| Fault(format!("can't be read: {error}"));
    let stamp = Stamp::of(path).map_err(fault)?;
    let text = std::fs::read_to_string(path).map_err(fault)?;
    Ok((Arc::new(Users::read(&text, names)?), stamp))
}

impl Users {
    /// Reads all lines. A line that makes no sense spoils the file: half a file of users would be an outage
    /// that looks like wrong passwords.
    fn read(text: &str, names: &Names) -> Result<Self, Fault> {
        let mut users = HashMap::with_capacity(text.len() / LINE_BYTES_USUAL);
        for (number, line) in text.lines().enumerate() {
            let line = line.trim_end();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fault = |what: &str| Fault(format!("line {}: {what}", number + 1));
            let (user, fields) = line.split_once(':').unwrap_or((line, ""));
            if user.is_empty() {
                return Err(fault("no user name"));
            }
            parse_fields(fields).map_err(|what| fault(&what))?;
            // Log-ins are looked up under their full names, so that is how the lines are kept.
            match users.entry(names.canonical(user).into_boxed_str()) {
                MapEntry::Vacant(place) => drop(place.insert(fields.into())),
                MapEntry::Occupied(known) => return Err(fault(&format!("a second entry for {:?}", known.key()))),
            }
        }
        Ok(Self(users))
    }

    fn get(&self, user: &str) -> Option<Entry> {
        // They made sense when they were read.
        self.0.get(user).and_then(|fields| parse_fields(fields).ok())
    }
}

/// All users of a file, by their full names.
pub(crate) fn parse(text: &str, names: &Names) -> Result<HashMap<String, Entry>, Fault> {
    let Users(users) = Users::read(text, names)?;
    users.into_iter().map(|(user, fields)| Ok((user.into(), parse_fields(&fields).map_err(Fault)?))).collect()
}

/// What stands behind a user's name and its colon.
fn parse_fields(fields: &str) -> Result<Entry, String> {
    let mut fields = fields.splitn(7, ':');
    let password = fields.next().filter(|password| !password.is_empty()).map(KeptSecret::new);
    let mut entry = Entry { password, ..Entry::default() };
    let (mut host, mut port) = (None, None);
    for field in fields.nth(5).unwrap_or_default().split_ascii_whitespace() {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key {
            "host" => host = Some(value.to_owned()),
            "port" => port = Some(fields::port(value)?),
            "nologin" => entry.barred = Some(Bar::Disabled),
            "hold" => entry.held = true,
            "services" => entry.services = Some(fields::services(fields::items(value))),
            "allow_nets" => entry.networks = fields::networks(value.split(','))?,
            // Fields for Dovecot's own use.
            _ => {}
        }
    }
    entry.place = Location::of(host, port);
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Completion;

    fn completed(domain: Option<&str>) -> Names {
        let by = Completion { fold_case: true, domain: domain.map(str::to_owned), ..Completion::default() };
        Names { by, aliases: Vec::new() }
    }

    fn names() -> Names {
        completed(None)
    }

    #[test]
    fn names_are_kept_as_log_ins_look_them_up() {
        let names = completed(Some("example.org"));
        let users = parse("Kim:x\nLee@Example.ORG:y\n", &names).expect("a sound file");
        assert!(users.contains_key("kim@example.org") && users.contains_key("lee@example.org"));
        assert!(parse("kim:x\nKim@example.org:y\n", &names).is_err(), "two lines for one user");
    }

    #[test]
    fn dovecots_lines() {
        let users = parse(
            "# people\nkim:{PLAIN}secret\n\nlee@example.org:{SSHA}x:1000:1000:Lee:/home/lee:/bin/sh:host=store-b port=1143 allow_nets=10.0.0.0/8,::1 userdb_mail=x\nmax:::::::nologin\n",
            &names(),
        )
        .expect("a sound file");
        assert_eq!(users["kim"].password, Some(KeptSecret::new("{PLAIN}secret")));
        let lee = &users["lee@example.org"];
        let place = Location { name: "store-b".into(), port: Some(1143) };
        assert_eq!((lee.place.as_ref(), lee.networks.len()), (Some(&place), 2));
        assert!(users["max"].barred == Some(Bar::Disabled) && users["max"].password.is_none());
    }

    #[test]
    fn a_senseless_line_is_named() {
        for (text, line) in [("kim:x\n:y\n", "line 2"), ("kim:x\nkim:y\n", "line 2"), ("kim:x::::::port=a\n", "line 1")]
        {
            let fault = parse(text, &names()).expect_err("a fault");
            assert!(fault.0.starts_with(line), "{fault}");
        }
    }

    #[tokio::test]
    async fn a_changed_file_is_read_again_and_a_broken_one_is_not_taken() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("users");
        std::fs::write(&path, "kim:{PLAIN}a\n").expect("a file");
        let log = Logger::start(&crate::config::Log::QUIET).expect("a log");
        let directory = PasswdFile::open(&path, names(), &log).expect("a directory");
        let due = || {
            directory.state.lock().expect("a lock").checked =
                Instant::now().checked_sub(CHECK_INTERVAL).expect("a past");
        };
        std::fs::write(&path, "kim:{PLAIN}bcd\n").expect("a file");
        due();
        assert_eq!(
            directory.find(&Who::somebody("kim", "imap")).await.expect("an answer").expect("kim").password,
            Some(KeptSecret::new("{PLAIN}bcd"))
        );
        std::fs::write(&path, ":broken line\n").expect("a file");
        due();
        assert!(directory.find(&Who::somebody("kim", "imap")).await.expect("an answer").is_some());
    }
}
