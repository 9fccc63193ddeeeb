//! `gatepost user`: keeps the embedded directory. Works on the file; no server need run.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use gatepost_wire::{Secret, sasl};
use serde_json::json;

use super::Failure;
use super::app_password::{self, AppPasswordCommand};
use super::output::Output;
use crate::auth::hash;
use crate::config::{self, Config, Loaded, NamedFile, Names, Problem};
use crate::directory::sqlite::{Account, Change, Services, Sqlite};
use crate::directory::{Entry, KeptSecret, Location, passwd_file};

#[derive(Debug, Subcommand)]
pub(super) enum UserCommand {
    /// Add a user
    Add {
        #[command(flatten)]
        settings: Settings,
    },
    /// Change a user: what is left out stays as it is
    Set {
        #[command(flatten)]
        settings: Settings,
        /// Refuse the user's log-ins
        #[arg(long, conflicts_with = "enable")]
        disable: bool,
        /// Take the user's log-ins again
        #[arg(long)]
        enable: bool,
        /// Have the user's log-ins wait, while the mail is being moved (`map.hold_time`)
        #[arg(long, conflicts_with = "release")]
        hold: bool,
        /// Let the user's log-ins go on
        #[arg(long)]
        release: bool,
    },
    /// List all users
    List {
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
    /// Remove a user
    Remove {
        /// The user's name
        name: String,
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
    /// Keep passwords for one program each
    #[command(subcommand)]
    AppPassword(AppPasswordCommand),
    /// Add all users of a file in Dovecot's passwd-file format, with the hashes as they are
    Import {
        /// The file
        file: PathBuf,
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, Args)]
pub(super) struct Settings {
    /// The user's name
    name: String,
    /// The back end that holds the user's mail [default: the map's]
    #[arg(long, value_name = "NAME")]
    backend: Option<String>,
    /// A file whose first line is the password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Keep the password so that SCRAM-SHA-256 can check it too (the other mechanisms still can)
    #[arg(long, requires = "password_file")]
    scram: bool,
    /// The only services the user may use, such as imap,pop3; with "", all
    #[arg(long, value_name = "LIST")]
    services: Option<String>,
    #[command(flatten)]
    directory: DirectoryName,
    #[command(flatten)]
    output: Output,
}

#[derive(Debug, Args)]
pub(super) struct DirectoryName {
    /// The directory [default: the only `SQLite` one]
    #[arg(long, value_name = "NAME")]
    directory: Option<String>,
}

pub(super) fn run(command: UserCommand, path: &Path) -> Result<(), Failure> {
    let Loaded { config, .. } = config::load(path)?;
    super::block_on(carry_out(command, &config))
}

async fn carry_out(command: UserCommand, config: &Config) -> Result<(), Failure> {
    match command {
        UserCommand::Add { settings } => {
            let (name, password, directory) = settings.prepare(config).await?;
            let services = check_services(settings.services.as_deref())?.and_then(Services::listed);
            let entry = Entry {
                place: settings.backend.as_deref().map(Location::from),
                password,
                services,
                ..Entry::default()
            };
            if !directory.add(&name, &entry).await.map_err(fault)? {
                return Err(
                    Problem::of(name, "there is such a user already: change it with `gatepost user set`").into()
                );
            }
            directory.close().await;
            settings.output.done(&name, "added");
        }
        UserCommand::Set { settings, disable, enable, hold, release } => {
            let (name, password, directory) = settings.prepare(config).await?;
            let change = Change {
                password,
                place: settings.backend.clone(),
                disabled: (disable || enable).then_some(disable),
                held: (hold || release).then_some(hold),
                services: check_services(settings.services.as_deref())?,
            };
            if change.is_empty() {
                let message = "nothing to change: give --backend, --password-file, --services, --disable, --enable, --hold or --release";
                return Err(Problem::of(name, message).into());
            }
            let done = directory.set(&name, &change).await.map_err(fault)?;
            directory.close().await;
            if !done {
                return Err(unknown(name));
            }
            settings.output.done(&name, "changed");
        }
        UserCommand::Remove { name, directory, output } => {
            let directory = directory.open(config).await?;
            let name = full_name(&name, &config.names)?;
            let done = directory.remove(&name).await.map_err(fault)?;
            directory.close().await;
            if !done {
                return Err(unknown(name));
            }
            output.done(&name, "removed");
        }
        UserCommand::List { directory, output } => {
            let directory = directory.open(config).await?;
            let accounts = directory.list().await.map_err(fault)?;
            directory.close().await;
            print_list(&accounts, output.json);
        }
        UserCommand::AppPassword(command) => app_password::carry_out(command, config).await?,
        UserCommand::Import { file, directory, output } => import(&file, &directory, &output, config).await?,
    }
    Ok(())
}

async fn import(file: &Path, directory: &DirectoryName, output: &Output, config: &Config) -> Result<(), Failure> {
    let text = std::fs::read_to_string(file).map_err(|error| Problem::file(file, format!("can't be read: {error}")))?;
    let users = passwd_file::parse(&text, &config.names).map_err(|fault| Problem::file(file, fault.0))?;
    let directory = directory.open(config).await?;
    for (name, entry) in &users {
        doubts(entry, config).iter().for_each(|doubt| eprintln!("gatepost: warning: {name}: {doubt}"));
    }
    let accounts = users.iter().map(|(name, entry)| (name.as_str(), entry));
    let added = directory.add_all(accounts).await.map_err(fault)?;
    let known = users.len() as u64 - added;
    directory.close().await;
    if output.json {
        say_line!("{}", json!({ "import": [{ "added": added, "known": known }] }));
    } else {
        say_line!("{added} users added, {known} were there already and are as they were");
    }
    Ok(())
}

/// What would keep an account from being used.
fn doubts(entry: &Entry, config: &Config) -> Vec<&'static str> {
    let mut doubts = Vec::new();
    if entry.password.as_ref().is_some_and(|stored| !stored.expose_text().is_some_and(hash::is_usable)) {
        doubts.push("its password has a scheme that is not supported: it can't be checked here");
    }
    let is_known = |place: &String| config.backends.iter().any(|backend| backend.name == *place);
    let is_allowed = |place: &String| config.map.hosts.iter().any(|pattern| pattern.matches(place));
    if entry.place.as_ref().is_some_and(|place| !is_known(&place.name) && !is_allowed(&place.name)) {
        doubts.push("its place is no back end of the configuration, nor allowed by map.hosts");
    }
    doubts
}

/// What `--services` says, where it is given.
pub(super) fn check_services(list: Option<&str>) -> Result<Option<Services>, Failure> {
    let services = list.map(|list| if list.is_empty() { Ok(Services::All) } else { Services::only(list) }).transpose();
    services.map_err(|what| Problem::of("--services", what).into())
}

impl Settings {
    /// The name in full, the password's hash, and the directory.
    async fn prepare(&self, config: &Config) -> Result<(String, Option<KeptSecret>, Sqlite), Failure> {
        if let Some(backend) =
            self.backend.as_ref().filter(|name| !config.backends.iter().any(|backend| backend.name == **name))
        {
            return Err(Problem::of(
                "--backend",
                format!("there is no {} in the configuration", config::head_of("backend", backend)),
            )
            .into());
        }
        let name = full_name(&self.name, &config.names)?;
        let mut warnings = Vec::new();
        let password: Option<Secret> = self
            .password_file
            .as_deref()
            .map(|path| crate::secret_file::read(&NamedFile::given(path), &mut warnings))
            .transpose()?;
        warnings.iter().for_each(|warning| eprintln!("gatepost: warning: {warning}"));
        let make = if self.scram { hash::make_scram } else { hash::make };
        let password = password.map(|password| make(&password)).transpose();
        let password = password.map_err(|error| Problem::of("--password-file", error.to_string()))?;
        Ok((name, password.map(KeptSecret::new), self.directory.open(config).await?))
    }
}

impl DirectoryName {
    pub(super) async fn open(&self, config: &Config) -> Result<Sqlite, Failure> {
        let wanted = self.directory.as_deref();
        let (_, path) = config.embedded(wanted).map_err(|why| Problem::of("gatepost user", why))?;
        Ok(Sqlite::create(path).await.map_err(fault)?)
    }
}

/// The name under which log-ins will look the user up.
pub(super) fn full_name(name: &str, names: &Names) -> Result<String, Failure> {
    let sound = sasl::user_name(name.as_bytes());
    let sound = sound.ok_or_else(|| Problem::of("NAME", sasl::USER_NAME))?;
    Ok(names.canonical(&sound))
}

fn print_list(accounts: &[Account], json: bool) {
    if json {
        let list: Vec<_> = accounts
            .iter()
            .map(|account| {
                json!({ "name": account.name, "backend": account.place, "disabled": account.disabled, "held": account.held, "services": account.services,
                    "password": account.has_password })
            })
            .collect();
        say_line!("{}", json!({ "users": list }));
        return;
    }
    let width = accounts.iter().map(|account| account.name.chars().count()).max().unwrap_or(0);
    for account in accounts {
        let place = account.place.as_deref().unwrap_or("(the default)");
        let password = if account.has_password { "" } else { "  no password" };
        let disabled = if account.disabled { "  disabled" } else { "" };
        let held = if account.held { "  held" } else { "" };
        let services = account.services.as_ref().map(|services| format!("  only {services}")).unwrap_or_default();
        say_line!("{:<width$}  {place}{password}{disabled}{held}{services}", account.name);
    }
}

pub(super) fn unknown(name: String) -> Failure {
    Problem::of(name, "there is no such user: `gatepost user list` shows all").into()
}

pub(super) fn fault(fault: crate::directory::Fault) -> Problem {
    Problem::of("directory", fault.0)
}
