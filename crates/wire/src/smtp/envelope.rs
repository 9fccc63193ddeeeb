//! Envelopes: what stands behind MAIL FROM and RCPT TO (RFC 5321, section 4.1.2; RFC 6531 for UTF-8).

use super::{BINARY, DSN, EIGHT_BIT, SIZE, UTF8};
use crate::limits::{ESMTP_PARAMETERS_MAX, PATH_BYTES_MAX};
use crate::text::quote;

/// Who sends, as MAIL names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sender {
    /// `None`: the empty path `<>`, by which reports are sent.
    pub mailbox: Option<Mailbox>,
    /// In the client's order.
    pub parameters: Vec<Parameter>,
}

/// Who is to have the mail, as RCPT names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// Whose it is.
    pub mailbox: Mailbox,
    /// In the client's order.
    pub parameters: Vec<Parameter>,
}

/// The commands that name somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Command {
    Mail,
    Rcpt,
}

/// A parameter of either, such as `SIZE=1000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameter {
    /// In capitals.
    pub name: String,
    /// What stands behind the `=`, if there is one.
    pub value: Option<String>,
}

impl Parameter {
    /// The extension that it is of; `None`: of none that is known here. AUTH, which belongs to a log-in, is none of these.
    pub fn extension(&self) -> Option<&'static str> {
        match (self.name.as_str(), self.value.as_deref()) {
            ("SIZE", Some(_)) => Some(SIZE),
            ("BODY", Some(body)) if body.eq_ignore_ascii_case(BINARY) => Some(BINARY),
            ("BODY", Some(body)) if ["7BIT", EIGHT_BIT].iter().any(|known| body.eq_ignore_ascii_case(known)) => {
                Some(EIGHT_BIT)
            }
            ("SMTPUTF8", None) => Some(UTF8),
            ("RET" | "ENVID" | "NOTIFY" | "ORCPT", Some(_)) => Some(DSN),
            _ => None,
        }
    }

    /// The command that it may stand behind.
    pub(super) fn command(&self) -> Command {
        if matches!(self.name.as_str(), "NOTIFY" | "ORCPT") { Command::Rcpt } else { Command::Mail }
    }
}

/// As it is said.
impl std::fmt::Display for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)?;
        self.value.as_ref().map_or(Ok(()), |value| write!(f, "={value}"))
    }
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mailbox {
    /// As the client wrote it, without a source route.
    pub text: String,
    /// What stands before the `@`, without quotes.
    pub local: String,
    /// `None`: it is `postmaster` alone, or another name that wants completing.
    pub domain: Option<String>,
}

impl Mailbox {
    /// The address of a user, written as SMTP wants it.
    pub fn of(name: &str) -> Self {
        let (local, domain) = match name.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain.to_owned())),
            None => (name, None),
        };
        let written = if is_plain(local) { local.to_owned() } else { quote(local) };
        let text = domain.as_ref().map_or_else(|| written.clone(), |domain| format!("{written}@{domain}"));
        Self { text, local: local.to_owned(), domain }
    }

    /// The name by which the user is known: without quotes, which say nothing.
    pub fn name(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{}@{domain}", self.local),
            None => self.local.clone(),
        }
    }

    /// Whether the local part could send mail on to somewhere else (`user%elsewhere@here`), at servers that still do that.
    pub fn is_routed(&self) -> bool {
        self.local.contains(['@', '%', '!'])
    }
}

impl Sender {
    /// The argument of MAIL. An error says what is wrong.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, &'static str> {
        let (mailbox, parameters) = parse(argument, "FROM:")?;
        Ok(Self { mailbox, parameters })
    }

    /// Its address as the client wrote it; empty where there is none.
    pub fn address(&self) -> &str {
        self.mailbox.as_ref().map_or("", |mailbox| &mailbox.text)
    }

    /// The command that names it to a server that `has` some extensions.
    ///
    /// # Errors
    /// The extension that it needs and that is not among them.
    pub fn command(&self, has: impl Fn(&str) -> bool) -> Result<String, &'static str> {
        Ok(format!("MAIL FROM:<{}>{}", self.address(), words(&self.parameters, has)?))
    }

    /// Whether something of this extension is asked for.
    pub(super) fn wants(&self, extension: &str) -> bool {
        self.parameters.iter().any(|parameter| parameter.extension() == Some(extension))
    }
}

