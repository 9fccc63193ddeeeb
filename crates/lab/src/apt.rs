//! Installing what is missing from Debian's packages.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::{Result, context};

/// Sees to it that `packages` are installed. Says what it installs before it does; with `may_install`
/// false, says what is missing instead.
pub fn ensure_packages(packages: &[&str], may_install: bool) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !may_install {
        return Err(format!("these packages are missing: {list}"));
    }
    println!("Installing from Debian's packages: {list}");
    let is_root = rustix::process::geteuid().is_root();
    run_apt(is_root, &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&missing);
    run_apt(is_root, &arguments)
}

fn is_installed(package: &str) -> bool {
    let status =
        Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]).stderr(Stdio::null()).output();
    status.is_ok_and(|output| output.stdout == b"installed")
}

/// Sees to it that a package's files are there under `target`, without installing it: where they are. For packages that begin
/// a service of their own, or can't be installed where there is no systemd.
pub fn ensure_unpacked(package: &str, may_install: bool) -> Result<PathBuf> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/debian").join(package);
    let (files, done) = (folder.join("files"), folder.join("unpacked"));
    if done.exists() {
        return Ok(files);
    }
    if !may_install {
        return Err(format!("this package's files are missing: {package}"));
    }
    println!("Unpacking from Debian's packages: {package}");
    context(std::fs::create_dir_all(&files), files.display())?;
    let download = || {
        let mut command = Command::new("apt-get");
        command.args(["download", "-qq", package]).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null());
        context(command.status(), "apt-get download").map(|status| status.success())
    };
    if !download()? {
        run_apt(rustix::process::geteuid().is_root(), &["update", "-qq"])?;
        if !download()? {
            return Err(format!("apt-get download {package} failed"));
        }
    }
    for entry in context(std::fs::read_dir(&folder), folder.display())?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            let status = Command::new("dpkg").arg("-x").arg(entry.path()).arg(&files).status();
            if !context(status, "dpkg -x")?.success() {
                return Err(format!("dpkg -x {} failed", entry.path().display()));
            }
        }
    }
    context(std::fs::write(&done, ""), done.display())?;
    Ok(files)
}

/// Sees to it that a program of a Python package is there, in a virtual environment under `target`; where it is.
pub fn ensure_python_tool(package: &str, version: &str, program: &str, may_install: bool) -> Result<PathBuf> {
    Ok(python_environment(package, version, may_install)?.join("bin").join(program))
}

/// The virtual environment with a Python package; several tests may want it at the same moment.
pub(crate) fn python_environment(package: &str, version: &str, may_install: bool) -> Result<PathBuf> {
    static ONE_AT_A_TIME: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/python");
    let folder = all.join(format!("{package}-{version}"));
    let done = folder.join("installed");
    if done.exists() {
        return Ok(folder);
    }
    if !may_install {
        return Err(format!("this package of Python's is missing: {package} {version}"));
    }
    println!("Installing from Python's packages: {package} {version}");
    let run = |command: &mut Command| {
        let status = context(command.stdout(Stdio::null()).status(), format_args!("{command:?}"))?;
        if status.success() { Ok(()) } else { Err(format!("{command:?} failed: {status}")) }
    };
    run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let wanted = format!("{package}=={version}");
    run(Command::new(folder.join("bin/python")).args(["-m", "pip", "install", "--quiet", &wanted]))?;
    context(std::fs::write(&done, ""), done.display())?;
    Ok(folder)
}

/// RUNLEVEL=1 keeps the packages' own services from being started: only ours, on loopback, should run.
fn run_apt(is_root: bool, arguments: &[&str]) -> Result<()> {
    let mut words = if is_root { vec![] } else { vec!["sudo"] };
    words.extend(["env", "DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", "apt-get"]);
    words.extend(arguments);
    let status = Command::new(words[0]).args(&words[1..]).stdout(Stdio::null()).status();
    let status = context(status, words.join(" "))?;
    if status.success() { Ok(()) } else { Err(format!("{} failed: {status}", words.join(" "))) }
}
