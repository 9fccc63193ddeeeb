//! The command line: what can be asked of Gatepost, and how it answers.
//!
//! Arguments and print-outs belong here; what is asked for is done elsewhere.

/// As `println!`, for an output that may go away.
macro_rules! say_line {
    ($($words:tt)*) => {
        $crate::cli::say(format_args!("{}\n", format_args!($($words)*)))
    };
}

mod administrators;
mod app_password;
mod output;
mod running;
mod server;
mod shown;
mod table;
mod top;
mod user;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory as _, Parser, Subcommand};
use serde_json::json;

use crate::auth::Checker;
use crate::config::{self, Draft, Loaded, Problem, Problems};
use crate::control::{self, Source};
use crate::explain::Explained;
use crate::log::Logger;
use crate::overrides::Overrides;
use crate::world::{Lasting, World};
use output::Output;
use server::Server;

/// Where the configuration is looked for.
const CONFIG_PATHS: [&str; 2] = ["/etc/gatepost/gatepost.toml", "gatepost.toml"];

/// The mail front end: stands between mail clients and an organisation's mail servers.
#[derive(Debug, Parser)]
#[command(name = "gatepost", version, max_term_width = 100)]
struct Cli {
    /// The configuration file [default: /etc/gatepost/gatepost.toml, then ./gatepost.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Where the running server is asked [default: as the configuration says]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server. SIGHUP reloads, SIGTERM stops in good order.
    Serve {
        /// Front this one IMAP server without any file, on 127.0.0.1:1143
        #[arg(long, value_name = "HOST[:PORT]", conflicts_with = "config")]
        to: Option<config::Host>,
    },
    /// Check the configuration and all that it names, without starting
    Check {
        #[command(flatten)]
        output: Output,
    },
    /// Show every step that a user's log-in would take
    Explain {
        /// The user's name, as a client would give it
        user: String,
        #[command(flatten)]
        output: Output,
    },
    /// Show settings
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Keep the users of the embedded directory
    #[command(subcommand)]
    User(user::UserCommand),
    /// Keep those who may use console and API
    #[command(subcommand)]
    Admin(administrators::AdminCommand),
    /// Watch the running server: rates, back ends and the busiest sessions, once a second
    Top,
    #[command(flatten)]
    Running(running::RunningCommand),
    /// Print a shell's completion script
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a folder
    Man {
        /// The folder
        folder: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Every setting there is, with its type and default
    Reference {
        #[command(flatten)]
        output: Output,
    },
    /// The settings in force, as a configuration file with the defaults marked
    Effective {
        #[command(flatten)]
        output: Output,
    },
}

/// Something did not work; what is printed.
pub(crate) enum Failure {
    Problems(Problems),
    /// Everything is said already.
    Silent,
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Problems(problems)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problems(Problems::one(problem))
    }
}

/// Prints to standard output. A reader that went away (`| head`) ends the command quietly; an output
/// that can't be written to is a failure.
pub(crate) fn say(text: impl std::fmt::Display) {
    use std::io::Write as _;
    if let Err(error) = write!(std::io::stdout().lock(), "{text}") {
        let is_gone = error.kind() == std::io::ErrorKind::BrokenPipe;
        if !is_gone {
            eprintln!("gatepost: standard output: {error}");
        }
        std::process::exit(i32::from(!is_gone));
    }
}

/// Does what the command line says.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match carry_out(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Silent) => ExitCode::FAILURE,
        Err(Failure::Problems(problems)) => {
            for problem in problems.into_vec() {
                // In one piece: another process may write to the same log.
                let line = format!("gatepost: {problem}\n");
                let _ = std::io::stderr().write_all(line.as_bytes());
            }
            ExitCode::FAILURE
        }
    }
}

