//! Tables of the configuration as forms, and back.

use askama::Template;

use crate::config::{Change, Field, Form, Lists, Shape, TablePath};

/// A table, or a list of tables, that a page shows.
pub(super) struct Block {
    pub(super) title: &'static str,
    /// The way to it from the one that it is nested in; `*` stands for the service.
    pub(super) path: &'static str,
    /// It is a list of tables, or tables under names that the administrator chose.
    pub(super) kind: Kind,
    pub(super) keys: Keys,
    pub(super) inner: Inner,
}

/// The settings of a block's table that are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keys {
    All,
    /// Its tables alone.
    None,
    These(&'static [&'static str]),
}

impl Keys {
    fn hold(self, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::These(keys) => keys.contains(&key),
        }
    }
}

/// The tables in a block's table that have forms too.
#[derive(Clone, Copy)]
pub(super) enum Inner {
    These(&'static [Block]),
    /// All that may stand there, under the titles that they have.
    All,
}

impl Block {
    /// All settings of a table.
    const fn of_table(name: &'static str, title: &'static str) -> Self {
        Self { title, path: name, kind: Kind::Table, keys: Keys::All, inner: Inner::These(&[]) }
    }
}

/// What stands at a block's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Table,
    List,
    /// A list that is added to elsewhere.
    Kept,
    /// Tables under names.
    Named,
}

/// A form being shown.
#[derive(Template)]
#[template(path = "form.html")]
struct FormView {
    title: String,
    path: String,
    help: String,
    fields: Vec<FieldView>,
    /// Forms of tables in this one, as they are shown.
    inner: Vec<String>,
    /// It is one of several.
    is_entry: bool,
    /// By what it is told from the others.
    summary: String,
    can_remove: bool,
    /// Whoever looks may not change it.
    is_fixed: bool,
}

/// A table that is to be added under a name.
#[derive(Template)]
#[template(path = "new.html")]
struct NewView {
    what: String,
    path: String,
}

struct FieldView {
    id: String,
    key: &'static str,
    label: String,
    value: String,
    placeholder: String,
    help: &'static str,
    /// What it looks like; empty: as the choices say.
    expected: String,
    /// What can be chosen, and how it is shown; none: anything can be typed.
    options: Vec<(String, String)>,
}

impl FieldView {
    fn new(path: &TablePath, field: &Field) -> Self {
        let default = field.default.map(|default| default.trim_matches('"').to_owned());
        let none = default.clone().map_or_else(|| "not set".to_owned(), |default| format!("default: {default}"));
        let choose = |words: &[&str]| {
            let options = words.iter().map(|word| ((*word).to_owned(), (*word).to_owned()));
            std::iter::once((String::new(), none.clone())).chain(options).collect()
        };
        let options = match field.shape {
            Shape::Truth => choose(&["true", "false"]),
            Shape::Words(words) => choose(words),
            Shape::Text | Shape::Number | Shape::List(_) | Shape::Raw => Vec::new(),
        };
        Self {
            id: format!("{path}-{}", field.key).replace(['/', '.'], "-"),
            key: field.key,
            label: capitalised(&field.key.replace('_', " ")),
            value: field.shown.clone(),
            placeholder: default.unwrap_or_default().trim_matches(['[', ']']).replace('"', ""),
            help: field.help,
            expected: if options.is_empty() { field.expected.replace(" in quotes", "") } else { String::new() },
            options,
        }
    }
}

/// With a capital, as titles are written.
pub(super) fn capitalised(text: &str) -> String {
    let mut text = text.to_owned();
    if let Some(first) = text.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    text
}

/// The way to a block, where the service stands for `*`.
fn path_of(parent: &TablePath, block: &Block, service: &str) -> TablePath {
    let own = TablePath::parse(block.path);
    own.0.iter().fold(parent.clone(), |path, part| path.child(if part == "*" { service } else { part }))
}

/// A block and all that is nested in it, as HTML.
pub(super) fn show(
    lists: &Lists,
    parent: &TablePath,
    block: &Block,
    service: &str,
    is_fixed: bool,
) -> Result<String, String> {
    let path = path_of(parent, block, service);
    if lists.form(&path).is_none() && block.kind == Kind::Table {
        // Not every service has it.
        return Ok(String::new());
    }
    if block.kind == Kind::Table {
        return show_table(lists, &path, block, service, is_fixed, None);
    }
    let children = lists.children(&path);
    let mut html = String::new();
    for (n, name) in children.iter().enumerate() {
        let title = if block.kind == Kind::Named { name.clone() } else { format!("{} {}", block.title, n + 1) };
        html += &show_table(lists, &path.child(name), block, service, is_fixed, Some(title))?;
    }
    if !is_fixed && block.kind == Kind::List {
        let fresh = path.child(&children.len().to_string());
        html +=
            &show_table(lists, &fresh, block, service, false, Some(format!("Add: {}", block.title.to_lowercase())))?;
    }
    if !is_fixed && block.kind == Kind::Named {
        let fresh = NewView { what: block.title.to_lowercase(), path: path.to_string() };
        html += &fresh.render().map_err(|error| error.to_string())?;
    }
    if html.is_empty() {
        html = format!("<p class=\"hint\">{}: none.</p>", block.title);
    }
    Ok(html)
}

