//! The types that settings have: how each is read from TOML and written back.
//!
//! Here belong those that mean something by themselves; words that only one section knows stand with it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use gatepost_wire::Mechanism;
use hyper::Uri;
use toml::de::DeValue;

use super::problem::NamedFile;
use super::reader::Here;

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
pub(super) trait Value: Sized {
    /// What it looks like, in the reference and in errors: `a duration such as "90s"`.
    const EXPECTED: &'static str;
    /// How a form shows it.
    const SHAPE: Shape = Shape::Text;

    /// Reads it; `None` where the value doesn't look like [`Value::EXPECTED`].
    fn read(value: &DeValue<'_>) -> Option<Self>;

    /// Writes it as TOML; empty: nothing is set.
    fn show(&self) -> String;

    /// What it is where it stands, once that is known: files are named relative to the configuration.
    #[must_use]
    fn placed(self, _here: &Here<'_>) -> Self {
        self
    }

    /// What it means that nothing is written; `None`: something must be.
    fn left_out() -> Option<Self> {
        None
    }
}

impl<T: Value> Value for Option<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SHAPE: Shape = T::SHAPE;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        T::read(value).map(Some)
    }

    fn show(&self) -> String {
        self.as_ref().map_or_else(String::new, T::show)
    }

    fn placed(self, here: &Here<'_>) -> Self {
        self.map(|value| value.placed(here))
    }

    fn left_out() -> Option<Self> {
        Some(None)
    }
}

impl Value for bool {
    const EXPECTED: &'static str = "true or false";
    const SHAPE: Shape = Shape::Truth;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Boolean(truth) => Some(*truth),
            _ => None,
        }
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    match value {
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix()).ok(),
        _ => None,
    }
}

impl Value for i64 {
    const EXPECTED: &'static str = "a whole number";
    const SHAPE: Shape = Shape::Number;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        integer(value)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";
    const SHAPE: Shape = Shape::Number;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        integer(value)?.try_into().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for usize {
    const EXPECTED: &'static str = u32::EXPECTED;
    const SHAPE: Shape = Shape::Number;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        u32::read(value)?.try_into().ok()
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

/// The most of something; in the file, 0 stands for no bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Max(pub(crate) Option<NonZeroU32>);

impl Value for Max {
    const EXPECTED: &'static str = u32::EXPECTED;
    const SHAPE: Shape = Shape::Number;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        u32::read(value).map(|max| Self(NonZeroU32::new(max)))
    }

    fn show(&self) -> String {
        self.0.map_or(0, NonZeroU32::get).to_string()
    }
}

/// A TCP port.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Port(pub(crate) u16);

impl Value for Port {
    const EXPECTED: &'static str = "a port from 1 to 65535";
    const SHAPE: Shape = Shape::Number;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        integer(value)?.try_into().ok().filter(|&port| port != 0).map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

pub(super) fn text<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

pub(super) fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

impl Value for String {
    const EXPECTED: &'static str = "a text of one line in quotes";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        // Texts reach greetings, headers and logs: none may hold a line end.
        text(value).filter(|text| !text.is_empty() && !text.chars().any(char::is_control)).map(str::to_owned)
    }

    fn show(&self) -> String {
        quoted(self)
    }
}

impl Value for NamedFile {
    const EXPECTED: &'static str = "a path in quotes";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        String::read(value).map(|path| Self::given(path.as_ref()))
    }

    fn show(&self) -> String {
        quoted(&self.display().to_string())
    }

    fn placed(self, here: &Here<'_>) -> Self {
        here.named_file(&self)
    }
}

impl Value for Duration {
    const EXPECTED: &'static str = "a duration such as \"90s\", \"5m\" or \"1h\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit())?);
        let number: u64 = number.parse().ok()?;
        let seconds = match unit {
            "ms" => return (number <= 86_400_000).then(|| Self::from_millis(number)),
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86400,
            _ => return None,
        };
        // Ten years: what goes beyond is a slip, and would overflow clocks.
        let total = number.checked_mul(seconds)?;
        (total <= 315_360_000).then(|| Self::from_secs(total))
    }

    fn show(&self) -> String {
        let (seconds, rest) = (self.as_secs(), self.subsec_millis());
        let shown = match seconds {
            _ if rest > 0 => format!("{}ms", self.as_millis()),
            0 => "0s".to_owned(),
            s if s % 86400 == 0 => format!("{}d", s / 86400),
            s if s % 3600 == 0 => format!("{}h", s / 3600),
            s if s % 60 == 0 => format!("{}m", s / 60),
            s => format!("{s}s"),
        };
        quoted(&shown)
    }
}

