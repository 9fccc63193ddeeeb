//! The control plane: starts everything, does what commands say, reloads, and stops in good order.
//!
//! Here belongs what must happen once and in order. Sessions are the service's, and how one asks for something is the
//! business of the ways in.

mod commands;
mod effects;
mod listening;
mod live;
mod metrics;
mod reload;
mod reporting;
mod service_manager;
mod sessions;
mod settings;
mod start;
mod stop;
mod upgrade;
mod users;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

use listening::Listening;
use live::Live;
use reporting::Reporting;
use service_manager::News;
use start::{Begun, Prepared};
use upgrade::{Inheritance, Over};

use crate::acceptor::Entrance;
use crate::admin::{Asked, Asking, Command, answer};
use crate::backend::Looking;
use crate::config::{self, Draft, Level, Problem, Problems};
use crate::net::handover::{Elder, Given};
use crate::service::Shared;
use crate::stamp::Stamp;
use crate::world::Lasting;

/// How often certificates are looked at.
const DAY: Duration = Duration::from_hours(24);
/// How often sessions are told to end while Gatepost stops.
const DRAIN_STEP: Duration = Duration::from_millis(500);

/// Where the configuration comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(PathBuf),
    /// A text of our own making, for `serve --to`.
    Text(String),
}

impl Source {
    /// Whether something may be kept in the state folder: without a file, there is no place for one.
    const fn has_place(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Reads it as far as that goes.
    fn draft(&self) -> Result<Draft, Problems> {
        match self {
            Self::File(path) => config::draft(path),
            Self::Text(text) => config::parse(std::path::Path::new("./serve --to"), text),
        }
    }
}

struct Server {
    started: Instant,
    /// The same by the clock, which may be set since.
    began: SystemTime,
    asking: Asking,
    /// Tells everybody that Gatepost stops.
    stop: watch::Sender<bool>,
    /// Looks at the back ends of the configuration in force.
    looking: Mutex<Looking>,
    source: Source,
    entrance: Arc<Entrance>,
    shared: Arc<Shared>,
    lasting: Lasting,
    /// Back ends whose sessions are being ended, and who does that.
    emptying: Mutex<HashMap<String, AbortHandle>>,
    live: Live,
    reporting: Reporting,
    /// Certificates' files as they were when they were last read, or could not be.
    watched: Mutex<HashMap<PathBuf, Option<Stamp>>>,
    /// When those that could not be used are looked at again.
    renew_at: Mutex<Option<Instant>>,
    /// Few look at all sessions at a time.
    looks: Semaphore,
    /// The number of this process, those before it that still have sessions, and where its program is.
    generation: u32,
    elders: Mutex<Vec<Elder>>,
    binary: Option<PathBuf>,
}

/// Runs Gatepost until it is told to stop.
pub(crate) fn run(source: Source) -> Result<(), Problems> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .thread_name("control-blocking")
        .build()
        .map_err(|error| cannot_start(&error))?;
    let result = runtime.block_on(serve(source));
    // Directories may still be busy; nobody waits for them any more.
    runtime.shutdown_background();
    result
}

/// The signals that Gatepost follows.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    fn watch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }
}

async fn serve(source: Source) -> Result<(), Problems> {
    // First of all: one that came before it was watched for would end the program.
    let mut signals = Signals::watch().map_err(|error| cannot_start(&error))?;
    // Before a new program stands in its place.
    let binary = std::env::current_exe().ok();
    let mut given = Given::default();
    let inheritance = Inheritance::take(&mut given).map_err(|error| Problems::one(Problem::of("gatepost", error)))?;
    given.adopt().map_err(|error| {
        let text = format!("a socket that it was given can't be used: {error}");
        Problems::one(Problem::of("gatepost", text))
    })?;
    let prepared = Prepared::of(source, inheritance.as_ref(), given)?;
    let Begun { server, mut listening, mut asked } = prepared.begin(binary).await?;
    server.be_ready(&mut listening, inheritance);
    let over = server.control(&mut listening, &mut signals, &mut asked).await;
    server.end(over, listening, asked, &mut signals).await;
    Ok(())
}

