//! `gatepost admin`: who may use console and API. Works on the state folder; a running server sees it at once.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use serde_json::json;

use super::Failure;
use super::output::Output;
use super::table::Table;
use crate::admin::accounts::{Accounts, Role};
use crate::config::{self, NamedFile, Problem};

#[derive(Debug, Subcommand)]
pub(super) enum AdminCommand {
    /// Add a person, or change their role and password
    Add {
        /// The name
        name: String,
        /// What they may do: viewer, operator or admin
        #[arg(long)]
        role: Role,
        /// A file whose first line is the password, of at least ten characters
        #[arg(long, value_name = "FILE")]
        password_file: PathBuf,
        #[command(flatten)]
        output: Output,
    },
    /// Make a token for a program; it is shown this once
    Token {
        /// A name for it, by which it is listed and removed
        label: String,
        /// What it may do: viewer, operator or admin; or sender, for another Gatepost's log
        #[arg(long)]
        role: Role,
        #[command(flatten)]
        output: Output,
    },
    /// List people and tokens
    List {
        #[command(flatten)]
        output: Output,
    },
    /// Remove a person or a token; whoever is logged in by it is out
    Remove {
        /// The name or label
        name: String,
        #[command(flatten)]
        output: Output,
    },
}

pub(super) fn run(command: AdminCommand, path: &Path) -> Result<(), Failure> {
    // A file that is being changed may be wrong: where the state folder is can be read all the same.
    let accounts = Accounts::of(&config::draft(path)?.config.state);
    let failed = |error: String| Problem::of("admin", error);
    match command {
        AdminCommand::Add { name, role, password_file, output } => {
            let mut warnings = Vec::new();
            let password = crate::secret_file::read(&NamedFile::given(&password_file), &mut warnings)?;
            warnings.iter().for_each(|warning| eprintln!("gatepost: warning: {warning}"));
            accounts.set(&name, role, &password).map_err(failed)?;
            output.done_in("admin", &name, role.name());
        }
        AdminCommand::Token { label, role, output } => {
            let token = accounts.add_token(&label, role).map_err(failed)?;
            if output.json {
                say_line!("{}", json!({ "admin": [{ "name": label, "role": role, "token": token }] }));
            } else {
                say_line!("{token}");
            }
        }
        AdminCommand::List { output } => {
            let list = accounts.list().map_err(failed)?;
            if output.json {
                say_line!("{}", json!({ "admin": list }));
                return Ok(());
            }
            let mut table = Table::new(&["NAME", "ROLE", "BY", "MADE"]);
            for listed in list {
                let made = listed.made.unwrap_or_default();
                table.row([listed.name, listed.role.name().to_owned(), listed.by.to_owned(), made]);
            }
            table.print("there is nobody yet: `gatepost admin add`, or open the console");
        }
        AdminCommand::Remove { name, output } => {
            accounts.remove(&name).map_err(failed)?;
            output.done_in("admin", &name, "removed");
        }
    }
    Ok(())
}
