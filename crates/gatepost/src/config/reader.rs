//! Reads TOML with positions, collects every problem, and records what is in force.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gatepost_wire::Protocol;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

pub(super) use super::settings::Section;

/// Where something stands in the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    offset: usize,
    /// File, line and column.
    shown: Arc<str>,
}

/// A file that a setting or the command line names.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct NamedFile {
    path: PathBuf,
    /// Where in the configuration it is named.
    place: Option<Place>,
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

/// How a value is written in TOML, for forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A text in quotes.
    Text,
    Number,
    Truth,
    /// One of these texts.
    Words(&'static [&'static str]),
    /// Several in brackets, or one.
    List(&'static Shape),
    /// As it stands in the file.
    Raw,
}

/// A type that a setting can have.
pub(crate) trait Value: Sized {
    /// What it looks like, in the reference and in errors: `a duration such as "90s"`.
    const EXPECTED: &'static str;
    /// How a form shows it.
    const SHAPE: Shape = Shape::Text;

    /// Reads it; `None` where the value doesn't look like [`Value::EXPECTED`].
    fn read(value: &DeValue<'_>) -> Option<Self>;

    /// Writes it as TOML.
    fn show(&self) -> String;
}

/// One setting: its only definition.
#[derive(Debug)]
pub(crate) struct Key<T> {
    pub(super) name: &'static str,
    /// As it would be written in the file.
    pub(super) default: Option<&'static str>,
    kind: std::marker::PhantomData<fn() -> T>,
}

impl<T> Key<T> {
    pub(super) const fn new(name: &'static str, default: Option<&'static str>) -> Self {
        Self { name, default, kind: std::marker::PhantomData }
    }
}

/// What is gathered while a file is read.
pub(super) struct Context<'a> {
    path: &'a Path,
    text: &'a str,
    /// With their offsets in the file, by which they are put in order.
    problems: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<Warning>>,
    /// The settings in force, a table each, in the order in which tables are read.
    effective: RefCell<Vec<Block>>,
}

/// The settings in force, table by table.
#[derive(Debug, Default)]
pub(crate) struct Effective(Vec<Block>);

/// One table of the effective configuration.
#[derive(Debug)]
struct Block {
    /// As it is opened in the file; empty for the file itself.
    head: String,
    settings: Vec<Setting>,
}

/// One setting of it.
#[derive(Debug)]
struct Setting {
    name: &'static str,
    /// As it would be written; `None`: it is not set and has no default.
    value: Option<String>,
    is_default: bool,
}

impl std::fmt::Display for Effective {
    /// As a configuration file, with the defaults marked.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for block in &self.0 {
            if !block.head.is_empty() {
                writeln!(f, "\n{}", block.head)?;
            }
            for Setting { name, value, is_default } in &block.settings {
                let mark = if *is_default { "  # default" } else { "" };
                match value {
                    Some(value) => writeln!(f, "{name} = {value}{mark}")?,
                    None => writeln!(f, "# {name} is not set")?,
                }
            }
        }
        Ok(())
    }
}

impl Effective {
    /// Each setting: its table, its name, its value as it would be written, and whether that is the default.
    pub(crate) fn settings(&self) -> impl Iterator<Item = (&str, &'static str, Option<&str>, bool)> {
        self.0.iter().flat_map(|block| {
            let settings = block.settings.iter();
            settings.map(|setting| (block.head.as_str(), setting.name, setting.value.as_deref(), setting.is_default))
        })
    }

