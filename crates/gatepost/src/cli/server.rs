//! The running server, asked over its socket.

use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::time::Duration;

use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;

use super::Failure;
use super::output::{Output, read};
use super::table::printable;
use crate::admin::answers::Backend;
use crate::admin::{Command, Whose, socket};
use crate::config::{self, Problem};

/// How often it is looked whether a back end is empty.
const WAIT_STEP: Duration = Duration::from_millis(500);

/// Where the server is asked.
pub(super) struct Server<'a> {
    /// As the command line says.
    pub(super) socket: Option<&'a Path>,
    pub(super) config: &'a Path,
}

impl Server<'_> {
    /// Asks, and prints the answer.
    pub(super) fn show<T: DeserializeOwned>(
        &self,
        command: &Command,
        output: &Output,
        show: impl FnOnce(Vec<T>),
    ) -> Result<(), Failure> {
        output.print(command, self.ask(command)?, show)
    }

    /// The items of the answer to a command.
    pub(super) fn items<T: DeserializeOwned>(&self, command: &Command) -> Result<Vec<T>, Failure> {
        read(command, self.ask(command)?)
    }

    /// Asks at the socket that is given, else where the configuration says that it is.
    pub(super) fn ask(&self, command: &Command) -> Result<Value, Failure> {
        let answer = match self.socket {
            Some(path) => socket::ask(path, command),
            // A file that is being changed may be wrong: where the socket is can be read all the same.
            None => socket::ask(&config::draft(self.config)?.config.admin.socket, command),
        };
        Ok(answer.map_err(|error| Problem::of(command.name(), error))?)
    }

    /// Waits until a back end has no sessions, and shows on a terminal how many there are.
    pub(super) fn wait_until_empty(&self, backend: &str) -> Result<(), Failure> {
        let is_terminal = std::io::stderr().is_terminal();
        let failed = |what: String| Err(Problem::of("drain", what).into());
        loop {
            let backends: Vec<Backend> = self.items(&Command::Backends)?;
            let Some(found) = backends.iter().find(|found| found.name == backend) else {
                return failed(format!("the configuration has no back end {backend:?} any more"));
            };
            // Those of a process that has handed over count too.
            let whose = Whose { backend: Some(backend.to_owned()), ..Whose::default() };
            let left = self.items::<IgnoredAny>(&Command::Sessions(whose))?.len();
            if is_terminal {
                eprint!("\r\x1b[K{backend}: {left} sessions left");
                let _ = std::io::stderr().flush();
            }
            if left == 0 || found.state != "draining" {
                if is_terminal {
                    eprintln!();
                }
                if left > 0 {
                    return failed(format!("{backend} is no longer draining: it is {}", printable(&found.state)));
                }
                return Ok(());
            }
            std::thread::sleep(WAIT_STEP);
        }
    }
}
