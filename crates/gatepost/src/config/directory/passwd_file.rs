//! Directories of type passwd-file.

use super::{Abilities, AccountSource, DirectoryKind, Typed};
use crate::config::problem::NamedFile;
use crate::config::reader::Table;
use crate::config::section::Written;

section! {
    pub(super) struct PasswdFile: "directory", "[directory.NAME]  # type = \"passwd-file\"", "A file in Dovecot's format, with the extra fields host, port, nologin, allow_nets, services and hold.", {
        includes_apart: &[Typed::SECTION],
    };
    path: NamedFile, "The file. It is read again when it changes.";
}

pub(super) fn read(table: &Table<'_>) -> Option<DirectoryKind> {
    let source = AccountSource::PasswdFile { path: PasswdFile::read(table)?.path };
    let abilities = Abilities { keeps_hashes: true, finds: true, tells_unknown: true };
    Some(DirectoryKind::Accounts { source, abilities })
}
