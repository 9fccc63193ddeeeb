//! What services do, written down once a minute for the reports.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use gatepost_wire::PROTOCOLS;
use tokio::sync::OnceCell;

use super::Server;
use crate::admin::answers;
use crate::config::Level;
use crate::reports::{Counts, KEPT_HOURS, Reports, Row};

/// Seconds between two writings.
const WRITE_SECONDS: u32 = 60;
const HOUR_SECONDS: u64 = 3600;

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Reporting {
    reports: OnceCell<Reports>,
    state: Mutex<State>,
    /// Writings follow one another.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct State {
    seconds: u32,
    /// By service, in the order of the protocols: what was written so far, and the most sessions since.
    written: Vec<Counts>,
    peaks: Vec<u64>,
}

impl Default for State {
    fn default() -> Self {
        let services = PROTOCOLS.len();
        Self { seconds: 0, written: vec![Counts::default(); services], peaks: vec![0; services] }
    }
}

impl State {
    /// All that has happened until now is written down.
    fn wrote(&mut self, totals: Vec<Counts>) {
        self.written = totals;
    }

    /// The most sessions are to be written later.
    fn keep_peaks(&mut self, totals: &[Counts]) {
        for (peak, total) in self.peaks.iter_mut().zip(totals) {
            *peak = (*peak).max(total.peak);
        }
    }
}

impl Reporting {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Server {
    /// Looks at how many sessions there are, and writes down what has happened where it is time. Called once a second.
    pub(super) fn report_now_and_then(self: &Arc<Self>) {
        let is_time = {
            let mut state = self.reporting.state();
            for (protocol, peak) in PROTOCOLS.iter().zip(&mut state.peaks) {
                *peak = (*peak).max(self.shared.ledger.held(protocol.name).into());
            }
            state.seconds += 1;
            state.seconds.is_multiple_of(WRITE_SECONDS)
        };
        if is_time {
            let server = Arc::clone(self);
            tokio::spawn(async move { server.report().await });
        }
    }

    /// Writes down what has happened since this was called last.
    pub(super) async fn report(&self) {
        if !self.source.has_place() {
            return;
        }
        let _one_at_a_time = self.reporting.writing.lock().await;
        let (services, totals) = self.since_last_report();
        if services.is_empty() {
            return;
        }
        let written = match self.reports().await {
            Ok(reports) => reports.add(this_hour(), &services).await,
            Err(error) => Err(error),
        };
        let Err(error) = written else {
            self.reporting.state().wrote(totals);
            return;
        };
        // It counts next time.
        self.reporting.state().keep_peaks(&totals);
        if let Some(times) = self.shared.log.seldom(&error) {
            let record = self.shared.log.record(Level::Error, "admin", "the reports can't be written");
            record.with("problem", error).with("times", times).write();
        }
    }

    async fn reports(&self) -> Result<&Reports, String> {
        let state = self.entrance.world.load().config.state.clone();
        self.reporting.reports.get_or_try_init(|| Reports::open(&state)).await
    }

    /// What services did since the latest writing, of those that did nothing, nothing; and what all did since the start,
    /// each with the most sessions since that writing.
    fn since_last_report(&self) -> (Vec<(&'static str, Counts)>, Vec<Counts>) {
        let connections = self.lasting.metrics.connections();
        let mut state = self.reporting.state();
        let State { written, peaks, .. } = &mut *state;
        let (mut services, mut totals) = (Vec::new(), Vec::new());
        for (n, protocol) in PROTOCOLS.iter().enumerate() {
            let metrics = self.lasting.metrics.service(protocol.name);
            let own = connections.iter().filter(|(service, ..)| *service == protocol.name);
            let (logins, failures) = metrics.log_in_totals();
            let rejected = metrics.rejected.iter().map(|(why, count)| (why.name().to_owned(), count.get()));
            let total = Counts {
                connections: own.map(|(.., count)| count).sum(),
                logins,
                failures,
                peak: std::mem::take(&mut peaks[n]),
                bytes_up: metrics.bytes_up.get(),
                bytes_down: metrics.bytes_down.get(),
                rejected: rejected.collect(),
            };
            let fresh = difference(&total, &written[n]);
            totals.push(total);
            if !fresh.is_nothing() {
                services.push((protocol.name, fresh));
            }
        }
        (services, totals)
    }

    /// The reports of the last days.
    pub(super) async fn reported(&self, days: u64, by_day: bool) -> Result<Vec<answers::Report>, String> {
        // What has happened until now belongs to it.
        self.report().await;
        let hours = (days.clamp(1, KEPT_HOURS / 24)) * 24;
        let rows = self.reports().await?.rows(this_hour().saturating_sub(hours - 1), by_day).await?;
        let describe = |Row { hour, service, counts }: Row| answers::Report {
            from: super::commands::rfc3339(UNIX_EPOCH + std::time::Duration::from_secs(hour * HOUR_SECONDS)),
            service,
            connections: counts.connections,
            logins: counts.logins,
            failures: counts.failures,
            peak_sessions: counts.peak,
            bytes_up: counts.bytes_up,
            bytes_down: counts.bytes_down,
            rejected: counts.rejected.into_iter().map(|(reason, count)| answers::Rejected { reason, count }).collect(),
        };
        Ok(rows.into_iter().map(describe).collect())
    }
}

fn this_hour() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / HOUR_SECONDS
}

fn difference(now: &Counts, before: &Counts) -> Counts {
    let rejected = now.rejected.iter().enumerate().map(|(n, (reason, count))| {
        let before = before.rejected.get(n).map_or(0, |(_, count)| *count);
        (reason.clone(), count.saturating_sub(before))
    });
    Counts {
        connections: now.connections.saturating_sub(before.connections),
        logins: now.logins.saturating_sub(before.logins),
        failures: now.failures.saturating_sub(before.failures),
        peak: now.peak,
        bytes_up: now.bytes_up.saturating_sub(before.bytes_up),
        bytes_down: now.bytes_down.saturating_sub(before.bytes_down),
        rejected: rejected.collect(),
    }
}
