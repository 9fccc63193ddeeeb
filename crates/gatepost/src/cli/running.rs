//! Commands to the running server, over its socket.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Failure;
use super::table::{Table, printable};
use crate::admin::human::{bytes, time};
use crate::admin::{Command, Whose, socket};
use crate::admin::{defaults, human};
use crate::config::{self, Level, Problem};

/// How often `--wait` looks.
const WAIT_STEP: Duration = Duration::from_millis(500);

#[derive(Debug, Args)]
pub(super) struct Output {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
}

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

/// Where the server is asked.
pub(super) struct Server<'a> {
    /// As the command line says.
    pub(super) socket: Option<&'a Path>,
    pub(super) config: &'a Path,
}

/// Asks the running server, and prints what it answers.
pub(super) fn run(command: RunningCommand, server: &Server<'_>) -> Result<(), Failure> {
    let (mut wait, mut as_csv) = (None, false);
    let (command, output) = match command {
        RunningCommand::Status { output } => (Command::Status, output),
        RunningCommand::Metrics { output } => (Command::Metrics { is_open: false }, output),
        RunningCommand::Sessions { whose, output } => (Command::Sessions(whose.whose(None)), output),
        RunningCommand::Kick { id, whose, output } => (Command::Kick(whose.whose(id)), output),
        RunningCommand::Backends { output } => (Command::Backends, output),
        RunningCommand::Drain { backend, over, wait: waits, output } => {
            wait = Some(backend.clone()).filter(|_| waits);
            (Command::Drain { backend, over_seconds: over.as_secs() }, output)
        }
        RunningCommand::Maint { backend, output } => (Command::Maint { backend }, output),
        RunningCommand::Ready { backend, output } => (Command::Ready { backend }, output),
        RunningCommand::Move { user, backend, output } => (Command::Move { user, backend }, output),
        RunningCommand::Bans { command: None, output }
        | RunningCommand::Bans { command: Some(BansCommand::List { output }), .. } => (Command::Bans, output),
        RunningCommand::Bans { command: Some(BansCommand::Add { network, time, output }), .. } => {
            (Command::Ban { network, for_seconds: time.map(|time| time.as_secs()) }, output)
        }
        RunningCommand::Bans { command: Some(BansCommand::Remove { network, output }), .. } => {
            (Command::Unban { network }, output)
        }
        RunningCommand::Trace { user, time, off, output } => {
            (Command::Trace { user, for_seconds: if off { 0 } else { time.as_secs() } }, output)
        }
        RunningCommand::Certificates { output } => (Command::Certificates, output),
        RunningCommand::LogLevel { level, output } => (Command::LogLevel { level }, output),
        RunningCommand::Report { hourly, days, csv, output } => {
            as_csv = csv;
            (Command::Report { days, by_day: !hourly }, output)
        }
        RunningCommand::Cache(CacheCommand::Flush { user, output }) => (Command::FlushCaches { user }, output),
        RunningCommand::Reload { output } => (Command::Reload, output),
        RunningCommand::Upgrade { output } => (Command::Upgrade, output),
        RunningCommand::Stop { output } => (Command::Stop, output),
    };
    let answer = ask(server, &command)?;
    if let Some(backend) = wait {
        wait_until_empty(server, &backend)?;
    }
    if output.json {
        say_line!("{answer}");
        return Ok(());
    }
    if as_csv {
        super::say(crate::admin::csv(&answer["report"]));
        return Ok(());
    }
    let empty = Vec::new();
    print(&command, answer[command.name()].as_array().unwrap_or(&empty));
    Ok(())
}

/// Asks the server at the socket that is given, else where the configuration says that it is.
pub(super) fn ask(server: &Server<'_>, command: &Command) -> Result<Value, Failure> {
    let answer = match server.socket {
        Some(path) => socket::ask(path, command),
        // A file that is being changed may be wrong: where the socket is can be read all the same.
        None => socket::ask(&config::draft(server.config)?.config.admin.socket, command),
    };
    Ok(answer.map_err(|error| Problem::of(command.name(), error))?)
}

