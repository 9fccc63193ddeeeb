//! Passwords for one program each: made here, shown once, and taken back one by one.
//!
//! They are random (100 bits), so that a plain hash of them tells nobody anything, and one look at an index
//! finds the right one of many.

use std::time::SystemTime;

use gatepost_wire::Secret;
use sha2::{Digest as _, Sha256};
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;
use zeroize::Zeroizing;

use super::{Sqlite, kept};
use crate::directory::{Fault, Who};

/// Letters and digits that are not taken for one another.
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const LETTERS: usize = 20;
/// How they are shown: so many letters between two dashes.
const GROUP: usize = 5;
/// A use is written down unless one was within so many seconds.
const USED_INTERVAL_SECONDS: i64 = 60;

/// What is to be known of a new one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    pub(crate) label: String,
    /// The only services it is for; `None`: all of the user's.
    pub(crate) services: Option<Vec<String>>,
    pub(crate) expires: Option<SystemTime>,
}

/// One as `gatepost user app-password list` shows it. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AppPassword {
    pub(crate) id: i64,
    pub(crate) label: String,
    pub(crate) services: Option<String>,
    pub(crate) created: i64,
    pub(crate) expires: Option<i64>,
    pub(crate) last_used: Option<i64>,
    pub(crate) last_from: Option<String>,
}

/// One that was shown.
pub(super) struct Shown {
    id: i64,
    pub(super) services: Option<String>,
}

/// Makes one, as it is shown to the user.
fn generate() -> Result<Zeroizing<String>, Fault> {
    let mut random = Zeroizing::new([0; LETTERS]);
    getrandom::fill(&mut *random).map_err(|error| Fault(format!("the system gives no randomness: {error}")))?;
    let mut text = Zeroizing::new(String::with_capacity(LETTERS + LETTERS / GROUP));
    for (n, byte) in random.iter().enumerate() {
        if n > 0 && n % GROUP == 0 {
            text.push('-');
        }
        text.push(char::from(ALPHABET[usize::from(byte % 32)]));
    }
    Ok(text)
}

/// What is kept of one; `None`: `text` can be none. Dashes, spaces and case don't matter.
fn digest(text: &[u8]) -> Option<[u8; 32]> {
    let letters = text.iter().filter(|b| !b"- ".contains(b)).map(u8::to_ascii_lowercase);
    let letters = Zeroizing::new(letters.collect::<Vec<_>>());
    let sound = letters.len() == LETTERS && letters.iter().all(|letter| ALPHABET.contains(letter));
    sound.then(|| Sha256::digest(&*letters).into())
}

fn seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

impl Sqlite {
    /// Makes an app password for a user: its number, and itself. `None`: there is no such user.
    pub(crate) async fn add_app_password(
        &self,
        user: &str,
        draft: &Draft,
    ) -> Result<Option<(i64, Zeroizing<String>)>, Fault> {
        let password = generate()?;
        let Some(digest) = digest(password.as_bytes()) else { return Err(Fault("no password was made".into())) };
        let query = "INSERT INTO app_passwords (user, label, digest, services, expires)
                     SELECT name, ?2, ?3, ?4, ?5 FROM users WHERE name = ?1 RETURNING id";
        let Draft { label, services, expires } = draft;
        let insert = sqlx::query(query).bind(user).bind(label).bind(&digest[..]).bind(services.as_deref().map(kept));
        let row = insert.bind(expires.map(seconds)).fetch_optional(&self.pool).await;
        let row = row.map_err(|error| self.fault(&error))?;
        let id = row.map(|row| row.try_get(0)).transpose().map_err(|error| self.fault(&error))?;
        Ok(id.map(|id| (id, password)))
    }

    /// A user's app passwords, the oldest first.
    pub(crate) async fn app_passwords(&self, user: &str) -> Result<Vec<AppPassword>, Fault> {
        let query = "SELECT id, label, services, created, expires, last_used, last_from
                     FROM app_passwords WHERE user = ? ORDER BY id";
        let rows = sqlx::query(query).bind(user).fetch_all(&self.pool).await.map_err(|error| self.fault(&error))?;
        let read = |row: &SqliteRow| {
            Ok(AppPassword {
                id: row.try_get(0)?,
                label: row.try_get(1)?,
                services: row.try_get(2)?,
                created: row.try_get(3)?,
                expires: row.try_get(4)?,
                last_used: row.try_get(5)?,
                last_from: row.try_get(6)?,
            })
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| self.fault(&error))
    }

    /// Takes one back; false: the user has none of this number.
    pub(crate) async fn revoke_app_password(&self, user: &str, id: i64) -> Result<bool, Fault> {
        let query = "DELETE FROM app_passwords WHERE user = ? AND id = ?";
        let result = sqlx::query(query).bind(user).bind(id).execute(&self.pool).await;
        result.map(|done| done.rows_affected() > 0).map_err(|error| self.fault(&error))
    }

