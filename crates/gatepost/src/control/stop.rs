//! An end in good order: nobody new is let in, sessions end within their time, and what is known is written down.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::listening::Listening;
use super::service_manager::News;
use super::upgrade::Over;
use super::{DRAIN_STEP, Server, Signals};
use crate::admin::Asked;
use crate::config::Level;
use crate::log::Logger;
use crate::traces::Tracer;

/// How long the end waits for traces to be sent.
const TRACES_TIME: Duration = Duration::from_secs(1);

impl Server {
    /// Takes no more clients, and ends with the last session: after a stop they have the drain time, after a hand-over as long
    /// as they like.
    pub(super) async fn end(
        self: &Arc<Self>,
        over: Over,
        listening: Listening,
        mut asked: mpsc::Receiver<Asked>,
        signals: &mut Signals,
    ) {
        if over == Over::Stop {
            self.tell_manager(News::Stopping);
            self.stop.send_replace(true);
        }
        let (socket, http) = listening.end_listeners().await;
        let (drains, http) = match over {
            Over::HandedOver => (self.retire(http, &mut asked, signals).await, None),
            Over::Stop => (true, Some(http)),
        };
        // Whoever comes after it may have the socket; who still waits for an answer is told that it stops.
        drop(asked);
        if let Some(socket) = socket {
            socket.finish().await;
        }
        if drains {
            self.stop.send_replace(true);
            self.drain(signals).await;
        }
        self.report().await;
        // Probes are answered until the end.
        if let Some(http) = http {
            http.finish().await;
        }
        let log = &self.shared.log;
        finish_traces(self.entrance.world.load().tracer.as_deref(), log).await;
        log.record(Level::Info, "server", "Gatepost has stopped").write();
        log.finish();
    }

    /// Ends all sessions within the drain time: quiet ones first and spread over it, the rest at its end.
    /// A second signal cuts it short.
    async fn drain(&self, signals: &mut Signals) {
        let time = self.entrance.world.load().config.drain;
        let deadline = Instant::now() + time;
        self.shared
            .log
            .record(Level::Info, "server", "Gatepost is stopping")
            .with("sessions", self.entrance.workers.sessions() as u64)
            .with("seconds", time.as_secs())
            .write();
        while self.entrance.workers.sessions() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let steps = (left.as_millis() / DRAIN_STEP.as_millis()).saturating_sub(1);
            let is_last = steps == 0;
            let share = self.entrance.workers.sessions().div_ceil(usize::try_from(steps).unwrap_or(usize::MAX).max(1));
            if is_last {
                self.entrance.workers.stop_all();
            } else {
                self.entrance.workers.ask_quiet_to_go(share);
            }
            tokio::select! {
                () = tokio::time::sleep(DRAIN_STEP.min(left)) => {}
                _ = signals.terminate.recv() => break,
                _ = signals.interrupt.recv() => break,
            }
        }
    }
}

/// Waits a moment until traces are sent, and says what is lost.
async fn finish_traces(tracer: Option<&Tracer>, log: &Logger) {
    let Some(tracer) = tracer else { return };
    let unsent = tracer.finish(Instant::now() + TRACES_TIME).await;
    if unsent > 0 {
        let record = log.record(Level::Warning, "server", "traces of log-ins are lost: they were not sent in time");
        record.with("lost", unsent as u64).write();
    }
}
