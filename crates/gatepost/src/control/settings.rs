//! The configuration file, seen and changed while Gatepost runs.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use similar::Algorithm;

use super::effects::{Census, effects};
use super::listening::Listening;
use super::{Server, Source};
use crate::admin::accounts::digest;
use crate::admin::{Changes, answers};
use crate::config::{self, Draft, Problem, Problems};
use crate::service::wheel::SessionRef;
use crate::whole_file;

/// Where earlier files are kept, in the state folder.
const HISTORY_FOLDER: &str = "history";
/// How many.
const HISTORY_MAX: usize = 5;
/// Lines around a change that are shown.
const CONTEXT_LINES: usize = 2;
/// How long a small difference is looked for; then a larger one will do.
const DIFF_TIME: Duration = Duration::from_millis(200);

/// What to say when somebody else has changed the file since it was shown.
const CHANGED: &str = "the file has been changed meanwhile: load the page again, and look at what is there now";

/// The file before and after a change.
struct Edit {
    before: String,
    after: String,
}

impl Server {
    fn file(&self) -> Result<&Path, String> {
        match &self.source {
            Source::File(path) => Ok(path),
            Source::Text(_) => Err("there is no configuration file: Gatepost was started with --to".into()),
        }
    }

    fn read_file(&self) -> Result<String, String> {
        let path = self.file()?;
        std::fs::read_to_string(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))
    }

    /// The file and every setting as it has it.
    pub(super) fn settings(&self) -> Result<answers::Settings, String> {
        let text = self.read_file()?;
        let path = self.file()?;
        let loaded = config::parse(path, &text).and_then(Draft::sound);
        let effective = loaded.map(|loaded| {
            let all = loaded.effective.settings();
            all.map(|(table, key, value, default)| answers::Effective {
                table: table.to_owned(),
                key: key.to_owned(),
                value: value.map(str::to_owned),
                default,
            })
            .collect()
        });
        Ok(answers::Settings {
            path: path.display().to_string(),
            digest: digest(&text),
            undo: self.history().len(),
            // A file with mistakes can be shown and mended all the same.
            effective: effective.unwrap_or_default(),
            text,
        })
    }

    /// What changes would do, without making them.
    pub(super) async fn check_settings(&self, changes: &Changes) -> Result<answers::Checked, String> {
        self.look_at(changes).await.map(|(checked, _)| checked)
    }

    /// What changes would do, and the file before and after them.
    async fn look_at(&self, changes: &Changes) -> Result<(answers::Checked, Edit), String> {
        let before = self.read_file()?;
        if changes.digest.as_ref().is_some_and(|known| *known != digest(&before)) {
            return Err(CHANGED.into());
        }
        let after = config::apply(&before, &changes.changes)?;
        let mut checked = answers::Checked {
            problems: Vec::new(),
            warnings: Vec::new(),
            effects: Vec::new(),
            diff: diff(&before, &after),
            digest: digest(&before),
        };
        let texts = |problems: &[Problem]| problems.iter().map(ToString::to_string).collect::<Vec<_>>();
        match config::parse(self.file()?, &after) {
            Ok(Draft { config, warnings, problems, .. }) => {
                (checked.problems, checked.warnings) = (texts(&problems), texts(&warnings));
                if problems.is_empty() {
                    let census = self.census().await;
                    checked.effects = effects(&self.entrance.world.load().config, &config, &census);
                }
            }
            Err(problems) => checked.problems = problems.iter().map(ToString::to_string).collect(),
        }
        Ok((checked, Edit { before, after }))
    }

    /// Makes changes and takes them into use; what can't be taken into use is not kept either.
    pub(super) async fn apply_settings(
        &self,
        changes: &Changes,
        listening: &mut Listening,
    ) -> Result<answers::Checked, String> {
        let (mut checked, edit) = self.look_at(changes).await?;
        if !checked.problems.is_empty() {
            return Err(checked.problems.join("\n"));
        }
        // What changes nothing is nothing that could be taken back.
        let kept = (edit.before != edit.after).then(|| self.keep(&edit)).transpose()?;
        let warnings = self.put_in_force(&edit, listening).await.inspect_err(|_| {
            // With the file as it was, there is nothing to go back to.
            if self.read_file().is_ok_and(|now| now == edit.before) {
                let _ = kept.map(std::fs::remove_file);
            }
        })?;
        self.forget_oldest();
        checked.warnings = warnings.iter().map(ToString::to_string).collect();
        checked.digest = digest(&edit.after);
        Ok(checked)
    }

    /// Takes back the latest change, unless the file has been changed since by other means, or is not the one of this digest.
    pub(super) async fn undo_settings(
        &self,
        shown: Option<&str>,
        listening: &mut Listening,
    ) -> Result<answers::Checked, String> {
        let latest = self.history().pop().ok_or("there is no change that could be taken back")?;
        let failed = |error: io::Error| format!("{}: {error}", latest.display());
        let edit = Edit { before: self.read_file()?, after: std::fs::read_to_string(&latest).map_err(failed)? };
        if shown.is_some_and(|shown| *shown != *digest(&edit.before)) {
            return Err(CHANGED.into());
        }
        if made(&latest).is_none_or(|made| *made != *digest(&edit.before)) {
            let what = "the file has been changed since by other means, and that would be lost: how it was is in";
            return Err(format!("{what} {}", latest.display()));
        }
        let (before, census) = (self.entrance.world.load_full(), self.census().await);
        let warnings = self.put_in_force(&edit, listening).await?;
        std::fs::remove_file(&latest).map_err(failed)?;
        let now = self.entrance.world.load();
        Ok(answers::Checked {
            problems: Vec::new(),
            warnings: warnings.iter().map(ToString::to_string).collect(),
            effects: effects(&before.config, &now.config, &census),
            diff: diff(&edit.before, &edit.after),
            digest: digest(&edit.after),
        })
    }

    /// Writes the file and reloads; a file that can't be used is replaced by the one before.
    async fn put_in_force(
        &self,
        Edit { before, after }: &Edit,
        listening: &mut Listening,
    ) -> Result<Vec<Problem>, String> {
        let path = self.file()?;
        let failed = |error: io::Error| format!("{}: can't be written: {error}", path.display());
        // It took time to look at what would happen.
        if self.read_file()? != *before {
            return Err(CHANGED.into());
        }
        write(path, before, after).map_err(failed)?;
        match self.reload(listening).await {
            Ok(warnings) => Ok(warnings),
            Err(problems) => {
                // Unless somebody else has written it meanwhile.
                if self.read_file()? == *after {
                    write(path, after, before).map_err(failed)?;
                }
                Err(Problems::to_string(&problems))
            }
        }
    }

    /// Who is there, by what a change may be about.
    async fn census(&self) -> Census {
        let count = |all: Vec<SessionRef>| {
            let mut census = Census::default();
            for session in all {
                let story = session.story();
                census.total += 1;
                *census.scopes.entry(story.protocol.name.to_owned()).or_default() += 1;
                *census.scopes.entry(story.listener.to_string()).or_default() += 1;
                for backend in story.backends() {
                    *census.backends.entry(backend.to_owned()).or_default() += 1;
                }
            }
            census
        };
        self.look_at_all(count).await.unwrap_or_default()
    }

    /// Keeps a file that is about to be changed.
    fn keep(&self, Edit { before, after }: &Edit) -> Result<PathBuf, String> {
        let folder = self.entrance.world.load().config.state.join(HISTORY_FOLDER);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        // Where the clock was set back, the latest comes last all the same.
        let last = self.history().pop().and_then(|last| kept_at(&last)).unwrap_or_default();
        let path = folder.join(format!("{:020}-{}.toml", now.max(last + 1), digest(after)));
        let failed = |error: io::Error| format!("{}: can't be written: {error}", path.display());
        std::fs::create_dir_all(&folder).map_err(failed)?;
        whole_file::write(&path, before.as_bytes(), |_| Ok(())).map_err(failed)?;
        Ok(path)
    }

    /// Keeps no more files than can be gone back to.
    fn forget_oldest(&self) {
        for old in self.history().iter().rev().skip(HISTORY_MAX) {
            let _ = std::fs::remove_file(old);
        }
    }

    /// Files that can be gone back to, the latest last.
    fn history(&self) -> Vec<PathBuf> {
        let folder = self.entrance.world.load().config.state.join(HISTORY_FOLDER);
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
        files.sort();
        files
    }
}

