//! Measures any mail proxy from outside: a back end that takes every log-in, and clients that log in,
//! wait, say NOOP, fetch, send mail, or come all at once. Processor time and memory are read from /proc for the whole tree
//! of a process.

mod backend;
mod client;
mod measure;
mod proc;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use client::{Protocol, Target};
use measure::Subject;

/// Load generator and stand-in back end for mail proxies. Every measurement prints one JSON object.
///
/// Start `gatepost-load backend`, point the proxy at it, and run a measurement with the proxy's address
/// and process id. Clients log in as "user" with the password "secret".
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
        /// Where to listen in clear
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: SocketAddr,
        /// Where to listen with implicit TLS
        #[arg(long, value_name = "ADDRESS:PORT", requires_all = ["chain", "key"])]
        tls_listen: Option<SocketAddr>,
        /// The certificate for it, PEM
        #[arg(long, value_name = "FILE")]
        chain: Option<PathBuf>,
        /// Its key, PEM
        #[arg(long, value_name = "FILE")]
        key: Option<PathBuf>,
        /// Where to serve POP3 in clear
        #[arg(long, value_name = "ADDRESS:PORT")]
        pop3_listen: Option<SocketAddr>,
        /// Where to serve SMTP in clear, with log-ins and without
        #[arg(long, value_name = "ADDRESS:PORT")]
        smtp_listen: Option<SocketAddr>,
    },
    /// Send mail by SMTP in clear, as fast as it is taken
    Deliver {
        #[command(flatten)]
        common: Common,
        /// How many messages
        #[arg(long, default_value_t = 2000)]
        count: u32,
        /// How large they are, in bytes
        #[arg(long, default_value_t = 4096)]
        size: usize,
        /// So many on each connection
        #[arg(long, default_value_t = 1)]
        each: u32,
        /// On so many connections at a time
        #[arg(long, default_value_t = 8)]
        concurrency: u32,
        /// After so many seconds no further one is sent
        #[arg(long, default_value_t = 60)]
        seconds: u64,
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
        /// After so many seconds no further one is begun
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Resume TLS sessions
        #[arg(long)]
        resume: bool,
    },
    /// Hold idle sessions: memory for each, from the slope between two numbers of sessions
    Idle {
        #[command(flatten)]
        common: Common,
        /// The first number
        #[arg(long, default_value_t = 1000)]
        from: u32,
        /// The second number
        #[arg(long, default_value_t = 9000)]
        to_sessions: u32,
        /// Every session first fetches a message of so many bytes
        #[arg(long, default_value_t = 0)]
        fetch: u64,
        /// For how many seconds the cost of all sessions at rest is measured
        #[arg(long, default_value_t = 3)]
        rest: u64,
        /// How many seconds the proxy gets to give memory back when all but the first number have gone
        #[arg(long, default_value_t = 5)]
        settle: u64,
    },
    /// Fetch messages: processor time for each GB
    Relay {
        #[command(flatten)]
        common: Common,
        /// Size of a message, in bytes
        #[arg(long, default_value_t = 1 << 20)]
        size: u64,
        /// How many are fetched
        #[arg(long, default_value_t = 1000)]
        count: u32,
        /// On so many sessions at once
        #[arg(long, default_value_t = 1)]
        sessions: u32,
        /// After so many seconds no further one is begun
        #[arg(long, default_value_t = 10)]
        seconds: u64,
    },
    /// Say NOOP on one session: the round trip's time, and processor time for each
    Noop {
        #[command(flatten)]
        common: Common,
        /// How many
        #[arg(long, default_value_t = 10_000)]
        count: u32,
        /// Sessions beside it that say nothing
        #[arg(long, default_value_t = 0)]
        idle: u32,
    },
    /// Lose all sessions at once and come again at once: the time until everybody is back
    Storm {
        #[command(flatten)]
        common: Common,
        /// How many clients
        #[arg(long, default_value_t = 9000)]
        clients: u32,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// The proxy
    #[arg(long, value_name = "ADDRESS:PORT")]
    to: SocketAddr,
    /// Use implicit TLS, trusting this authority; the proxy's certificate is for "localhost"
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The proxy's process, whose tree is measured
    #[arg(long)]
    pid: u32,
    /// Come from so many addresses of 127.0.0.0/8 in turn: each has some 28,000 ports
    #[arg(long, default_value_t = 1)]
    sources: u8,
    /// Log in as so many users in turn, user0 and so on, in the stead of "user"
    #[arg(long, default_value_t = 0)]
    users: u32,
    /// What is spoken, where log-ins are all that is measured
    #[arg(long, value_enum, default_value = "imap")]
    protocol: Protocol,
}

fn main() -> std::process::ExitCode {
    raise_file_limit();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(Cli::parse().command))) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatepost-load: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> std::io::Result<()> {
    let report = match command {
        Command::Backend { listen, tls_listen, chain, key, pop3_listen, smtp_listen } => {
            let tls = tls_listen.zip(chain).zip(key);
            let tls = tls.map(|((address, chain), key)| backend::TlsListener { address, chain, key });
            return backend::serve(listen, tls, pop3_listen, smtp_listen).await;
        }
        Command::Logins { common, count, concurrency, seconds, resume } => {
            let extent = measure::Extent { count, concurrency, limit: Duration::from_secs(seconds) };
            measure::logins(&common.subject(resume)?, &extent).await?
        }
        Command::Deliver { common, count, size, each, concurrency, seconds } => {
            let extent = measure::Extent { count, concurrency, limit: Duration::from_secs(seconds) };
            measure::deliver(&common.subject(false)?, size, each, &extent).await?
        }
        Command::Idle { common, from, to_sessions, fetch, rest, settle } => {
            let [rest, settle] = [rest, settle].map(Duration::from_secs);
            measure::idle(&common.subject(false)?, from, to_sessions, fetch, rest, settle).await?
        }
        Command::Relay { common, size, count, sessions, seconds } => {
            measure::relay(&common.subject(false)?, size, count, sessions, Duration::from_secs(seconds)).await?
        }
        Command::Noop { common, count, idle } => measure::noop(&common.subject(false)?, count, idle).await?,
        Command::Storm { common, clients } => measure::storm(&common.subject(false)?, clients).await?,
    };
    println!("{report}");
    Ok(())
}

impl Common {
    fn subject(&self, resume: bool) -> std::io::Result<Subject> {
        let target = Target::new(self.to, self.ca.as_deref(), resume, self.sources, self.users, self.protocol)?;
        Ok(Subject { target: Arc::new(target), pid: self.pid })
    }
}

/// Each client is an open file.
fn raise_file_limit() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    // What can't be raised shows soon enough, as an error that says so.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}
