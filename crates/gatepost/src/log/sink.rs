//! The places where records end up: standard error, files with rotation, and what is outside.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::lines::{Lines, Shape};
use super::outlet::{Outlet, Way};
use super::remote::Keeper;
use super::{Record, format};
use crate::config::{
    self, Level, LogFormat, LogRule, LogTarget, Period, Problem, Problems, Rotate, SyslogServer, TlsVersion,
};
use crate::net::{http, tls};

/// A place and what goes there.
pub(super) struct Sink {
    service: Option<String>,
    level: Level,
    format: LogFormat,
    target: Target,
}

enum Target {
    Stderr,
    /// Standard error, for what no other place took; comes last.
    Leftovers,
    File(RotatingFile),
    Outside(Outlet),
}

/// Opens all places; every failure is a problem of its own.
pub(super) fn open(settings: &config::Log) -> Result<Vec<Sink>, Problems> {
    let everything =
        [LogRule { service: None, level: settings.level, target: LogTarget::Stderr, format: LogFormat::Text }];
    let rules = if settings.rules.is_empty() { &everything[..] } else { &settings.rules };
    let mut problems = Vec::new();
    let mut sinks = Vec::new();
    for rule in rules {
        let target = match open_target(&rule.target) {
            Ok(target) => target,
            Err(problem) => {
                problems.push(problem);
                continue;
            }
        };
        sinks.push(Sink { service: rule.service.clone(), level: rule.level, format: rule.format, target });
    }
    if !settings.rules.is_empty() {
        sinks.push(Sink { service: None, level: Level::Warning, format: LogFormat::Text, target: Target::Leftovers });
    }
    Problems::check(problems, sinks)
}

fn open_target(target: &LogTarget) -> Result<Target, Problem> {
    let way = match target {
        LogTarget::Stderr => return Ok(Target::Stderr),
        LogTarget::File { path, rotate } => {
            let file = RotatingFile::open(path, *rotate);
            let file = file.map_err(|error| path.problem(format_args!("can't be opened for the log: {error}")))?;
            return Ok(Target::File(file));
        }
        LogTarget::Journald => Way::Lines(Lines::Journal, Shape::Journal),
        LogTarget::Syslog { server, facility, trust } => {
            Way::Lines(Lines::syslog(server, trust)?, Shape::syslog(facility.0))
        }
        LogTarget::Remote { url, token_file, trust } => {
            let (pass, tls) = (http::read_bearer(token_file)?, tls::client_config(trust, TlsVersion::Tls12)?);
            Way::Keeper(Keeper { url: url.clone(), pass, tls })
        }
    };
    let failed =
        |error| Problem::of("log.rule", format!("the thread that sends its records can't be started: {error}"));
    Outlet::open(way).map(Target::Outside).map_err(failed)
}

/// Gives a record to every place that wants it. What says that something is wrong and is wanted by
/// none goes to standard error: a failed reload must not go unseen because only `imap` is logged.
pub(super) fn write_to(sinks: &mut [Sink], record: &Record) {
    let mut is_taken = false;
    for sink in sinks {
        match sink.target {
            Target::Leftovers if is_taken => {}
            _ => is_taken |= sink.write(record),
        }
    }
}

/// Looks whether all places could be opened, and makes none.
pub(super) fn check(settings: &config::Log) -> Result<(), Problems> {
    let mut problems = Vec::new();
    for rule in &settings.rules {
        if let LogTarget::Remote { token_file, .. } = &rule.target {
            problems.extend(http::read_bearer(token_file).err());
        }
        if let LogTarget::Remote { trust, .. } | LogTarget::Syslog { trust, server: SyslogServer::Tls(..), .. } =
            &rule.target
        {
            problems.extend(tls::client_config(trust, TlsVersion::Tls12).err());
        }
        let LogTarget::File { path, .. } = &rule.target else { continue };
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let result = if path.exists() {
            OpenOptions::new().append(true).open(path).map(drop)
        } else {
            std::fs::read_dir(folder).map(drop)
        };
        if let Err(error) = result {
            problems.push(path.problem(format_args!("can't be opened for the log: {error}")));
        }
    }
    Problems::check(problems, ())
}

impl Sink {
    pub(super) const fn level(&self) -> Level {
        self.level
    }

    /// What is logged at all; what nobody else takes has a level of its own.
    pub(super) const fn set_level(&mut self, level: Level) {
        if !matches!(self.target, Target::Leftovers) {
            self.level = level;
        }
    }

    /// Waits for what is on its way elsewhere, until then at most.
    pub(super) fn finish(&self, until: Instant) {
        if let Target::Outside(outlet) = &self.target {
            outlet.finish(until);
        }
    }

    /// Writes a record if it belongs here; whether it does.
    fn write(&mut self, record: &Record) -> bool {
        let is_wanted = record.level <= self.level || record.is_followed;
        if !is_wanted || self.service.as_ref().is_some_and(|wanted| wanted != record.about()) {
            return false;
        }
        let line = || match self.format {
            LogFormat::Text => format::text(record),
            LogFormat::Json => format::json(record),
        };
        match &mut self.target {
            Target::Stderr | Target::Leftovers => {
                let _ = std::io::stderr().lock().write_all(line().as_bytes());
            }
            Target::File(file) => file.write(line().as_bytes(), SystemTime::now()),
            Target::Outside(outlet) => outlet.write(record, self.format),
        }
        true
    }

    /// Called now and then: a file whose period has ended is put aside even if nothing is written.
    pub(super) fn tick(&mut self) {
        if let Target::File(file) = &mut self.target {
            file.write(&[], SystemTime::now());
        }
    }
}

