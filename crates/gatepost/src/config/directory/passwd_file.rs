//! Directories of type passwd-file.

use std::path::PathBuf;

use super::{Abilities, DirectoryKind, Judges, any};
use crate::config::reader::Table;

section! { main, "directory", "[directory.NAME]  # type = \"passwd-file\"", "A file in Dovecot's format, with the extra fields host, port, nologin, allow_nets, services and hold.", {
        includes: &[&any::SECTION],
    };
    PATH: PathBuf = "path", "The file. It is read again when it changes.";
}

pub(super) fn read(table: &Table<'_>) -> Option<(DirectoryKind, Abilities)> {
    let kind = DirectoryKind::PasswdFile { path: table.require_file(&main::PATH)? };
    let abilities = Abilities { judges: Judges::Passwords, keeps_hashes: true, finds: true, tells_unknown: true };
    Some((kind, abilities))
}
