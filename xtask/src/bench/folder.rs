//! The folder that a measurement's servers stand in.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use gatepost_lab::Result;

/// A folder of this run's own, gone with it. As a field it comes last: what stands in it must have ended.
pub(super) struct Folder(PathBuf);

impl Folder {
    /// `what` is in its name.
    pub(super) fn create(what: &str) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("gatepost-bench-{what}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        Ok(Self(folder))
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
