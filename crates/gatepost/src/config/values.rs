//! The types of settings: how each is read from TOML and written back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use gatepost_wire::Mechanism;
use toml::de::DeValue;

use super::reader::Value;
use super::{Level, LogFormat, Period, Plaintext, TlsMode, TlsVersion};

impl Value for bool {
    const EXPECTED: &'static str = "true or false";

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

    fn read(value: &DeValue<'_>) -> Option<Self> {
        integer(value)
    }

    fn show(&self) -> String {
        self.to_string()
    }
}

impl Value for u32 {
    const EXPECTED: &'static str = "a whole number from 0 to 4294967295";

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

    fn read(value: &DeValue<'_>) -> Option<Self> {
        integer(value)?.try_into().ok().filter(|&port| port != 0).map(Self)
    }

    fn show(&self) -> String {
        self.0.to_string()
    }
}

fn text<'a>(value: &'a DeValue<'_>) -> Option<&'a str> {
    match value {
        DeValue::String(text) => Some(text),
        _ => None,
    }
}

fn quoted(text: &str) -> String {
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

/// A set of addresses that follow one another: a network, a range, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network {
    pub(crate) first: IpAddr,
    pub(crate) last: IpAddr,
}

impl Network {
    /// Reads `10.0.0.0/8`, `10.0.0.5-10.0.0.9`, `10.0.0.5` or their IPv6 kin.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Some((first, last)) = text.split_once('-') {
            let (first, last): (IpAddr, IpAddr) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
            return (first.is_ipv4() == last.is_ipv4() && first <= last).then_some(Self { first, last });
        }
        if let Ok(network) = text.parse::<ipnet::IpNet>() {
            return Some(Self { first: network.network(), last: last_of(&network) });
        }
        text.parse().ok().map(|address| Self { first: address, last: address })
    }

    /// Whether `address` is in it. An IPv4 address is never in an IPv6 network, mapped or not.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && self.first <= address && address <= self.last
    }

    /// How many leading bits are fixed; for a range, those of the smallest network of its size.
    pub(crate) fn prefix_length(&self) -> u32 {
        match (self.first, self.last) {
            (IpAddr::V4(first), IpAddr::V4(last)) => (u32::from(last) - u32::from(first)).leading_zeros(),
            (IpAddr::V6(first), IpAddr::V6(last)) => (u128::from(last) - u128::from(first)).leading_zeros(),
            _ => 0,
        }
    }
}

/// The last address of a network, IPv4's broadcast address included.
fn last_of(network: &ipnet::IpNet) -> IpAddr {
    match network {
        ipnet::IpNet::V4(network) => {
            let host_bits = u32::MAX.checked_shr(network.prefix_len().into()).unwrap_or(0);
            Ipv4Addr::from(u32::from(network.network()) | host_bits).into()
        }
        ipnet::IpNet::V6(network) => {
            let host_bits = u128::MAX.checked_shr(network.prefix_len().into()).unwrap_or(0);
            Ipv6Addr::from(u128::from(network.network()) | host_bits).into()
        }
    }
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bits = if self.first.is_ipv4() { 32 } else { 128 };
        let network = ipnet::IpNet::new(self.first, self.prefix_length().min(bits) as u8).ok();
        match network.filter(|net| net.network() == self.first && last_of(net) == self.last) {
            Some(net) if u32::from(net.prefix_len()) < bits => write!(f, "{net}"),
            Some(_) => write!(f, "{}", self.first),
            None => write!(f, "{}-{}", self.first, self.last),
        }
    }
}

impl Value for Network {
    const EXPECTED: &'static str = "a network such as \"10.0.0.0/8\", a range \"10.0.0.5-10.0.0.9\" or an address";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        Self::parse(text(value)?)
    }

    fn show(&self) -> String {
        quoted(&self.to_string())
    }
}

/// A host that a directory may name: a network, a name, or all names under one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum HostPattern {
    Network(Network),
    Name(String),
    /// `*.example.org`: kept with its leading dot.
    Under(String),
}

impl HostPattern {
    /// Whether `host`, an address or a name, is one that is meant.
    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Network(network) => host.parse().is_ok_and(|address| network.contains(address)),
            Self::Name(name) => host.eq_ignore_ascii_case(name),
            Self::Under(suffix) => {
                let suffix_at = host.len().checked_sub(suffix.len());
                suffix_at
                    .is_some_and(|at| at > 0 && host.is_char_boundary(at) && host[at..].eq_ignore_ascii_case(suffix))
            }
        }
    }
}

