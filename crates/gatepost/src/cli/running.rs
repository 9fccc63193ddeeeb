//! Commands to the running server, over its socket.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::Failure;
use super::output::Output;
use super::server::Server;
use super::shown;
use crate::admin::answers::Report;
use crate::admin::{Command, Whose, csv, defaults};
use crate::config::Level;

#[derive(Debug, Subcommand)]
pub(super) enum RunningCommand {
    /// Ask the running server how it is doing
    Status {
        #[command(flatten)]
        output: Output,
    },
    /// Print the running server's metrics, as /metrics has them
    Metrics {
        #[command(flatten)]
        output: Output,
    },
    /// List the sessions that are open
    Sessions {
        #[command(flatten)]
        whose: WhoseArgs,
        #[command(flatten)]
        output: Output,
    },
    /// End sessions: one, or all of a user, a back end or a service
    Kick {
        /// The session's id, as `sessions` and the log have it
        #[arg(required_unless_present_any = ["user", "backend", "service"])]
        id: Option<String>,
        #[command(flatten)]
        whose: WhoseArgs,
        #[command(flatten)]
        output: Output,
    },
    /// Ask the running server how its back ends are doing
    Backends {
        #[command(flatten)]
        output: Output,
    },
    /// Take a back end out of service gently: no new log-ins, and sessions there end one by one
    Drain {
        /// The back end
        backend: String,
        /// Time for its sessions to end, between two commands; then they are cut
        #[arg(long, value_name = "TIME", default_value_t = defaults::DRAIN.into())]
        over: humantime::Duration,
        /// Wait until it has no sessions
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Take a back end out of service at once: no log-ins, no looks, and its sessions end within seconds
    Maint {
        /// The back end
        backend: String,
        #[command(flatten)]
        output: Output,
    },
    /// Take a back end into service again after `drain` or `maint`
    Ready {
        /// The back end
        backend: String,
        #[command(flatten)]
        output: Output,
    },
    /// Have a user come to another back end from now on; move the mail first
    Move {
        /// The user
        user: String,
        /// The back end
        backend: String,
        #[command(flatten)]
        output: Output,
    },
    /// List, add and remove bans
    #[command(args_conflicts_with_subcommands = true)]
    Bans {
        #[command(subcommand)]
        command: Option<BansCommand>,
        #[command(flatten)]
        output: Output,
    },
    /// Log a user's conversations before the log-in, secrets struck out, whatever the log's level
    Trace {
        /// The user
        user: String,
        /// For how long
        #[arg(long = "for", value_name = "TIME", default_value_t = defaults::TRACE.into())]
        time: humantime::Duration,
        /// No more
        #[arg(long)]
        off: bool,
        #[command(flatten)]
        output: Output,
    },
    /// List the certificates in use, and until when they are good
    Certificates {
        #[command(flatten)]
        output: Output,
    },
    /// Log records of this level and heavier ones in every place, until the next reload
    LogLevel {
        /// critical, error, warning, info or protocol
        level: Level,
        #[command(flatten)]
        output: Output,
    },
    /// What services did: log-ins, failures, peaks, traffic, for ninety days
    Report {
        /// By the hour instead of by the day
        #[arg(long)]
        hourly: bool,
        /// How many days back
        #[arg(long, default_value_t = defaults::REPORT_DAYS, value_parser = clap::value_parser!(u64).range(1..=defaults::REPORT_DAYS_MAX))]
        days: u64,
        /// Answer in CSV
        #[arg(long, conflicts_with = "json")]
        csv: bool,
        #[command(flatten)]
        output: Output,
    },
    /// Have the running server forget what it remembers
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Have the running server take a changed configuration into use, or say what is wrong with it
    Reload {
        #[command(flatten)]
        output: Output,
    },
    /// Have the running server hand over to a new binary, which stands where this one did; open sessions stay
    Upgrade {
        #[command(flatten)]
        output: Output,
    },
    /// Have the running server stop in good order
    Stop {
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct WhoseArgs {
    /// Of this user
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// At this back end
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// Of this service
    #[arg(long, value_name = "NAME")]
    service: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(super) enum CacheCommand {
    /// Forget places, right passwords, tokens and host names: directories and name servers are asked anew
    Flush {
        /// Of this user alone (tokens are all forgotten)
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum BansCommand {
    /// List all bans, those for guessing too
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Turn away a network, and end its sessions
    Add {
        /// An address, a network such as 192.0.2.0/24, or a range
        network: String,
        /// For how long [default: until it is removed]
        #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
        time: Option<Duration>,
        #[command(flatten)]
        output: Output,
    },
    /// Let a network in again, and forgive addresses in it their failed log-ins
    Remove {
        /// As it was added, or one that a banned address is in
        network: String,
        #[command(flatten)]
        output: Output,
    },
}

impl WhoseArgs {
    fn whose(self, id: Option<String>) -> Whose {
        let Self { user, backend, service } = self;
        Whose { id, user, backend, service, network: None }
    }
}

/// Asks the running server, and prints what it answers.
pub(super) fn run(command: RunningCommand, server: &Server<'_>) -> Result<(), Failure> {
    match command {
        RunningCommand::Status { output } => server.show(&Command::Status, &output, shown::status),
        RunningCommand::Metrics { output } => {
            server.show(&Command::Metrics { is_open: false }, &output, shown::metrics)
        }
        RunningCommand::Sessions { whose, output } => {
            let show = |list| shown::sessions(list, "there are no such sessions");
            server.show(&Command::Sessions(whose.whose(None)), &output, show)
        }
        RunningCommand::Kick { id, whose, output } => {
            let show = |list| shown::sessions(list, "there were no such sessions");
            server.show(&Command::Kick(whose.whose(id)), &output, show)
        }
        RunningCommand::Backends { output } => server.show(&Command::Backends, &output, shown::backends),
        RunningCommand::Drain { backend, over, wait, output } => {
            let command = Command::Drain { backend: backend.clone(), over_seconds: over.as_secs() };
            let answer = server.ask(&command)?;
            if wait {
                server.wait_until_empty(&backend)?;
            }
            output.print(&command, answer, shown::service)
        }
        RunningCommand::Maint { backend, output } => server.show(&Command::Maint { backend }, &output, shown::service),
        RunningCommand::Ready { backend, output } => server.show(&Command::Ready { backend }, &output, shown::service),
        RunningCommand::Move { user, backend, output } => {
            server.show(&Command::Move { user, backend }, &output, shown::moved)
        }
        RunningCommand::Bans { command: None, output }
        | RunningCommand::Bans { command: Some(BansCommand::List { output }), .. } => {
            server.show(&Command::Bans, &output, shown::bans)
        }
        RunningCommand::Bans { command: Some(BansCommand::Add { network, time, output }), .. } => {
            let command = Command::Ban { network, for_seconds: time.map(|time| time.as_secs()) };
            server.show(&command, &output, shown::banned)
        }
        RunningCommand::Bans { command: Some(BansCommand::Remove { network, output }), .. } => {
            server.show(&Command::Unban { network }, &output, shown::unbanned)
        }
        RunningCommand::Trace { user, time, off, output } => {
            let for_seconds = if off { 0 } else { time.as_secs() };
            server.show(&Command::Trace { user, for_seconds }, &output, shown::traced)
        }
        RunningCommand::Certificates { output } => server.show(&Command::Certificates, &output, shown::certificates),
        RunningCommand::LogLevel { level, output } => {
            server.show(&Command::LogLevel { level }, &output, shown::log_level)
        }
        RunningCommand::Report { hourly, days, csv: as_csv, output } => {
            let show = |rows: Vec<Report>| if as_csv { super::say(csv(&rows)) } else { shown::reports(rows) };
            server.show(&Command::Report { days, by_day: !hourly }, &output, show)
        }
        RunningCommand::Cache(CacheCommand::Flush { user, output }) => {
            server.show(&Command::FlushCaches { user }, &output, shown::flushed)
        }
        RunningCommand::Reload { output } => server.show(&Command::Reload, &output, shown::reloaded),
        RunningCommand::Upgrade { output } => server.show(&Command::Upgrade, &output, shown::upgraded),
        RunningCommand::Stop { output } => server.show(&Command::Stop, &output, shown::stopping),
    }
}
