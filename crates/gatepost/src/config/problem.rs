//! What is wrong with a configuration, and where: problems, and the places and files they are about.

use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where something stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// In the text; for putting problems in order.
    pub(super) offset: usize,
    /// File, line and column.
    pub(super) shown: Arc<str>,
}

/// A file that a setting or the command line names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedFile {
    pub(super) path: PathBuf,
    /// Where in the configuration it is named.
    pub(super) place: Option<Place>,
}

impl NamedFile {
    /// One that the command line names.
    pub(crate) fn given(path: &Path) -> Self {
        Self { path: path.to_owned(), place: None }
    }

    /// A problem with it, at the place that names it.
    pub(crate) fn problem(&self, message: impl std::fmt::Display) -> Problem {
        match &self.place {
            Some(place) => Problem::at(place, format!("{}: {message}", self.path.display())),
            None => Problem::file(&self.path, message.to_string()),
        }
    }
}

impl std::ops::Deref for NamedFile {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.path
    }
}

impl AsRef<Path> for NamedFile {
    fn as_ref(&self) -> &Path {
        &self.path
    }
}

/// Something that keeps Gatepost from starting, or a reload from being taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The file, with line and column where they are known.
    place: String,
    message: String,
}

impl Problem {
    /// A problem with a whole file that no setting names.
    pub(crate) fn file(path: &Path, message: impl Into<String>) -> Self {
        Self { place: path.display().to_string(), message: message.into() }
    }

    /// A problem with what stands at this place.
    pub(crate) fn at(place: &Place, message: impl Into<String>) -> Self {
        Self { place: place.shown.to_string(), message: message.into() }
    }

    /// A problem with something that has a name of its own, such as a listener.
    pub(crate) fn of(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }
}

/// Something that works, but that an administrator should know of.
pub(crate) type Warning = Problem;

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// One problem or more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problems(Vec<Problem>);

impl Problems {
    pub(crate) fn one(problem: Problem) -> Self {
        Self(vec![problem])
    }

    /// `Ok(value)` where there are none.
    pub(crate) fn check<T>(problems: Vec<Problem>, value: T) -> Result<T, Self> {
        if problems.is_empty() { Ok(value) } else { Err(Self(problems)) }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.0.iter()
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0
    }
}

impl std::fmt::Display for Problems {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            let line_end = if n == 0 { "" } else { "\n" };
            write!(f, "{line_end}{problem}")?;
        }
        Ok(())
    }
}
