//! Changing a configuration file as a person would: settings are set, taken away and added where they belong, and
//! comments, order and blank lines stay; a table that is taken away takes along what stands right above it. What comes out is read again like any other file before anybody uses it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml_edit::{Array, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value};

use super::root::Root;
use super::section::{Described, Nested, Section, Written};
use super::values::Shape;

/// The way to a table from the file's top; in a list of tables, a number (from 0) says which. `imap/listener/0`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub(crate) struct TablePath(pub(crate) Vec<String>);

impl TablePath {
    pub(crate) fn parse(text: &str) -> Self {
        Self(text.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect())
    }

    /// The table of this name, or number, in this one.
    pub(crate) fn child(&self, name: &str) -> Self {
        Self(self.0.iter().cloned().chain([name.to_owned()]).collect())
    }
}

impl std::fmt::Display for TablePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.join("/"))
    }
}

/// One change of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
// A setting's name that is misspelt would else be none, and stand for the whole table.
#[serde(deny_unknown_fields)]
pub(crate) struct Change {
    /// The table, from the top: `["imap", "listener", "0"]`. What isn't there yet is made; the number behind the last of
    /// a list adds one.
    pub(crate) table: TablePath,
    /// The setting; none: the whole table.
    pub(crate) key: Option<String>,
    /// As it would be written in the file; none: it is taken away.
    pub(crate) value: Option<String>,
}

/// A setting, as a form shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) key: &'static str,
    pub(crate) help: &'static str,
    pub(crate) expected: &'static str,
    pub(crate) default: Option<&'static str>,
    pub(crate) shape: Shape,
    /// What stands in the file, without the quotes that its shape makes needless; empty: nothing.
    pub(crate) shown: String,
}

/// A table, as a form shows it.
#[derive(Debug, Clone)]
pub(crate) struct Form {
    pub(crate) help: &'static str,
    /// The tables that may stand in it.
    pub(crate) tables: Vec<Nested>,
    pub(crate) fields: Vec<Field>,
    /// It stands in the file.
    pub(crate) is_written: bool,
}

/// Tables of tables: which there are in the file.
#[derive(Debug)]
pub(crate) struct Lists(DocumentMut);

impl Lists {
    pub(crate) fn of(text: &str) -> Result<Self, String> {
        text.parse().map(Self).map_err(|error: toml_edit::TomlError| error.to_string())
    }

    /// The tables in a list (numbers), or under a name that the administrator chose.
    pub(crate) fn children(&self, path: &TablePath) -> Vec<String> {
        match find(self.0.as_item(), &path.0) {
            Some(Node::Table(table)) => {
                table.iter().filter(|(_, item)| item.is_table_like()).map(|(name, _)| name.to_owned()).collect()
            }
            Some(Node::List(count)) => (0..count).map(|n| n.to_string()).collect(),
            None => Vec::new(),
        }
    }

    /// The form of a table; `None`: nothing of this name may stand in the file.
    pub(crate) fn form(&self, path: &TablePath) -> Option<Form> {
        let node = find(self.0.as_item(), &path.0);
        let table = match &node {
            Some(Node::Table(table)) => Some(*table),
            _ => None,
        };
        let section = section_of(path, table)?;
        let field = |described: &'static Described| {
            let written = table.and_then(|table| table.get(described.name));
            // What is a table has a form of its own.
            let value = written.and_then(Item::as_value);
            let (shape, shown) = match value {
                Some(value) => plain(described.shape, value),
                None => (described.shape, String::new()),
            };
            let Described { name, help, expected, default, .. } = *described;
            Field { key: name, help, expected, default, shape, shown }
        };
        Some(Form {
            help: section.help,
            tables: section.children().collect(),
            fields: section.settings().map(field).collect(),
            is_written: table.is_some(),
        })
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let table = self.table.0.iter().map(String::as_str);
        let place: Vec<_> = table.chain(self.key.as_deref()).collect();
        let taken_away = if self.value.is_none() { " (taken away)" } else { "" };
        write!(f, "{}{taken_away}", place.join("/"))
    }
}

