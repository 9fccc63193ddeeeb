//! Commands to the running server, over its socket.

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::Value;

use super::Failure;
use crate::admin::{Command, socket};
use crate::config::{self, Problem};

#[derive(Debug, Args)]
pub(super) struct Output {
    /// Answer in JSON
    #[arg(long)]
    json: bool,
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

/// Asks the server at `given`, else where the configuration says that it is, and prints what it answers.
pub(super) fn ask(given: Option<&Path>, config: &Path, command: &Command, output: &Output) -> Result<(), Failure> {
    let answer = match given {
        Some(path) => socket::ask(path, command),
        // A file that is being changed may be wrong: where the socket is can be read all the same.
        None => socket::ask(&config::draft(config)?.config.admin.socket, command),
    };
    let answer = answer.map_err(|error| Problem::of(command.name(), error))?;
    if output.json {
        say_line!("{answer}");
        return Ok(());
    }
    let empty = Vec::new();
    let list = answer[command.name()].as_array().unwrap_or(&empty);
    list.iter().for_each(|item| print(command, item));
    Ok(())
}

/// One item of an answer, for people.
fn print(command: &Command, item: &Value) {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), printable);
    match command {
        Command::Status => {
            let Some(facts) = item.as_object() else { return };
            for (key, value) in facts {
                let value = match value {
                    Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
                    value => text(value),
                };
                say_line!("{key:<12} {value}");
            }
        }
        Command::Backends => {
            say_line!("{:<20} {:<8} {} connections", text(&item["name"]), text(&item["state"]), item["connections"]);
            for host in item["hosts"].as_array().into_iter().flatten() {
                let fault = host["fault"].as_str().map_or_else(String::new, |fault| format!("  {}", printable(fault)));
                let named = format!("  {} {}", text(&host["service"]), text(&host["host"]));
                say_line!("{named:<20} {:<8}{fault}", text(&host["state"]));
            }
        }
        Command::FlushCaches { .. } => say_line!("{} answers are forgotten", item["forgotten"]),
        Command::Reload => {
            let warnings = item["warnings"].as_array();
            warnings.into_iter().flatten().for_each(|warning| eprintln!("gatepost: warning: {}", text(warning)));
            say_line!("the configuration was reloaded");
        }
        Command::Stop => say_line!("stopping: sessions have {} seconds to end", item["drain_seconds"]),
    }
}

/// What a back end said may hold anything; a terminal must not.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
