//! What happened, by the hour: kept in a database of the state folder for ninety days, in bounded space.
//!
//! Here belong the rows and how they are kept and summed up; what is counted is `metrics`' business.

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{Row as _, SqliteConnection};

/// The file's name in the state folder.
const FILE_NAME: &str = "reports.db";
/// How long rows are kept.
pub(crate) const KEPT_HOURS: u64 = 90 * 24;
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const DAY_HOURS: u64 = 24;

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS hours (
        hour        INTEGER NOT NULL,
        service     TEXT NOT NULL,
        connections INTEGER NOT NULL,
        logins      INTEGER NOT NULL,
        failures    INTEGER NOT NULL,
        peak        INTEGER NOT NULL,
        bytes_up    INTEGER NOT NULL,
        bytes_down  INTEGER NOT NULL,
        PRIMARY KEY (hour, service)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS rejections (
        hour    INTEGER NOT NULL,
        service TEXT NOT NULL,
        reason  TEXT NOT NULL,
        count   INTEGER NOT NULL,
        PRIMARY KEY (hour, service, reason)
    ) STRICT, WITHOUT ROWID;
";

/// What a service did in some time.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) connections: u64,
    pub(crate) logins: u64,
    pub(crate) failures: u64,
    /// Most sessions at once.
    pub(crate) peak: u64,
    pub(crate) bytes_up: u64,
    pub(crate) bytes_down: u64,
    /// Connections turned away, by reason.
    pub(crate) rejected: Vec<(String, u64)>,
}

impl Counts {
    /// Whether nothing happened.
    pub(crate) fn is_nothing(&self) -> bool {
        let Self { connections, logins, failures, peak, bytes_up, bytes_down, rejected } = self;
        [connections, logins, failures, peak, bytes_up, bytes_down].into_iter().all(|count| *count == 0)
            && rejected.iter().all(|(_, count)| *count == 0)
    }
}

/// A service's hour or day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its first hour, counted from 1970.
    pub(crate) hour: u64,
    pub(crate) service: String,
    /// The reasons are sorted, the most frequent first.
    pub(crate) counts: Counts,
}

/// See the module's documentation.
#[derive(Debug, Clone)]
pub(crate) struct Reports {
    pool: SqlitePool,
}