/// The settings of a text in which each stands on a line, as they would be written.
pub(crate) fn settings_of(text: &str) -> Result<Vec<(String, String)>, String> {
    let document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    let setting = |(key, item): (&str, &Item)| match item {
        Item::Value(value) => Ok((key.to_owned(), bare(value))),
        _ => Err(format!("{key}: a table is written on one line here, such as {key} = {{ … }}")),
    };
    document.iter().map(setting).collect()
}

enum Node<'a> {
    Table(&'a dyn TableLike),
    /// A list of so many tables.
    List(usize),
}

fn find<'a>(item: &'a Item, path: &[String]) -> Option<Node<'a>> {
    let Some((name, rest)) = path.split_first() else {
        return match item {
            Item::ArrayOfTables(tables) => Some(Node::List(tables.len())),
            Item::Value(Value::Array(values)) => Some(Node::List(values.len())),
            item => item.as_table_like().map(Node::Table),
        };
    };
    match item {
        Item::ArrayOfTables(tables) => {
            let table = tables.get(name.parse().ok()?)?;
            match rest.split_first() {
                None => Some(Node::Table(table)),
                Some((name, rest)) => find(table.get(name)?, rest),
            }
        }
        Item::Value(Value::Array(values)) => {
            let table: &dyn TableLike = values.get(name.parse().ok()?)?.as_inline_table()?;
            match rest.split_first() {
                None => Some(Node::Table(table)),
                Some((name, rest)) => find(table.get(name)?, rest),
            }
        }
        item => find(item.as_table_like()?.get(name)?, rest),
    }
}

/// A value as it is written, without the comment behind it.
fn bare(value: &Value) -> String {
    let mut value = value.clone();
    value.decor_mut().clear();
    value.to_string()
}

/// A value without needless quotes, and the shape in which that can be read back.
fn plain(shape: Shape, value: &Value) -> (Shape, String) {
    let raw = || (Shape::Raw, bare(value));
    let is_plain = |text: &str| !text.contains([',', '"', '\n']) && text.trim() == text;
    match (shape, value) {
        (Shape::Text | Shape::Words(_), Value::String(text)) => (shape, text.value().clone()),
        (Shape::List(_), Value::String(text)) if is_plain(text.value()) => (shape, text.value().clone()),
        (Shape::List(Shape::Text | Shape::Words(_)), Value::Array(values)) => {
            let texts: Option<Vec<_>> =
                values.iter().map(|value| value.as_str().filter(|text| is_plain(text))).collect();
            texts.map_or_else(raw, |texts| (shape, texts.join(", ")))
        }
        (Shape::Number | Shape::Truth, Value::Integer(_) | Value::Boolean(_)) => (shape, bare(value)),
        _ => raw(),
    }
}

impl Shape {
    /// What somebody typed, as it would be written in the file.
    pub(crate) fn written(&self, typed: &str) -> String {
        let typed = typed.trim();
        let quoted = |text: &str| Value::from(text).to_string();
        match self {
            Self::Text | Self::Words(_) => quoted(typed),
            Self::Number | Self::Truth | Self::Raw => typed.to_owned(),
            Self::List(item) => {
                let items: Vec<_> = typed.split(',').map(str::trim).filter(|item| !item.is_empty()).collect();
                match (&items[..], item) {
                    // As most people write it.
                    ([one], Self::Text | Self::Words(_)) => quoted(one),
                    _ => format!("[{}]", items.iter().map(|one| item.written(one)).collect::<Vec<_>>().join(", ")),
                }
            }
        }
    }
}

