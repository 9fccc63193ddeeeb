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
mod upgrade;
mod users;

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;

use listening::{Listening, bind};
use live::Live;
use reporting::Reporting;
use service_manager::News;
use upgrade::{Inheritance, Over};

use crate::acceptor::Entrance;
use crate::admin::accounts::Accounts;
use crate::admin::http::{App, Http};
use crate::admin::socket::Socket;
use crate::admin::{Asked, Asking, Command, answer};
use crate::auth::scram::Decoys;
use crate::auth::{Checker, Pace};
use crate::backend::Looking;
use crate::config::{self, Config, Draft, Level, Problem, Problems, Threads};
use crate::ledger::Ledger;
use crate::log::Logger;
use crate::net::handover::{self, Elder, Legacy};
use crate::overrides::Overrides;
use crate::service::Shared;
use crate::service::mail::Rates;
use crate::traces::Tracer;
use crate::worker::Workers;
use crate::world::{HttpService, Lasting, World};

/// File descriptors that are not sessions': the log, directories, runtimes, name look-ups.
const RESERVED_FILES: usize = 32;
/// Those of each worker's runtime.
const FILES_PER_WORKER: usize = 6;
/// Those of each session: the client's and the back end's.
const FILES_PER_SESSION: usize = 2;
/// How often certificates are looked at.
const DAY: Duration = Duration::from_hours(24);
/// Commands that wait for the one before them.
const COMMANDS_MAX: usize = 64;
/// Commands that look at all sessions at a time.
const LOOKS_MAX: usize = 2;
/// How long the end waits for traces to be sent.
const TRACES_TIME: Duration = Duration::from_secs(1);
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
    asking: Asking,
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
    watched: Mutex<HashMap<PathBuf, Option<reload::Stamp>>>,
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
        .map_err(|error| Problems::one(Problem::of("gatepost", format!("can't start: {error}"))))?;
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
    let cannot_start = |error: io::Error| Problems::one(Problem::of("gatepost", format!("can't start: {error}")));
    // First of all: one that came before it was watched for would end the program.
    let mut signals = Signals::watch().map_err(cannot_start)?;
    // Before a new program stands in its place.
    let binary = std::env::current_exe().ok();
    let inheritance = Inheritance::take().map_err(|error| Problems::one(Problem::of("gatepost", error)))?;
    handover::adopt().map_err(|error| {
        let text = format!("a socket that it was given can't be used: {error}");
        Problems::one(Problem::of("gatepost", text))
    })?;
    let Draft { config, mut warnings, mut problems, .. } = source.draft()?;
    let legacy = inheritance.as_ref().map_or_else(
        || {
            let elders = if source.has_place() { upgrade::survivors(&config) } else { Vec::new() };
            Legacy { generation: elders.last().map_or(1, |elder| elder.generation + 1), elders, ..Legacy::default() }
        },
        |inheritance| inheritance.legacy.clone(),
    );
    let log = Logger::start(&config.log).or_else(|found| {
        problems.append(&mut found.into_vec());
        Logger::start(&config::Log { level: Level::Critical, rules: Vec::new() })
    })?;
    let (overrides, kept) =
        if source.has_place() { Overrides::load(&config.state) } else { (Overrides::default(), Ok(())) };
    let lasting = Lasting { overrides: Arc::new(overrides), ..Lasting::default() };
    let checker = Checker::new(tokio::runtime::Handle::current());
    let built = World::build(config.clone(), &log, &checker, &lasting, &mut warnings)
        .map_err(|found| problems.append(&mut found.into_vec()));
    let listeners: Vec<_> = config.listeners().collect();
    let sockets = bind(&listeners, &mut problems);
    let room = room(config.threads, listeners.len()).map_err(|problem| problems.push(problem));
    Problems::check(problems, ())?;
    let (Ok(world), Ok(room)) = (built, room) else {
        return Err(Problems::one(Problem::of("gatepost", "can't start")));
    };

    for warning in &warnings {
        log.record(Level::Warning, "server", warning.to_string()).write();
    }
    if let Err(what) = kept {
        let message = "what administrators have decided is not in force: mend the file or remove it, then start again";
        log.record(Level::Error, "server", message).with("problem", what).write();
    }
    let (stop, stopping) = watch::channel(false);
    let permits = Arc::new(Semaphore::new(room.sessions));
    let shared = Arc::new(Shared {
        log: log.clone(),
        ledger: Arc::new(Ledger::default()),
        defence: Arc::default(),
        overrides: Arc::clone(&lasting.overrides),
        checker,
        pace: Pace::default(),
        decoys: Decoys::new(&config.state),
        rates: Rates::default(),
        memory: Arc::default(),
        room: Arc::clone(&permits),
        control: tokio::runtime::Handle::current(),
        stopping,
    });
    let workers = Workers::start(room.threads, Arc::clone(&shared)).map_err(cannot_start)?;
    let entrance = Arc::new(Entrance { world: ArcSwap::from_pointee(world), workers, permits, log: log.clone() });
    let looking = Mutex::new(entrance.world.load().look(&log));
    let (asking, mut asked) = mpsc::channel(COMMANDS_MAX);
    let emptying = Mutex::default();
    let server = Arc::new(Server {
        started: Instant::now(),
        asking,
        looking,
        source,
        entrance,
        shared,
        lasting,
        emptying,
        live: Live::default(),
        reporting: Reporting::default(),
        watched: Mutex::default(),
        renew_at: Mutex::default(),
        looks: Semaphore::new(LOOKS_MAX),
        generation: legacy.generation,
        elders: Mutex::new(legacy.elders.clone()),
        binary,
    });
    let (socket, http) = (server.open_socket(&config)?, server.open_http().await?);
    let mut listening = Listening::new(&server.entrance, sockets, socket, http);
    log.record(Level::Info, "server", format!("Gatepost {} is ready", env!("CARGO_PKG_VERSION")))
        .with("name", config.name.as_str())
        .with("listeners", listening.listeners() as u64)
        .with("sessions_max", room.sessions as u64)
        .write();
    match inheritance {
        // The one before says who Gatepost is now: of us, the manager knows nothing yet.
        Some(inheritance) => inheritance.begin(),
        None => {
            let http = server.entrance.world.load().http().addresses.clone();
            for address in handover::managed() {
                if !listening.has(&address) && !http.contains(&address) {
                    let what = "the service manager listens where no listener is: whoever connects there waits";
                    log.record(Level::Warning, "server", what).with("address", address.to_string()).write();
                }
            }
            server.tell_manager(News::Ready);
        }
    }
    let over = server.control(&mut listening, &mut signals, &mut asked).await;
    if over == Over::Stop {
        server.tell_manager(News::Stopping);
        let _ = stop.send(true);
    }
    let (socket, http) = listening.end_listeners().await;
    let (drains, http) = match over {
        Over::HandedOver => (server.retire(http, &mut asked, &mut signals).await, None),
        Over::Stop => (true, Some(http)),
    };
    // Whoever comes after it may have the socket; who still waits for an answer is told that it stops.
    drop(asked);
    if let Some(socket) = socket {
        socket.finish().await;
    }
    if drains {
        let _ = stop.send(true);
        server.drain(&mut signals).await;
    }
    server.report().await;
    // Probes are answered until the end.
    if let Some(http) = http {
        http.finish().await;
    }
    finish_traces(server.entrance.world.load().tracer.as_deref(), &log).await;
    log.record(Level::Info, "server", "Gatepost has stopped").write();
    log.finish();
    Ok(())
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