impl Reports {
    /// Opens the database in this folder, or makes it.
    pub(crate) async fn open(state: &Path) -> Result<Self, String> {
        let path = state.join(FILE_NAME);
        let failed = |error: String| format!("{}: {error}", path.display());
        std::fs::create_dir_all(state).map_err(|error| failed(error.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(2).acquire_timeout(BUSY_TIMEOUT).connect_lazy_with(options);
        sqlx::raw_sql(SCHEMA).execute(&pool).await.map_err(|error| failed(error.to_string()))?;
        Ok(Self { pool })
    }

    /// Adds to what services did in an hour, and forgets what is too old.
    pub(crate) async fn add(&self, hour: u64, services: &[(&'static str, Counts)]) -> Result<(), String> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            for (service, counts) in services {
                add(&mut transaction, hour, service, counts).await?;
            }
            for table in ["hours", "rejections"] {
                let query = sqlx::AssertSqlSafe(format!("DELETE FROM {table} WHERE hour < ?"));
                let oldest = number(hour.saturating_sub(KEPT_HOURS));
                sqlx::query(query).bind(oldest).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        work.await.map_err(|error: sqlx::Error| error.to_string())
    }

    /// What services did since an hour, by the hour or by the day, the earliest first.
    pub(crate) async fn rows(&self, since: u64, by_day: bool) -> Result<Vec<Row>, String> {
        let hours = if by_day { DAY_HOURS } else { 1 };
        let period = number(hours);
        let query = "SELECT hour / ?1 * ?1 AS period, service, sum(connections), sum(logins), sum(failures), max(peak),
                            sum(bytes_up), sum(bytes_down)
                     FROM hours WHERE hour >= ?2 GROUP BY period, service ORDER BY period, service";
        let rejected = "SELECT hour / ?1 * ?1 AS period, service, reason, sum(count) AS total
                        FROM rejections WHERE hour >= ?2 GROUP BY period, service, reason ORDER BY total DESC, reason";
        let work = async {
            let since = number(since / hours * hours);
            let mut rows = Vec::new();
            for row in sqlx::query(query).bind(period).bind(since).fetch_all(&self.pool).await? {
                let count = |n: usize| row.try_get::<i64, _>(n).map(|count| u64::try_from(count).unwrap_or(0));
                let counts = Counts {
                    connections: count(2)?,
                    logins: count(3)?,
                    failures: count(4)?,
                    peak: count(5)?,
                    bytes_up: count(6)?,
                    bytes_down: count(7)?,
                    rejected: Vec::new(),
                };
                rows.push(Row { hour: count(0)?, service: row.try_get(1)?, counts });
            }
            for row in sqlx::query(rejected).bind(period).bind(since).fetch_all(&self.pool).await? {
                let (hour, service): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
                let (reason, count): (String, i64) = (row.try_get(2)?, row.try_get(3)?);
                // They came in this order.
                let place = rows.binary_search_by(|row: &Row| {
                    (number(row.hour), row.service.as_str()).cmp(&(hour, service.as_str()))
                });
                if let Ok(n) = place {
                    rows[n].counts.rejected.push((reason, u64::try_from(count).unwrap_or(0)));
                }
            }
            Ok(rows)
        };
        work.await.map_err(|error: sqlx::Error| error.to_string())
    }
}

async fn add(connection: &mut SqliteConnection, hour: u64, service: &str, counts: &Counts) -> sqlx::Result<()> {
    let query = "INSERT INTO hours VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (hour, service) DO UPDATE SET
                 connections = connections + excluded.connections, logins = logins + excluded.logins,
                 failures = failures + excluded.failures, peak = max(peak, excluded.peak),
                 bytes_up = bytes_up + excluded.bytes_up, bytes_down = bytes_down + excluded.bytes_down";
    let Counts { connections, logins, failures, peak, bytes_up, bytes_down, rejected } = counts;
    let mut insert = sqlx::query(query).bind(number(hour)).bind(service.to_owned());
    for count in [connections, logins, failures, peak, bytes_up, bytes_down] {
        insert = insert.bind(number(*count));
    }
    insert.execute(&mut *connection).await?;
    for (reason, count) in rejected.iter().filter(|(_, count)| *count > 0) {
        let query = "INSERT INTO rejections VALUES (?, ?, ?, ?)
                     ON CONFLICT (hour, service, reason) DO UPDATE SET count = count + excluded.count";
        let insert = sqlx::query(query).bind(number(hour)).bind(service.to_owned()).bind(reason.clone());
        insert.bind(number(*count)).execute(&mut *connection).await?;
    }
    Ok(())
}

/// The database's numbers have a sign.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(logins: u64, peak: u64, rejected: &[(&str, u64)]) -> Counts {
        let rejected = rejected.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
        Counts { connections: logins * 2, logins, peak, rejected, ..Counts::default() }
    }

    #[tokio::test]
    async fn hours_are_summed_up_to_days_and_kept_for_ninety_of_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let reports = Reports::open(folder.path()).await.expect("a database");
        let day = 20_000 * 24;
        reports.add(day, &[("imap", counts(5, 10, &[("limit", 1)]))]).await.expect("written");
        reports.add(day, &[("imap", counts(7, 8, &[("limit", 2), ("ban", 9)]))]).await.expect("written");
        reports.add(day + 1, &[("imap", counts(1, 30, &[])), ("pop3", counts(2, 2, &[]))]).await.expect("written");
        let reports = Reports::open(folder.path()).await.expect("the same database");
        let hours = reports.rows(day, false).await.expect("rows");
        assert_eq!(hours.len(), 3);
        assert_eq!((hours[0].hour, &hours[0].counts), (day, &counts(12, 10, &[("ban", 9), ("limit", 3)])));
        let days = reports.rows(day + 5, true).await.expect("rows");
        assert_eq!((days.len(), &days[0].counts), (2, &counts(13, 30, &[("ban", 9), ("limit", 3)])));
        reports.add(day + KEPT_HOURS + 1, &[("imap", counts(1, 1, &[]))]).await.expect("written");
        assert_eq!(reports.rows(0, false).await.expect("rows").len(), 3, "the first hour is forgotten");
    }
}