fn cannot_start(error: &io::Error) -> Problems {
    Problems::one(Problem::of("gatepost", format!("can't start: {error}")))
}

impl Server {
    /// Follows signals and commands until one says stop.
    async fn control(
        self: &Arc<Self>,
        listening: &mut Listening,
        signals: &mut Signals,
        asked: &mut mpsc::Receiver<Asked>,
    ) -> Over {
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        // The first look came with the configuration.
        let mut days = tokio::time::interval_at(tokio::time::Instant::now() + DAY, DAY);
        loop {
            let over = tokio::select! {
                _ = signals.hangup.recv() => {
                    // What came of it is in the log.
                    let _ = self.alive_while(self.reload(listening)).await;
                    None
                }
                Some(asked) = asked.recv() => self.carry_out(asked, listening).await,
                _ = signals.terminate.recv() => Some(Over::Stop),
                _ = signals.interrupt.recv() => Some(Over::Stop),
                _ = signals.upgrade.recv() => {
                    let (_, over) = self.upgrade(listening).await;
                    over
                }
                _ = seconds.tick() => {
                    self.look_after(listening).await;
                    None
                }
                _ = days.tick() => {
                    self.warn_of_expiry();
                    None
                }
            };
            if let Some(over) = over {
                return over;
            }
        }
    }

    /// Does what was asked for. What changes what is listened on, or ends the loop, is done here and now; all else beside it.
    async fn carry_out(
        self: &Arc<Self>,
        Asked { command, by, reply }: Asked,
        listening: &mut Listening,
    ) -> Option<Over> {
        self.note(&command, &by);
        let (answered, over) = match &command {
            Command::Reload => (commands::reloaded(&self.alive_while(self.reload(listening)).await), None),
            Command::ApplySettings(changes) => {
                let applied = self.alive_while(self.apply_settings(changes, listening)).await;
                (applied.and_then(|applied| answer(&command, [applied])), None)
            }
            Command::UndoSettings { digest } => {
                let undone = self.alive_while(self.undo_settings(digest.as_deref(), listening)).await;
                (undone.and_then(|undone| answer(&command, [undone])), None)
            }
            Command::Upgrade => self.upgrade(listening).await,
            Command::Stop => (self.stopping(), Some(Over::Stop)),
            _ => {
                let server = Arc::clone(self);
                tokio::spawn(async move { reply.send(server.obey(command).await) });
                return None;
            }
        };
        // Whoever asked may have gone.
        let _ = reply.send(answered);
        if over == Some(Over::Stop) {
            // Those before it end with it.
            self.ask_elders(&Command::Stop).await;
        }
        over
    }

    /// What is done each second.
    async fn look_after(self: &Arc<Self>, listening: &mut Listening) {
        self.entrance.workers.look();
        self.tell_manager(News::Alive);
        self.sample();
        self.report_now_and_then();
        self.shared.log.following().expire(Instant::now());
        self.lasting.overrides.forget_moves();
        if self.take_certificate_change() {
            self.alive_while(self.renew(listening)).await;
        }
    }

    /// Does what takes time, and says meanwhile that the control loop is alive.
    async fn alive_while<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = seconds.tick() => self.tell_manager(News::Alive),
            }
        }
    }

    /// Tells whoever manages services; what can't be told is worth a warning.
    fn tell_manager(&self, news: News) {
        let Err(error) = service_manager::tell(news) else { return };
        let what = "the service manager can't be told how things are";
        if let Some(times) = self.shared.log.seldom(what) {
            let record = self.shared.log.record(Level::Warning, "server", what);
            record.with("problem", error.to_string()).with("times", times).write();
        }
    }

    /// Certificates end while Gatepost runs.
    fn warn_of_expiry(&self) {
        for warning in self.entrance.world.load().expiry_warnings() {
            self.shared.log.record(Level::Warning, "server", warning.to_string()).write();
        }
    }
}
