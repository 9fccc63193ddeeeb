//! Secrets in files: the first line, without its line end.

use gatepost_wire::Secret;
use zeroize::Zeroizing;

use crate::config::{NamedFile, Problem};

/// Reads a secret; a file that others than its owner and group can read is warned of.
pub(crate) fn read(file: &NamedFile, warnings: &mut Vec<Problem>) -> Result<Secret, Problem> {
    let unreadable = |error: std::io::Error| file.problem(format_args!("can't be read: {error}"));
    let bytes = Zeroizing::new(std::fs::read(file).map_err(unreadable)?);
    warnings.extend(exposure(file));
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.is_empty() {
        return Err(file.problem("its first line is empty: it should hold a secret"));
    }
    Ok(Secret::new(line.to_vec()))
}

/// The warning that a file with a secret in it can be read by everyone, if it can.
pub(crate) fn exposure(file: &NamedFile) -> Option<Problem> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(file).ok()?.mode();
    (mode & 0o004 != 0).then(|| file.problem("holds a secret and can be read by everyone: chmod o-r"))
}
