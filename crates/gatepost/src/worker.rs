//! Worker threads: each runs its sessions on a runtime of its own, and no session ever moves.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::runtime::RuntimeMetrics;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::{Notify, oneshot};

use crate::config::{Level, Threads};
use crate::service::wheel::{SessionRef, Wheel};
use crate::service::{Arrival, Shared, serve};

/// The worker that also accepts connections, and so is always there.
const FIRST: u32 = 0;
/// Above this part of its time at work, on average over all, a further worker is started …
const BUSY_HIGH: f64 = 0.75;
/// … and below this part, were there one fewer, one is retired.
const BUSY_LOW: f64 = 0.4;
/// How many looks in a row, a second apart, must agree before one is started …
const LOOKS_TO_GROW: u32 = 2;
/// … or retired.
const LOOKS_TO_SHRINK: u32 = 30;

/// All workers.
pub(crate) struct Workers {
    shared: Arc<Shared>,
    state: Mutex<State>,
}

struct State {
    threads: Threads,
    workers: Vec<Worker>,
    next_id: u32,
    /// Looks in a row that spoke for more workers, or for fewer.
    high: u32,
    low: u32,
    looked: Instant,
}

/// One worker as others see it. Its thread ends when all handles to its queue are gone and its last
/// session has ended.
struct Worker {
    id: u32,
    orders: UnboundedSender<Order>,
    load: Arc<Load>,
    is_retiring: bool,
    metrics: RuntimeMetrics,
    /// Its time at work until the last look, and the part of the time before that.
    worked: Duration,
    busy: f64,
}

enum Order {
    Serve(Counted, Box<Arrival>),
    Run(Job),
    /// So many sessions that are quiet are asked to go.
    AskQuiet(usize),
    /// All relays are told to end; other sessions see for themselves that they are called off.
    StopAll,
    Sessions(oneshot::Sender<Vec<SessionRef>>),
}

/// Something else that runs on a worker's thread.
type Job = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A worker's sessions.
#[derive(Default)]
struct Load {
    sessions: AtomicUsize,
    /// There is one again: time must be kept.
    begun: Notify,
}

impl Load {
    fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }
}

/// Counts a session until it is dropped.
struct Counted(Arc<Load>);