    /// For programs: each setting with its table, its value as it would be written, and whether that is the default.
    pub(crate) fn json(&self) -> serde_json::Value {
        let describe = |block: &Block| {
            let setting = |setting: &Setting| {
                let Setting { name, value, is_default } = setting;
                serde_json::json!({ "table": block.head, "key": name, "value": value, "default": is_default })
            };
            block.settings.iter().map(setting).collect::<Vec<_>>()
        };
        serde_json::json!({ "effective": self.0.iter().flat_map(describe).collect::<Vec<_>>() })
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, problems: RefCell::default(), warnings: RefCell::default(), effective: RefCell::default() }
    }

    /// A file that is named at this place; a relative path is relative to the configuration's folder.
    pub(super) fn named_file(&self, at: &Range<usize>, path: &Path) -> NamedFile {
        let path = self.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path));
        NamedFile { path, place: Some(self.place(at)) }
    }

    pub(super) fn problem(&self, at: &Range<usize>, message: impl Into<String>) {
        self.problem_at(&self.place(at), message);
    }

    pub(super) fn problem_at(&self, place: &Place, message: impl Into<String>) {
        self.problems.borrow_mut().push((place.offset, Problem::at(place, message)));
    }

    pub(super) fn warning(&self, at: &Range<usize>, message: impl Into<String>) {
        self.warnings.borrow_mut().push(Problem::at(&self.place(at), message));
    }

    fn place(&self, at: &Range<usize>) -> Place {
        let offset = at.start.min(self.text.len());
        let before = &self.text[..offset];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Place { offset, shown: format!("{}:{line}:{column}", self.path.display()).into() }
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.borrow().is_empty()
    }

    /// What was gathered, the problems in the file's order.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Warning>, Effective) {
        let mut problems = self.problems.into_inner();
        problems.sort_by_key(|(offset, _)| *offset);
        problems.dedup();
        let problems = problems.into_iter().map(|(_, problem)| problem).collect();
        (problems, self.warnings.into_inner(), Effective(self.effective.into_inner()))
    }
}

/// A table of the file, read by the definitions of its section.
pub(super) struct Table<'a> {
    pub(super) context: &'a Context<'a>,
    path: String,
    at: Range<usize>,
    entries: Option<&'a DeTable<'a>>,
    /// Which block of the effective configuration is this table's, once its head is written.
    block: Cell<usize>,
}

impl<'a> Table<'a> {
    /// The file itself.
    pub(super) fn root(context: &'a Context<'a>, entries: &'a DeTable<'a>, section: &Section) -> Self {
        let table = Self { context, path: String::new(), at: 0..0, entries: Some(entries), block: Cell::default() };
        table.check_names(section);
        table.begin(String::new());
        table
    }

    /// Where it stands in the file.
    pub(super) fn at(&self) -> &Range<usize> {
        &self.at
    }

    /// As [`Table::at`], to be kept.
    pub(super) fn place(&self) -> Place {
        self.context.place(&self.at)
    }

    /// Where a setting stands, or else the table.
    fn at_key<T>(&self, key: &Key<T>) -> Range<usize> {
        self.entry(key.name).map_or_else(|| self.at.clone(), Spanned::span)
    }