fn show_table(
    lists: &Lists,
    path: &TablePath,
    block: &Block,
    service: &str,
    is_fixed: bool,
    entry: Option<String>,
) -> Result<String, String> {
    let form = lists.form(path).ok_or_else(|| format!("{path}: nothing of this name may stand in the file"))?;
    let Form { help, tables, fields, is_written } = form;
    let is_shown = |field: &&Field| block.keys.hold(field.key);
    let shown: Vec<_> = fields.iter().filter(is_shown).collect();
    let is_entry = entry.is_some();
    let is_new = is_entry && !is_written;
    let show = |inner: &Block| show(lists, path, inner, service, is_fixed);
    let inner = match block.inner {
        // Of one that isn't there yet, what is nested can follow once it is.
        _ if is_new => Vec::new(),
        Inner::These(blocks) => blocks.iter().map(show).collect::<Result<_, _>>()?,
        Inner::All => {
            let titled = tables.iter().filter(|table| !table.title.is_empty());
            titled.map(|table| show(&Block::of_table(table.name, table.title))).collect::<Result<_, _>>()?
        }
    };
    let telling = ["address", "allow", "deny", "host", "type", "backend", "service", "chain"];
    let said =
        telling.iter().filter_map(|key| fields.iter().find(|field| field.key == *key && !field.shown.is_empty()));
    FormView {
        title: entry.unwrap_or_else(|| block.title.to_string()),
        help: if is_entry || block.keys != Keys::All { String::new() } else { help.to_owned() },
        fields: shown.iter().map(|field| FieldView::new(path, field)).collect(),
        inner,
        is_entry,
        summary: if is_new {
            String::new()
        } else {
            said.map(|field| field.shown.clone()).collect::<Vec<_>>().join(" · ")
        },
        can_remove: is_written && block.keys == Keys::All && (is_entry || !block.title.is_empty()),
        is_fixed,
        path: path.to_string(),
    }
    .render()
    .map_err(|error| error.to_string())
}

/// The changes that a form asks for: what was typed and is not what the file has.
pub(super) fn changes(lists: &Lists, pairs: &[(String, String)]) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    let removed: Vec<_> = pairs.iter().filter_map(|(name, _)| name.strip_prefix("r|")).map(TablePath::parse).collect();
    for (name, typed) in pairs {
        let Some((path, key)) = name.strip_prefix("v|").and_then(|name| name.rsplit_once('|')) else { continue };
        let path = TablePath::parse(path);
        if removed.iter().any(|gone| path.0.starts_with(&gone.0)) {
            continue;
        }
        let unknown = || format!("{path}: there is no setting {key:?}");
        let form = lists.form(&path).ok_or_else(unknown)?;
        let field = form.fields.iter().find(|field| field.key == key).ok_or_else(unknown)?;
        let typed = typed.trim();
        if typed == field.shown.trim() {
            continue;
        }
        let value = (!typed.is_empty()).then(|| field.shape.written(typed));
        changes.push(Change { table: path, key: Some(key.to_owned()), value });
    }
    for (name, typed) in pairs {
        let Some(path) = name.strip_prefix("n|").filter(|_| !typed.trim().is_empty()) else { continue };
        let text = pairs.iter().find(|(name, _)| name.strip_prefix("t|") == Some(path)).map_or("", |(_, text)| text);
        let table = TablePath::parse(path).child(typed.trim());
        for (key, value) in crate::config::settings_of(text)? {
            changes.push(Change { table: table.clone(), key: Some(key), value: Some(value) });
        }
    }
    changes.extend(removed.into_iter().map(|table| Change { table, key: None, value: None }));
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "[imap]\nplaintext = \"tls\"\n[[imap.listener]]\naddress = \"127.0.0.1:143\"\n[[imap.listener]]\naddress = \"127.0.0.1:993\"\n";
    const LISTENERS: Block =
        Block { title: "Listener", path: "*/listener", kind: Kind::List, keys: Keys::All, inner: Inner::These(&[]) };

    fn pairs(said: &[(&str, &str)]) -> Vec<(String, String)> {
        said.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn only_what_was_changed_is_a_change() {
        let lists = Lists::of(FILE).expect("a file");
        let said = pairs(&[
            ("proof", "x"),
            ("v|imap|plaintext", "tls"),
            ("v|imap|greeting", " Hello. "),
            ("v|imap/listener/0|address", "127.0.0.1:143"),
            ("v|imap/listener/0|idle_timeout", ""),
            ("v|imap/listener/1|address", "127.0.0.1:994"),
            ("r|imap/listener/1", "on"),
            ("v|imap/listener/2|address", "127.0.0.1:995"),
            ("n|backend", "b"),
            ("t|backend", "host = \"10.0.0.2\"\nimap = { port = 143 }"),
            ("n|directory", ""),
            ("t|directory", ""),
        ]);
        let changes = changes(&lists, &said).expect("changes");
        let text = crate::config::apply(FILE, &changes).expect("a file");
        assert_eq!(changes.len(), 5, "{changes:?}");
        assert!(text.contains("[backend.b]\nhost = \"10.0.0.2\"\nimap = { port = 143 }"), "{text}");
        assert!(text.contains("greeting = \"Hello.\"") && text.contains("995") && !text.contains("993"), "{text}");
    }

    #[test]
    fn what_no_page_shows_cannot_be_set() {
        let lists = Lists::of(FILE).expect("a file");
        for name in ["v|evil|x", "v|imap|evil", "v|imap/listener/0/evil|x"] {
            assert!(changes(&lists, &pairs(&[(name, "1")])).is_err(), "{name}");
        }
    }

    #[test]
    fn a_page_shows_nothing_unescaped() {
        let lists =
            Lists::of("[imap]\ngreeting = \"<script>\\\"'\"\n[[imap.listener]]\naddress = \"<b>\"\n").expect("a file");
        let service = Block {
            title: "Service",
            path: "*",
            kind: Kind::Table,
            keys: Keys::These(&["greeting"]),
            inner: Inner::These(&[]),
        };
        for block in [service, LISTENERS] {
            let html = show(&lists, &TablePath::default(), &block, "imap", false).expect("a form");
            assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
        }
    }
}
