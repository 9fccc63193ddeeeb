//! Measures any IMAP proxy from outside: a back end that takes every log-in, and clients that log in,
//! wait, or fetch. Processor time and memory are read from /proc for the whole tree of a process.

mod backend;
mod client;
mod proc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use serde_json::json;

use client::{Session, Target};

/// Load generator and stand-in back end for IMAP proxies. Every measurement prints one JSON object.
#[derive(Debug, Parser)]
#[command(name = "gatepost-load", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve as a back end: any log-in succeeds; `FETCH n BODY[]` gives n bytes
    Backend {
        /// Where to listen
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
    },
    /// Log in and out again, as fast as the proxy allows
    Logins {
        #[command(flatten)]
        common: Common,
        /// How many log-ins
        #[arg(long, default_value_t = 2000)]
        count: u32,
        /// How many at a time
        #[arg(long, default_value_t = 8)]
        concurrency: u32,
    },
    /// Hold idle sessions: memory for each, from the slope between two numbers of sessions
    Idle {
        #[command(flatten)]
        common: Common,
        /// The first number
        #[arg(long, default_value_t = 500)]
        from: u32,
        /// The second number
        #[arg(long, default_value_t = 3000)]
        to_sessions: u32,
    },
    /// Fetch large messages on one session: processor time for each GB
    Relay {
        #[command(flatten)]
        common: Common,
        /// Size of a message, in bytes
        #[arg(long, default_value_t = 1 << 20)]
        size: u64,
        /// How many are fetched
        #[arg(long, default_value_t = 1000)]
        count: u32,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The proxy
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Use implicit TLS, trusting this authority
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The proxy's process, whose tree is measured
    #[arg(long)]
    pid: u32,
}

fn main() -> std::process::ExitCode {
    let result = match Cli::parse().command {
        Command::Backend { listen } => backend::serve(listen),
        Command::Logins { common, count, concurrency } => logins(&common, count, concurrency),
        Command::Idle { common, from, to_sessions } => idle(&common, from, to_sessions),
        Command::Relay { common, size, count } => relay(&common, size, count),
    };
    match result {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatepost-load: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

impl Common {
    fn target(&self) -> std::io::Result<Target> {
        Target::new(self.to, self.ca.as_deref())
    }
}

fn logins(common: &Common, count: u32, concurrency: u32) -> std::io::Result<()> {
    let target = common.target()?;
    let (cpu, started) = (proc::cpu(common.pid)?, Instant::now());
    let each = count / concurrency.max(1);
    let failures: u32 = std::thread::scope(|scope| {
        let work = || (0..each).filter(|_| Session::open(&target).and_then(Session::log_out).is_err()).count() as u32;
        let threads: Vec<_> = (0..concurrency).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or(each)).sum()
    });
    let (took, spent) = (started.elapsed(), proc::cpu(common.pid)?.saturating_sub(cpu));
    let done = f64::from(each * concurrency - failures);
    let report = json!({
        "logins": done,
        "failures": failures,
        "per_second": done / took.as_secs_f64(),
        "per_cpu_second": done / spent.as_secs_f64().max(0.01),
    });
    println!("{report}");
    Ok(())
}

fn idle(common: &Common, from: u32, to: u32) -> std::io::Result<()> {
    let target = common.target()?;
    let mut sessions = Vec::new();
    let mut pss = Vec::new();
    for count in [from, to] {
        while sessions.len() < count as usize {
            sessions.push(Session::open(&target)?);
        }
        std::thread::sleep(Duration::from_secs(1));
        pss.push(proc::pss_kib(common.pid)?);
    }
    let grown = pss[1].saturating_sub(pss[0]);
    println!(
        "{}",
        json!({ "sessions": to, "kib_per_session": number(grown) / f64::from(to - from), "pss_kib": pss[1] })
    );
    Ok(())
}

fn relay(common: &Common, size: u64, count: u32) -> std::io::Result<()> {
    let target = common.target()?;
    let mut session = Session::open(&target)?;
    let (cpu, started) = (proc::cpu(common.pid)?, Instant::now());
    for _ in 0..count {
        session.fetch(size)?;
    }
    let (took, spent) = (started.elapsed(), proc::cpu(common.pid)?.saturating_sub(cpu));
    let gigabytes = number(size * u64::from(count)) / 1e9;
    println!(
        "{}",
        json!({ "gigabytes": gigabytes, "cpu_seconds_per_gb": spent.as_secs_f64() / gigabytes, "gb_per_second": gigabytes / took.as_secs_f64() })
    );
    Ok(())
}

/// To reckon with; what is measured here is far from where precision ends.
#[allow(clippy::cast_precision_loss, reason = "see above")]
fn number(count: u64) -> f64 {
    count as f64
}
