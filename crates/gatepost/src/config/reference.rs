//! The reference of all settings, for people, for programs and as a page of the documents.

use std::fmt::Write as _;

use gatepost_wire::{PROTOCOLS, Protocol};

use super::root::Root;
use super::section::{Section, Written};

/// All sections, each before those of the tables in it.
fn sections() -> Vec<&'static Section> {
    fn add(section: &'static Section, known: &mut Vec<&'static Section>) {
        if known.iter().any(|other| std::ptr::eq(*other, section)) {
            return;
        }
        known.push(section);
        section.all_included().chain(section.children().map(|table| table.section)).for_each(|next| add(next, known));
    }
    let mut known = Vec::new();
    add(Root::SECTION, &mut known);
    known
}

/// What each service is called and where it is found, a row each: name, protocol, ports, the least `idle_timeout`.
fn services() -> impl Iterator<Item = [String; 5]> {
    let row = |protocol: &Protocol| {
        let (idle, source) = protocol.idle_min;
        [
            protocol.name.to_owned(),
            protocol.title.to_owned(),
            protocol.port.to_string(),
            protocol.tls_port.map_or_else(|| "none".to_owned(), |port| port.to_string()),
            format!("{}m ({source})", idle.as_secs() / 60),
        ]
    };
    PROTOCOLS.iter().map(row)
}

/// The reference of all settings, for programs.
pub(crate) fn reference_json() -> serde_json::Value {
    let describe = |section: &'static Section| {
        section.keys.iter().map(move |key| {
            let default = key.default;
            serde_json::json!({
                "table": section.head, "key": key.name, "takes": key.expected, "default": default, "meaning": key.help,
            })
        })
    };
    serde_json::json!({ "reference": sections().into_iter().flat_map(describe).collect::<Vec<_>>() })
}

/// The reference of all settings, for people: in the shape of a configuration file, all in comments.
pub(crate) fn reference() -> String {
    let mut text = String::from("# Every setting of gatepost.toml, with its type and default.\n");
    for section in sections() {
        let _ = writeln!(text, "\n# {}", section.help);
        if !section.head.is_empty() {
            let _ = writeln!(text, "# {}", section.head);
        }
        for included in section.all_included() {
            let _ = writeln!(text, "# Also what stands in {}.", included.head);
        }
        for key in section.keys {
            let default = key.default.map_or_else(|| "(no default)".to_owned(), str::to_owned);
            let _ = writeln!(text, "#{} = {default}\n#    {} Takes {}.", key.name, key.help, key.expected);
        }
    }
    text.push_str("\n# Services: their port, that of implicit TLS, and the least idle_timeout.\n");
    for [name, title, port, tls_port, idle] in services() {
        let _ = writeln!(text, "#    {name}: {title}, {port}, {tls_port}, {idle}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::Shape;

    /// The reference as a page of the documents.
    fn page() -> String {
        let mut text = String::from(
            "# Every setting of gatepost.toml\n\nMade from the definitions that the parser follows; `gatepost config reference` prints the same settings.\n",
        );
        let cell = |text: &str| text.replace('|', "\\|").replace('<', "&lt;");
        for section in sections() {
            let head = if section.head.is_empty() { "At the top of the file" } else { section.head };
            let _ = write!(text, "\n## `{head}`\n\n{}\n", cell(section.help));
            for included in section.all_included() {
                let keys: Vec<_> = included.keys.iter().map(|key| format!("`{}`", key.name)).collect();
                let _ = write!(text, "\nAlso, as in `{}`: {}.\n", included.head, keys.join(", "));
            }
            if !section.keys.is_empty() {
                text.push_str("\n| setting | takes | default | meaning |\n| --- | --- | --- | --- |\n");
            }
            for key in section.keys {
                let default = key.default.map_or_else(String::new, |default| format!("`{default}`"));
                let several = if matches!(key.shape, Shape::List(_)) { ", or a list of them" } else { "" };
                let expected = cell(key.expected);
                let _ = writeln!(text, "| `{}` | {expected}{several} | {default} | {} |", key.name, cell(key.help));
            }
        }
        text.push_str("\n## Services\n\n| service | protocol | port | implicit TLS | least `idle_timeout` |\n| --- | --- | --- | --- | --- |\n");
        for row in services() {
            let _ = writeln!(text, "| {} |", row.join(" | "));
        }
        text
    }

    #[test]
    fn included_sections_include_no_others() {
        for section in sections() {
            for included in section.all_included() {
                let nested = included.all_included().count();
                assert!(nested == 0 && included.reserved.is_empty(), "{} in {}", included.head, section.head);
            }
        }
    }

    #[test]
    fn the_reference_that_is_kept_is_todays() {
        crate::documents::keep("reference.md", |_| page());
    }
}