impl Recipient {
    /// The argument of RCPT. An error says what is wrong.
    pub(super) fn parse(argument: &[u8]) -> Result<Self, &'static str> {
        match parse(argument, "TO:")? {
            (Some(mailbox), parameters) => Ok(Self { mailbox, parameters }),
            (None, _) => Err("501 5.1.3 There is no recipient."),
        }
    }

    /// As [`Sender::command`].
    ///
    /// # Errors
    /// As there.
    pub fn command(&self, has: impl Fn(&str) -> bool) -> Result<String, &'static str> {
        Ok(format!("RCPT TO:<{}>{}", self.mailbox.text, words(&self.parameters, has)?))
    }
}

/// Parameters as they are said to a server that `has` some extensions; an error is one that is needed.
fn words(parameters: &[Parameter], has: impl Fn(&str) -> bool) -> Result<String, &'static str> {
    let mut words = String::new();
    for parameter in parameters {
        match parameter.extension() {
            // Nothing is lost without.
            Some(SIZE) if !has(SIZE) => {}
            Some(extension) if !has(extension) => return Err(extension),
            _ => words.extend([" ", &parameter.to_string()]),
        }
    }
    Ok(words)
}

/// `FROM:<path> parameters`, with this keyword. An error says what is wrong.
fn parse(argument: &[u8], keyword: &str) -> Result<(Option<Mailbox>, Vec<Parameter>), &'static str> {
    let argument = std::str::from_utf8(argument).map_err(|_| "501 5.5.2 An address is not UTF-8.")?;
    let rest = argument.get(..keyword.len()).filter(|word| word.eq_ignore_ascii_case(keyword));
    let rest = rest
        .map(|word| argument[word.len()..].trim_start())
        .ok_or("501 5.5.4 FROM:<address> or TO:<address> is missing.")?;
    let bad = "501 5.1.3 The address is malformed.";
    let rest = rest.strip_prefix('<').ok_or(bad)?;
    let (path, parameters) = rest.split_at(end_of_path(rest).ok_or(bad)?);
    if path.len() > PATH_BYTES_MAX {
        return Err("501 5.1.3 The address is too long.");
    }
    let mailbox = if path.is_empty() { None } else { Some(mailbox(path).ok_or(bad)?) };
    let parameters = &parameters[1..];
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(bad);
    }
    let mut words = parameters.split(' ').filter(|word| !word.is_empty());
    let parsed: Option<Vec<_>> = words.by_ref().take(ESMTP_PARAMETERS_MAX).map(parameter).collect();
    let parsed = parsed.filter(|_| words.next().is_none()).ok_or("501 5.5.4 A parameter is malformed.")?;
    Ok((mailbox, parsed))
}

/// Where the `>` is that ends the path: not one within quotes.
fn end_of_path(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' if is_quoted => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            '>' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

/// An address, perhaps behind a source route, which is not followed (RFC 5321, appendix C).
fn mailbox(path: &str) -> Option<Mailbox> {
    let text = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    let (local, domain) = if text.starts_with('"') {
        let (local, rest) = quoted(text)?;
        match rest.strip_prefix('@') {
            Some(domain) => (local, Some(domain)),
            None if rest.is_empty() => (local, None),
            None => return None,
        }
    } else {
        let (local, domain) = match text.rsplit_once('@') {
            Some((local, domain)) => (local, Some(domain)),
            None => (text, None),
        };
        (is_plain(local).then(|| local.to_owned())?, domain)
    };
    let is_sound = !local.is_empty() && domain.is_none_or(is_domain);
    is_sound.then(|| Mailbox { text: text.to_owned(), local, domain: domain.map(str::to_owned) })
}

/// Whether a local part may stand without quotes. Many servers have names with dots where none may stand by the letter, and
/// no more than that.
fn is_plain(local: &str) -> bool {
    local.chars().all(|c| !c.is_control() && !c.is_whitespace() && !"<>()[]\\,;:@\"".contains(c))
}

/// A quoted local part without its quotes, and what follows it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut local = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((local, &text[at + 1..])),
            '\\' => local.push(characters.next().map(|(_, c)| c).filter(|c| !c.is_control())?),
            c if c.is_control() => return None,
            c => local.push(c),
        }
    }
    None
}

/// A domain, or an address literal in brackets.
pub(super) fn is_domain(text: &str) -> bool {
    if let Some(literal) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        return !literal.is_empty() && literal.chars().all(|c| c.is_ascii_alphanumeric() || ".:-".contains(c));
    }
    let is_label = |label: &str| {
        let is_sound = |c: char| c.is_alphanumeric() || c == '-' || c == '_';
        !label.is_empty() && label.chars().all(is_sound)
    };
    text.split('.').all(is_label)
}

