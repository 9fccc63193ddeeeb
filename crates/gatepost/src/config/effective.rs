//! The settings in force, for `config effective`: what is written, and the defaults of the rest.

/// The settings in force, table by table.
#[derive(Debug, Default)]
pub(crate) struct Effective(pub(super) Vec<Block>);

/// One table of the effective configuration.
#[derive(Debug)]
pub(super) struct Block {
    /// As it is opened in the file; empty for the file itself.
    pub(super) head: String,
    pub(super) settings: Vec<Setting>,
}

/// One setting of it.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) name: &'static str,
    /// As it would be written; `None`: it is not set and has no default.
    pub(super) value: Option<String>,
    pub(super) is_default: bool,
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::config;

    #[test]
    fn what_is_in_force_can_be_read_again_and_says_the_same() {
        let text = "[imap]\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n[map]\ndefault = \"a.example\"\n\
                    [directory.\"x.y\"]\ntype = \"passwd-file\"\npath = \"users\"\n\
                    [backend.\"a.example\"]\nhost = \"127.0.0.1\"\n[backend.\"a.example\".imap]\nport = 1144\n[backend.b]\nhost = \"127.0.0.1\"\n";
        let effective = |text: &str| {
            let draft = config::parse(Path::new("gatepost.toml"), text).unwrap_or_else(|problems| panic!("{problems}"));
            draft.sound().unwrap_or_else(|problems| panic!("{problems}")).effective.to_string()
        };
        let first = effective(text);
        assert!(first.contains("[backend.\"a.example\".imap]\nport = 1144\n"), "{first}");
        assert!(first.contains("[directory.\"x.y\"]\n"), "{first}");
        let without_marks = |text: &str| text.replace("  # default", "");
        assert_eq!(without_marks(&effective(&first)), without_marks(&first));
    }
}