    /// The app password of the user's that was shown, if it is one and has not expired.
    pub(super) async fn shown_app_password(&self, user: &str, shown: &Secret) -> Result<Option<Shown>, Fault> {
        let Some(digest) = digest(shown.expose()) else { return Ok(None) };
        let query = "SELECT id, services FROM app_passwords
                     WHERE user = ? AND digest = ? AND (expires IS NULL OR expires > unixepoch())";
        let row = sqlx::query(query).bind(user).bind(&digest[..]).fetch_optional(&self.pool).await;
        let read = |row: SqliteRow| Ok(Shown { id: row.try_get(0)?, services: row.try_get(1)? });
        row.and_then(|row| row.map(read).transpose()).map_err(|error| self.fault(&error))
    }

    /// Writes down when and from where one was used. Nobody waits for that, and a file that can't be written
    /// to lets nobody down.
    pub(super) fn note_use(&self, shown: &Shown, who: &Who) {
        let query = "UPDATE app_passwords SET last_used = unixepoch(), last_from = ?2
                     WHERE id = ?1 AND (last_used IS NULL OR last_used <= unixepoch() - ?3 OR last_from <> ?2)";
        let (pool, id, from) = (self.pool.clone(), shown.id, who.client.ip().to_canonical().to_string());
        tokio::spawn(async move {
            let _ = sqlx::query(query).bind(id).bind(from).bind(USED_INTERVAL_SECONDS).execute(&pool).await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{Accounts as _, Entry, KeptSecret, Verdict};
    use std::time::Duration;

    #[test]
    fn they_are_read_as_people_write_them() {
        let shown = generate().expect("a password");
        assert_eq!(shown.len(), LETTERS + LETTERS / GROUP - 1);
        let kept = digest(shown.as_bytes());
        assert!(kept.is_some());
        assert_eq!(digest(shown.replace('-', " ").to_uppercase().as_bytes()), kept);
        assert_eq!(digest(shown.replace('-', "").as_bytes()), kept);
        for none in ["", "secret", "aaaaa-aaaaa-aaaaa-aaaa", "aaaaa-aaaaa-aaaaa-aaaa0"] {
            assert_eq!(digest(none.as_bytes()), None, "{none}");
        }
    }

    #[tokio::test]
    async fn they_come_are_used_and_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = Sqlite::create(&folder.path().join("people.db")).await.expect("a directory");
        let kim = Entry { password: Some(KeptSecret::new("{PLAIN}x")), ..Entry::default() };
        directory.add("kim", &kim).await.expect("kim");
        directory.add("lee", &kim).await.expect("lee");
        let add = async |user: &str, draft: Draft| directory.add_app_password(user, &draft).await.expect("an answer");
        let draft = |label: &str| Draft { label: label.into(), ..Draft::default() };
        assert!(add("nobody", draft("phone")).await.is_none());
        let (phone, password) = add("kim", draft("phone")).await.expect("a password");
        let services = Some(vec!["imap".to_owned()]);
        let (_, for_imap) = add("kim", Draft { services, ..draft("desk") }).await.expect("a password");
        let past = Some(SystemTime::now() - Duration::from_secs(5));
        let (_, expired) = add("kim", Draft { expires: past, ..draft("old") }).await.expect("a password");

        let check = async |user: &str, shown: &str| {
            let secret = Secret::new(shown.as_bytes().to_vec());
            directory.authenticate(&Who::somebody(user, "imap"), &secret).await.expect("an answer")
        };
        assert!(matches!(check("kim", &password).await, Verdict::Right(entry) if entry.services.is_none()));
        assert!(
            matches!(check("kim", &for_imap).await, Verdict::Right(entry) if entry.services == Some(vec!["imap".into()]))
        );
        assert!(matches!(check("kim", &expired).await, Verdict::Compare(_)), "as any other word");
        assert!(matches!(check("lee", &password).await, Verdict::Compare(_)), "kim's alone");
        assert!(matches!(check("kim", "x").await, Verdict::Compare(_)));
        let is_noted = async {
            while directory.app_passwords("kim").await.expect("a list")[0].last_used.is_none() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), is_noted).await.expect("its use is written down");
        let list = directory.app_passwords("kim").await.expect("a list");
        assert_eq!((list.len(), list[0].last_from.as_deref(), list[1].label.as_str()), (3, Some("127.0.0.1"), "desk"));
        assert_eq!(directory.revoke_app_password("lee", phone).await, Ok(false));
        assert_eq!(directory.revoke_app_password("kim", phone).await, Ok(true));
        assert!(matches!(check("kim", &password).await, Verdict::Compare(_)));
        directory.remove("kim").await.expect("an answer");
        assert!(directory.app_passwords("kim").await.expect("a list").is_empty(), "they go with the user");
    }
}
