//! How commands answer: in words, or for programs in JSON.

use clap::Args;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::Failure;
use crate::admin::{Command, items};
use crate::config::Problem;

/// How an answer is printed.
#[derive(Debug, Args)]
pub(super) struct Output {
    /// Answer in JSON
    #[arg(long)]
    pub(super) json: bool,
}

impl Output {
    /// Prints an answer: in JSON as it came, else by `show`.
    pub(super) fn print<T: DeserializeOwned>(
        &self,
        command: &Command,
        answer: Value,
        show: impl FnOnce(Vec<T>),
    ) -> Result<(), Failure> {
        if self.json {
            say_line!("{answer}");
        } else {
            show(read(command, answer)?);
        }
        Ok(())
    }

    /// Says what was done with a user.
    pub(super) fn done(&self, name: &str, what: &str) {
        self.done_in("user", name, what);
    }

    /// Says what was done with something in this list.
    pub(super) fn done_in(&self, list: &str, name: &str, what: &str) {
        if self.json {
            say_line!("{}", json!({ list: [{ "name": name, "result": what }] }));
        } else {
            say_line!("{name}: {what}");
        }
    }
}

/// The items of an answer.
pub(super) fn read<T: DeserializeOwned>(command: &Command, answer: Value) -> Result<Vec<T>, Failure> {
    Ok(items(command.name(), answer).map_err(|error| Problem::of(command.name(), error))?)
}
