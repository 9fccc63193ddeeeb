//! A new binary takes over while the old one serves the sessions that it has.
//!
//! The old process starts the new one, hands it the listening sockets, and when that one says that it serves, accepts no
//! more. It stays until its last session has ended, and can be asked and told things through the new one meanwhile.

use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Program};
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::{UnixListener, UnixStream as UnixSocket};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::listening::Listening;
use super::service_manager::News;
use super::{Server, Signals, Source};
use crate::admin::http::Http;
use crate::admin::{Answer, Asked, Command, answer, answers, socket};
use crate::config::{Config, Level};
use crate::log::Logger;
use crate::net::handover::{self, Elder, Given, Legacy};

/// Where a process that is to take over is told to ask.
const VARIABLE: &str = "GATEPOST_TAKE_OVER";
/// How long the new process may take to come forward, and then to serve.
const START_TIME: Duration = Duration::from_secs(30);
const READY_TIME: Duration = Duration::from_mins(2);
/// How long one that does not serve after all may take to say why, and how often it is looked whether it has ended.
const LAST_WORDS_TIME: Duration = Duration::from_secs(1);
const LAST_WORDS_STEP: Duration = Duration::from_millis(10);
/// How long a process before this one may take to answer.
const ELDER_PATIENCE: Duration = Duration::from_secs(5);

/// What this process was given by the one before it.
pub(super) struct Inheritance {
    stream: UnixStream,
    pub(super) legacy: Legacy,
}

impl Inheritance {
    /// Takes over from the process that started this one; `None`: nobody did.
    pub(super) fn take(given: &mut Given) -> Result<Option<Self>, String> {
        let Some(path) = std::env::var_os(VARIABLE) else { return Ok(None) };
        let failed =
            |error: io::Error| format!("{}: nothing can be taken over: {error}", PathBuf::from(&path).display());
        let stream = UnixStream::connect(&path).map_err(failed)?;
        let legacy = given.receive(&stream).map_err(failed)?;
        Ok(Some(Self { stream, legacy }))
    }

    /// Tells the process before that this one serves.
    pub(super) fn begin(self, given: &mut Given) {
        // What was handed over and is listened on no more.
        given.close_rest();
        // Without a word, that process goes on, and this one is told to stop by whoever sees two.
        let _ = handover::say_ready(&self.stream);
    }
}

impl Server {
    /// Has a new process take over, and says in the log and to the service manager what came of it.
    pub(super) async fn upgrade(&self, listening: &mut Listening) -> (Answer, Option<Over>) {
        let log = &self.shared.log;
        match self.alive_while(self.hand_over(listening)).await {
            Ok(upgraded) => {
                let answers::Upgraded { pid, generation } = upgraded;
                let record = log.record(Level::Info, "server", "a new process serves");
                record.with("pid", u64::from(pid)).with("generation", u64::from(generation)).write();
                self.tell_manager(News::HandedOver { pid });
                (answer(&Command::Upgrade, [upgraded]), Some(Over::HandedOver))
            }
            Err(error) => {
                let record = log.record(Level::Error, "server", "handing over failed, this process goes on");
                record.with("problem", error.as_str()).write();
                (Err(error), None)
            }
        }
    }