/// Makes the changes, one after another. An error says which can't be made.
pub(crate) fn apply(text: &str, changes: &[Change]) -> Result<String, String> {
    let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| error.to_string())?;
    // From the back, so that the numbers of those before stay what they were.
    let is_removal = |change: &&Change| change.key.is_none() && change.value.is_none();
    for change in changes.iter().filter(|change| !is_removal(change)) {
        make(&mut document, change)?;
    }
    let mut removals: Vec<_> = changes.iter().filter(is_removal).collect();
    let number = |part: &String| (part.parse::<u32>().unwrap_or(0), part.clone());
    removals.sort_by_cached_key(|change| std::cmp::Reverse(change.table.0.iter().map(number).collect::<Vec<_>>()));
    for change in removals {
        remove(document.as_item_mut(), &change.table.0)
            .ok_or_else(|| format!("{}: there is no such table", change.table))?;
    }
    Ok(document.to_string())
}

fn make(document: &mut DocumentMut, change: &Change) -> Result<(), String> {
    let Change { table: path, key, value } = change;
    let Some(key) = key else { return Err(format!("{path}: a whole table can only be taken away")) };
    let shown = format!("{path}/{key}");
    let value = value.as_ref().map(|value| {
        let parsed: Result<Value, _> = value.parse();
        parsed.map_err(|error| format!("{shown}: {value:?} is no value of TOML: {}", error.to_string().trim()))
    });
    let value = value.transpose()?;
    if value.is_none() && find(document.as_item(), &path.0).is_none() {
        return Ok(());
    }
    if section_of(path, None).is_none() {
        return Err(format!("{path}: there is no such table"));
    }
    let table = open(document.as_item_mut(), &path.0).ok_or_else(|| format!("{path}: is no table"))?;
    match value {
        None => {
            if let Some(comments) = take_out(table, key)
                && let Some(table) = with_header(document.as_table_mut(), &path.0)
            {
                put_at_head(table, path.0.is_empty(), &comments);
            }
        }
        Some(mut value) => match table.get_mut(key) {
            None | Some(Item::None) => drop(table.insert(key, Item::Value(value))),
            Some(Item::Value(old)) => {
                // What stands around it, a comment behind it most of all.
                *value.decor_mut() = old.decor().clone();
                *old = value;
            }
            Some(_) => return Err(format!("{shown}: is a table of its own in the file, and is changed there")),
        },
    }
    Ok(())
}

/// Takes a setting out of a table; comments above it stay, and come to stand above the next one or below the last. Where
/// there is no other, they are given back.
fn take_out(table: &mut dyn TableLike, key: &str) -> Option<String> {
    let keys: Vec<_> = table.iter().filter(|(_, item)| item.is_value()).map(|(key, _)| key.to_owned()).collect();
    let Some(n) = keys.iter().position(|known| known == key) else {
        // Tables of its own are not what a form shows.
        return None;
    };
    let before = table.key(key).and_then(|key| key.leaf_decor().prefix()).and_then(RawString::as_str);
    let mut above = before.filter(|text| text.contains('#')).unwrap_or_default().to_owned();
    // What stands behind it on its line goes with it; what came to stand below it does not.
    let behind = table.get(key).and_then(Item::as_value).and_then(|value| value.decor().suffix()?.as_str());
    if let Some((_, below)) = behind.and_then(|behind| behind.split_once('\n')) {
        above = format!("{above}{below}\n");
    }
    table.remove(key);
    if above.is_empty() {
        return None;
    }
    if let Some(mut next) = keys.get(n + 1).and_then(|next| table.key_mut(next)) {
        let own = next.leaf_decor().prefix().and_then(RawString::as_str).unwrap_or_default().to_owned();
        next.leaf_decor_mut().set_prefix(above + &own);
    } else if let Some(last) = n.checked_sub(1).and_then(|n| table.get_mut(&keys[n])?.as_value_mut()) {
        let own = last.decor().suffix().and_then(RawString::as_str).unwrap_or_default().to_owned();
        last.decor_mut().set_suffix(format!("{own}\n{}", above.trim_end()));
    } else {
        return Some(above);
    }
    None
}

/// The table at a path, if it stands on lines of its own.
fn with_header<'a>(table: &'a mut Table, path: &[String]) -> Option<&'a mut Table> {
    let Some((name, rest)) = path.split_first() else { return Some(table) };
    match table.get_mut(name)? {
        Item::Table(table) => with_header(table, rest),
        Item::ArrayOfTables(tables) => {
            let (n, rest) = rest.split_first()?;
            with_header(tables.get_mut(n.parse().ok()?)?, rest)
        }
        _ => None,
    }
}