/// When a file was kept, by its name.
fn kept_at(kept: &Path) -> Option<u128> {
    kept.file_stem()?.to_str()?.split_once('-')?.0.parse().ok()
}

/// The digest of the file that a change has made, by the name under which the one before it is kept.
fn made(kept: &Path) -> Option<&str> {
    kept.file_stem()?.to_str()?.split_once('-').map(|(_, digest)| digest)
}

/// Writes a file in the place of the one that is there, whole or not at all, readable by the same people.
fn write(path: &Path, before: &str, after: &str) -> io::Result<()> {
    // Where the name leads is what should change, not the name.
    let path = std::fs::canonicalize(path)?;
    let metadata = std::fs::metadata(&path)?;
    let like_before = |file: &File| {
        file.set_permissions(std::fs::Permissions::from_mode(metadata.mode() & 0o7777))?;
        // Only root can give it away; whoever else wrote it before owns it.
        let _ = std::os::unix::fs::fchown(file, Some(metadata.uid()), Some(metadata.gid()));
        Ok(())
    };
    match whole_file::write(&path, after.as_bytes(), like_before) {
        // In a folder of somebody else's, or where the file alone is lent to a container, it can be written all the same.
        Err(error) if stays_in_place(error.kind()) => std::fs::write(&path, after).inspect_err(|_| {
            // A part of it is worse than what was there. If that fails too, whoever keeps a copy says where.
            let _ = std::fs::write(&path, before);
        }),
        result => result,
    }
}

