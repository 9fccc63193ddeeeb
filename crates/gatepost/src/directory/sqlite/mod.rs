//! The embedded directory: a `SQLite` file, kept by `gatepost user`, console and API.
//!
//! The file and its schema belong here; what a hash is worth, `auth` knows.

pub(crate) mod app_password;

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_wire::{PROTOCOLS, Secret};
use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteRow};

use tokio::sync::OnceCell;

use super::{Accounts, Answering, Bar, Entry, Fault, KeptSecret, Location, Verdict, Who, fields};

/// Connections for look-ups; `SQLite` reads on as many threads.
const POOL_CONNECTIONS_MAX: u32 = 4;
/// How long a look-up waits for a connection or a writer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(4);

/// Steps from one version of the schema to the next; the file's `user_version` says how many were taken.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE users (
        name     TEXT PRIMARY KEY NOT NULL,
        password TEXT,
        place    TEXT,
        disabled INTEGER NOT NULL DEFAULT 0,
        networks TEXT,
        changed  INTEGER NOT NULL DEFAULT (unixepoch())
    ) STRICT, WITHOUT ROWID;
",
    "
    ALTER TABLE users ADD COLUMN held     INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE users ADD COLUMN services TEXT;
",
    "
    CREATE TABLE app_passwords (
        id        INTEGER PRIMARY KEY,
        user      TEXT NOT NULL REFERENCES users (name) ON DELETE CASCADE,
        label     TEXT NOT NULL,
        digest    BLOB NOT NULL,
        services  TEXT,
        created   INTEGER NOT NULL DEFAULT (unixepoch()),
        expires   INTEGER,
        last_used INTEGER,
        last_from TEXT,
        UNIQUE (user, digest)
    ) STRICT;
",
];

/// The embedded directory.
#[derive(Debug)]
pub(crate) struct Sqlite {
    path: PathBuf,
    pool: SqlitePool,
    /// Done once the file is known to have the present schema.
    is_current: OnceCell<()>,
}

/// An account as `gatepost user list` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) place: Option<String>,
    pub(crate) disabled: bool,
    pub(crate) held: bool,
    pub(crate) services: Option<String>,
    pub(crate) has_password: bool,
}

/// What is to be changed of an account; `None`: nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct Change {
    pub(crate) password: Option<KeptSecret>,
    pub(crate) place: Option<String>,
    pub(crate) disabled: Option<bool>,
    pub(crate) held: Option<bool>,
    pub(crate) services: Option<Services>,
}

/// What an account or an app password may be used for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Services {
    All,
    /// These alone.
    Only(Vec<String>),
}

impl Services {
    /// Those of a list, divided by commas. A word that is no service is refused, and so is a list of none: it would read as
    /// one of all.
    pub(crate) fn only(list: &str) -> Result<Self, String> {
        let known = || PROTOCOLS.iter().map(|protocol| protocol.name).collect::<Vec<_>>().join(", ");
        let names: Vec<_> = list.split(',').map(|name| name.trim().to_lowercase()).filter(|n| !n.is_empty()).collect();
        if names.is_empty() {
            return Err(format!("{list:?} names no service; there is {}", known()));
        }
        match names.iter().find(|name| !PROTOCOLS.iter().any(|protocol| protocol.name == **name)) {
            Some(name) => Err(format!("{name:?} is no service; there is {}", known())),
            None => Ok(Self::Only(names)),
        }
    }

    /// The list, where there is one, as [`Entry`] has it.
    pub(crate) fn listed(self) -> Option<Vec<String>> {
        match self {
            Self::All => None,
            Self::Only(names) => Some(names),
        }
    }
}

impl Change {
    /// Whether there is anything to do.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { password, place, disabled, held, services } = self;
        password.is_none() && place.is_none() && disabled.is_none() && held.is_none() && services.is_none()
    }
}

impl Sqlite {
    /// Opens a file that exists. It is first read when it is first asked.
    pub(crate) fn open(path: &Path) -> Result<Self, Fault> {
        if !path.exists() {
            return Err(Fault("there is no such directory of users yet: make it with `gatepost user add`".into()));
        }
        look(path).map_err(Fault)?;
        Ok(Self::with(path, false))
    }

