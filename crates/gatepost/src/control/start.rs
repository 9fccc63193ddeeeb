//! A start: all that clients need is read, opened and had before one of them is served, so that all that is wrong is said at
//! once. The ways in for administrators come last.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use arc_swap::ArcSwap;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::sync::{Semaphore, mpsc, watch};

use super::listening::{Listening, bind};
use super::live::Live;
use super::reporting::Reporting;
use super::service_manager::News;
use super::upgrade::{self, Inheritance};
use super::{Server, Source};
use crate::acceptor::Entrance;
use crate::admin::Asked;
use crate::admin::accounts::Accounts;
use crate::admin::http::{App, Http};
use crate::admin::socket::Socket;
use crate::auth::scram::Decoys;
use crate::auth::{Checker, RefusalPace};
use crate::config::{self, Config, Draft, Level, Problem, Problems, Threads};
use crate::ledger::Ledger;
use crate::log::Logger;
use crate::net::handover::{Given, Legacy};
use crate::overrides::Overrides;
use crate::service::Shared;
use crate::service::mail::Rates;
use crate::worker::Workers;
use crate::world::{HttpService, Lasting, World};

/// File descriptors that are not sessions': the log, directories, runtimes, name look-ups.
const RESERVED_FILES: usize = 32;
/// Those of each worker's runtime.
const FILES_PER_WORKER: usize = 6;
/// Those of each session: the client's and the back end's.
const FILES_PER_SESSION: usize = 2;
/// Commands that wait for the one before them.
const COMMANDS_MAX: usize = 64;
/// Commands that look at all sessions at a time.
const LOOKS_MAX: usize = 2;

/// What is needed to serve.
pub(super) struct Prepared {
    source: Source,
    world: World,
    log: Logger,
    lasting: Lasting,
    checker: Checker,
    legacy: Legacy,
    room: Room,
    given: Given,
    sockets: Vec<(SocketAddr, TcpListener)>,
}

/// A Gatepost that serves.
pub(super) struct Begun {
    pub(super) server: Arc<Server>,
    pub(super) listening: Listening,
    /// What it is asked for.
    pub(super) asked: mpsc::Receiver<Asked>,
}

impl Prepared {
    /// Reads and opens all that the configuration names, but for the ways in for administrators; every problem is found.
    pub(super) fn of(source: Source, inheritance: Option<&Inheritance>, mut given: Given) -> Result<Self, Problems> {
        let Draft { config, mut warnings, mut problems, .. } = source.draft()?;
        let legacy = inheritance.map_or_else(
            || {
                let elders = if source.has_place() { upgrade::survivors(&config) } else { Vec::new() };
                Legacy {
                    generation: elders.last().map_or(1, |elder| elder.generation + 1),
                    elders,
                    ..Legacy::default()
                }
            },
            |inheritance| inheritance.legacy.clone(),
        );
        let log = Logger::start(&config.log).or_else(|found| {
            problems.append(&mut found.into_vec());
            Logger::start(&config::Log::QUIET)
        })?;
        let (overrides, kept) =
            if source.has_place() { Overrides::load(&config.state) } else { (Overrides::default(), Ok(())) };
        let lasting = Lasting { overrides: Arc::new(overrides), ..Lasting::default() };
        let checker = Checker::new(tokio::runtime::Handle::current());
        let built = World::build(config.clone(), &log, &checker, &lasting, &mut warnings)
            .map_err(|found| problems.append(&mut found.into_vec()));
        let listeners: Vec<_> = config.listeners().collect();
        let sockets = bind(&listeners, &mut given, &mut problems);
        let room = room(config.threads, listeners.len()).map_err(|problem| problems.push(problem));
        Problems::check(problems, ())?;
        let (Ok(world), Ok(room)) = (built, room) else {
            return Err(Problems::one(Problem::of("gatepost", "can't start")));
        };
        for warning in &warnings {
            log.record(Level::Warning, "server", warning.to_string()).write();
        }
        if let Err(what) = kept {
            let message =
                "what administrators have decided is not in force: mend the file or remove it, then start again";
            log.record(Level::Error, "server", message).with("problem", what).write();
        }
        Ok(Self { source, world, log, lasting, checker, legacy, room, given, sockets })
    }

