//! Queries of SQL directories: named parameters as written, the database's own as sent.

use std::fmt::Write as _;

/// A database's way with parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Postgres,
    MySql,
}

/// What a parameter stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameter {
    User,
    Local,
    /// NULL where the name has none.
    Domain,
    Service,
}

/// The names of the parameters, as they are written behind a colon.
const PARAMETERS: [(&str, Parameter); 4] = [
    ("user", Parameter::User),
    ("local", Parameter::Local),
    ("domain", Parameter::Domain),
    ("service", Parameter::Service),
];

/// A query, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Query {
    pub(crate) text: String,
    /// In the order in which they are bound.
    pub(crate) parameters: Vec<Parameter>,
}

impl Query {
    /// Replaces `:user` and the like. What stands in quotes or comments stays as it is, and so does `::`.
    pub(crate) fn parse(written: &str, dialect: Dialect) -> Result<Self, String> {
        let mut query = Self { text: String::with_capacity(written.len()), parameters: Vec::new() };
        let mut rest = written;
        while let Some(c) = rest.chars().next() {
            let length = match c {
                '\'' | '"' | '`' => quoted_length(rest, c, dialect),
                '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |end| end + 4),
                ':' if rest.starts_with("::") => 2,
                ':' => {
                    rest = query.take_parameter(&rest[1..], dialect)?;
                    continue;
                }
                c => c.len_utf8(),
            };
            query.text.push_str(&rest[..length]);
            rest = &rest[length..];
        }
        if !query.parameters.iter().any(|parameter| matches!(parameter, Parameter::User | Parameter::Local)) {
            return Err("has neither :user nor :local in it: it would find the same for everybody".into());
        }
        Ok(query)
    }

    /// Takes the name at the beginning of `rest`; gives what is behind it.
    fn take_parameter<'r>(&mut self, rest: &'r str, dialect: Dialect) -> Result<&'r str, String> {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let known = PARAMETERS.iter().find(|(known, _)| *known == name).map(|(_, parameter)| *parameter);
        let parameter = known.ok_or_else(|| {
            let known = PARAMETERS.map(|(name, _)| format!(":{name}")).join(", ");
            format!("has :{name}, which is no parameter; there is {known}")
        })?;
        if dialect == Dialect::Postgres {
            let at = self.parameters.iter().position(|bound| *bound == parameter).unwrap_or(self.parameters.len());
            if at == self.parameters.len() {
                self.parameters.push(parameter);
            }
            let _ = write!(self.text, "${}", at + 1);
        } else {
            self.parameters.push(parameter);
            self.text.push('?');
        }
        Ok(rest)
    }
}

/// How long a text in quotes is, with them. Doubled quotes need no care: they end it and begin it again.
fn quoted_length(text: &str, quote: char, dialect: Dialect) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' && dialect == Dialect::MySql && quote != '`' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Parameter::{Domain, Local, Service, User};

    fn parse(text: &str, dialect: Dialect) -> (String, Vec<Parameter>) {
        let Query { text, parameters } = Query::parse(text, dialect).expect("a query");
        (text, parameters)
    }

    #[test]
    fn parameters_are_replaced_in_each_databases_way() {
        let text = "SELECT h FROM u WHERE n = :user AND s = :service OR n = :user";
        let sent = "SELECT h FROM u WHERE n = ? AND s = ? OR n = ?".to_owned();
        assert_eq!(parse(text, Dialect::Sqlite), (sent.clone(), vec![User, Service, User]));
        assert_eq!(parse(text, Dialect::MySql), (sent, vec![User, Service, User]));
        let sent = "SELECT h FROM u WHERE n = $1 AND s = $2 OR n = $1".to_owned();
        assert_eq!(parse(text, Dialect::Postgres), (sent, vec![User, Service]));
    }

    #[test]
    fn quotes_comments_and_casts_stay() {
        for text in ["':user' || x::text, \":user\" -- :user\n, /* :user */ 'it''s :user'", "'a'"] {
            let (sent, parameters) = parse(&format!("{text} = :local"), Dialect::Postgres);
            assert_eq!((sent, parameters), (format!("{text} = $1"), vec![Local]));
        }
        let (sent, parameters) = parse(r"'\' :user' = :domain || :local", Dialect::MySql);
        assert_eq!((sent.as_str(), parameters), (r"'\' :user' = ? || ?", vec![Domain, Local]));
    }

    #[test]
    fn what_is_no_parameter_is_named() {
        assert!(Query::parse("SELECT :usr", Dialect::Sqlite).is_err_and(|what| what.contains(":usr")));
        assert!(Query::parse("SELECT 1", Dialect::Sqlite).is_err());
    }
}