/// A number of bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size(pub(crate) u64);

const SIZE_UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

impl Value for Size {
    const EXPECTED: &'static str = "a size such as \"64KiB\", \"10MiB\" or \"1GiB\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        let (unit, factor) = SIZE_UNITS.iter().find(|(unit, _)| text.ends_with(unit))?;
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*factor).filter(|&size| size > 0).map(Self)
    }

    fn show(&self) -> String {
        let (unit, factor) = SIZE_UNITS.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(&("B", 1));
        quoted(&format!("{}{unit}", self.0 / factor))
    }
}

impl Value for SocketAddr {
    const EXPECTED: &'static str = "an address and port such as \"0.0.0.0:143\" or \"[::]:993\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        text(value)?.parse().ok().filter(|address: &Self| address.port() != 0)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

impl Value for IpAddr {
    const EXPECTED: &'static str = "an address such as \"10.0.0.5\" or \"::1\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        text(value)?.parse().ok()
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// The SHA-256 of a certificate, in hexadecimal, with or without colons and a leading `sha256:`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pin(pub(crate) [u8; 32]);

impl Value for Pin {
    const EXPECTED: &'static str =
        "a certificate's SHA-256 in hexadecimal, as `openssl x509 -fingerprint -sha256` prints it";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        let text = text.strip_prefix("sha256:").unwrap_or(text);
        let digits: String = text.chars().filter(|&c| c != ':').collect();
        (digits.len() == 64 && digits.is_ascii()).then_some(())?;
        let mut pin = [0; 32];
        for (n, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&digits[2 * n..2 * n + 2], 16).ok()?;
        }
        Some(Self(pin))
    }

    fn show(&self) -> String {
        quoted(&self.0.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }
}

impl<T: Value> Value for Vec<T> {
    const EXPECTED: &'static str = T::EXPECTED;
    const SHAPE: Shape = Shape::List(&T::SHAPE);

    fn read(value: &DeValue<'_>) -> Option<Self> {
        match value {
            DeValue::Array(items) => items.iter().map(|item| T::read(item.get_ref())).collect(),
            // One may stand without brackets wherever several may.
            single => T::read(single).map(|value| vec![value]),
        }
    }

    fn show(&self) -> String {
        format!("[{}]", self.iter().map(Value::show).collect::<Vec<_>>().join(", "))
    }

    fn placed(self, here: &Here<'_>) -> Self {
        self.into_iter().map(|value| value.placed(here)).collect()
    }
}

/// What divides a name from a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delimiter(pub(crate) char);

impl Value for Delimiter {
    const EXPECTED: &'static str = "one character in quotes, such as \"+\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let mut chars = text(value)?.chars();
        let divider = chars.next().filter(|c| !c.is_alphanumeric() && !c.is_control() && *c != '@')?;
        chars.next().is_none().then_some(Self(divider))
    }

    fn show(&self) -> String {
        quoted(&self.0.to_string())
    }
}

/// A regular expression that has to match a whole text.
#[derive(Debug, Clone)]
pub(crate) struct Pattern(pub(crate) regex_lite::Regex);

impl Value for Pattern {
    const EXPECTED: &'static str = "a regular expression such as \"[a-m].*\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        regex_lite::Regex::new(&format!("^(?:{})$", text(value)?)).ok().map(Self)
    }

    fn show(&self) -> String {
        let whole = self.0.as_str();
        quoted(whole.strip_prefix("^(?:").and_then(|rest| rest.strip_suffix(")$")).unwrap_or(whole))
    }
}

/// Names of the administrator's choice with something for each, in the file's order.
fn pairs<T: Value>(value: &DeValue<'_>) -> Option<Vec<(String, T)>> {
    let DeValue::Table(entries) = value else { return None };
    let mut entries: Vec<_> = entries.iter().collect();
    entries.sort_by_key(|(key, _)| key.span().start);
    entries.into_iter().map(|(key, value)| Some((key.get_ref().to_string(), T::read(value.get_ref())?))).collect()
}

fn show_pairs<T: Value>(pairs: &[(String, T)]) -> String {
    let shown: Vec<_> = pairs.iter().map(|(key, value)| format!("{} = {}", quoted(key), value.show())).collect();
    if shown.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", shown.join(", ")) }
}

/// Back ends and how much each takes of what is shared among them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Weights(pub(crate) Vec<(String, u32)>);

impl Value for Weights {
    const EXPECTED: &'static str = "back ends and their weights, such as { store-a = 2, store-b = 1 }";
    const SHAPE: Shape = Shape::Raw;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        pairs(value).map(Self)
    }

    fn show(&self) -> String {
        show_pairs(&self.0)
    }
}