/// Puts comments above all that is in a table: below its header, which the root has none of.
fn put_at_head(table: &mut Table, is_root: bool, comments: &str) {
    let text = |decor: Option<&RawString>| decor.and_then(RawString::as_str).unwrap_or_default().to_owned();
    let decor = table.decor_mut();
    if is_root {
        let own = text(decor.prefix());
        decor.set_prefix(own + comments);
    } else {
        let own = text(decor.suffix());
        decor.set_suffix(format!("{own}\n{}", comments.trim_end()));
    }
}

/// The table at a path, made where it isn't there.
fn open<'a>(item: &'a mut Item, path: &[String]) -> Option<&'a mut dyn TableLike> {
    let Some((name, rest)) = path.split_first() else { return item.as_table_like_mut() };
    match item {
        Item::ArrayOfTables(tables) => {
            let n: usize = name.parse().ok()?;
            if n == tables.len() {
                tables.push(Table::new());
            }
            open_in(tables.get_mut(n)?, rest, false)
        }
        Item::Value(Value::Array(values)) => {
            let n: usize = name.parse().ok()?;
            if n == values.len() {
                values.push(InlineTable::new());
            }
            open_in(values.get_mut(n)?.as_inline_table_mut()?, rest, true)
        }
        item => {
            let is_inline = item.is_inline_table();
            open_in(item.as_table_like_mut()?, path, is_inline)
        }
    }
}

/// As [`open`], from a table; one of a single line has all that it holds on that line.
fn open_in<'a>(table: &'a mut dyn TableLike, path: &[String], is_inline: bool) -> Option<&'a mut dyn TableLike> {
    let Some((name, rest)) = path.split_first() else { return Some(table) };
    if !table.contains_key(name) {
        let is_list = rest.first().is_some_and(|next| next.bytes().all(|byte| byte.is_ascii_digit()));
        // Names of back ends and directories may be numbers too.
        let is_list = is_list && !matches!(name.as_str(), "backend" | "directory");
        let fresh = match (is_list, is_inline) {
            (true, true) => Item::Value(Value::Array(Array::new())),
            (true, false) => Item::ArrayOfTables(toml_edit::ArrayOfTables::new()),
            (false, true) => Item::Value(Value::InlineTable(InlineTable::new())),
            (false, false) => {
                let mut fresh = Table::new();
                // [backend.store-a] needs no [backend] before it.
                fresh.set_implicit(!rest.is_empty());
                Item::Table(fresh)
            }
        };
        table.insert(name, fresh);
    }
    open(table.get_mut(name)?, rest)
}

fn remove(item: &mut Item, path: &[String]) -> Option<()> {
    let (last, parents) = path.split_last()?;
    let mut at = item;
    for (n, name) in parents.iter().enumerate() {
        at = match at {
            Item::ArrayOfTables(tables) => {
                let table = tables.get_mut(name.parse().ok()?)?;
                return remove_in(table, &path[n + 1..]);
            }
            Item::Value(Value::Array(values)) => {
                let table = values.get_mut(name.parse().ok()?)?.as_inline_table_mut()?;
                return remove_in(table, &path[n + 1..]);
            }
            item => item.as_table_like_mut()?.get_mut(name)?,
        };
    }
    match at {
        Item::ArrayOfTables(tables) => {
            let n: usize = last.parse().ok().filter(|n| *n < tables.len())?;
            tables.remove(n);
            Some(())
        }
        Item::Value(Value::Array(values)) => {
            let n: usize = last.parse().ok().filter(|n| *n < values.len())?;
            values.remove(n);
            Some(())
        }
        item => item.as_table_like_mut()?.remove(last).map(drop),
    }
}