    /// Opens a file, or makes it, readable by its owner alone.
    pub(crate) async fn create(path: &Path) -> Result<Self, Fault> {
        use std::os::unix::fs::OpenOptionsExt as _;
        let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|error| Fault(format!("{}: can't be opened: {error}", path.display())))?;
        let directory = Self::with(path, true);
        directory.be_current().await?;
        Ok(directory)
    }

    fn with(path: &Path, create: bool) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(create)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(POOL_CONNECTIONS_MAX)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_lazy_with(options);
        Self { path: path.to_owned(), pool, is_current: OnceCell::new() }
    }

    /// Brings a file of an earlier version to the present schema; the first look-up sees to it.
    async fn be_current(&self) -> Result<(), Fault> {
        let migrated = self.is_current.get_or_try_init(|| self.migrate()).await;
        migrated.map(|&()| ()).map_err(|error| self.fault(&error))
    }

    async fn migrate(&self) -> sqlx::Result<()> {
        let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&self.pool).await?.try_get(0)?;
        if usize::try_from(version).is_ok_and(|version| version >= MIGRATIONS.len()) {
            return Ok(());
        }
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let version: i64 = sqlx::query("PRAGMA user_version").fetch_one(&mut *transaction).await?.try_get(0)?;
        for (step, migration) in MIGRATIONS.iter().enumerate().skip(usize::try_from(version).unwrap_or(0)) {
            sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
            let version = sqlx::AssertSqlSafe(format!("PRAGMA user_version = {}", step + 1));
            sqlx::raw_sql(version).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    }

    /// Adds an account; false: there is one of that name.
    pub(crate) async fn add(&self, name: &str, entry: &Entry) -> Result<bool, Fault> {
        let added = self.add_all([(name, entry)]).await?;
        Ok(added > 0)
    }

    /// Adds accounts, all in one piece or none; how many were not there yet.
    pub(crate) async fn add_all<'a>(
        &self,
        accounts: impl IntoIterator<Item = (&'a str, &'a Entry)>,
    ) -> Result<u64, Fault> {
        let adding = async {
            let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
            let mut added = 0;
            for (name, entry) in accounts {
                added += insert(name, entry).execute(&mut *transaction).await?.rows_affected();
            }
            transaction.commit().await?;
            Ok(added)
        };
        adding.await.map_err(|error| self.fault(&error))
    }

    /// Changes an account; false: there is none of that name.
    pub(crate) async fn set(&self, name: &str, change: &Change) -> Result<bool, Fault> {
        let query = "UPDATE users SET password = coalesce(?2, password), place = coalesce(?3, place),
                     disabled = coalesce(?4, disabled), held = coalesce(?5, held),
                     services = CASE WHEN ?6 THEN ?7 ELSE services END,
                     changed = unixepoch() WHERE name = ?1";
        let Change { password, place, disabled, held, services } = change;
        let update = sqlx::query(query)
            .bind(name)
            .bind(password.as_ref().and_then(KeptSecret::expose_text))
            .bind(place)
            .bind(disabled)
            .bind(held);
        let only = match services {
            Some(Services::Only(names)) => Some(kept(names)),
            Some(Services::All) | None => None,
        };
        let update = update.bind(services.is_some()).bind(only);
        let result = update.execute(&self.pool).await;
        result.map(|done| done.rows_affected() > 0).map_err(|error| self.fault(&error))
    }

    /// Removes an account; false: there is none of that name.
    pub(crate) async fn remove(&self, name: &str) -> Result<bool, Fault> {
        let result = sqlx::query("DELETE FROM users WHERE name = ?").bind(name).execute(&self.pool).await;
        result.map(|done| done.rows_affected() > 0).map_err(|error| self.fault(&error))
    }

    /// All accounts, by name.
    pub(crate) async fn list(&self) -> Result<Vec<Account>, Fault> {
        let query = "SELECT name, place, disabled, held, services, password IS NOT NULL FROM users ORDER BY name";
        let rows = sqlx::query(query).fetch_all(&self.pool).await.map_err(|error| self.fault(&error))?;
        let read = |row: &SqliteRow| {
            Ok(Account {
                name: row.try_get(0)?,
                place: row.try_get(1)?,
                disabled: row.try_get(2)?,
                held: row.try_get(3)?,
                services: row.try_get(4)?,
                has_password: row.try_get(5)?,
            })
        };
        rows.iter().map(read).collect::<sqlx::Result<_>>().map_err(|error| self.fault(&error))
    }

    /// Finishes all writing.
    pub(crate) async fn close(self) {
        self.pool.close().await;
    }

    fn fault(&self, error: &sqlx::Error) -> Fault {
        Fault(format!("{}: {error}", self.path.display()))
    }
}