impl Value for HostPattern {
    const EXPECTED: &'static str = "a host name, \"*.example.org\", a network or an address";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        if let Some(network) = Network::parse(text) {
            return Some(Self::Network(network));
        }
        let is_name = |name: &str| {
            !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'))
        };
        match text.strip_prefix('*') {
            Some(suffix) => (suffix.starts_with('.') && is_name(suffix)).then(|| Self::Under(suffix.to_owned())),
            None => is_name(text).then(|| Self::Name(text.to_owned())),
        }
    }

    fn show(&self) -> String {
        match self {
            Self::Network(network) => network.show(),
            Self::Name(name) => quoted(name),
            Self::Under(suffix) => quoted(&format!("*{suffix}")),
        }
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

/// Settings that are one word out of a few.
macro_rules! words {
    ($type:ty, $expected:literal, $($word:literal => $value:expr),+ $(,)?) => {
        impl Value for $type {
            const EXPECTED: &'static str = $expected;

            fn read(value: &DeValue<'_>) -> Option<Self> {
                match text(value)? {
                    $($word => Some($value),)+
                    _ => None,
                }
            }

            fn show(&self) -> String {
                $(if *self == $value {
                    return quoted($word);
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
    Later,
}
words!(LogTo, "stderr or file", "stderr" => LogTo::Stderr, "file" => LogTo::File,
    "syslog" => LogTo::Later, "journald" => LogTo::Later, "remote" => LogTo::Later);

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

/// Who checks passwords, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AuthenticateAt {
    Backend,
    Proxy,
}
words!(AuthenticateAt, "backend or proxy", "backend" => AuthenticateAt::Backend, "proxy" => AuthenticateAt::Proxy);

/// What a directory is, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DirectoryType {
    Sql,
    PasswdFile,
    Later,
}
words!(DirectoryType, "sql or passwd-file", "sql" => DirectoryType::Sql, "passwd-file" => DirectoryType::PasswdFile,
    "ldap" => DirectoryType::Later, "oauth2" => DirectoryType::Later, "http" => DirectoryType::Later);

/// A mechanism as written: one that is built, or the name of one that is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum MechanismName {
    Known(Mechanism),
    Later(String),
}

impl Value for MechanismName {
    const EXPECTED: &'static str = "mechanisms out of \"PLAIN\" and \"LOGIN\"";

    fn read(value: &DeValue<'_>) -> Option<Self> {
        let text = text(value)?;
        if let Some(known) = Mechanism::SASL.into_iter().find(|mechanism| mechanism.name() == text) {
            return Some(Self::Known(known));
        }
        let later = ["OAUTHBEARER", "XOAUTH2", "EXTERNAL", "SCRAM-SHA-256"].contains(&text);
        later.then(|| Self::Later(text.to_owned()))
    }

    fn show(&self) -> String {
        match self {
            Self::Known(mechanism) => quoted(mechanism.name()),
            Self::Later(name) => quoted(name),
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn networks_hold_what_they_say() {
        let network = |text| Network::parse(text).expect("a network");
        let address = |text: &str| text.parse::<IpAddr>().expect("an address");
        assert!(network("10.0.0.5-10.0.0.9").contains(address("10.0.0.9")));
        assert!(!network("10.0.0.5-10.0.0.9").contains(address("10.0.0.10")));
        assert!(network("127.0.0.0/8").contains(address("::ffff:127.0.0.1")), "a mapped address is the one it maps");
        assert!(!network("::/0").contains(address("::ffff:127.0.0.1")));
        assert!(network("0.0.0.0/0").contains(address("255.255.255.255")));
        assert_eq!(network("10.0.0.0/8").prefix_length(), 8);
        assert_eq!(network("10.0.0.5-10.0.0.9").prefix_length(), 29);
        assert_eq!(network("::1").prefix_length(), 128);
    }

    #[test]
    fn host_patterns() {
        let pattern = |text: &str| read::<HostPattern>(&format!("\"{text}\"")).expect("a pattern");
        assert!(pattern("*.example.org").matches("a.Example.org"));
        assert!(!pattern("*.example.org").matches("example.org"));
        assert!(!pattern("*.example.org").matches("badexample.org"));
        assert!(pattern("10.0.1.0/24").matches("10.0.1.7"));
        assert!(!pattern("10.0.1.0/24").matches("10.0.1.7.example.org"));
    }
}
