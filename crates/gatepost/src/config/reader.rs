//! Reads TOML with positions, collects every problem, and records what is in force.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use gatepost_wire::Protocol;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::effective::{Block, Effective, Setting};
use super::problem::{NamedFile, Place, Problem, Warning};
use super::section::{Key, Section};
use super::values::Value;

/// What is gathered while a file is read.
pub(super) struct Context<'a> {
    path: &'a Path,
    text: &'a str,
    /// What stands in the tables of the file, sound or not: each table's name with each name in it.
    names: RefCell<Vec<(String, String)>>,
    /// With their offsets in the file, by which they are put in order.
    problems: RefCell<Vec<(usize, Problem)>>,
    warnings: RefCell<Vec<Warning>>,
    /// The settings in force, a table each, in the order in which tables are read.
    effective: RefCell<Vec<Block>>,
}

/// Where a value stands that is being read.
pub(super) struct Here<'a> {
    context: &'a Context<'a>,
    at: Range<usize>,
}

impl Here<'_> {
    /// A file that is named here; a relative path is relative to the configuration's folder.
    pub(super) fn named_file(&self, path: &Path) -> NamedFile {
        let path = self.context.path.parent().map_or_else(|| path.to_owned(), |folder| folder.join(path));
        NamedFile { path, place: Some(self.context.place(&self.at)) }
    }
}