fn stays_in_place(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::PermissionDenied | io::ErrorKind::ResourceBusy | io::ErrorKind::ReadOnlyFilesystem)
}

/// The lines in which two texts differ, with a few around them.
fn diff(before: &str, after: &str) -> Vec<String> {
    let (before, after): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let deadline = Some(Instant::now() + DIFF_TIME);
    let changes = similar::capture_diff_slices_deadline(Algorithm::Myers, &before, &after, deadline);
    let mut shown = Vec::new();
    for group in similar::group_diff_ops(changes, CONTEXT_LINES) {
        if !shown.is_empty() {
            shown.push(" …".to_owned());
        }
        let lines = group.iter().flat_map(|op| op.iter_changes(&before, &after));
        shown.extend(lines.map(|line| format!("{}{}", line.tag(), line.value())));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_is_shown_with_what_is_around_it() {
        let before = "a\nb\nc\nd\ne\nf\ng\nh\n";
        let after = "a\nb\nc\nD\ne\nf\ng\nh\ni\n";
        assert_eq!(diff(before, after), [" b", " c", "-d", "+D", " e", " f", " g", " h", "+i"]);
        assert!(diff(before, before).is_empty());
        let long: String = (0..40).map(|n| format!("{n}\n")).collect();
        let shown = diff(&long, &long.replace("\n5\n", "\nfive\n").replace("\n30\n", "\n"));
        assert_eq!(shown.iter().filter(|line| *line == " …").count(), 1, "{shown:?}");
        let [one, other] = ["a", "b"].map(|word| (0..20_000).map(|n| format!("{word}{n}\n")).collect::<String>());
        assert_eq!(diff(&one, &other).len(), 40_000, "nothing in common, and an end to it");
    }

    #[test]
    fn a_file_keeps_its_mode_and_a_link_stays_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("real.toml"), folder.path().join("link.toml"));
        std::fs::write(&file, "a").expect("a file");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o640)).expect("a mode");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        write(&link, "a", "b").expect("written");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 2, "nothing is left lying there");
        assert_eq!(std::fs::read_to_string(&file).expect("a file"), "b");
        assert_eq!(std::fs::metadata(&file).expect("a file").mode() & 0o777, 0o640);
        assert!(std::fs::symlink_metadata(&link).expect("a link").is_symlink());
    }
}