/// Waits until a back end has no sessions, and shows on a terminal how many there are.
fn wait_until_empty(server: &Server<'_>, backend: &str) -> Result<(), Failure> {
    let is_terminal = std::io::stderr().is_terminal();
    loop {
        let answer = ask(server, &Command::Backends)?;
        let empty = Vec::new();
        let backends = answer["backends"].as_array().unwrap_or(&empty);
        let Some(found) = backends.iter().find(|found| found["name"] == backend) else {
            return Err(Problem::of("drain", format!("the configuration has no back end {backend:?} any more")).into());
        };
        // Those of a process that has handed over count too.
        let whose = Whose { backend: Some(backend.to_owned()), ..Whose::default() };
        let sessions = ask(server, &Command::Sessions(whose))?;
        let left = sessions["sessions"].as_array().map_or(0, Vec::len);
        if is_terminal {
            eprint!("\r\x1b[K{backend}: {left} sessions left");
            let _ = std::io::stderr().flush();
        }
        if left == 0 || found["state"] != "draining" {
            if is_terminal {
                eprintln!();
            }
            if left > 0 {
                return Err(
                    Problem::of("drain", format!("{backend} is no longer draining: it is {}", found["state"])).into()
                );
            }
            return Ok(());
        }
        std::thread::sleep(WAIT_STEP);
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// How long ago a moment was.
fn age(value: &Value) -> String {
    human::age(value).unwrap_or_else(|| text(value))
}

/// An answer, for people.
fn print(command: &Command, list: &[Value]) {
    let first = list.first().unwrap_or(&Value::Null);
    match command {
        Command::Status => {
            let held = |held: &Value| format!("{} {}", text(&held["service"]), held["sessions"]);
            for (key, value) in first.as_object().into_iter().flatten().filter(|(key, _)| *key != "listening") {
                let value = match (key.as_str(), value.as_array()) {
                    ("up_seconds", _) => time(number(value)),
                    ("by_service", Some(list)) => list.iter().map(held).collect::<Vec<_>>().join(", "),
                    _ => text(value),
                };
                say_line!("{:<12} {value}", key.trim_end_matches("_seconds"));
            }
        }
        Command::Report { .. } => {
            let columns =
                ["FROM", "SERVICE", "CONNECTIONS", "LOG-INS", "FAILED", "PEAK", "UP", "DOWN", "TURNED AWAY, MOSTLY"];
            let mut table = Table::new(&columns);
            for row in list {
                let [from, service, connections, logins, failures, peak] =
                    ["from", "service", "connections", "logins", "failures", "peak_sessions"]
                        .map(|key| text(&row[key]));
                let [up, down] = ["bytes_up", "bytes_down"].map(|key| bytes(human::number(&row[key])));
                let rejected = &row["rejected"][0];
                let why = if rejected.is_null() {
                    String::new()
                } else {
                    format!("{} {}", rejected["count"], text(&rejected["reason"]))
                };
                table.row([from, service, connections, logins, failures, peak, up, down, why]);
            }
            table.print("nothing has happened in that time");
        }
        Command::Metrics { .. } => super::say(first.as_str().unwrap_or_default()),
        Command::Sessions(_) => print_sessions(list, "there are no such sessions"),
        Command::Kick(_) => print_sessions(list, "there were no such sessions"),
        Command::Backends => print_backends(list),
        Command::Drain { .. } | Command::Maint { .. } | Command::Ready { .. } => {
            let [name, state] = ["name", "state"].map(|key| text(&first[key]));
            let (sessions, over) = (number(&first["sessions"]), time(number(&first["over_seconds"])));
            match sessions {
                0 => say_line!("{name} is {state}"),
                1 => say_line!("{name} is {state}: its session ends within {over}"),
                _ => say_line!("{name} is {state}: its {sessions} sessions end within {over}"),
            }
        }
        Command::Move { .. } => {
            let [user, from, to, kept] = ["user", "from", "to", "kept"].map(|key| text(&first[key]));
            say_line!("{user}: from {from} to {to}, kept in {kept}; {} sessions ended", number(&first["ended"]));
        }
        Command::Bans => {
            let mut table = Table::new(&["NETWORK", "BY", "UNTIL"]);
            for ban in list {
                let until = if ban["until"].is_null() { "it is removed".into() } else { text(&ban["until"]) };
                table.row([text(&ban["network"]), text(&ban["by"]), until]);
            }
            table.print("nobody is banned");
        }
        Command::Ban { .. } => {
            let until = first["until"].as_str().map_or_else(|| "it is removed".into(), printable);
            say_line!(
                "{} is banned until {until}; {} sessions ended",
                text(&first["network"]),
                number(&first["ended"])
            );
        }
        Command::Unban { .. } => say_line!("{}: {} bans lifted", text(&first["network"]), number(&first["lifted"])),
        Command::Trace { .. } => {
            let (user, seconds) = (text(&first["user"]), number(&first["seconds"]));
            match seconds {
                0 => say_line!("conversations of {user} are no longer logged"),
                _ => say_line!("the log has the conversations of {user} for {}, from the next on", time(seconds)),
            }
        }
        Command::Certificates => {
            let mut table = Table::new(&["NAMES", "STATE", "UNTIL", "DAYS", "FILE"]);
            for certificate in list {
                table.row(["names", "state", "until", "days_left", "chain"].map(|key| text(&certificate[key])));
            }
            table.print("there are no certificates");
        }
        Command::LogLevel { .. } => say_line!("logging at level {} until the next reload", text(&first["level"])),
        Command::FlushCaches { .. } => say_line!("{} answers are forgotten", first["forgotten"]),
        // Only console and API ask for these.
        Command::Users { .. }
        | Command::SetUser { .. }
        | Command::RemoveUser { .. }
        | Command::Live
        | Command::Explain { .. }
        | Command::Settings
        | Command::CheckSettings(_)
        | Command::ApplySettings(_)
        | Command::UndoSettings { .. } => {
            say_line!("{first}");
        }
        Command::Reload => {
            let warnings = first["warnings"].as_array();
            warnings.into_iter().flatten().for_each(|warning| eprintln!("gatepost: warning: {}", text(warning)));
            say_line!("the configuration was reloaded");
        }
        Command::Upgrade => {
            say_line!("process {} serves, as generation {}; open sessions stay", first["pid"], first["generation"]);
        }
        Command::Stop => say_line!("stopping: sessions have {} seconds to end", first["drain_seconds"]),
    }
}

fn print_sessions(list: &[Value], nothing: &str) {
    let mut table = Table::new(&["ID", "SERVICE", "USER", "BACK END", "CLIENT", "AGE", "IDLE", "UP", "DOWN", "STATE"]);
    for session in list {
        let [id, service, user, backend, client, state] =
            ["id", "service", "user", "backend", "client", "state"].map(|key| text(&session[key]));
        let [up, down] = ["bytes_up", "bytes_down"].map(|key| bytes(human::number(&session[key])));
        let idle = time(number(&session["idle_seconds"]));
        table.row([id, service, user, backend, client, age(&session["since"]), idle, up, down, state]);
    }
    table.print(nothing);
}

fn print_backends(list: &[Value]) {
    let mut table = Table::new(&["BACK END", "STATE", "CONNECTIONS", "SERVICE", "HOST", "STATE", "FAULT"]);
    for backend in list {
        let mut own = [text(&backend["name"]), text(&backend["state"]), text(&backend["connections"])];
        let empty = Vec::new();
        for host in backend["hosts"].as_array().unwrap_or(&empty) {
            let fault = host["fault"].as_str().map_or_else(String::new, printable);
            let [name, state, connections] = std::mem::take(&mut own);
            let [service, host, host_state] = ["service", "host", "state"].map(|key| text(&host[key]));
            table.row([name, state, connections, service, host, host_state, fault]);
        }
    }
    table.print("the configuration has no back ends");
}