    /// Whether something of this name stands here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// The dotted name, `imap.listener`.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn problem(&self, message: impl Into<String>) {
        self.context.problem(&self.at, format!("[{}] {}", self.path, message.into()));
    }

    /// A problem with one setting, at its place if it is written.
    pub(super) fn problem_with<T>(&self, key: &Key<T>, message: impl std::fmt::Display) {
        self.context.problem(&self.at_key(key), format!("{}: {message}", self.full(key.name)));
    }

    pub(super) fn warn_of<T>(&self, key: &Key<T>, message: impl std::fmt::Display) {
        self.context.warning(&self.at_key(key), format!("{}: {message}", self.full(key.name)));
    }

    /// The setting as written, else its default, else `None`. A value that makes no sense is a problem
    /// and reads as if it were left out.
    pub(super) fn get<T: Value>(&self, key: &Key<T>) -> Option<T> {
        let written = self.written(key);
        let is_default = written.is_none();
        let value = written.or_else(|| {
            let default = key.default?;
            let parsed = DeValue::parse(default).ok();
            let value = parsed.and_then(|parsed| T::read(parsed.get_ref()));
            debug_assert!(value.is_some(), "the default of {} does not parse", key.name);
            value
        });
        self.record(key.name, value.as_ref().map(Value::show), is_default);
        value
    }

    /// The setting as written, if it is and makes sense.
    fn written<T: Value>(&self, key: &Key<T>) -> Option<T> {
        let entry = self.entry(key.name)?;
        let value = T::read(entry.get_ref());
        if value.is_none() {
            let found = shown(entry.get_ref());
            self.problem_with(key, format_args!("expected {}, found {found}", T::EXPECTED));
        }
        value
    }

    /// As [`Table::get`], with a default that depends on something else.
    pub(super) fn get_or<T: Value>(&self, key: &Key<T>, default: T) -> T {
        let written = self.written(key);
        let is_default = written.is_none();
        let value = written.unwrap_or(default);
        self.record(key.name, Some(value.show()), is_default);
        value
    }

    /// The setting as written here, else as written in `parent`, else its default.
    pub(super) fn inherit<T: Value>(&self, parent: &Table<'_>, key: &Key<T>) -> Option<T> {
        let written = self.entry(key.name).is_some();
        let inherited = parent.entry(key.name).filter(|_| !written).and_then(|entry| T::read(entry.get_ref()));
        let Some(value) = inherited else { return self.get(key) };
        self.record(key.name, Some(value.show()), false);
        Some(value)
    }

    /// A value, if it makes sense, to look at before it is read.
    pub(super) fn peek<T: Value>(&self, key: &Key<T>) -> Option<T> {
        T::read(self.entry(key.name)?.get_ref())
    }

    /// As [`Table::inherit`], to look at a value that is read elsewhere.
    pub(super) fn inherit_quietly<T: Value>(&self, parent: &Table<'_>, key: &Key<T>) -> Option<T> {
        let entry = self.entry(key.name).or_else(|| parent.entry(key.name))?;
        T::read(entry.get_ref())
    }

    /// The names of the tables in `name`, sound or not.
    pub(super) fn names_of(&self, name: &str) -> Vec<String> {
        match self.entry(name).map(Spanned::get_ref) {
            Some(DeValue::Table(entries)) => entries.iter().map(|(key, _)| key.get_ref().to_string()).collect(),
            _ => Vec::new(),
        }
    }

    /// As [`Table::get`], for a setting that has no default and can't be left out.
    pub(super) fn require<T: Value>(&self, key: &Key<T>) -> Option<T> {
        if self.entry(key.name).is_none() {
            self.problem(format!("needs `{}`, {}", key.name, T::EXPECTED));
            return None;
        }
        self.get(key)
    }

    /// The file that a setting names.
    pub(super) fn file(&self, key: &Key<PathBuf>) -> Option<NamedFile> {
        self.get(key).map(|path| self.named_file(key, &path))
    }

    /// A file that a setting names among other things.
    pub(super) fn named_file<T>(&self, key: &Key<T>, path: &Path) -> NamedFile {
        self.context.named_file(&self.at_key(key), path)
    }

    /// As [`Table::file`], for a setting that can't be left out.
    pub(super) fn require_file(&self, key: &Key<PathBuf>) -> Option<NamedFile> {
        self.require(key).map(|path| self.named_file(key, &path))
    }

    /// As [`Table::inherit`], for a setting that names a file.
    pub(super) fn inherit_file(&self, parent: &Table<'_>, key: &Key<PathBuf>) -> Option<NamedFile> {
        let path = self.inherit(parent, key)?;
        let named_in = if self.entry(key.name).is_some() { self } else { parent };
        Some(named_in.named_file(key, &path))
    }

    /// The subtable that a section is about. One that is left out is read as an empty one.
    pub(super) fn table(&self, section: &Section) -> Table<'a> {
        self.table_with(section.name, |_| section)
    }

    /// As [`Table::table`], where what may stand in it follows from what does.
    fn table_with<'s>(&self, name: &str, section_of: impl Fn(&Table<'a>) -> &'s Section) -> Table<'a> {
        let entry = self.entry(name);
        let entries = entry.and_then(|entry| self.expect_table(name, entry));
        let at = entry.map_or_else(|| self.at.clone(), Spanned::span);
        let table = Table { context: self.context, path: self.full(name), at, entries, block: Cell::default() };
        table.check_names(section_of(&table));
        table.head("[", "]");
        table
    }

    /// As [`Table::table`], if it is written.
    pub(super) fn optional_table(&self, section: &Section) -> Option<Table<'a>> {
        self.entry(section.name).map(|_| self.table(section))
    }

    /// The table of a service, in which stands what this section says.
    pub(super) fn of_service(&self, protocol: &Protocol, section: &Section) -> Table<'a> {
        self.table_with(protocol.name, |_| section)
    }

    /// The array of tables that a section is about.
    pub(super) fn tables(&self, section: &Section) -> Vec<Table<'a>> {
        let name = section.name;
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let DeValue::Array(items) = entry.get_ref() else {
            let message = format!("{}: expected a list of tables, [[{}]]", self.full(name), self.full(name));
            self.context.problem(&entry.span(), message);
            return Vec::new();
        };
        let open = |item: &'a Spanned<DeValue<'a>>| {
            let entries = self.expect_table(name, item)?;
            let (path, at) = (self.full(name), item.span());
            let table = Table { context: self.context, path, at, entries: Some(entries), block: Cell::default() };
            table.check_names(section);
            Some(table)
        };
        items.iter().filter_map(open).collect()
    }

    /// The subtables of `name`, whose names the administrator chose, in the file's order.
    pub(super) fn named_tables<'s>(
        &self,
        name: &str,
        section_of: impl Fn(&Table<'a>) -> &'s Section,
    ) -> Vec<(String, Table<'a>)> {
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let Some(entries) = self.expect_table(name, entry) else { return Vec::new() };
        let (path, at) = (self.full(name), entry.span());
        let parent = Table { context: self.context, path, at, entries: Some(entries), block: Cell::default() };
        let mut named: Vec<_> = entries.iter().collect();
        named.sort_by_key(|(key, _)| key.span().start);
        let open = |key: &Spanned<std::borrow::Cow<'a, str>>| {
            let known = key.get_ref().to_string();
            let sound =
                !known.is_empty() && known.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
            if !sound {
                parent
                    .context
                    .problem(&key.span(), format!("[{}] a name is letters, digits, `-`, `_` and `.`", parent.path));
            }
            sound.then(|| (known.clone(), parent.table_with(&known, &section_of)))
        };
        named.into_iter().filter_map(|(key, _)| open(key)).collect()
    }

    /// Begins this table in the effective configuration.
    pub(super) fn head(&self, open: &str, close: &str) {
        self.begin(format!("{open}{}{close}", self.path));
    }

    fn begin(&self, head: String) {
        let mut effective = self.context.effective.borrow_mut();
        self.block.set(effective.len());
        effective.push(Block { head, settings: Vec::new() });
    }

    fn record(&self, name: &'static str, value: Option<String>, is_default: bool) {
        let mut effective = self.context.effective.borrow_mut();
        if let Some(block) = effective.get_mut(self.block.get()) {
            block.settings.push(Setting { name, value, is_default });
        }
    }

    fn entry(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.entries?.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
    }

    fn full(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    fn expect_table(&self, name: &str, entry: &'a Spanned<DeValue<'a>>) -> Option<&'a DeTable<'a>> {
        if let DeValue::Table(entries) = entry.get_ref() {
            return Some(entries);
        }
        let found = shown(entry.get_ref());
        self.context.problem(&entry.span(), format!("{}: expected a table, found {found}", self.full(name)));
        None
    }

    /// Refuses names that the section doesn't have, and by another message those of later versions.
    fn check_names(&self, section: &Section) {
        for (key, _) in self.entries.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            let full = self.full(name);
            if section.is_reserved(name) {
                self.context.problem(&key.span(), format!("{full}: not in this version of Gatepost"));
            } else if !section.is_known(name) {
                let hint = section.nearest(name).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
                self.context.problem(&key.span(), format!("{full}: unknown setting{hint}"));
            }
        }
    }
}

/// A value as an error shows it.
fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(items) => {
            format!("[{}]", items.iter().map(|item| shown(item.get_ref())).collect::<Vec<_>>().join(", "))
        }
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Parses the file's syntax; every syntax error becomes a problem.
pub(super) fn parse_syntax<'a>(context: &Context<'_>, text: &'a str) -> Spanned<DeTable<'a>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        context.problem(&error.span().unwrap_or(0..0), error.message().to_owned());
    }
    table
}
