//! Child processes that don't outlive the value that stands for them.

use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{Result, context};

/// The user that servers run as when we are root: servers of mail want to be somebody ordinary.
pub(crate) const NOBODY: u32 = 65_534;

/// A running child with all its own children.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
}

impl Process {
    /// Starts `program` in a process group of its own. As root with `drop_root`, it runs as nobody.
    /// The kernel ends it should this process die.
    pub fn start(program: &Path, arguments: &[&str], output: &Path, drop_root: bool) -> Result<Self> {
        Self::start_with_limit(program, arguments, output, drop_root, None)
    }

    /// As [`Process::start`], with at most so many open files.
    pub fn start_with_limit(
        program: &Path,
        arguments: &[&str],
        output: &Path,
        drop_root: bool,
        files_max: Option<u32>,
    ) -> Result<Self> {
        let name = program.display().to_string();
        let file = context(std::fs::File::create(output), output.display())?;
        let errors = context(file.try_clone(), output.display())?;
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if drop_root && rustix::process::geteuid().is_root() {
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        }
        if let Some(files_max) = files_max {
            command.arg("prlimit").arg(format!("--nofile={files_max}:{files_max}"));
        }
        command.arg(program).args(arguments).stdin(Stdio::null()).stdout(file).stderr(errors).process_group(0);
        let child = context(command.spawn(), &name)?;
        Ok(Self { child, name })
    }

    /// Its process id, which is also that of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        context(kill_process(self.raw_pid()?, signal), &self.name)
    }

    /// Sends a signal to it and all its children.
    pub fn signal_group(&self, signal: Signal) -> Result<()> {
        context(kill_process_group(self.raw_pid()?, signal), &self.name)
    }

    /// Whether it has ended, and how.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        find_within(patience, || self.ended()).map_err(|_| format!("{} did not end within {patience:?}", self.name))
    }

    fn raw_pid(&self) -> Result<Pid> {
        i32::try_from(self.child.id())
            .ok()
            .and_then(Pid::from_raw)
            .ok_or_else(|| format!("{} has no process id", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.signal_group(Signal::TERM);
        if self.wait(Duration::from_secs(3)).is_err() {
            let _ = self.signal_group(Signal::KILL);
            let _ = self.wait(Duration::from_secs(3));
        }
        // Children of a master that is gone.
        let _ = self.signal_group(Signal::KILL);
    }
}

/// A server that may be ended and started again.
#[derive(Debug, Default)]
pub struct Server {
    process: Option<Process>,
}

impl Server {
    pub(crate) fn run(&mut self, process: Process) {
        self.process = Some(process);
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Ends it at once, with all its children.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.signal_group(Signal::KILL)?;
            process.wait(Duration::from_secs(5))?;
        }
        Ok(())
    }

    /// Stops it where it stands: connections are taken by the kernel, and nobody answers.
    pub fn freeze(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal_group(Signal::STOP))
    }

    /// Lets it go on.
    pub fn thaw(&self) -> Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal_group(Signal::CONT))
    }
}

/// How long is waited for what must come to pass.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked at first, and after a while: looking may be work for many.
const LOOK_INTERVALS: [Duration; 2] = [Duration::from_millis(5), Duration::from_millis(80)];

/// Waits up to 30 seconds until `is_so`.
pub fn wait_for(is_so: impl FnMut() -> bool) -> Result<()> {
    wait_for_within(PATIENCE, is_so)
}

/// Waits until `is_so`, where a bound on that is the point.
pub fn wait_for_within(patience: Duration, mut is_so: impl FnMut() -> bool) -> Result<()> {
    find_within(patience, || is_so().then_some(()))
}

/// Waits up to 30 seconds until `find` finds something.
pub fn wait_to_find<T>(find: impl FnMut() -> Option<T>) -> Result<T> {
    find_within(PATIENCE, find)
}

/// As [`wait_to_find`], where a bound on that is the point.
pub(crate) fn find_within<T>(patience: Duration, mut find: impl FnMut() -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + patience;
    let [mut interval, longest] = LOOK_INTERVALS;
    loop {
        if let Some(found) = find() {
            return Ok(found);
        }
        if Instant::now() > deadline {
            return Err(format!("not within {patience:?}"));
        }
        std::thread::sleep(interval);
        interval = longest.min(interval * 2);
    }
}

/// Waits until somebody accepts connections on a port of 127.0.0.1.
pub fn wait_for_port(port: u16, patience: Duration) -> Result<()> {
    let is_there = || TcpStream::connect(("127.0.0.1", port)).is_ok();
    wait_for_within(patience, is_there).map_err(|_| format!("nothing listens on 127.0.0.1:{port} after {patience:?}"))
}