/// What the limit on open files allows.
struct Room {
    sessions: usize,
    /// Threads at most: a runtime needs files of its own.
    threads: Threads,
}

/// Sessions are counted before a connection is accepted, so that a flood waits in the kernel's backlog
/// instead of failing half-way.
fn room(threads: Threads, listeners: usize) -> Result<Room, Problem> {
    let limit = getrlimit(Resource::Nofile);
    // The hard limit is what the administrator allows; the soft one is for programs that use select(2).
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(1 << 20);
    let spare = files.saturating_sub(RESERVED_FILES + 2 * listeners);
    // Threads beyond the first few are worth at most half of what there is.
    let most = (spare / 2 / FILES_PER_WORKER).max(threads.min);
    let threads = Threads { max: threads.max.min(most), ..threads };
    match spare.saturating_sub(threads.max * FILES_PER_WORKER) / FILES_PER_SESSION {
        0 => Err(Problem::of(
            "gatepost",
            format!("the limit of {files} open files leaves none for sessions: raise it (`ulimit -n`)"),
        )),
        sessions => Ok(Room { sessions: sessions.min(Semaphore::MAX_PERMITS / 2), threads }),
    }
}

impl Server {
    /// Listens where the command line asks. A default that can't be had is worth a warning.
    fn open_socket(&self, config: &Config) -> Result<Option<Socket>, Problems> {
        if !self.source.has_place() {
            return Ok(None);
        }
        let socket = &config.admin.socket;
        match Socket::listen(socket, self.asking.clone()) {
            Ok(socket) => Ok(Some(socket)),
            Err(error) => {
                let problem = Problem::file(socket, format!("can't be listened on for the command line: {error}"));
                if config.admin.is_socket_set() {
                    return Err(Problems::one(problem));
                }
                self.shared.log.record(Level::Warning, "server", problem.to_string()).write();
                Ok(None)
            }
        }
    }