impl Counted {
    fn new(load: &Arc<Load>) -> Self {
        if load.sessions.fetch_add(1, Ordering::Relaxed) == 0 {
            load.begun.notify_one();
        }
        Self(Arc::clone(load))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts the smallest number of workers.
    pub(crate) fn start(threads: Threads, shared: Arc<Shared>) -> std::io::Result<Arc<Self>> {
        let state = State { threads, workers: Vec::new(), next_id: 0, high: 0, low: 0, looked: Instant::now() };
        let workers = Arc::new(Self { shared, state: Mutex::new(state) });
        workers.set_bounds(threads)?;
        Ok(workers)
    }

    /// Takes new bounds into use at once.
    pub(crate) fn set_bounds(&self, threads: Threads) -> std::io::Result<()> {
        let mut state = self.lock();
        state.threads = threads;
        while state.active() < threads.min {
            self.grow(&mut state)?;
        }
        while state.active() > threads.max {
            self.shrink(&mut state);
        }
        Ok(())
    }

    /// Hands a connection to the worker with the fewest sessions. Called on the first worker's thread,
    /// whose own sessions begin right here.
    pub(crate) fn dispatch_from_first(&self, arrival: Arrival) {
        let state = self.lock();
        let active = state.workers.iter().filter(|worker| !worker.is_retiring);
        let Some(worker) = active.min_by_key(|worker| worker.load.sessions()) else { return };
        let counted = Counted::new(&worker.load);
        if worker.id == FIRST {
            begin(counted, arrival, &self.shared);
        } else {
            let _ = worker.orders.send(Order::Serve(counted, Box::new(arrival)));
        }
    }

    /// Runs `job` on the first worker's thread, beside its sessions.
    pub(crate) fn run_on_first(&self, job: Job) {
        if let Some(first) = self.lock().workers.iter().find(|worker| worker.id == FIRST) {
            let _ = first.orders.send(Order::Run(job));
        }
    }

    /// Sessions of all workers.
    pub(crate) fn sessions(&self) -> usize {
        self.lock().workers.iter().map(|worker| worker.load.sessions()).sum()
    }

    /// Every session, as it is at this moment.
    pub(crate) async fn all_sessions(&self) -> Vec<SessionRef> {
        let answers: Vec<_> = {
            let state = self.lock();
            let ask = |worker: &Worker| {
                let (reply, answer) = oneshot::channel();
                let _ = worker.orders.send(Order::Sessions(reply));
                answer
            };
            state.workers.iter().map(ask).collect()
        };
        let mut sessions = Vec::new();
        for answer in answers {
            // One that has just ended has nobody.
            sessions.append(&mut answer.await.unwrap_or_default());
        }
        sessions
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().workers.len()
    }

    /// The part of its time that each was at work lately, by its number.
    pub(crate) fn busy_ratios(&self) -> Vec<(u32, f64)> {
        self.lock().workers.iter().map(|worker| (worker.id, worker.busy)).collect()
    }

    /// Asks so many sessions that are quiet to go.
    pub(crate) fn ask_quiet_to_go(&self, count: usize) {
        let state = self.lock();
        let share = count.div_ceil(state.workers.len().max(1));
        for worker in &state.workers {
            let _ = worker.orders.send(Order::AskQuiet(share));
        }
    }

    /// Tells all relays to end.
    pub(crate) fn stop_all(&self) {
        for worker in &self.lock().workers {
            let _ = worker.orders.send(Order::StopAll);
        }
    }

    /// Looks how busy the workers are, and adds or retires one where that has lasted. Called once a second.
    pub(crate) fn look(&self) {
        let mut state = self.lock();
        state.workers.retain(|worker| !worker.is_done());
        let passed = state.looked.elapsed();
        state.looked = Instant::now();
        let active = state.active();
        state.workers.iter_mut().for_each(|worker| worker.look(passed));
        let busy: f64 = state.workers.iter().map(|worker| worker.busy).sum();
        state.high = if busy > BUSY_HIGH * count(active) { state.high + 1 } else { 0 };
        let spare = active > 1 && busy <= BUSY_LOW * count(active - 1);
        state.low = if spare { state.low + 1 } else { 0 };
        if state.high >= LOOKS_TO_GROW && active < state.threads.max {
            state.high = 0;
            if let Err(error) = self.grow(&mut state) {
                self.shared
                    .log
                    .record(Level::Error, "server", "a worker can't be started")
                    .with("error", error.to_string())
                    .write();
            }
        } else if state.low >= LOOKS_TO_SHRINK && active > state.threads.min {
            state.low = 0;
            self.shrink(&mut state);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One that is retiring goes on, else a new one starts.
    fn grow(&self, state: &mut State) -> std::io::Result<()> {
        if let Some(worker) = state.workers.iter_mut().find(|worker| worker.is_retiring) {
            worker.is_retiring = false;
        } else {
            let worker = Worker::start(state.next_id, Arc::clone(&self.shared))?;
            state.next_id += 1;
            state.workers.push(worker);
        }
        self.say(state, "a worker was added");
        Ok(())
    }

    /// The one with the fewest sessions gets no more; it ends with the last of them. The first stays.
    fn shrink(&self, state: &mut State) {
        let may_go = |worker: &&mut Worker| !worker.is_retiring && worker.id != FIRST;
        if let Some(worker) = state.workers.iter_mut().filter(may_go).min_by_key(|worker| worker.load.sessions()) {
            worker.is_retiring = true;
        }
        self.say(state, "a worker retires");
    }

    fn say(&self, state: &State, what: &str) {
        let log = &self.shared.log;
        let names = state.workers.iter().map(|worker| worker.id.to_string()).collect::<Vec<_>>();
        log.record(Level::Info, "server", what)
            .with("workers", state.active() as u64)
            .with("ids", names.join("+"))
            .write();
    }
}

impl State {
    fn active(&self) -> usize {
        self.workers.iter().filter(|worker| !worker.is_retiring).count()
    }
}

impl Worker {
    fn start(id: u32, shared: Arc<Shared>) -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(4).build()?;
        let metrics = runtime.metrics();
        let (orders, incoming) = unbounded_channel();
        let load = Arc::<Load>::default();
        let own = Arc::clone(&load);
        std::thread::Builder::new()
            .name(format!("worker-{id}"))
            .spawn(move || runtime.block_on(work(incoming, own, shared)))?;
        Ok(Self { id, orders, load, is_retiring: false, metrics, worked: Duration::ZERO, busy: 0.0 })
    }

    fn is_done(&self) -> bool {
        self.is_retiring && self.load.sessions() == 0
    }

    /// Sees how much of the time `passed` since the last look it was at work.
    fn look(&mut self, passed: Duration) {
        let total = self.metrics.worker_total_busy_duration(0);
        let worked = total.saturating_sub(self.worked);
        self.busy = (worked.as_secs_f64() / passed.as_secs_f64().max(0.001)).min(1.0);
        self.worked = total;
    }
}

/// So many threads, to reckon with.
fn count(threads: usize) -> f64 {
    f64::from(u32::try_from(threads).unwrap_or(u32::MAX))
}

/// A session begins on this thread.
fn begin(counted: Counted, arrival: Arrival, shared: &Arc<Shared>) {
    drop(tokio::spawn(serve(arrival, Arc::clone(shared), counted)));
}

/// A worker thread's whole life.
async fn work(mut orders: UnboundedReceiver<Order>, load: Arc<Load>, shared: Arc<Shared>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    // Without sessions there is no time to keep, and the thread sleeps.
    let mut keeps_time = false;
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                Some(Order::Serve(counted, arrival)) => begin(counted, *arrival, &shared),
                Some(Order::Run(job)) => drop(tokio::spawn(job)),
                Some(Order::AskQuiet(count)) => Wheel::ask_quiet_to_go(count),
                Some(Order::StopAll) => Wheel::stop_all(),
                Some(Order::Sessions(reply)) => drop(reply.send(Wheel::sessions())),
                None => break,
            },
            () = load.begun.notified(), if !keeps_time => {
                keeps_time = true;
                seconds.reset();
            }
            _ = seconds.tick(), if keeps_time => {
                Wheel::tick();
                keeps_time = load.sessions() > 0;
            }
        }
    }
    while load.sessions() > 0 {
        seconds.tick().await;
        Wheel::tick();
    }
}
