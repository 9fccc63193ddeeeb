//! Sets of addresses and hosts, as rules and lists name them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use toml::de::DeValue;

use super::values::{Value, quoted, text};

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

#[cfg(test)]
mod tests {
    use super::*;

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
        let pattern = |text: &str| {
            let quoted = format!("\"{text}\"");
            let value = DeValue::parse(&quoted).expect("a text");
            HostPattern::read(value.get_ref()).expect("a pattern")
        };
        assert!(pattern("*.example.org").matches("a.Example.org"));
        assert!(!pattern("*.example.org").matches("example.org"));
        assert!(!pattern("*.example.org").matches("badexample.org"));
        assert!(pattern("10.0.1.0/24").matches("10.0.1.7"));
        assert!(!pattern("10.0.1.0/24").matches("10.0.1.7.example.org"));
    }
}