    /// Listens for browsers and scripts, where the configuration says so.
    async fn open_http(&self) -> Result<Http, Problems> {
        let world = self.entrance.world.load_full();
        let accounts = Arc::new(Accounts::of(&world.config.state));
        let Shared { checker, log, stopping, .. } = &*self.shared;
        let (asking, http) = (self.asking.clone(), Arc::clone(world.http()));
        let app = App::new(asking, accounts, checker.clone(), log.clone(), stopping.clone(), http);
        let mut http = Http::new(app);
        http.listen(world.http()).await.map_err(|(address, error)| Problems::one(http_problem(address, &error)))?;
        self.invite(http.app(), world.http());
        Ok(http)
    }

    /// Says where console and API are, and how the first administrator is made.
    fn invite(&self, app: &App, http: &HttpService) {
        let Some(address) = http.addresses.first() else { return };
        let log = &self.shared.log;
        log.keep_recent();
        let scheme = if http.speaks_tls(address) { "https" } else { "http" };
        let record = |message: &str| log.record(Level::Info, "admin", message.to_owned());
        match app.first_token() {
            Ok(None) => record("console and API are ready").with("url", format!("{scheme}://{address}/")).write(),
            Ok(Some(token)) => record("there is no administrator yet: open this once to become the first")
                .with("url", format!("{scheme}://{address}/setup?token={token}"))
                // Whoever sees it there could become the administrator here.
                .for_this_node()
                .write(),
            Err(error) => log.record(Level::Error, "admin", "nobody can log in").with("problem", error).write(),
        }
    }

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
                    let result = self.alive_while(self.hand_over(listening)).await;
                    upgrade::note(self, &result);
                    result.is_ok().then_some(Over::HandedOver)
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
            Command::Upgrade => {
                let result = self.alive_while(self.hand_over(listening)).await;
                upgrade::note(self, &result);
                let over = result.is_ok().then_some(Over::HandedOver);
                (upgrade::answer(result), over)
            }
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
        self.shared.log.following().expire();
        self.lasting.overrides.forget_moves();
        if self.have_certificates_changed() {
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

/// An address for console and API that can't be had.
fn http_problem(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::of("admin.listen", format!("{address} can't be listened on: {error}"))
}
