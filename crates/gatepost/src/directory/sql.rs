//! SQL databases, asked with the administrator's own query.

use std::str::FromStr as _;
use std::time::Duration;

use futures_util::TryStreamExt as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlPool, MySqlPoolOptions, MySqlSslMode};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Column as _, Row, Type};
use tokio::time::timeout;

use super::{Accounts, Answering, Bar, Entry, Fault, KeptSecret, Location, Who, fields};
use crate::config::{self, DatabaseTls, Dialect, Parameter, Problem, split_name};
use crate::net::health::Health;
use crate::secret_file;

/// The columns that a query may give.
const COLUMNS: &str = "name, backend, port, password, disabled, held, services, networks, login, login_password";
/// A connection that is not used for so long is closed.
const IDLE_TIME: Duration = Duration::from_mins(5);

/// See the module's documentation.
pub(crate) struct Sql {
    settings: config::Sql,
    pool: Pool,
    health: Health,
}

enum Pool {
    Sqlite(SqlitePool),
    Postgres(PgPool),
    MySql(MySqlPool),
}

/// Options that all pools have in common, under other types.
macro_rules! pool {
    ($options:ty, $settings:expr, $connect:expr) => {
        <$options>::new()
            .max_connections($settings.connections)
            .acquire_timeout($settings.timeout)
            .idle_timeout(IDLE_TIME)
            .connect_lazy_with($connect)
    };
}

/// How a server is reached: TLS and its authorities, and the password. Both drivers have the same under other names.
macro_rules! secured {
    ($options:expr, $settings:expr, $password:expr, $mode:ident, [$off:ident, $checked:ident, $unchecked:ident], $ca:ident) => {{
        let mut options = match &$settings.tls {
            DatabaseTls::None => $options.ssl_mode($mode::$off),
            DatabaseTls::Checked(Some(ca)) => $options.ssl_mode($mode::$checked).$ca(ca),
            DatabaseTls::Checked(None) => $options.ssl_mode($mode::$checked),
            DatabaseTls::Unchecked => $options.ssl_mode($mode::$unchecked),
        };
        if let Some(password) = $password {
            options = options.password(password);
        }
        options
    }};
}

impl Sql {
    /// Reads the password; the database is connected to when it is first asked.
    pub(crate) fn open(settings: &config::Sql, warnings: &mut Vec<Problem>) -> Result<Self, Problem> {
        let password = settings.password_file.as_ref().map(|file| secret_file::read(file, warnings)).transpose()?;
        let password = match &password {
            Some(secret) => Some(
                std::str::from_utf8(secret.expose())
                    .map_err(|_| Problem::of("password_file", "holds a password that is not UTF-8"))?,
            ),
            None => None,
        };
        let unusable = |error: sqlx::Error| Problem::at(&settings.place, format!("url: {error}"));
        let pool = match settings.dialect {
            Dialect::Sqlite => {
                let options = SqliteConnectOptions::from_str(&settings.url).map_err(unusable)?.read_only(true);
                Pool::Sqlite(pool!(SqlitePoolOptions, settings, options.busy_timeout(settings.timeout)))
            }
            Dialect::Postgres => {
                let options = PgConnectOptions::from_str(&settings.url).map_err(unusable)?;
                let options =
                    secured!(options, settings, password, PgSslMode, [Disable, VerifyFull, Require], ssl_root_cert);
                Pool::Postgres(pool!(PgPoolOptions, settings, options.application_name("gatepost")))
            }
            Dialect::MySql => {
                let options = MySqlConnectOptions::from_str(&settings.url).map_err(unusable)?;
                let options =
                    secured!(options, settings, password, MySqlSslMode, [Disabled, VerifyIdentity, Required], ssl_ca);
                Pool::MySql(pool!(MySqlPoolOptions, settings, options))
            }
        };
        Ok(Self { settings: settings.clone(), pool, health: Health::default() })
    }

    async fn ask(&self, who: &Who) -> Result<Vec<Entry>, NoAnswer> {
        match &self.pool {
            Pool::Sqlite(pool) => ask(pool, &self.settings.query, who).await,
            Pool::Postgres(pool) => ask(pool, &self.settings.query, who).await,
            Pool::MySql(pool) => ask(pool, &self.settings.query, who).await,
        }
    }
}

/// Why there is no answer: the database's fault, or the query's.
enum NoAnswer {
    Database(sqlx::Error),
    Query(String),
}