impl<'a> Context<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self {
            path,
            text,
            names: RefCell::default(),
            problems: RefCell::default(),
            warnings: RefCell::default(),
            effective: RefCell::default(),
        }
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
        for (table, entry) in entries {
            let DeValue::Table(named) = entry.get_ref() else { continue };
            let names = named.iter().map(|(name, _)| (table.get_ref().to_string(), name.get_ref().to_string()));
            context.names.borrow_mut().extend(names);
        }
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
    pub(super) fn here<T>(&self, key: &Key<T>) -> Here<'a> {
        let at = self.entry(key.name).map_or_else(|| self.at.clone(), Spanned::span);
        Here { context: self.context, at }
    }

    /// Whether something of this name stands here.
    pub(super) fn has(&self, name: &str) -> bool {
        self.entry(name).is_some()
    }

    /// This table where the setting stands in it, else the other.
    pub(super) fn where_written<'t, T>(&'t self, other: &'t Self, key: &Key<T>) -> &'t Self {
        if self.has(key.name) { self } else { other }
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
        self.context.problem(&self.here(key).at, format!("{}: {message}", self.full(key.name)));
    }

    pub(super) fn warn_of<T>(&self, key: &Key<T>, message: impl std::fmt::Display) {
        self.context.warning(&self.here(key).at, format!("{}: {message}", self.full(key.name)));
    }

    /// The setting as written, else as it is written in `over`, else what leaving it out means. A value that makes no
    /// sense is a problem, and reads as if it were left out. `None` only where a problem was recorded.
    pub(super) fn get_over<T: Value>(&self, over: &Table<'_>, key: &Key<T>) -> Option<T> {
        if let Some(value) = self.written(key) {
            self.record(key.name, value.show(), false);
            return Some(value.placed(&self.here(key)));
        }
        // A mistake is said where it stands, not again where it is taken from there.
        if let Some(value) = over.peek(key).filter(|_| !self.has(key.name)) {
            self.record(key.name, value.show(), false);
            return Some(value.placed(&over.here(key)));
        }
        let default = key.default.and_then(|default| {
            let value = DeValue::parse(default).ok().and_then(|parsed| T::read(parsed.get_ref()));
            debug_assert!(value.is_some(), "the default of {} does not parse", key.name);
            value
        });
        let Some(value) = default.or_else(T::left_out) else {
            if !self.has(key.name) {
                self.lacks(key.name, T::EXPECTED);
            }
            return None;
        };
        self.record(key.name, value.show(), true);
        Some(value.placed(&self.here(key)))
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

    /// What was read, or what leaving it out means here.
    pub(super) fn or<T: Value>(&self, key: &Key<Option<T>>, read: Option<T>, default: T) -> T {
        read.unwrap_or_else(|| {
            self.record(key.name, default.show(), true);
            default
        })
    }

    /// What was read of a setting that can't be left out, as others stand.
    pub(super) fn needed<T: Value>(&self, key: &Key<Option<T>>, read: Option<T>) -> Option<T> {
        if read.is_none() && !self.has(key.name) {
            self.lacks(key.name, T::EXPECTED);
        }
        read
    }

    fn lacks(&self, name: &str, expected: &str) {
        self.problem(format!("needs `{name}`, {expected}"));
    }

    /// Says so where a time that must pass is none.
    pub(super) fn more_than_nothing(&self, key: &Key<Duration>, time: Duration) {
        if time.is_zero() {
            self.problem_with(key, "is more than nothing");
        }
    }

    /// A value, if it makes sense, to look at before it is read.
    pub(super) fn peek<T: Value>(&self, key: &Key<T>) -> Option<T> {
        T::read(self.entry(key.name)?.get_ref())
    }

    /// Says so where a setting names `[table.name]` and no such table, sound or not, stands in the file.
    pub(super) fn check_known<T>(&self, key: &Key<T>, table: &str, name: &str) {
        if !self.context.names.borrow().iter().any(|(known, its)| known == table && its == name) {
            self.problem_with(key, format_args!("there is no {}", head_of(table, name)));
        }
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

    /// Reads each table of the list that a section is about, with its number; `None` for those that make no sense.
    pub(super) fn each<T>(&self, section: &Section, read: impl Fn(usize, &Table<'a>) -> Option<T>) -> Vec<Option<T>> {
        let name = section.name;
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let DeValue::Array(items) = entry.get_ref() else {
            let message = format!("{}: expected a list of tables, [[{}]]", self.full(name), self.full(name));
            self.context.problem(&entry.span(), message);
            return Vec::new();
        };
        let open = |(n, item): (usize, &'a Spanned<DeValue<'a>>)| {
            let entries = self.expect_table(name, item)?;
            let (path, at) = (self.full(name), item.span());
            let table = Table { context: self.context, path, at, entries: Some(entries), block: Cell::default() };
            table.check_names(section);
            table.head("[[", "]]");
            read(n, &table)
        };
        items.iter().enumerate().map(open).collect()
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
    fn head(&self, open: &str, close: &str) {
        self.begin(format!("{open}{}{close}", self.path));
    }

    fn begin(&self, head: String) {
        let mut effective = self.context.effective.borrow_mut();
        self.block.set(effective.len());
        effective.push(Block { head, settings: Vec::new() });
    }

    /// Says what is in force; of one setting, the last word counts.
    fn record(&self, name: &'static str, shown: String, is_default: bool) {
        let mut effective = self.context.effective.borrow_mut();
        let Some(block) = effective.get_mut(self.block.get()) else { return };
        let setting = Setting { name, value: Some(shown).filter(|shown| !shown.is_empty()), is_default };
        match block.settings.iter_mut().find(|known| known.name == name) {
            Some(known) => *known = setting,
            None => block.settings.push(setting),
        }
    }

    fn entry(&self, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        entry_of(self.entries?, name)
    }

    /// The dotted name of what stands here under `name`.
    fn full(&self, name: &str) -> String {
        if self.path.is_empty() { as_key(name) } else { format!("{}.{}", self.path, as_key(name)) }
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

/// The head of a table to which the administrator gave its name, `[backend.store-a]`.
pub(crate) fn head_of(table: &str, name: &str) -> String {
    format!("[{table}.{}]", as_key(name))
}

/// A name as it stands in the file: quoted where it is more than a word.
fn as_key(name: &str) -> String {
    let is_word = name.chars().all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
    if is_word { name.to_owned() } else { format!("{name:?}") }
}

fn entry_of<'a>(entries: &'a DeTable<'a>, name: &str) -> Option<&'a Spanned<DeValue<'a>>> {
    entries.iter().find(|(key, _)| key.get_ref() == name).map(|(_, value)| value)
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