fn remove_in(table: &mut dyn TableLike, path: &[String]) -> Option<()> {
    let (name, rest) = path.split_first()?;
    if rest.is_empty() {
        return table.remove(name).map(drop);
    }
    remove(table.get_mut(name)?, rest)
}

/// What may stand in the table at a path.
fn section_of(path: &TablePath, table: Option<&dyn TableLike>) -> Option<&'static Section> {
    let parts: Vec<&str> = path.0.iter().map(String::as_str).collect();
    let kind = table.and_then(|table| table.get("type")).and_then(Item::as_str);
    Root::SECTION.at(&parts, kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "# A site.\nname = \"mail\"   # ours\n\n[imap]\ngreeting = \"hello\"  # be nice\n\n\
                        [[imap.listener]]\naddress = \"127.0.0.1:143\"   # clear\n[[imap.listener]]\naddress = \"127.0.0.1:993\"\n\
                        limits = { connections = 5 }\n\n[map]\ndefault = \"a\"\n\n# the only one\n[backend.a]\nhost = \"10.0.0.1\"\n";

    fn change(table: &str, key: &str, value: Option<&str>) -> Change {
        let key = Some(key.to_owned()).filter(|key| !key.is_empty());
        Change { table: TablePath::parse(table), key, value: value.map(str::to_owned) }
    }

    fn changed(changes: &[Change]) -> String {
        apply(FILE, changes).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn a_change_touches_nothing_else() {
        let text = changed(&[change("imap", "greeting", Some("\"welcome\""))]);
        assert_eq!(text, FILE.replace("\"hello\"", "\"welcome\""));
        let text = changed(&[change("imap/listener/0", "address", Some("\"[::1]:143\""))]);
        assert_eq!(text, FILE.replace("127.0.0.1:143", "[::1]:143"));
        assert_eq!(changed(&[change("imap", "nothing", None), change("threads", "max", None)]), FILE);
        let text = changed(&[change("imap", "greeting", None)]);
        assert_eq!(text, FILE.replace("greeting = \"hello\"  # be nice\n", ""));
    }

    #[test]
    fn comments_above_a_setting_outlive_it() {
        let file = "# A site.\n\n# Ours.\nname = \"mail\"\n# Here.\nstate = \"x\" # now\n\n# The last.\ndrain = \"5s\"\n\n[imap]\n";
        let without = |key: &str| apply(file, &[change("", key, None)]).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(without("name"), file.replace("name = \"mail\"\n", ""));
        assert_eq!(without("state"), file.replace("state = \"x\" # now\n", ""));
        assert_eq!(without("drain"), file.replace("drain = \"5s\"\n", ""));
        let both = "[imap]\n# A.\na = 1 # one\n# B.\nb = 2\n[map]\n";
        for order in [["a", "b"], ["b", "a"]] {
            let changes = order.map(|key| change("imap", key, None));
            let text = apply(both, &changes).unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(text, "[imap]\n# A.\n# B.\n[map]\n", "{order:?}");
        }
        for (table, file) in [
            ("", "# Ours.\nx = \"mail\"\n\n[imap]\nid = false\n"),
            ("imap", "[imap] # here\n# Agreed.\nx = \"a\"\n\n[map]\n"),
            ("imap/listener/0", "[[imap.listener]]\n# Agreed.\nx = \"a\"\n[[imap.listener]]\n"),
        ] {
            let alone = apply(file, &[change(table, "x", None)]).unwrap_or_else(|error| panic!("{error}"));
            let line = file.lines().find(|line| line.starts_with("x =")).expect("a setting");
            assert_eq!(alone, file.replace(&format!("{line}\n"), ""));
        }
    }

    #[test]
    fn what_stands_on_lines_of_its_own_is_left_alone() {
        let file = "[map]\ndefault = \"a\"\n[map.aliases]\nkim = \"lee\"\n[imap]\nlistener = [{ address = \"127.0.0.1:143\", limits = { connections = 5 } }]\n";
        let refusal = apply(file, &[change("map", "aliases", Some("{ jo = \"kim\" }"))]).expect_err("a refusal");
        assert!(refusal.contains("table of its own"), "{refusal}");
        assert_eq!(apply(file, &[change("map", "aliases", None)]).as_deref(), Ok(file));
        let text = apply(file, &[change("imap/listener/0/limits", "", None)]).expect("a file");
        assert!(text.contains("[{ address = \"127.0.0.1:143\"") && !text.contains("limits"), "{text}");
    }

    #[test]
    fn tables_come_and_go() {
        let text = changed(&[
            change("imap/limits", "connections", Some("20")),
            change("imap/listener/2", "address", Some("\"127.0.0.1:144\"")),
            change("imap/listener/1/limits", "interval", Some("\"5m\"")),
            change("access/0", "deny", Some("\"192.0.2.0/24\"")),
            change("backend/b.c", "host", Some("\"10.0.0.2\"")),
            change("backend/b.c/imap", "port", Some("1143")),
        ]);
        for part in [
            "[imap.limits]\nconnections = 20",
            "limits = { connections = 5 , interval = \"5m\" }",
            "[[access]]\ndeny = \"192.0.2.0/24\"",
            "[backend.\"b.c\"]\nhost = \"10.0.0.2\"",
            "[backend.\"b.c\".imap]\nport = 1143",
        ] {
            let is_there = text.contains(part) || text.contains(&part.replace(" ,", ","));
            assert!(is_there, "{part}: {text}");
        }
        assert_eq!(text.matches("[[imap.listener]]").count(), 3, "{text}");
        let again: DocumentMut = text.parse().expect("TOML");
        assert_eq!(Lists(again).children(&TablePath::parse("backend")), ["a", "b.c"]);
        let text = apply(&text, &[change("imap/listener/2", "", None), change("imap/listener/0", "", None)]);
        let text = text.expect("a file");
        assert!(text.matches("[[imap.listener]]").count() == 1 && text.contains(":993"), "{text}");
        let text = apply(&text, &[change("backend/a", "", None)]).expect("a file");
        assert!(!text.contains("[backend.a]"), "{text}");
    }

    #[test]
    fn what_is_no_value_or_no_table_is_refused() {
        for bad in ["5\n[evil]\nx = 1", "\"", "a b", "[1"] {
            assert!(apply(FILE, &[change("imap", "max_errors", Some(bad))]).is_err(), "{bad}");
        }
        for table in ["evil", "imap/evil", "imap/listener/x", "imap/listener/9"] {
            assert!(apply(FILE, &[change(table, "x", Some("1"))]).is_err(), "{table}");
        }
        assert!(apply(FILE, &[change("imap/listener/7", "", None)]).is_err());
    }

    #[test]
    fn forms_show_what_stands_there_and_read_it_back() {
        let lists =
            Lists::of("[imap]\nmechanisms = [\"PLAIN\", \"LOGIN\"] # both\nid = false # no\nmax_errors = 5\nplaintext = \"tls\"\n")
                .expect("a file");
        let form = lists.form(&TablePath::parse("imap")).expect("a form");
        let field = |key: &str| form.fields.iter().find(|field| field.key == key).expect("a field").clone();
        assert_eq!(field("mechanisms").shown, "PLAIN, LOGIN");
        assert_eq!(field("mechanisms").shape.written("PLAIN,XOAUTH2"), "[\"PLAIN\", \"XOAUTH2\"]");
        assert_eq!(settings_of("x = \"y\" # z"), Ok(vec![("x".to_owned(), "\"y\"".to_owned())]));
        assert_eq!((field("id").shown.as_str(), field("max_errors").shown.as_str()), ("false", "5"));
        assert_eq!(field("plaintext").shape, Shape::Words(&["tls", "loopback", "always"]));
        assert_eq!(field("greeting").shown, "");
        assert_eq!(field("greeting").shape.written("say \"hi\""), "'say \"hi\"'");
        assert!(lists.form(&TablePath::parse("imap/evil")).is_none());
        assert!(!lists.form(&TablePath::parse("imap/limits")).expect("a form").is_written);
    }
}