/// Adds one account, unless there is one of its name.
fn insert<'a>(name: &'a str, entry: &'a Entry) -> sqlx::query::Query<'a, sqlx::Sqlite, sqlx::sqlite::SqliteArguments> {
    let query = "INSERT INTO users (name, password, place, disabled, held, networks, services)
                 VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING";
    let place = entry.place.as_ref().map(|Location { name, port }| match port {
        Some(port) if name.contains(':') => format!("[{name}]:{port}"),
        Some(port) => format!("{name}:{port}"),
        None => name.clone(),
    });
    let networks = entry.networks.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    let networks = Some(networks).filter(|list| !list.is_empty());
    let insert =
        sqlx::query(query).bind(name).bind(entry.password.as_ref().and_then(KeptSecret::expose_text)).bind(place);
    insert.bind(entry.barred.is_some()).bind(entry.held).bind(networks).bind(entry.services.as_deref().map(kept))
}

/// A list of services as a column holds it.
fn kept(services: &[String]) -> String {
    services.join(",")
}

/// Whether the file is what it should be: read at the start, so that a file that is none is not found
/// out by users.
fn look(path: &Path) -> Result<(), String> {
    let head = std::fs::File::open(path).and_then(|mut file| {
        let mut head = [0; 64];
        std::io::Read::read_exact(&mut file, &mut head).map(|()| head)
    });
    // The file's format: a magic string first, and `user_version` at byte 60.
    match head {
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Err("is no SQLite file".to_owned()),
        Err(error) => Err(format!("can't be read: {error}; it belongs to whoever ran `gatepost user add` first")),
        Ok(head) if !head.starts_with(b"SQLite format 3\0") => Err("is no SQLite file".to_owned()),
        Ok(head) => match u32::from_be_bytes([head[60], head[61], head[62], head[63]]) as usize {
            // What was written last may still be in the log beside it.
            0 if beside(path, "-wal").exists() => Ok(()),
            0 => Err("is not a directory of users: `gatepost user add` makes one".to_owned()),
            version if version > MIGRATIONS.len() => Err("was made by a later version of Gatepost".to_owned()),
            _ => Ok(()),
        },
    }
}

/// A file that `SQLite` keeps beside the database.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Accounts for Sqlite {
    fn is_exact(&self) -> bool {
        true
    }

    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move {
            self.be_current().await?;
            let query = "SELECT place, password, disabled, held, networks, services FROM users WHERE name = ?";
            let row = sqlx::query(query).bind(&who.user).fetch_optional(&self.pool).await;
            let row = row.map_err(|error| self.fault(&error))?;
            row.map(|row| read(&row).map_err(|error| self.fault(&error))).transpose()
        })
    }

    fn set_place<'a>(&'a self, user: &'a str, place: &'a str) -> Answering<'a, bool> {
        let change = Change { place: Some(place.to_owned()), ..Change::default() };
        Box::pin(async move {
            self.be_current().await?;
            self.set(user, &change).await
        })
    }

    fn authenticate<'a>(&'a self, who: &'a Who, password: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move {
            let Some(entry) = self.find(who).await? else { return Ok(Verdict::Unknown) };
            let Some(shown) = self.shown_app_password(&who.user, password).await? else {
                return Ok(Verdict::Compare(entry));
            };
            self.note_use(&shown, who);
            let services = narrowed(entry.services, shown.services.as_deref());
            Ok(Verdict::Right(Entry { services, ..entry }))
        })
    }
}

/// The services that both the account and an app password are for.
fn narrowed(account: Option<Vec<String>>, app: Option<&str>) -> Option<Vec<String>> {
    let Some(app) = app else { return account };
    let is_allowed = |name: &&str| account.as_ref().is_none_or(|services| services.iter().any(|known| known == name));
    Some(app.split(',').filter(is_allowed).map(str::to_owned).collect())
}

