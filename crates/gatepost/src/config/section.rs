//! A section: what may stand in a table of the file, defined once by [`section!`].
//!
//! From the definition follow the type of what is read, the reader and its errors, the reference, `config effective` and
//! the console's forms. The definitions themselves stand with what they are about, in the files beside this one.

use gatepost_wire::{PROTOCOLS, Protocol};

use super::reader::Table;
use super::values::Shape;

/// What may stand in a table of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// What it is called where it stands; of [`Child::Named`] and [`Child::Services`], the first of the names.
    pub(super) name: &'static str,
    /// How it is opened in the file; `NAME` is the administrator's choice, and behind `#` stands which of several it is.
    pub(super) head: &'static str,
    pub(super) help: &'static str,
    /// What a form of it is called in that of the table in which it stands; empty: it has no form there.
    pub(super) title: &'static str,
    pub(super) keys: &'static [Described],
    /// Tables that may stand in it, and are read with it.
    pub(super) tables: &'static [Child],
    /// Tables that may stand in it, and are read by what knows more: of which service they are, or of which type.
    pub(super) read_apart: &'static [Child],
    /// Further sections whose settings may stand here too, and are read with it.
    pub(super) includes: &'static [&'static Section],
    /// Further ones, that are read apart.
    pub(super) includes_apart: &'static [&'static Section],
    /// Names of the contract that this version refuses.
    pub(super) reserved: &'static [&'static str],
}

/// How a table stands in another.
#[derive(Debug)]
pub(super) enum Child {
    /// At most once.
    Table(&'static Section),
    /// Any number of them, in order.
    List(&'static Section),
    /// Any number of them under names of the administrator's; which of the sections it is says the table's `type`.
    Named(&'static [Variant]),
    /// One for each service, under the service's name.
    Services(fn(&Protocol) -> &'static Section),
}

/// What a named table may be.
#[derive(Debug)]
pub(super) struct Variant {
    /// As it stands for `type`; `None`: of a table that has none.
    pub(super) word: Option<&'static str>,
    pub(super) section: &'static Section,
}

/// A table that may stand in another.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Nested {
    pub(crate) name: &'static str,
    /// What a form of it is called; empty: it has none.
    pub(crate) title: &'static str,
    pub(super) section: &'static Section,
}

/// A setting without its type, for the reference and for forms.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) expected: &'static str,
    pub(super) shape: Shape,
    pub(super) default: Option<&'static str>,
    pub(super) help: &'static str,
}

/// A setting with its type, for the reader.
#[derive(Debug)]
pub(super) struct Key<T> {
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

/// What stands in a table of the file, as [`section!`] defines it.
pub(super) trait Written: Sized {
    const SECTION: &'static Section;

    /// Reads the table; what isn't written there is taken from `over`, where it may be. `None` only where a problem was
    /// recorded.
    fn read_over(table: &Table<'_>, over: &Table<'_>) -> Option<Self>;

    /// As [`Written::read_over`], from this table alone.
    fn read(table: &Table<'_>) -> Option<Self> {
        Self::read_over(table, table)
    }
}

/// Tables that stand in another: one that may be empty, one that may be left out, or a list. Of the latter two, one that
/// makes no sense is a problem, and reads as if it were left out.
pub(super) trait InTable: Sized {
    const CHILD: Child;

    /// Reads them from the table in which they stand.
    fn read_in(parent: &Table<'_>) -> Option<Self>;
}

impl<T: Written> InTable for T {
    const CHILD: Child = Child::Table(T::SECTION);

    fn read_in(parent: &Table<'_>) -> Option<Self> {
        T::read(&parent.table(T::SECTION))
    }
}

impl<T: Written> InTable for Option<T> {
    const CHILD: Child = Child::Table(T::SECTION);

    fn read_in(parent: &Table<'_>) -> Option<Self> {
        Some(parent.optional_table(T::SECTION).and_then(|table| T::read(&table)))
    }
}

impl<T: Written> InTable for Vec<T> {
    const CHILD: Child = Child::List(T::SECTION);

    fn read_in(parent: &Table<'_>) -> Option<Self> {
        Some(parent.each(T::SECTION, |_, table| T::read(table)).into_iter().flatten().collect())
    }
}

impl Child {
    /// The tables that may stand so.
    fn tables(&self) -> Vec<Nested> {
        let own = |section: &'static Section| Nested { name: section.name, title: section.title, section };
        match self {
            Self::Table(section) | Self::List(section) => vec![own(section)],
            Self::Named(variants) => variants.iter().map(|variant| own(variant.section)).collect(),
            Self::Services(section_of) => {
                let of = |protocol: &'static Protocol| Nested {
                    name: protocol.name,
                    title: protocol.title,
                    section: section_of(protocol),
                };
                PROTOCOLS.iter().map(of).collect()
            }
        }
    }

    fn is_called(&self, name: &str) -> bool {
        self.tables().iter().any(|table| table.name == name)
    }
}

impl Section {
    pub(super) const EMPTY: Self = Self {
        name: "",
        head: "",
        help: "",
        title: "",
        keys: &[],
        tables: &[],
        read_apart: &[],
        includes: &[],
        includes_apart: &[],
        reserved: &[],
    };

    fn names(&self) -> impl Iterator<Item = &'static str> {
        self.settings().map(|key| key.name).chain(self.children().map(|table| table.name))
    }

    /// Every setting that may stand in it.
    pub(super) fn settings(&self) -> impl Iterator<Item = &'static Described> {
        self.keys.iter().chain(self.all_included().flat_map(|section| section.keys))
    }

    /// Every table that may stand in it.
    pub(super) fn children(&self) -> impl Iterator<Item = Nested> {
        self.all_tables().flat_map(Child::tables)
    }

    fn all_tables(&self) -> impl Iterator<Item = &'static Child> {
        let included = self.all_included().flat_map(|section| section.tables.iter().chain(section.read_apart));
        self.tables.iter().chain(self.read_apart).chain(included)
    }