impl From<sqlx::Error> for NoAnswer {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

/// The first two rows: more than one is as bad as any number.
async fn ask<DB>(pool: &sqlx::Pool<DB>, query: &config::Query, who: &Who) -> Result<Vec<Entry>, NoAnswer>
where
    DB: sqlx::Database,
    DB::Row: Texts,
    for<'q> DB::Arguments: sqlx::IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: sqlx::Executor<'c, Database = DB>,
    for<'q> String: sqlx::Encode<'q, DB> + Type<DB>,
    for<'q> Option<String>: sqlx::Encode<'q, DB> + Type<DB>,
{
    let (local, domain) = split_name(&who.user);
    let mut asking = sqlx::query::<DB>(AssertSqlSafe(query.text.clone()));
    for parameter in &query.parameters {
        asking = match parameter {
            Parameter::User => asking.bind(who.user.clone()),
            Parameter::Local => asking.bind(local.to_owned()),
            Parameter::Domain => asking.bind(domain.map(str::to_owned)),
            Parameter::Service => asking.bind(who.service.to_owned()),
        };
    }
    let mut rows = asking.fetch(pool);
    let mut entries = Vec::new();
    while entries.len() < 2
        && let Some(row) = rows.try_next().await?
    {
        entries.push(read(&row).map_err(NoAnswer::Query)?);
    }
    Ok(entries)
}

/// Makes an account of a row, by the names of its columns.
fn read(row: &impl Texts) -> Result<Entry, String> {
    let (mut entry, mut backend, mut port) = (Entry::default(), None, None);
    for (n, column) in row.columns().iter().enumerate() {
        let name = column.name().to_ascii_lowercase();
        let text = row.text(n).map_err(|error| format!("column {name}: {error}"))?;
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        match name.as_str() {
            "name" => entry.name = Some(text),
            "backend" => backend = Some(text),
            "port" => port = Some(fields::port(&text)?),
            "password" => entry.password = Some(KeptSecret::new(text)),
            "disabled" => entry.barred = is_true(&text).then_some(Bar::Disabled),
            "held" => entry.held = is_true(&text),
            "services" => entry.services = Some(fields::services(fields::items(&text))),
            "networks" => entry.networks = fields::networks(fields::items(&text))?,
            "login" => entry.login = Some(text),
            "login_password" => entry.login_password = Some(KeptSecret::new(text)),
            _ => return Err(format!("the query gives a column {name}; known are {COLUMNS}")),
        }
    }
    entry.place = Location::of(backend, port);
    Ok(entry)
}

/// A row whose values can be read as texts.
trait Texts: Row {
    /// A value as text, whatever simple type it has; `None`: it is NULL.
    fn text(&self, n: usize) -> sqlx::Result<Option<String>>;
}

/// For a database's rows, with its types of numbers in the order in which they are tried: a type takes a value only if it
/// can hold all that the column's type can, but for `bool`, which some databases take for any number.
macro_rules! texts {
    ($row:ty: $($number:ty),+) => {
        impl Texts for $row {
            fn text(&self, n: usize) -> sqlx::Result<Option<String>> {
                let error = match self.try_get::<Option<String>, _>(n) {
                    Ok(text) => return Ok(text),
                    Err(error) => error,
                };
                $(if let Ok(number) = self.try_get::<Option<$number>, _>(n) {
                    return Ok(number.map(|number| number.to_string()));
                })+
                let truth = self.try_get::<Option<bool>, _>(n).map_err(|_| error)?;
                Ok(truth.map(|truth| u8::from(truth).to_string()))
            }
        }
    };
}

texts!(sqlx::sqlite::SqliteRow: i64, i32);
texts!(sqlx::postgres::PgRow: i64, i32, i16);
texts!(sqlx::mysql::MySqlRow: i64, u64);

fn is_true(text: &str) -> bool {
    !["0", "f", "false", "n", "no", "off"].contains(&text.to_ascii_lowercase().as_str())
}

impl Accounts for Sql {
    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move {
            let answer = timeout(self.settings.timeout, self.ask(who)).await;
            let name = &self.settings.shown;
            let mut entries = match answer {
                Ok(Ok(entries)) => entries,
                Ok(Err(NoAnswer::Query(what))) => return Err(Fault(format!("{name}: {what}"))),
                Ok(Err(NoAnswer::Database(error))) => {
                    if !matches!(error, sqlx::Error::Database(_)) {
                        self.health.mark_down();
                    }
                    return Err(Fault(format!("{name}: {error}")));
                }
                Err(_) => {
                    self.health.mark_down();
                    let time = humantime::format_duration(self.settings.timeout);
                    return Err(Fault(format!("{name}: no answer within {time}")));
                }
            };
            self.health.mark_up();
            if entries.len() > 1 {
                return Err(Fault(format!("{name}: several rows match {:?}: make the query give one", who.user)));
            }
            Ok(entries.pop())
        })
    }

    fn is_down(&self) -> bool {
        self.health.is_down()
    }
}
