//! The measurements. Each runs clients against a proxy and reads from /proc what its processes used.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::client::{Sender, Session, Target};
use crate::proc;

/// Sessions are opened so many at a time where only their number matters.
const OPENING: usize = 16;
/// What a proxy may do after a change before it is looked at.
const SETTLE_TIME: Duration = Duration::from_secs(1);
/// A client that was refused in a storm comes again after this time, and its share of as much again.
const RETRY_TIME: Duration = Duration::from_millis(250);
const RETRIES_MAX: u32 = 100;
/// Whoever relays fewer messages than this in the whole time stalls.
const STALLED_MESSAGES: u32 = 300;

/// The proxy that is measured: where it is, and its process.
#[derive(Clone)]
pub(crate) struct Subject {
    pub(crate) target: Arc<Target>,
    pub(crate) pid: u32,
}

impl Subject {
    /// Runs `work`, and tells how much time it took, and how much processor time of the proxy's.
    async fn timed<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<(T, f64, f64)> {
        let (cpu, started) = (proc::cpu(self.pid)?, Instant::now());
        let result = work.await?;
        let took = started.elapsed().as_secs_f64();
        let spent = proc::cpu(self.pid)?.saturating_sub(cpu).as_secs_f64();
        Ok((result, took, spent))
    }

    async fn open(&self, count: u32) -> io::Result<Vec<Session>> {
        let gate = Arc::new(Semaphore::new(OPENING));
        let mut opening = JoinSet::new();
        for _ in 0..count {
            let (target, gate) = (Arc::clone(&self.target), Arc::clone(&gate));
            opening.spawn(async move {
                let _permit = gate.acquire().await;
                Session::open(&target).await
            });
        }
        let mut sessions = Vec::new();
        while let Some(session) = opening.join_next().await {
            sessions.push(session??);
        }
        Ok(sessions)
    }
}

/// How much is done: so many in all, or a few more so that all clients have as much to do, so many at a time, and none begun
/// after so long.
pub(crate) struct Extent {
    pub(crate) count: u32,
    pub(crate) concurrency: u32,
    pub(crate) limit: Duration,
}

impl Extent {
    /// What each client is to do, so that all of it is done.
    fn share(&self) -> usize {
        self.count.div_ceil(self.concurrency.max(1)) as usize
    }

    /// Has so many clients at work at a time; how long each of what they did took them.
    async fn work<C>(&self, client: impl Fn() -> C) -> io::Result<Vec<Duration>>
    where
        C: Future<Output = io::Result<Vec<Duration>>> + Send + 'static,
    {
        let mut clients: JoinSet<_> = (0..self.concurrency).map(|_| client()).collect();
        let mut latencies = Vec::new();
        while let Some(more) = clients.join_next().await {
            latencies.extend(more??);
        }
        Ok(latencies)
    }
}