    /// Serves. `binary`: where the program is, for one that takes over.
    pub(super) async fn begin(self, binary: Option<PathBuf>) -> Result<Begun, Problems> {
        let Self { source, world, log, lasting, checker, legacy, room, mut given, sockets } = self;
        let Legacy { generation, elders, .. } = legacy;
        let (stop, stopping) = watch::channel(false);
        let permits = Arc::new(Semaphore::new(room.sessions));
        let shared = Arc::new(Shared {
            log: log.clone(),
            ledger: Arc::new(Ledger::default()),
            defence: Arc::default(),
            overrides: Arc::clone(&lasting.overrides),
            checker,
            pace: RefusalPace::default(),
            decoys: Decoys::new(&world.config.state),
            rates: Rates::default(),
            memory: Arc::default(),
            room: Arc::clone(&permits),
            control: tokio::runtime::Handle::current(),
            stopping,
        });
        let workers = Workers::start(room.threads, Arc::clone(&shared)).map_err(|error| super::cannot_start(&error))?;
        let entrance = Arc::new(Entrance { world: ArcSwap::from_pointee(world), workers, permits, log: log.clone() });
        let looking = Mutex::new(entrance.world.load().look(&log));
        let (asking, asked) = mpsc::channel(COMMANDS_MAX);
        let server = Arc::new(Server {
            started: Instant::now(),
            began: SystemTime::now(),
            asking,
            stop,
            looking,
            source,
            entrance,
            shared,
            lasting,
            emptying: Mutex::default(),
            live: Live::default(),
            reporting: Reporting::default(),
            watched: Mutex::default(),
            renew_at: Mutex::default(),
            looks: Semaphore::new(LOOKS_MAX),
            generation,
            elders: Mutex::new(elders),
            binary,
        });
        let config = &server.entrance.world.load().config;
        let (socket, http) = (server.open_socket(config)?, server.open_http(&mut given).await?);
        let listening = Listening::new(&server.entrance, given, sockets, socket, http);
        log.record(Level::Info, "server", format!("Gatepost {} is ready", env!("CARGO_PKG_VERSION")))
            .with("name", config.name.as_str())
            .with("listeners", listening.listeners() as u64)
            .with("sessions_max", room.sessions as u64)
            .write();
        Ok(Begun { server, listening, asked })
    }
}

impl Server {
    /// Tells whoever waits for it that Gatepost serves.
    pub(super) fn be_ready(&self, listening: &mut Listening, inheritance: Option<Inheritance>) {
        // The one before says who Gatepost is now: of us, the manager knows nothing yet.
        if let Some(inheritance) = inheritance {
            return inheritance.begin(&mut listening.given);
        }
        let http = self.entrance.world.load().http().addresses.clone();
        for address in listening.given.managed() {
            if !listening.has(&address) && !http.contains(&address) {
                let what = "the service manager listens where no listener is: whoever connects there waits";
                let record = self.shared.log.record(Level::Warning, "server", what);
                record.with("address", address.to_string()).write();
            }
        }
        self.tell_manager(News::Ready);
    }

    /// Listens where the command line asks. A default that can't be had is worth a warning.
    pub(super) fn open_socket(&self, config: &Config) -> Result<Option<Socket>, Problems> {
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
    async fn open_http(&self, given: &mut Given) -> Result<Http, Problems> {
        let world = self.entrance.world.load_full();
        let accounts = Arc::new(Accounts::of(&world.config.state));
        let Shared { checker, log, stopping, .. } = &*self.shared;
        let (asking, http) = (self.asking.clone(), Arc::clone(world.http()));
        let app = App::new(asking, accounts, checker.clone(), log.clone(), stopping.clone(), http);
        let mut http = Http::new(app);
        let entered = http.listen(world.http(), given).await;
        entered.map_err(|(address, error)| Problems::one(http_problem(address, &error)))?;
        self.invite(http.app(), world.http());
        Ok(http)
    }

    /// Says where console and API are, and how the first administrator is made.
    pub(super) fn invite(&self, app: &App, http: &HttpService) {
        let Some(address) = http.addresses.first() else { return };
        let log = &self.shared.log;
        log.keep_recent();
        let scheme = if http.tls_at(address).is_some() { "https" } else { "http" };
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
}

/// What the limit on open files allows.
pub(super) struct Room {
    pub(super) sessions: usize,
    /// Threads at most: a runtime needs files of its own.
    pub(super) threads: Threads,
}

/// Sessions are counted before a connection is accepted, so that a flood waits in the kernel's backlog
/// instead of failing half-way.
pub(super) fn room(threads: Threads, listeners: usize) -> Result<Room, Problem> {
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

/// An address for console and API that can't be had.
pub(super) fn http_problem(address: SocketAddr, error: &io::Error) -> Problem {
    Problem::of("admin.listen", format!("{address} can't be listened on: {error}"))
}
