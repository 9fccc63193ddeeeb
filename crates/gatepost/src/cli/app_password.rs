//! `gatepost user app-password`: passwords for one program each, in the embedded directory.

use std::time::{Duration, SystemTime};

use clap::Subcommand;
use serde_json::json;

use super::Failure;
use super::output::Output;
use super::user::{DirectoryName, check_services, fault, full_name, unknown};
use crate::config::{Config, Problem};
use crate::directory::sqlite::Services;
use crate::directory::sqlite::app_password::{AppPassword, Draft};

/// Longest label.
const LABEL_BYTES_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum AppPasswordCommand {
    /// Make one and show it, this once
    Add {
        /// The user's name
        name: String,
        /// What it is for, such as "phone"
        #[arg(long)]
        label: String,
        /// The only services it may be used for, such as imap [default: all of the user's]
        #[arg(long, value_name = "LIST")]
        services: Option<String>,
        /// After what time it ends, such as 90d [default: never]
        #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
        expires: Option<Duration>,
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
    /// List a user's, with when and from where each was last used
    List {
        /// The user's name
        name: String,
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
    /// Take one back
    Revoke {
        /// The user's name
        name: String,
        /// The number that `list` shows
        id: i64,
        #[command(flatten)]
        directory: DirectoryName,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) async fn carry_out(command: AppPasswordCommand, config: &Config) -> Result<(), Failure> {
    match command {
        AppPasswordCommand::Add { name, label, services, expires, directory, output } => {
            let name = full_name(&name, &config.names)?;
            if label.is_empty() || label.len() > LABEL_BYTES_MAX || label.chars().any(char::is_control) {
                let message = "a label is not empty, of at most 100 bytes and without control characters";
                return Err(Problem::of("--label", message).into());
            }
            let services = check_services(services.as_deref())?.and_then(Services::listed);
            let expires = expires.and_then(|time| SystemTime::now().checked_add(time));
            let directory = directory.open(config).await?;
            let made = directory.add_app_password(&name, &Draft { label, services, expires }).await.map_err(fault)?;
            directory.close().await;
            let Some((id, password)) = made else { return Err(unknown(name)) };
            if output.json {
                say_line!("{}", json!({ "app-passwords": [{ "id": id, "user": name, "password": *password }] }));
            } else {
                say_line!("{}\nThis is number {id} of {name}'s, shown this once.", *password);
            }
        }
        AppPasswordCommand::List { name, directory, output } => {
            let name = full_name(&name, &config.names)?;
            let directory = directory.open(config).await?;
            let list = directory.app_passwords(&name).await.map_err(fault)?;
            directory.close().await;
            print_list(&list, output.json);
        }
        AppPasswordCommand::Revoke { name, id, directory, output } => {
            let name = full_name(&name, &config.names)?;
            let directory = directory.open(config).await?;
            let done = directory.revoke_app_password(&name, id).await.map_err(fault)?;
            directory.close().await;
            if !done {
                let message = format!("has no app password number {id}: `gatepost user app-password list` shows all");
                return Err(Problem::of(name, message).into());
            }
            output.done(&name, "revoked");
        }
    }
    Ok(())
}

fn print_list(list: &[AppPassword], json: bool) {
    let time = |seconds: Option<i64>| {
        let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok())?;
        let time = SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds))?;
        Some(humantime::format_rfc3339_seconds(time).to_string())
    };
    if json {
        let describe = |password: &AppPassword| {
            let AppPassword { id, label, services, created, expires, last_used, last_from } = password;
            json!({
                "id": id, "label": label, "services": services, "created": time(Some(*created)),
                "expires": time(*expires), "last_used": time(*last_used), "last_from": last_from,
            })
        };
        say_line!("{}", json!({ "app-passwords": list.iter().map(describe).collect::<Vec<_>>() }));
        return;
    }
    for password in list {
        let AppPassword { id, label, services, expires, last_used, last_from, .. } = password;
        let services = services.as_ref().map(|services| format!("  only {services}")).unwrap_or_default();
        let expires = time(*expires).map(|time| format!("  until {time}")).unwrap_or_default();
        let used = match time(*last_used) {
            Some(time) => format!("  last used {time} from {}", last_from.as_deref().unwrap_or("?")),
            None => "  never used".to_owned(),
        };
        say_line!("{id:>4}  {label}{services}{expires}{used}");
    }
}