    /// Has a new process take over; its number and name, once it serves.
    async fn hand_over(&self, listening: &mut Listening) -> Result<answers::Upgraded, String> {
        let Source::File(config) = &self.source else {
            return Err("without a configuration file there is nothing to take over by".into());
        };
        let world = self.entrance.world.load_full();
        let state = &world.config.state;
        let failed = |what: &str, error: io::Error| format!("{what}: {error}");
        let binary = self.binary.clone().ok_or("it is not known where this program is")?;
        let sockets = listening.sockets().map_err(|(what, error)| failed(what, error))?;
        let (addresses, mut sockets): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        let own = place_of(&world.config.admin.socket, self.generation);
        let mut elders = self.elders().await;
        elders.push(Elder { generation: self.generation, socket: own.clone() });
        let mut legacy = Legacy { addresses, managed: Vec::new(), generation: self.generation + 1, elders };
        listening.given.add_managed(&mut legacy, &mut sockets).map_err(|error| failed("a socket", error))?;
        // The one that takes over has our place; we are asked at another.
        if let Some(socket) = &mut listening.socket {
            match socket.move_to(&own) {
                // Somebody has removed it: then nobody asks.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(failed("the command line's socket", error));
                }
                _ => {}
            }
        }
        let meeting = state.join("upgrade.sock");
        // What is decided from here on would not be known to the one that takes over.
        self.lasting.overrides.set_closed(true);
        let result = meet(&binary, config, &meeting, legacy, sockets, &self.shared.log).await;
        let _ = std::fs::remove_file(&meeting);
        let Err(why) = result else { return result };
        self.lasting.overrides.set_closed(false);
        let back = listening.socket.as_mut().map(|socket| socket.move_to(&world.config.admin.socket));
        Err(match back {
            Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                format!("{why}; {}", failed("the command line's socket", error))
            }
            _ => why,
        })
    }

    /// Serves what there is until it ends, and nothing new; true: it is told to stop before.
    pub(super) async fn retire(
        self: &Arc<Self>,
        http: Http,
        asked: &mut mpsc::Receiver<Asked>,
        signals: &mut Signals,
    ) -> bool {
        *self.looking.lock().unwrap_or_else(PoisonError::into_inner) = crate::backend::Looking::default();
        // The one that took over asks them itself.
        self.elders.lock().unwrap_or_else(PoisonError::into_inner).clear();
        // Browsers come back by themselves, to the one that took over.
        tokio::spawn(http.finish());
        self.report().await;
        let record = self.shared.log.record(
            Level::Info,
            "server",
            "a new process has taken over: this one stays for its sessions",
        );
        record
            .with("generation", u64::from(self.generation))
            .with("sessions", self.entrance.workers.sessions() as u64)
            .write();
        let mut seconds = tokio::time::interval(Duration::from_secs(1));
        while self.entrance.workers.sessions() > 0 {
            tokio::select! {
                Some(Asked { command, by, reply }) = asked.recv() => {
                    self.note(&command, &by);
                    match command {
                        Command::Stop => {
                            let _ = reply.send(self.stopping());
                            return true;
                        }
                        // Whoever empties a back end here is to stop; the newer one has written it down.
                        Command::Ready { backend } => {
                            self.replace_emptying(&backend, None);
                            let ready = answer(&Command::Ready { backend: backend.clone() }, [self.in_service(&backend)]);
                            let _ = reply.send(ready);
                        }
                        // What it decided would be known to it alone, and undo what the newer one decides.
                        command if command.changes() && !matches!(command, Command::Kick(_)) => {
                            let _ = reply.send(Err("a newer process has taken over: ask that one".into()));
                        }
                        command => {
                            let server = Arc::clone(self);
                            tokio::spawn(async move { reply.send(server.obey(command).await) });
                        }
                    }
                }
                _ = seconds.tick() => {
                    self.entrance.workers.look();
                    self.report_now_and_then();
                }
                _ = signals.terminate.recv() => return true,
                _ = signals.interrupt.recv() => return true,
                // What they ask for is the new process' business.
                _ = signals.hangup.recv() => {}
                _ = signals.upgrade.recv() => {}
            }
        }
        false
    }

    /// Processes before this one that still have sessions.
    pub(super) async fn elders(&self) -> Vec<Elder> {
        let known = || self.elders.lock().unwrap_or_else(PoisonError::into_inner);
        let all = known().clone();
        // Where many wait to be let in, connecting waits too.
        let look = move || all.into_iter().filter(has_gone).map(|elder| elder.generation).collect::<Vec<_>>();
        let gone = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        let mut elders = known();
        elders.retain(|elder| !gone.contains(&elder.generation));
        elders.clone()
    }

    /// What the processes before this one answer to a command, each with its generation.
    pub(super) async fn ask_elders(&self, command: &Command) -> Vec<(u32, Value)> {
        let mut answers = Vec::new();
        for Elder { generation, socket, .. } in self.elders().await {
            let command = command.clone();
            let asking = tokio::task::spawn_blocking(move || socket::ask_within(ELDER_PATIENCE, &socket, &command));
            // One that ends at this moment has nothing to say.
            if let Ok(Ok(answer)) = asking.await {
                answers.push((generation, answer));
            }
        }
        answers
    }

    /// The list of a command with what the processes before this one have to add.
    pub(super) async fn with_elders(&self, command: &Command, answer: crate::admin::Answer) -> crate::admin::Answer {
        let name = command.name();
        let of_elders: Vec<_> = self.ask_elders(command).await.into_iter().map(|(_, answer)| answer).collect();
        let mut answer = match answer {
            // One session is at one of them.
            Err(_) if of_elders.iter().any(|answer| answer[name].as_array().is_some_and(|list| !list.is_empty())) => {
                serde_json::json!({ name: [] })
            }
            answer => answer?,
        };
        if let Some(list) = answer[name].as_array_mut() {
            for elder in of_elders {
                for item in elder[name].as_array().into_iter().flatten() {
                    // Each says itself where it is.
                    list.push(item.clone());
                }
            }
        }
        Ok(answer)
    }
}

