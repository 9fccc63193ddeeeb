//! The types of settings: how each is read from TOML and written back.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gatepost_wire::Mechanism;
use toml::de::DeValue;

use super::directory::{HttpForm, LdapScope, LdapUrl, LdapVerify};
use super::reader::{Shape, Value};
use super::{
    CertificateName, HostOrder, Level, LogFormat, Period, Plaintext, ReverseDns, Senders, TlsMode, TlsVersion,
};
use super::{is_host, is_this_machine};

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

/// A TCP port.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port(pub(super) u16);

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

impl Value for PathBuf {
    const EXPECTED: &'static str = "a path in quotes";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        String::read(value).map(Self::from)
    }

    fn show(&self) -> String {
        quoted(&self.display().to_string())
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
pub(super) struct Size(pub(super) u64);

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
pub(super) struct Pin(pub(super) [u8; 32]);

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
}

/// What divides a name from a detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delimiter(pub(super) char);

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
    format!("{{ {} }}", shown.join(", "))
}

/// Back ends and how much each takes of what is shared among them.
#[derive(Debug, Clone, Default)]
pub(super) struct Weights(pub(super) Vec<(String, u32)>);

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
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

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

/// Settings that are one word out of a few.
macro_rules! words {
    ($type:ty, $expected:expr, $($word:literal => $value:expr),+ $(,)?) => {
        impl $crate::config::reader::Value for $type {
            const EXPECTED: &'static str = $expected;
            const SHAPE: $crate::config::reader::Shape = $crate::config::reader::Shape::Words(&[$($word),+]);

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

words!(Level, "critical, error, warning, info or protocol",
    "critical" => Level::Critical, "error" => Level::Error, "warning" => Level::Warning,
    "info" => Level::Info, "protocol" => Level::Protocol);
words!(LogFormat, "text or json", "text" => LogFormat::Text, "json" => LogFormat::Json);
words!(Period, "hour, day or week", "hour" => Period::Hour, "day" => Period::Day, "week" => Period::Week);
words!(TlsVersion, "\"1.2\" or \"1.3\"", "1.2" => TlsVersion::Tls12, "1.3" => TlsVersion::Tls13);
words!(TlsMode, "none, starttls or implicit",
    "none" => TlsMode::None, "starttls" => TlsMode::StartTls, "implicit" => TlsMode::Implicit);
words!(Plaintext, "tls, loopback or always",
    "tls" => Plaintext::Tls, "loopback" => Plaintext::Loopback, "always" => Plaintext::Always);

/// Where records go, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogTo {
    Stderr,
    File,
    Syslog,
    Journald,
    Remote,
}
words!(LogTo, "stderr, file, syslog, journald or remote", "stderr" => LogTo::Stderr, "file" => LogTo::File,
    "syslog" => LogTo::Syslog, "journald" => LogTo::Journald, "remote" => LogTo::Remote);

/// What kind of program a record is from, as syslog has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Facility(pub(super) u8);
words!(Facility, "mail, daemon, auth, authpriv or local0 to local7", "mail" => Facility(2), "daemon" => Facility(3),
    "auth" => Facility(4), "authpriv" => Facility(10), "local0" => Facility(16), "local1" => Facility(17),
    "local2" => Facility(18), "local3" => Facility(19), "local4" => Facility(20), "local5" => Facility(21),
    "local6" => Facility(22), "local7" => Facility(23));

/// How the client's address is announced, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnnounceBy {
    Auto,
    None,
    Id,
    Xclient,
    ProxyV2,
}
words!(AnnounceBy, "auto, none, id, xclient or proxy-v2", "auto" => AnnounceBy::Auto, "none" => AnnounceBy::None,
    "id" => AnnounceBy::Id, "xclient" => AnnounceBy::Xclient, "proxy-v2" => AnnounceBy::ProxyV2);

/// What a client of SMTP must call itself, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeloCheck {
    Any,
    Strict,
}
words!(HeloCheck, "any or strict", "any" => HeloCheck::Any, "strict" => HeloCheck::Strict);