/// Logs in and out again.
pub(crate) async fn logins(subject: &Subject, extent: &Extent) -> io::Result<Value> {
    let (failures, resumed) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (share, limit) = (extent.share(), extent.limit);
    let work = extent.work(|| {
        let (target, failures, resumed) = (Arc::clone(&subject.target), Arc::clone(&failures), Arc::clone(&resumed));
        async move {
            let (mut latencies, begun) = (Vec::new(), Instant::now());
            for _ in 0..share {
                let started = Instant::now();
                if started - begun > limit {
                    break;
                }
                let opened = async {
                    let session = Session::open(&target).await?;
                    let (took, is_resumed) = (started.elapsed(), session.is_resumed);
                    session.log_out().await?;
                    Ok::<_, io::Error>((took, is_resumed))
                };
                match opened.await {
                    Ok((took, is_resumed)) => {
                        latencies.push(took);
                        resumed.fetch_add(u32::from(is_resumed), Ordering::Relaxed);
                    }
                    Err(_) => {
                        failures.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            Ok(latencies)
        }
    });
    let (done, mut said) = rates(subject, work).await?;
    let resumed = resumed.load(Ordering::Relaxed);
    said["failures"] = json!(failures.load(Ordering::Relaxed));
    said["resumed"] = json!(resumed);
    said["resumed_share"] = json!(f64::from(resumed) / done.max(1.0));
    Ok(said)
}

/// Sends messages of `size` bytes, `each` of them on a connection.
pub(crate) async fn deliver(subject: &Subject, size: usize, each: u32, extent: &Extent) -> io::Result<Value> {
    let line = format!("{}\r\n", "x".repeat(70));
    let content = format!("Subject: bench\r\n\r\n{}.\r\n", line.repeat(size.div_ceil(line.len())));
    let content: Arc<str> = content.into();
    let failures = Arc::new(AtomicU32::new(0));
    let (share, limit, each) = (extent.share(), extent.limit, each.max(1));
    let work = extent.work(|| {
        let (target, content, failures) = (Arc::clone(&subject.target), Arc::clone(&content), Arc::clone(&failures));
        async move {
            let (mut latencies, mut tried, begun) = (Vec::new(), 0, Instant::now());
            while tried < share && begun.elapsed() < limit {
                let sent = send_some(&target, &content, each).await;
                // The first that failed, and those that would have followed it.
                failures.fetch_add(each - sent.len() as u32, Ordering::Relaxed);
                latencies.extend(sent);
                tried += each as usize;
            }
            Ok(latencies)
        }
    });
    let (_, mut said) = rates(subject, work).await?;
    said["failures"] = json!(failures.load(Ordering::Relaxed));
    Ok(said)
}

/// Sends so many messages on one connection; how long each took, up to the first that failed.
async fn send_some(target: &Target, content: &str, count: u32) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let sending = async {
        let mut started = Instant::now();
        let mut sender = Sender::open(target).await?;
        for _ in 0..count {
            sender.send(content).await?;
            latencies.push(started.elapsed());
            started = Instant::now();
        }
        sender.leave().await
    };
    // What is not in the list has failed; whoever is not said goodbye to has all of it.
    let _: io::Result<()> = sending.await;
    latencies
}

/// How much is done by `work`, and how much in a second, and what it costs.
async fn rates(subject: &Subject, work: impl Future<Output = io::Result<Vec<Duration>>>) -> io::Result<(f64, Value)> {
    let (latencies, took, spent) = subject.timed(work).await?;
    let done = f64::from(u32::try_from(latencies.len()).unwrap_or(u32::MAX));
    let said = json!({
        "done": done,
        "per_second": done / took,
        "per_cpu_second": done / spent.max(0.01),
        "ms": percentiles(latencies, 1e3),
        "pss_kib": proc::pss_kib(subject.pid)?,
    });
    Ok((done, said))
}

/// Holds idle sessions: what each costs in memory, what all of them cost at rest, and what is left of
/// that when most of them have gone again.
pub(crate) async fn idle(
    subject: &Subject,
    from: u32,
    to: u32,
    fetch: u64,
    rest: Duration,
    settle: Duration,
) -> io::Result<Value> {
    let mut sessions = Vec::new();
    let mut pss = Vec::new();
    let mut buffer = Vec::new();
    for count in [from, to] {
        let mut more = subject.open(count - u32::try_from(sessions.len()).unwrap_or(count)).await?;
        if fetch > 0 {
            for session in &mut more {
                session.fetch(fetch, &mut buffer).await?;
            }
        }
        sessions.append(&mut more);
        tokio::time::sleep(SETTLE_TIME).await;
        pss.push(proc::pss_kib(subject.pid)?);
    }
    let waiting = async {
        tokio::time::sleep(rest).await;
        Ok(())
    };
    let ((), _, at_rest) = subject.timed(waiting).await?;
    sessions.truncate(from as usize);
    tokio::time::sleep(settle).await;
    let after = proc::pss_kib(subject.pid)?;
    Ok(json!({
        "sessions": to,
        "kib_per_session": number(pss[1].saturating_sub(pss[0])) / f64::from(to - from),
        "pss_kib": { "before": pss[0], "most": pss[1], "after": after },
        "after_burst": number(after) / number(pss[0].max(1)),
        "cpu_ms_per_second_at_rest": at_rest * 1e3 / rest.as_secs_f64().max(0.001),
    }))
}

/// Fetches messages of `size` bytes on so many sessions at once, `count` of them in all or as many as `limit` allows.
pub(crate) async fn relay(
    subject: &Subject,
    size: u64,
    count: u32,
    sessions: u32,
    limit: Duration,
) -> io::Result<Value> {
    let mut open = subject.open(sessions).await?;
    let mut buffer = Vec::new();
    for session in &mut open {
        session.fetch(size, &mut buffer).await?;
    }
    let each = count.div_ceil(sessions.max(1));
    let fetch_all = move |mut session: Session, started: Instant| async move {
        let (mut done, mut buffer) = (0_u32, Vec::new());
        while done < each && started.elapsed() < limit {
            session.fetch(size, &mut buffer).await?;
            done += 1;
        }
        Ok::<_, io::Error>(done)
    };
    let work = async {
        let started = Instant::now();
        let mut done = 0;
        // One session needs no task of its own: some proxies move less for a client that reads a moment later.
        if sessions == 1
            && let Some(session) = open.pop()
        {
            done += fetch_all(session, started).await?;
        }
        let mut fetching = JoinSet::new();
        for session in open {
            fetching.spawn(fetch_all(session, started));
        }
        while let Some(fetched) = fetching.join_next().await {
            done += fetched??;
        }
        Ok(done)
    };
    let (done, took, spent) = subject.timed(work).await?;
    let gigabytes = number(size) * f64::from(done) / 1e9;
    // So few messages in all that time mean that something waits; their processor time says nothing.
    let stalls = done < count.min(STALLED_MESSAGES) && took >= limit.as_secs_f64();
    Ok(json!({
        "messages": done,
        "stalls": stalls,
        "cpu_seconds_per_gb": (!stalls).then_some(spent / gigabytes),
        "gb_per_second": gigabytes / took,
    }))
}

/// Says NOOP on one session, with `idle` sessions beside it that say nothing.
pub(crate) async fn noop(subject: &Subject, count: u32, idle: u32) -> io::Result<Value> {
    let beside = subject.open(idle).await?;
    let mut session = Session::open(&subject.target).await?;
    tokio::time::sleep(SETTLE_TIME).await;
    session.noop().await?;
    let work = async {
        let mut latencies = Vec::new();
        for _ in 0..count {
            let started = Instant::now();
            session.noop().await?;
            latencies.push(started.elapsed());
        }
        Ok(latencies)
    };
    let (latencies, _, spent) = subject.timed(work).await?;
    drop(beside);
    Ok(json!({
        "idle": idle,
        "cpu_us": spent * 1e6 / f64::from(count.max(1)),
        "us": percentiles(latencies, 1e6),
    }))
}

/// All of `count` clients lose their sessions at once, and at once come again.
pub(crate) async fn storm(subject: &Subject, count: u32) -> io::Result<Value> {
    let sessions = subject.open(count).await?;
    let gone = Arc::new(Barrier::new(count as usize + 1));
    let (errors, last) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU64::new(0)));
    let started = Instant::now();
    let work = async {
        let mut clients = JoinSet::new();
        for (n, session) in sessions.into_iter().enumerate() {
            let (target, gone) = (Arc::clone(&subject.target), Arc::clone(&gone));
            let (errors, last) = (Arc::clone(&errors), Arc::clone(&last));
            clients.spawn(async move {
                drop(session);
                gone.wait().await;
                for _ in 0..RETRIES_MAX {
                    match Session::open(&target).await {
                        Ok(session) => {
                            let now = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
                            last.fetch_max(now, Ordering::Relaxed);
                            return Some(session);
                        }
                        Err(_) => {
                            errors.fetch_add(1, Ordering::Relaxed);
                            let share = RETRY_TIME * (u32::try_from(n).unwrap_or(0) % 100) / 100;
                            tokio::time::sleep(RETRY_TIME + share).await;
                        }
                    }
                }
                None
            });
        }
        gone.wait().await;
        let mut back = Vec::new();
        while let Some(session) = clients.join_next().await {
            back.extend(session?);
        }
        Ok(back.len())
    };
    let (back, _, spent) = subject.timed(work).await?;
    Ok(json!({
        "clients": count,
        "back": back,
        "errors": errors.load(Ordering::Relaxed),
        "seconds": number(last.load(Ordering::Relaxed)) / 1e6,
        "cpu_seconds": spent,
    }))
}

/// In the unit of which a second has `per_second`.
fn percentiles(mut latencies: Vec<Duration>, per_second: f64) -> Value {
    latencies.sort_unstable();
    let at = |thousandths: usize| {
        let n = (latencies.len() * thousandths / 1000).min(latencies.len().saturating_sub(1));
        latencies.get(n).map_or(0.0, |latency| latency.as_secs_f64() * per_second)
    };
    json!({ "p50": at(500), "p99": at(990), "p999": at(999) })
}

/// To reckon with; what is measured here is far from where precision ends.
#[allow(clippy::cast_precision_loss, reason = "figures stay far below 2^53")]
fn number(count: u64) -> f64 {
    count as f64
}
