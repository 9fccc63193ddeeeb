//! Running cargo, and finding what it built.

use std::path::PathBuf;
use std::process::Command;

use gatepost_lab::Result;

/// Runs cargo with these arguments in the project's folder; an error where it fails.
pub(crate) fn cargo(arguments: &[&str]) -> Result<()> {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(program).args(arguments).current_dir(root()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("cargo {} failed: {status}", arguments.join(" "))),
        Err(error) => Err(format!("cargo can't be run: {error}")),
    }
}

/// The project's folder.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap_or_else(|_| ".".into())
}

/// The folder of everything built.
pub(crate) fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Builds one of the project's programs and gives its path.
pub(crate) fn build(package: &str, is_release: bool) -> Result<PathBuf> {
    let (profile, folder) = if is_release { ("release", "release") } else { ("dev", "debug") };
    cargo(&["build", "--quiet", "--profile", profile, "--package", package])?;
    Ok(target().join(folder).join(package))
}