    /// Every section whose settings may stand here too.
    pub(super) fn all_included(&self) -> impl Iterator<Item = &'static Self> {
        self.includes_apart.iter().chain(self.includes).copied()
    }

    /// The section of the table at a path below this one, in which numbers stand for the items of lists. `kind`: what the
    /// table has as its `type`.
    pub(super) fn at(&'static self, path: &[&str], kind: Option<&str>) -> Option<&'static Self> {
        let Some((name, rest)) = path.split_first() else { return Some(self) };
        match self.all_tables().find(|child| child.is_called(name))? {
            Child::Table(section) => section.at(rest, kind),
            Child::List(section) => {
                let (number, rest) = rest.split_first()?;
                number.parse::<usize>().ok()?;
                section.at(rest, kind)
            }
            Child::Named(variants) => match rest.split_first()?.1 {
                [] => variants.iter().find(|variant| variant.word == kind).or(variants.first()).map(|v| v.section),
                // Whatever type it is: no two have tables of one name.
                rest => variants.iter().find_map(|variant| variant.section.at(rest, kind)),
            },
            Child::Services(section_of) => {
                let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == *name)?;
                section_of(protocol).at(rest, kind)
            }
        }
    }

    pub(super) fn is_known(&self, name: &str) -> bool {
        self.names().any(|known| known == name)
    }

    pub(super) fn is_reserved(&self, name: &str) -> bool {
        self.reserved.contains(&name)
    }

    /// The name that was probably meant.
    pub(super) fn nearest(&self, name: &str) -> Option<&'static str> {
        self.names().min_by_key(|known| edits(known, name)).filter(|known| edits(known, name) <= 2)
    }
}

/// How many letters must be changed, added or removed to make `b` of `a`.
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

/// A key's name in the file: that of its field, where none is given.
macro_rules! name_of {
    ($key:ident) => {
        stringify!($key)
    };
    ($key:ident $name:literal) => {
        $name
    };
}

macro_rules! default_of {
    () => {
        None
    };
    ($default:expr) => {
        Some(stringify!($default))
    };
}

/// Defines a section, as in
///
/// ```text
/// section! {
///     pub(crate) struct Defence: "defence", "[defence]", "What this table is about.";
///     window: Duration = "10m", "What this setting means.";
///     source as "from": Option<IpAddr>, "A field that is called otherwise than the setting.";
///     ..trust: Trust;
///     [limits]: Limits;
///     => check;
/// }
/// ```
///
/// First what the table is called, how it is opened, and what it is about; behind that, in braces, may stand what else
/// [`Section`] has. Then, in this order: settings, a row each, with their default as the file would have it (without one, an
/// `Option` may be left out, and anything else must be there); `..field: Type;` for sections whose settings stand in the same
/// table, which include no others; `[field]: Type;` for tables in it, which the file calls by their section's name (an
/// `Option`: it may be left out; a `Vec`: a list; they are never taken from another table); and `=> function;` for what looks
/// at all of it together, once all of it could be read.
macro_rules! section {
    (
        $(#[$meta:meta])*
        $vis:vis struct $type:ident: $name:literal, $head:literal, $help:literal
        $(, { $($option:ident: $value:expr,)+ })?;
        $($key:ident $(as $word:literal)?: $of:ty $(= $default:expr)?, $doc:literal;)*
        $(..$with:ident: $with_type:ty;)*
        $([$table:ident]: $table_type:ty;)*
        $(=> $check:path;)?
    ) => {
        #[doc = $help]
        #[allow(clippy::doc_markdown, reason = "administrators read the same texts, where there is no Markdown")]
        $(#[$meta])*
        #[derive(Debug, Clone)]
        $vis struct $type {
            $(#[doc = $doc] pub(crate) $key: $of,)*
            $(pub(crate) $with: $with_type,)*
            $(pub(crate) $table: $table_type,)*
        }

        const _: () = {
            use $crate::config::reader::Table;
            use $crate::config::section::{Described, Key, Section, Written};
            use $crate::config::values::Value;

            static SECTION: Section = Section {
                name: $name,
                head: $head,
                help: $help,
                keys: &[$(Described {
                    name: name_of!($key $($word)?),
                    expected: <$of as Value>::EXPECTED,
                    shape: <$of as Value>::SHAPE,
                    default: default_of!($($default)?),
                    help: $doc,
                },)*],
                includes: &[$(<$with_type as Written>::SECTION),*],
                tables: &[$(<$table_type as $crate::config::section::InTable>::CHILD),*],
                $($($option: $value,)+)?
                ..Section::EMPTY
            };

            #[allow(non_upper_case_globals, reason = "a key is called as its field")]
            #[allow(dead_code, reason = "few keys are spoken of one by one")]
            impl $type {
                $(pub(in $crate::config) const $key: Key<$of> =
                    Key::new(name_of!($key $($word)?), default_of!($($default)?));)*
            }

            impl Written for $type {
                const SECTION: &'static Section = &SECTION;

                fn read_over(table: &Table<'_>, over: &Table<'_>) -> Option<Self> {
                    // Each is read whatever is wrong with those before it, so that all is said at once.
                    $(let $key = table.get_over(over, &Self::$key);)*
                    $(let $with = <$with_type as Written>::read_over(table, over);)*
                    $(let $table = <$table_type as $crate::config::section::InTable>::read_in(table);)*
                    let read = Self { $($key: $key?,)* $($with: $with?,)* $($table: $table?,)* };
                    $($check(&read, table);)?
                    Some(read)
                }
            }
        };
    };
}
