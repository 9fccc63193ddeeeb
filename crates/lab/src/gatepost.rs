//! Gatepost itself, as it would run anywhere: the real binary and a configuration file.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output};
use std::time::Duration;

use rustix::process::Signal;

use crate::process::{Process, find_within, wait_for};
use crate::{Result, context};

/// How long a start may take.
const START_PATIENCE: Duration = Duration::from_secs(20);

/// What Gatepost says of a reload that went well.
const RELOADED: &str = "the configuration was reloaded";

/// A running Gatepost. Dropped, it ends.
#[derive(Debug)]
pub struct Gatepost {
    binary: PathBuf,
    folder: PathBuf,
    process: Process,
}

impl Gatepost {
    /// Starts `binary` with this configuration in `folder`, and waits until it is ready.
    pub fn start(binary: &Path, folder: &Path, configuration: &str) -> Result<Self> {
        Self::start_with_limit(binary, folder, configuration, None)
    }

    /// As [`Gatepost::start`], with at most so many open files.
    pub fn start_with_limit(binary: &Path, folder: &Path, configuration: &str, files_max: Option<u32>) -> Result<Self> {
        let path = folder.join("gatepost.toml");
        context(std::fs::write(&path, configuration), path.display())?;
        let arguments = ["serve", "--config", &path.display().to_string()];
        let process = Process::start_with_limit(binary, &arguments, &folder.join("gatepost.log"), false, files_max)?;
        let mut gatepost = Self { binary: binary.to_owned(), folder: folder.to_owned(), process };
        gatepost.wait_until_ready()?;
        Ok(gatepost)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let outcome = find_within(START_PATIENCE, || {
            if self.log().contains(" is ready") {
                return Some(Ok(()));
            }
            let status = self.process.ended()?;
            Some(Err(format!("gatepost ended with {status}:\n{}", self.log())))
        });
        outcome.map_err(|_| format!("gatepost is not ready after {START_PATIENCE:?}:\n{}", self.log()))?
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// All that it has logged to standard error.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("gatepost.log")).unwrap_or_default()
    }

    /// Waits until its log holds `text`; gives the line.
    pub fn wait_for_log(&self, text: &str) -> Result<String> {
        let found = || self.log().lines().find(|line| line.contains(text)).map(str::to_owned);
        wait_for(|| found().is_some()).map_err(|_| format!("the log never said {text:?}:\n{}", self.log()))?;
        Ok(found().unwrap_or_default())
    }

    /// Changes its configuration and has it reload, which must go well.
    pub fn reload(&self, configuration: &str) -> Result<()> {
        let said = self.try_reload(configuration)?;
        if said.contains(RELOADED) { Ok(()) } else { Err(format!("{said}\n{}", self.log())) }
    }

    /// As [`Gatepost::reload`], where it must be refused; gives what is said about that.
    pub fn refused_reload(&self, configuration: &str) -> Result<String> {
        let said = self.try_reload(configuration)?;
        if said.contains(RELOADED) { Err("the reload was not refused".to_owned()) } else { Ok(said) }
    }

    fn try_reload(&self, configuration: &str) -> Result<String> {
        let path = self.folder.join("gatepost.toml");
        context(std::fs::write(&path, configuration), path.display())?;
        let is_answer = |line: &str| line.contains(RELOADED) || line.contains("the reload failed");
        let answers = |log: &str| log.lines().filter(|line| is_answer(line)).map(str::to_owned).collect::<Vec<_>>();
        let before = answers(&self.log()).len();
        self.process.signal(Signal::HUP)?;
        let answer = || answers(&self.log()).get(before).cloned();
        wait_for(|| answer().is_some()).map_err(|_| format!("no word of the reload:\n{}", self.log()))?;
        Ok(answer().unwrap_or_default())
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        self.process.wait(patience)
    }

    /// Runs a command of the same binary with the same configuration.
    pub fn command(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).arg("--config").arg(self.folder.join("gatepost.toml"));
        context(command.output(), self.binary.display())
    }

    /// How much memory it has taken: without the pages of its program file, which grow as code is first run.
    pub fn memory_kib(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.pid());
        let status = context(std::fs::read_to_string(&path), &path)?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap_or_default();
        context(line.trim().trim_end_matches(" kB").parse(), path)
    }

    /// How many files it has open.
    pub fn open_files(&self) -> Result<usize> {
        let path = format!("/proc/{}/fd", self.pid());
        Ok(context(std::fs::read_dir(&path), &path)?.count())
    }
}