fn read(row: &SqliteRow) -> sqlx::Result<Entry> {
    let malformed = |what: String| sqlx::Error::Decode(what.into());
    let networks: Option<String> = row.try_get(4)?;
    let services: Option<String> = row.try_get(5)?;
    Ok(Entry {
        place: Location::of(row.try_get(0)?, None),
        password: row.try_get::<Option<String>, _>(1)?.map(KeptSecret::new),
        barred: row.try_get::<bool, _>(2)?.then_some(Bar::Disabled),
        held: row.try_get(3)?,
        networks: fields::networks(networks.iter().flat_map(|list| list.split(','))).map_err(malformed)?,
        services: services.map(|list| list.split(',').map(str::to_owned).collect()),
        ..Entry::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Network;

    #[tokio::test]
    async fn accounts_come_change_and_go() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people.db");
        assert!(Sqlite::open(&path).is_err());
        let directory = Sqlite::create(&path).await.expect("a directory");
        let kim = Entry {
            place: Some("store-a".into()),
            password: Some(KeptSecret::new("{PLAIN}a")),
            networks: vec![
                Network::parse("10.0.0.0/8").expect("a network"),
                Network::parse("::1").expect("an address"),
            ],
            services: Some(vec!["imap".into(), "pop3".into()]),
            held: true,
            ..Entry::default()
        };
        assert_eq!(directory.add("kim", &kim).await, Ok(true));
        let find = async |name: &str| directory.find(&Who::somebody(name, "imap")).await;
        assert_eq!(find("kim").await, Ok(Some(kim)));
        assert_eq!(directory.add("kim", &Entry::default()).await, Ok(false));
        let change = Change { place: Some("store-b".into()), disabled: Some(true), ..Change::default() };
        assert_eq!(directory.set("kim", &change).await, Ok(true));
        assert_eq!(directory.set("lee", &Change::default()).await, Ok(false));
        let kim = find("kim").await.expect("an answer").expect("kim");
        assert_eq!(
            (kim.place, kim.password, kim.barred, kim.held),
            (Some("store-b".into()), Some(KeptSecret::new("{PLAIN}a")), Some(Bar::Disabled), true)
        );
        let only = Services::only(" POP3, ").expect("a service");
        assert_eq!(directory.set("kim", &Change { services: Some(only), ..Change::default() }).await, Ok(true));
        let kim = find("kim").await.expect("an answer").expect("kim");
        assert_eq!(kim.services, Some(vec!["pop3".to_owned()]));
        let change = Change { held: Some(false), services: Some(Services::All), ..Change::default() };
        assert_eq!(directory.set("kim", &change).await, Ok(true));
        let kim = find("kim").await.expect("an answer").expect("kim");
        assert_eq!((kim.held, kim.services), (false, None));
        for name in ["Kim", "kim'--", "%", "k_m", "kim\0"] {
            assert_eq!(find(name).await, Ok(None), "{name}");
        }
        assert_eq!(directory.list().await.expect("a list").len(), 1);
        assert_eq!(directory.remove("kim").await, Ok(true));
        assert_eq!(directory.remove("kim").await, Ok(false));
        drop(directory);
        Sqlite::create(&path).await.expect("the same file again");
    }

    #[test]
    fn a_list_that_names_no_service_is_refused_and_not_taken_for_all() {
        for list in ["", ",", " , ", "imap,gopher"] {
            assert!(Services::only(list).is_err(), "{list:?}");
        }
    }

    #[tokio::test]
    async fn a_file_of_an_earlier_version_is_brought_up_to_date() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("people.db");
        let old = Sqlite::with(&path, true);
        sqlx::raw_sql(MIGRATIONS[0]).execute(&old.pool).await.expect("the old schema");
        sqlx::raw_sql("PRAGMA user_version = 1; INSERT INTO users (name, place) VALUES ('kim', 'store-a')")
            .execute(&old.pool)
            .await
            .expect("an old user");
        old.close().await;
        let directory = Sqlite::open(&path).expect("a directory");
        let kim = directory.find(&Who::somebody("kim", "imap")).await.expect("an answer").expect("kim");
        assert_eq!((kim.place, kim.held), (Some("store-a".into()), false));
    }
}