/// How mail is handed over, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MailProtocol {
    Smtp,
    Lmtp,
}
words!(MailProtocol, "smtp or lmtp", "smtp" => MailProtocol::Smtp, "lmtp" => MailProtocol::Lmtp);
words!(Senders, "any or own", "any" => Senders::Any, "own" => Senders::Own);
words!(ReverseDns, "off, note or require",
    "off" => ReverseDns::Off, "note" => ReverseDns::Note, "require" => ReverseDns::Require);

/// Who checks passwords, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthenticateAt {
    Backend,
    Proxy,
}
words!(AuthenticateAt, "backend or proxy", "backend" => AuthenticateAt::Backend, "proxy" => AuthenticateAt::Proxy);

words!(HostOrder, "listed or spread", "listed" => HostOrder::Listed, "spread" => HostOrder::Spread);
words!(HttpForm, "nginx or json", "nginx" => HttpForm::Nginx, "json" => HttpForm::Json);

/// TLS towards a database, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SqlTls {
    None,
    Required,
}
words!(SqlTls, "none or required", "none" => SqlTls::None, "required" => SqlTls::Required);

/// The way to log in at a back end, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginBy {
    Best,
    One(Mechanism),
}
words!(LoginBy, "best, PLAIN, LOGIN, OAUTHBEARER, XOAUTH2 or command", "best" => LoginBy::Best,
    "PLAIN" => LoginBy::One(Mechanism::Plain), "LOGIN" => LoginBy::One(Mechanism::Login),
    "OAUTHBEARER" => LoginBy::One(Mechanism::OAuthBearer), "XOAUTH2" => LoginBy::One(Mechanism::XOAuth2),
    "command" => LoginBy::One(Mechanism::Command));

/// Where a responder is.
#[derive(Debug, Clone)]
pub(super) struct HttpUrl(pub(super) hyper::Uri);

impl Value for HttpUrl {
    const EXPECTED: &'static str = "a URL such as \"http://127.0.0.1:9090/auth\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let url: hyper::Uri = text(value)?.parse().ok()?;
        (matches!(url.scheme_str(), Some("http" | "https")) && url.host().is_some()).then_some(Self(url))
    }

    fn show(&self) -> String {
        quoted(&self.0.to_string())
    }
}

/// TLS towards LDAP servers that have no implicit TLS, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LdapTls {
    None,
    StartTls,
}
words!(LdapTls, "none or starttls", "none" => LdapTls::None, "starttls" => LdapTls::StartTls);
words!(LdapScope, "base, one or subtree",
    "base" => LdapScope::Base, "one" => LdapScope::One, "subtree" => LdapScope::Subtree);
words!(LdapVerify, "bind or compare", "bind" => LdapVerify::Bind, "compare" => LdapVerify::Compare);

/// What becomes of a search that finds several entries, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Several {
    Refuse,
    First,
}
words!(Several, "refuse or first", "refuse" => Several::Refuse, "first" => Several::First);

impl Value for LdapUrl {
    const EXPECTED: &'static str = "a URL such as \"ldap://ldap.example.org\" or \"ldaps://ldap.example.org:636\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        let (is_tls, rest) = match text.split_once("://")? {
            ("ldap", rest) => (false, rest),
            ("ldaps", rest) => (true, rest),
            _ => return None,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let host = match rest.rsplit_once(':') {
            Some((host, port)) if !rest.ends_with(']') => {
                port.parse::<u16>().ok().filter(|&port| port != 0)?;
                host
            }
            _ => rest,
        };
        let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let sound =
            address.map_or_else(|| is_host(host) && !host.contains(':'), |address| address.parse::<Ipv6Addr>().is_ok());
        let is_local = is_this_machine(address.unwrap_or(host));
        sound.then(|| Self { text: text.to_owned(), is_tls, is_local })
    }

    fn show(&self) -> String {
        quoted(&self.text)
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

words!(CertificateName, "email, upn, cn or uid", "email" => CertificateName::Email, "upn" => CertificateName::Upn,
    "cn" => CertificateName::CommonName, "uid" => CertificateName::UserId);

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
