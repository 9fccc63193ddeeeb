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
