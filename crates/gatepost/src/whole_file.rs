//! Writing a file whole or not at all: a crash leaves the old one or the new one.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes a new file beside `path`, for its owner alone, has it made ready, and puts it in its place.
pub(crate) fn write(path: &Path, bytes: &[u8], make_ready: impl Fn(&File) -> io::Result<()>) -> io::Result<()> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // A name that nobody else's file has.
    let fresh = path.with_file_name(format!(".{name}.{}.new", now.as_nanos()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
    let mut work = || {
        file.write_all(bytes)?;
        make_ready(&file)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)
    };
    work().inspect_err(|_| {
        let _ = std::fs::remove_file(&fresh);
    })
}