/// Where a process of this generation is asked once another has taken over: beside its place before, for a socket can't
/// be moved to another file system.
fn place_of(socket: &Path, generation: u32) -> PathBuf {
    let mut name = socket.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{generation}"));
    socket.with_file_name(name)
}

/// Processes that are still there with their sessions though none took over from the latest: it may have been killed.
/// What those have left that are gone is removed.
pub(super) fn survivors(config: &Config) -> Vec<Elder> {
    let place = &config.admin.socket;
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty());
    let entries = std::fs::read_dir(folder.unwrap_or(Path::new("."))).into_iter().flatten().flatten();
    let elder = |entry: std::fs::DirEntry| {
        let socket = entry.path();
        let generation = socket.extension()?.to_str()?.parse().ok()?;
        if socket.file_name() != place_of(place, generation).file_name() {
            return None;
        }
        let stream = UnixStream::connect(&socket);
        if stream.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(&socket);
        }
        stream.ok()?;
        Some(Elder { generation, socket })
    };
    let mut survivors: Vec<_> = entries.filter_map(elder).collect();
    survivors.sort_by_key(|elder| elder.generation);
    survivors
}

/// The socket of a process that has gone is gone too, or refuses.
fn has_gone(elder: &Elder) -> bool {
    let gone = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
    UnixStream::connect(&elder.socket).is_err_and(|error| gone.contains(&error.kind()))
}

/// Starts the new process and hands it everything; it serves when this returns.
async fn meet(
    binary: &Path,
    config: &Path,
    meeting: &Path,
    legacy: Legacy,
    sockets: Vec<TcpListener>,
    log: &Logger,
) -> Result<answers::Upgraded, String> {
    let _ = std::fs::remove_file(meeting);
    let listener = UnixListener::bind(meeting).map_err(|error| format!("{}: {error}", meeting.display()))?;
    let mut program = Program::new(binary);
    program.arg("serve").arg("--config").arg(config).env(VARIABLE, meeting);
    let mut child = program.spawn().map_err(|error| format!("{}: can't be started: {error}", binary.display()))?;
    let pid = child.id();
    let generation = legacy.generation;
    let exchange = async {
        let coming = come_forward(&listener, &mut child);
        let stream =
            timeout(START_TIME, coming).await.unwrap_or_else(|_| Err("the new process never came forward".into()))?;
        let peer = stream.peer_cred().ok().and_then(|peer| peer.pid());
        if peer != i32::try_from(pid).ok() {
            return Err("somebody else came forward".to_owned());
        }
        let stream = stream.into_std().map_err(|error| error.to_string())?;
        let work = move || {
            stream.set_nonblocking(false)?;
            handover::send(&stream, &legacy, &sockets)?;
            handover::wait_until_ready(&stream, READY_TIME)
        };
        let done = tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())?;
        done.map_err(|error| format!("the new process did not begin to serve ({error}): its log says why"))
    };
    if let Err(error) = exchange.await {
        // It may be about to say why, and to end.
        let end = move || {
            let deadline = Instant::now() + LAST_WORDS_TIME;
            while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
                std::thread::sleep(LAST_WORDS_STEP);
            }
            let _ = child.kill();
            child.wait()
        };
        let _ = tokio::task::spawn_blocking(end).await;
        return Err(error);
    }
    // Should it end before this one, somebody must hear of it.
    let log = log.clone();
    std::thread::spawn(move || {
        let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
        let record = log.record(Level::Warning, "server", "the process that has taken over has ended");
        record.with("pid", u64::from(pid)).with("status", status).write();
    });
    Ok(answers::Upgraded { pid, generation })
}

/// Waits until the new process asks for what there is; one that has ended never will.
async fn come_forward(listener: &UnixListener, child: &mut Child) -> Result<UnixSocket, String> {
    loop {
        if let Ok(accepted) = timeout(LAST_WORDS_STEP, listener.accept()).await {
            return accepted.map(|(stream, _)| stream).map_err(|error| error.to_string());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("the new process ended at once ({status}): its log says why"));
        }
    }
}

/// What becomes of a process whose control loop is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    Stop,
    HandedOver,
}