/// Texts for texts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs(pub(crate) Vec<(String, String)>);

impl Value for Pairs {
    const EXPECTED: &'static str = "a table of texts, such as { \"info@example.org\" = \"kim@example.org\" }";
    const SHAPE: Shape = Shape::Raw;

    fn read(value: &DeValue<'_>) -> Option<Self> {
        pairs(value).map(Self)
    }

    fn show(&self) -> String {
        show_pairs(&self.0)
    }
}

impl Value for Mechanism {
    const EXPECTED: &'static str = "mechanisms out of \"PLAIN\", \"LOGIN\", \"OAUTHBEARER\", \"XOAUTH2\", \"EXTERNAL\", \
                                    \"SCRAM-SHA-256\" and \"SCRAM-SHA-256-PLUS\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        Self::SASL.into_iter().find(|mechanism| mechanism.name() == text)
    }

    fn show(&self) -> String {
        quoted(self.name())
    }
}

impl Value for Uri {
    const EXPECTED: &'static str = "a URL such as \"http://127.0.0.1:9090/auth\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let url: Self = text(value)?.parse().ok()?;
        (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some(url)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// Words as a sentence names them: `a, b or c`.
macro_rules! one_of {
    ($word:literal) => { $word };
    ($word:literal, $last:literal) => { concat!($word, " or ", $last) };
    ($word:literal, $($rest:literal),+) => { concat!($word, ", ", one_of!($($rest),+)) };
}

/// Defines a setting that is one word out of a few; or, of a type that is there already, what each word means. A text
/// behind the type says what is expected, where a list of the words would not do.
macro_rules! words {
    ($(#[$meta:meta])* $vis:vis enum $type:ident $(, $expected:literal)? { $($(#[$doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        $vis enum $type { $($(#[$doc])* $variant,)+ }

        #[allow(dead_code, reason = "few are spoken of by name")]
        impl $type {
            /// Every one, in the order of their definition.
            pub(crate) const ALL: [Self; [$($word),+].len()] = [$(Self::$variant),+];

            /// As it is written.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        words! { for $type $(, $expected)?; $($word => $type::$variant,)+ }
    };
    (for $type:ty; $($word:literal => $value:expr,)+) => {
        words! { for $type, one_of!($($word),+); $($word => $value,)+ }
    };
    (for $type:ty, $expected:expr; $($word:literal => $value:expr,)+) => {
        impl $crate::config::values::Value for $type {
            const EXPECTED: &'static str = $expected;
            const SHAPE: $crate::config::values::Shape = $crate::config::values::Shape::Words(&[$($word),+]);

            fn read(value: &toml::de::DeValue<'_>) -> Option<Self> {
                match $crate::config::values::text(value)? {
                    $($word => Some($value),)+
                    _ => None,
                }
            }

            fn show(&self) -> String {
                $(if *self == $value {
                    return $crate::config::values::quoted($word);
                })+
                String::new()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::super::networks::{HostPattern, Network};
    use super::*;

    fn read<T: Value>(text: &str) -> Option<T> {
        DeValue::parse(text).ok().and_then(|value| T::read(value.get_ref()))
    }

    #[test]
    fn values_are_read_and_written_back() {
        fn both<T: Value>(text: &str) {
            assert_eq!(read::<T>(text).map(|value| value.show()).as_deref(), Some(text));
        }
        both::<Duration>("\"90s\"");
        both::<Duration>("\"35m\"");
        both::<Duration>("\"0s\"");
        both::<Size>("\"64MiB\"");
        both::<SocketAddr>("\"[::1]:993\"");
        both::<Network>("\"10.0.0.5-10.0.0.9\"");
        both::<Network>("\"203.0.113.0/24\"");
        both::<Network>("\"2001:db8::/32\"");
        both::<Network>("\"::1\"");
        both::<Vec<Network>>("[\"0.0.0.0/0\", \"10.0.0.1\"]");
        both::<HostPattern>("\"*.store.example.org\"");
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in ["\"5\"", "5", "\"5 m\"", "\"m\"", "\"99999999999999999999s\"", "\"100000d\""] {
            assert!(read::<Duration>(bad).is_none(), "{bad}");
        }
        for bad in ["\"10.0.0.9-10.0.0.5\"", "\"10.0.0.1-::1\"", "\"10.0.0.0/33\"", "\"example.org\"", "\"\""] {
            assert!(read::<Network>(bad).is_none(), "{bad}");
        }
        assert!(read::<String>("\"a\\r\\nb\"").is_none());
        assert!(read::<u32>("-1").is_none());
    }
}