fn parameter(word: &str) -> Option<Parameter> {
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let is_value = value.is_none_or(|value| !value.is_empty() && !value.contains(|c: char| c.is_control() || c == '='));
    (is_name && is_value).then(|| Parameter { name: name.to_ascii_uppercase(), value: value.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(argument: &str) -> Option<String> {
        let (mailbox, _) = parse(format!("TO:{argument}").as_bytes(), "TO:").ok()?;
        Some(mailbox.map(|mailbox| mailbox.name()).unwrap_or_default())
    }

    #[test]
    fn addresses_in_every_form() {
        for (text, expected) in [
            ("<kim@example.org>", "kim@example.org"),
            (" <kim@example.org> NOTIFY=NEVER", "kim@example.org"),
            ("<\"kim\"@example.org>", "kim@example.org"),
            ("<\"a\\\"b >\"@example.org>", "a\"b >@example.org"),
            ("<@relay.example,@other.example:kim@example.org>", "kim@example.org"),
            ("<Postmaster>", "Postmaster"),
            ("<\"Postmaster\">", "Postmaster"),
            ("<kim@mail-1.my_site.example> X-Y=z", "kim@mail-1.my_site.example"),
            ("<a..b.@example.org>", "a..b.@example.org"),
            ("<kim@[192.0.2.1]>", "kim@[192.0.2.1]"),
            ("<kim@[IPv6:2001:db8::1]>", "kim@[IPv6:2001:db8::1]"),
            ("<j\u{f6}rg@b\u{fc}cher.example>", "j\u{f6}rg@b\u{fc}cher.example"),
            ("<a%b@example.org>", "a%b@example.org"),
            ("<>", ""),
        ] {
            assert_eq!(name(text).as_deref(), Some(expected), "{text}");
        }
        for bad in [
            "kim@example.org",
            "<kim@example.org",
            "<kim@>",
            "<@example.org>",
            "<kim@exam ple.org>",
            "<k im@example.org>",
            "<kim@example..org>",
            "<a@b@example.org>",
            "<\"kim@example.org>",
            "<\"kim\"x@example.org>",
            "<kim@example.org>x",
            "<kim@example.org> =x",
            "<kim@example.org> A==",
            "<kim@[]>",
            "<a\0b@example.org>",
            "<\"a\u{1}b\"@example.org>",
            "<kim@example.org> X!=z",
            "",
        ] {
            assert_eq!(name(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_become_addresses() {
        for name in ["kim@example.org", "k m@example.org", "a\"b\\@example.org", "postmaster", "a@b@example.org"] {
            let mailbox = Mailbox::of(name);
            assert_eq!(super::mailbox(&mailbox.text).map(|read| read.name()).as_deref(), Some(name));
        }
    }

    #[test]
    fn what_was_read_is_said_again() {
        let argument = b"from:<@a:\"k m\"@example.org> size=10 Body=8BITMIME SMTPUTF8";
        let sender = Sender::parse(argument).expect("a sender");
        assert_eq!(sender.address(), "\"k m\"@example.org");
        let said = sender.command(|_| true);
        assert_eq!(said.as_deref(), Ok("MAIL FROM:<\"k m\"@example.org> SIZE=10 BODY=8BITMIME SMTPUTF8"));
        assert_eq!((sender.wants(UTF8), sender.wants(BINARY)), (true, false));
    }

    #[test]
    fn only_what_a_server_understands_is_said_to_it() {
        let sender = Sender::parse(b"FROM:<> SIZE=10 RET=HDRS AUTH=<>").expect("a sender");
        assert_eq!(sender.command(|extension| extension == DSN).as_deref(), Ok("MAIL FROM:<> RET=HDRS AUTH=<>"));
        assert_eq!(sender.command(|extension| extension == SIZE), Err(DSN), "what is asked for is not dropped");
        let recipient = Recipient::parse(b"TO:<kim@example.org> NOTIFY=NEVER").expect("a recipient");
        assert_eq!(recipient.command(|_| true).as_deref(), Ok("RCPT TO:<kim@example.org> NOTIFY=NEVER"));
        assert_eq!(recipient.command(|_| false), Err(DSN));
        for (wish, extension) in [("BODY=7bit", EIGHT_BIT), ("BODY=BinaryMIME", BINARY), ("SMTPUTF8", UTF8)] {
            let sender = Sender::parse(format!("FROM:<a@b> {wish}").as_bytes()).expect("a sender");
            assert_eq!(sender.command(|known| known != extension), Err(extension), "{wish}");
        }
    }
}