/// A log file that is put aside when it is full or its time is over.
struct RotatingFile {
    path: PathBuf,
    rotate: Rotate,
    file: File,
    size: u64,
    /// The number of the period in which it was begun.
    period: u64,
    /// When a failure to write was last said, so that a full disk doesn't flood standard error.
    complained: Option<SystemTime>,
}

impl RotatingFile {
    fn open(path: &Path, rotate: Rotate) -> std::io::Result<Self> {
        let file = append_to(path)?;
        let metadata = file.metadata()?;
        let begun = if metadata.len() == 0 { SystemTime::now() } else { metadata.modified()? };
        Ok(Self {
            path: path.to_owned(),
            rotate,
            size: metadata.len(),
            period: period_of(rotate.every, begun),
            file,
            complained: None,
        })
    }

    fn write(&mut self, line: &[u8], now: SystemTime) {
        let period = period_of(self.rotate.every, now);
        let full = self.rotate.size.is_some_and(|max| self.size > 0 && self.size + line.len() as u64 > max.0);
        let prepared =
            if full || (period != self.period && self.size > 0) { self.put_aside(now) } else { self.follow() };
        self.period = period;
        // A file that can't be put aside is written to all the same.
        if let Err(error) = prepared.and(self.file.write_all(line)) {
            self.complain(&error, now);
        }
        self.size += line.len() as u64;
    }

    /// Somebody else (logrotate) may have moved the file away: then a new one is begun.
    fn follow(&mut self) -> std::io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let ours = self.file.metadata()?;
        let is_ours = |found: std::fs::Metadata| found.ino() == ours.ino() && found.dev() == ours.dev();
        if !std::fs::metadata(&self.path).is_ok_and(is_ours) {
            self.file = append_to(&self.path)?;
            self.size = self.file.metadata()?.len();
        }
        Ok(())
    }

    fn put_aside(&mut self, now: SystemTime) -> std::io::Result<()> {
        let time = humantime::format_rfc3339_millis(now).to_string().replace([':', '-'], "");
        std::fs::rename(&self.path, self.old_name(&time))?;
        self.file = append_to(&self.path)?;
        self.size = 0;
        self.remove_oldest()
    }

    /// `everything.log` becomes `everything.log.20261123T224102.123Z`, which sorts by age.
    fn old_name(&self, time: &str) -> PathBuf {
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{time}"));
        name.into()
    }

    fn remove_oldest(&self) -> std::io::Result<()> {
        let Some(keep) = self.rotate.keep.0 else { return Ok(()) };
        let prefix = self.old_name("").file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let is_ours = |name: &str| {
            name.strip_prefix(&prefix)
                .is_some_and(|time| time.ends_with('Z') && time.starts_with(|c: char| c.is_ascii_digit()))
        };
        let mut old: Vec<PathBuf> = std::fs::read_dir(folder)?
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
            .map(|entry| entry.path())
            .collect();
        old.sort();
        let excess = old.len().saturating_sub(keep.get() as usize);
        old[..excess].iter().try_for_each(std::fs::remove_file)
    }

    fn complain(&mut self, error: &std::io::Error, now: SystemTime) {
        let recently = |last: SystemTime| now.duration_since(last).is_ok_and(|since| since < Duration::from_mins(1));
        if !self.complained.is_some_and(recently) {
            self.complained = Some(now);
            let _ = writeln!(std::io::stderr(), "gatepost: {}: can't write the log: {error}", self.path.display());
        }
    }
}

fn append_to(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// The number of the period that holds `time`; always 0 where time plays no role.
fn period_of(every: Option<Period>, time: SystemTime) -> u64 {
    let hours = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
    match every {
        None => 0,
        Some(Period::Hour) => hours,
        Some(Period::Day) => hours / 24,
        // The epoch was a Thursday; weeks begin on Monday.
        Some(Period::Week) => (hours / 24 + 3) / 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Max, Size};
    use std::num::NonZeroU32;

    fn files(folder: &Path) -> Vec<String> {
        let read = |entry: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(entry.expect("an entry").path()).expect("a file")
        };
        let mut contents: Vec<_> = std::fs::read_dir(folder).expect("a folder").map(read).collect();
        contents.sort();
        contents
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_removed() {
        let folder = tempfile::tempdir().expect("a folder");
        let rotate = Rotate { size: Some(Size(4)), every: None, keep: Max(NonZeroU32::new(2)) };
        let mut file = RotatingFile::open(&folder.path().join("log"), rotate).expect("a file");
        let start = SystemTime::now();
        for (n, line) in ["aa\n", "bb\n", "cc\n", "dd\n"].iter().enumerate() {
            file.write(line.as_bytes(), start + Duration::from_millis(n as u64));
        }
        assert_eq!(files(folder.path()), ["bb\n", "cc\n", "dd\n"]);
    }

    #[test]
    fn a_day_that_ends_begins_a_new_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let rotate = Rotate { size: None, every: Some(Period::Day), keep: Max(None) };
        let mut file = RotatingFile::open(&folder.path().join("log"), rotate).expect("a file");
        let now = SystemTime::now();
        file.write(b"a\n", now);
        file.write(b"b\n", now + Duration::from_hours(24));
        assert_eq!(files(folder.path()), ["a\n", "b\n"]);
    }

    #[test]
    fn a_file_moved_away_is_begun_anew() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        let mut file = RotatingFile::open(&path, Rotate::default()).expect("a file");
        file.write(b"a\n", SystemTime::now());
        std::fs::rename(&path, folder.path().join("log.1")).expect("a move");
        file.write(b"b\n", SystemTime::now());
        assert_eq!(files(folder.path()), ["a\n", "b\n"]);
    }
}