fn carry_out(cli: Cli) -> Result<(), Failure> {
    let path = || cli.config.clone().unwrap_or_else(default_path);
    match cli.command {
        Command::Serve { to: Some(to) } => {
            let text = config::single_backend(&to);
            eprintln!("gatepost: fronting {} on 127.0.0.1:1143, in clear and for this machine alone", to.host);
            Ok(control::run(Source::Text(text))?)
        }
        Command::Serve { to: None } => Ok(control::run(Source::File(path()))?),
        Command::Check { output } => check(&path(), &output),
        Command::Explain { user, output } => explain(&path(), &user, &output),
        Command::Config(ConfigCommand::Reference { output }) => {
            if output.json {
                say_line!("{}", config::reference_json());
            } else {
                say(config::reference());
            }
            Ok(())
        }
        Command::Config(ConfigCommand::Effective { output }) => {
            let effective = config::load(&path())?.effective;
            if output.json {
                say_line!("{}", effective.json());
            } else {
                say(effective);
            }
            Ok(())
        }
        Command::User(command) => user::run(command, &path()),
        Command::Admin(command) => administrators::run(command, &path()),
        Command::Top => top::run(&Server { socket: cli.socket.as_deref(), config: &path() }),
        Command::Running(command) => running::run(command, &Server { socket: cli.socket.as_deref(), config: &path() }),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "gatepost", &mut script);
            say(String::from_utf8_lossy(&script));
            Ok(())
        }
        Command::Man { folder } => {
            let failed = |error| Problem::file(&folder, format!("can't be written to: {error}"));
            std::fs::create_dir_all(&folder).map_err(failed)?;
            Ok(clap_mangen::generate_to(Cli::command(), &folder).map_err(failed)?)
        }
    }
}

fn default_path() -> PathBuf {
    let [system, local] = CONFIG_PATHS.map(Path::new);
    if !system.exists() && local.exists() { local.into() } else { system.into() }
}

/// Prints the steps of a user's log-in; an error where the user could not log in.
fn explain(path: &Path, user: &str, output: &Output) -> Result<(), Failure> {
    let explained = block_on(async {
        let Loaded { config, mut warnings, .. } = config::load(path)?;
        let log = Logger::start(&config::Log::QUIET)?;
        let (overrides, kept) = Overrides::load(&config.state);
        let lasting = Lasting { overrides: Arc::new(overrides), ..Lasting::default() };
        let world = World::build(config, &log, &here(), &lasting, &mut warnings)?;
        if let Err(what) = kept {
            eprintln!("gatepost: warning: {what}");
        }
        Ok::<_, Failure>(crate::explain::explain(&world, user).await)
    })?;
    let Explained { steps, is_possible } = explained;
    if output.json {
        let list: Vec<_> = steps.iter().map(|(step, text)| json!({ "step": step, "text": text })).collect();
        say_line!("{}", json!({ "explain": list, "user": user, "possible": is_possible }));
    } else {
        steps.iter().for_each(|(step, text)| say_line!("{step:<10} {text}"));
    }
    if is_possible { Ok(()) } else { Err(Failure::Silent) }
}

/// Reads the file and opens everything in it, but listens nowhere.
fn check(path: &Path, output: &Output) -> Result<(), Failure> {
    let mut warnings = Vec::new();
    let result = in_runtime(|| {
        let Draft { config, warnings: found, mut problems, .. } = config::draft(path)?;
        warnings.extend(found);
        problems.extend(Logger::check(&config.log).err().map(Problems::into_vec).unwrap_or_default());
        let log = Logger::start(&config::Log::QUIET)?;
        if let Err(found) = World::build(config, &log, &here(), &Lasting::default(), &mut warnings) {
            problems.append(&mut found.into_vec());
        }
        Problems::check(problems, ())
    });
    let problems = result.err().map(Problems::into_vec).unwrap_or_default();
    let texts = |list: &[Problem]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    if output.json {
        say_line!(
            "{}",
            json!({ "check": { "ok": problems.is_empty(), "problems": texts(&problems), "warnings": texts(&warnings) } })
        );
    } else {
        texts(&problems).iter().for_each(|problem| eprintln!("gatepost: {problem}"));
        texts(&warnings).iter().for_each(|warning| eprintln!("gatepost: warning: {warning}"));
        if problems.is_empty() {
            say_line!("{}: the configuration is sound", path.display());
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(Failure::Silent) }
}

/// Checks passwords on the runtime that a command has.
fn here() -> Checker {
    Checker::new(tokio::runtime::Handle::current())
}

/// Runs `work` where directories can be opened.
fn in_runtime<T>(work: impl FnOnce() -> T) -> T {
    block_on(async { work() })
}

/// Runs `work` to its end on a runtime of its own.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs nothing but memory and a file descriptor").block_on(work)
}
