//! Secrets in files: those of administrators, each the first line without its end, and Gatepost's own.

use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

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

/// How many bytes a secret of our own making has.
const OWN_BYTES: usize = 32;

/// Reads a secret of Gatepost's own, or makes it, for its owner alone. One that can't be kept comes with the error,
/// to be used all the same.
pub(crate) fn read_or_make(file: &Path) -> Result<Secret, (io::Error, Secret)> {
    let mut made = Zeroizing::new(vec![0; OWN_BYTES]);
    if let Err(error) = getrandom::fill(&mut made) {
        return Err((io::Error::other(error), Secret::new(made.to_vec())));
    }
    let kept = |bytes: Vec<u8>| match bytes.len() {
        OWN_BYTES => Ok(Secret::new(bytes)),
        _ => Err(io::Error::other("it is not as long as it was made")),
    };
    let keep = || {
        match std::fs::read(file) {
            Ok(bytes) => return kept(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        if let Some(folder) = file.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // Whole or not at all, and never over one that another process has made meanwhile.
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let mut suffix = [0; 8];
        getrandom::fill(&mut suffix).map_err(io::Error::other)?;
        let draft = file.with_file_name(format!(".{name}.{:016x}", u64::from_ne_bytes(suffix)));
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        let written = new.write_all(&made).and_then(|()| new.sync_all());
        let linked = written.and_then(|()| std::fs::hard_link(&draft, file));
        // One that stays behind is in nobody's way.
        let _ = std::fs::remove_file(&draft);
        match linked {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => kept(std::fs::read(file)?),
            linked => linked.map(|()| Secret::new(made.to_vec())),
        }
    };
    keep().map_err(|error| (error, Secret::new(made.to_vec())))
}

/// The warning that a file with a secret in it can be read by everyone, if it can.
pub(crate) fn exposure(file: &NamedFile) -> Option<Problem> {
    use std::os::unix::fs::MetadataExt as _;
    let mode = std::fs::metadata(file).ok()?.mode();
    (mode & 0o004 != 0).then(|| file.problem("holds a secret and can be read by everyone: chmod o-r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_of_our_own_is_made_once_and_kept() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("state/own.key");
        let made = read_or_make(&file).expect("a secret");
        assert_eq!(read_or_make(&file).expect("a secret").expose(), made.expose());
        assert_eq!(std::fs::metadata(&file).expect("a file").permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(folder.path().join("state")).expect("a folder").count(), 1, "no draft is left");
        std::fs::write(&file, "cut").expect("a file");
        let (error, other) = read_or_make(&file).expect_err("an error");
        assert!(error.to_string().contains("not as long") && other.expose() != made.expose());
    }
}
