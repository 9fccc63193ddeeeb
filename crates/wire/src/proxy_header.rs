//! The PROXY protocol's header, versions 1 and 2 (`HAProxy`'s proxy-protocol.txt), by which a load
//! balancer says whose connection it hands on.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::limits::{PROXY_V1_BYTES_MAX, PROXY_V2_BYTES_MAX};

const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const V2_FIXED_BYTES: usize = 16;

/// What the bytes received so far are.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum Parsed {
    /// The beginning of a header; more is needed.
    Partial,
    /// No header.
    Absent,
    /// A header that is malformed or too long. The text says how.
    Malformed(&'static str),
    /// A header of `length` bytes.
    Header {
        /// How many bytes it takes.
        length: usize,
        /// The client's address; `None` where the sender speaks for itself (LOCAL, UNKNOWN), or of somebody who came by
        /// something other than TCP.
        client: Option<SocketAddr>,
    },
}

/// Reads a header at the beginning of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed {
    if shares_prefix(bytes, V2_SIGNATURE) {
        return if bytes.len() < V2_FIXED_BYTES { Parsed::Partial } else { parse_v2(bytes) };
    }
    if shares_prefix(bytes, b"PROXY ") {
        return parse_v1(bytes);
    }
    Parsed::Absent
}

/// The header of version 2 that says that nobody is connected but the sender itself: a look at the server's health.
pub fn write_v2_local() -> Vec<u8> {
    [V2_SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

/// The header of version 2 that says that `client` connected to `local`.
pub fn write_v2(client: SocketAddr, local: SocketAddr) -> Vec<u8> {
    let mut header = V2_SIGNATURE.to_vec();
    header.push(0x21);
    match (client.ip().to_canonical(), local.ip().to_canonical()) {
        (IpAddr::V4(client_ip), IpAddr::V4(local_ip)) => {
            header.extend_from_slice(&[0x11, 0, 12]);
            header.extend_from_slice(&client_ip.octets());
            header.extend_from_slice(&local_ip.octets());
        }
        (client_ip, local_ip) => {
            header.extend_from_slice(&[0x21, 0, 36]);
            header.extend_from_slice(&v6(client_ip).octets());
            header.extend_from_slice(&v6(local_ip).octets());
        }
    }
    header.extend_from_slice(&client.port().to_be_bytes());
    header.extend_from_slice(&local.port().to_be_bytes());
    header
}

fn v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Whether one is the beginning of the other.
fn shares_prefix(bytes: &[u8], prefix: &[u8]) -> bool {
    let length = bytes.len().min(prefix.len());
    bytes[..length] == prefix[..length]
}

fn parse_v1(bytes: &[u8]) -> Parsed {
    let window = &bytes[..bytes.len().min(PROXY_V1_BYTES_MAX)];
    let Some(end) = window.windows(2).position(|pair| pair == b"\r\n") else {
        return if bytes.len() < PROXY_V1_BYTES_MAX {
            Parsed::Partial
        } else {
            Parsed::Malformed("a header of version 1 without an end")
        };
    };
    let line = &window[..end];
    if line == b"PROXY UNKNOWN" || line.starts_with(b"PROXY UNKNOWN ") {
        return Parsed::Header { length: end + 2, client: None };
    }
    match v1_client(line) {
        Some(client) => Parsed::Header { length: end + 2, client: Some(client) },
        None => Parsed::Malformed("a header of version 1 that makes no sense"),
    }
}

/// `PROXY TCP4|TCP6 source destination source-port destination-port`.
fn v1_client(line: &[u8]) -> Option<SocketAddr> {
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    (words.next()? == "PROXY").then_some(())?;
    let family = words.next()?;
    let source: IpAddr = words.next()?.parse().ok()?;
    let destination: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    let _destination_port: u16 = words.next()?.parse().ok()?;
    let agrees = match family {
        "TCP4" => source.is_ipv4() && destination.is_ipv4(),
        "TCP6" => source.is_ipv6() && destination.is_ipv6(),
        _ => false,
    };
    (agrees && words.next().is_none()).then_some(SocketAddr::new(source, port))
}

fn parse_v2(bytes: &[u8]) -> Parsed {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 0x0f);
    let (family, transport) = (bytes[13] >> 4, bytes[13] & 0x0f);
    let length = V2_FIXED_BYTES + usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if version != 2 || command > 1 {
        return Parsed::Malformed("a header of an unknown version or command");
    }
    if length > PROXY_V2_BYTES_MAX {
        return Parsed::Malformed("a header of version 2 that is too long");
    }
    let Some(body) = bytes.get(V2_FIXED_BYTES..length) else { return Parsed::Partial };
    // A check of the load balancer's own: whatever else it says is not looked at.
    if command == 0 {
        return Parsed::Header { length, client: None };
    }
    let address_bytes = match (family, transport) {
        (0, _) => 0,
        (1, 1 | 2) => 12,
        (2, 1 | 2) => 36,
        (3, 1 | 2) => 216,
        _ => return Parsed::Malformed("a header of an unknown family or transport"),
    };
    let Some(tlvs) = body.get(address_bytes..) else {
        return Parsed::Malformed("a header of version 2 that is cut short");
    };
    if !tlvs_are_whole(tlvs) {
        return Parsed::Malformed("a header of version 2 with a broken extension");
    }
    let client = match (family, transport) {
        (1, 1) => {
            let [a, b, c, d] = [body[0], body[1], body[2], body[3]];
            Some(SocketAddr::new(Ipv4Addr::new(a, b, c, d).into(), u16::from_be_bytes([body[8], body[9]])))
        }
        (2, 1) => {
            let octets: [u8; 16] = std::array::from_fn(|n| body[n]);
            Some(SocketAddr::new(Ipv6Addr::from(octets).to_canonical(), u16::from_be_bytes([body[32], body[33]])))
        }
        // Sound, and of no use here: as if it named nobody.
        _ => None,
    };
    Parsed::Header { length, client }
}

fn tlvs_are_whole(mut tlvs: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = tlvs {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(next) = rest.get(length..) else { return false };
        tlvs = next;
    }
    tlvs.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn version_1() {
        let header = b"PROXY TCP4 192.0.2.1 192.0.2.9 5000 143\r\na NOOP\r\n";
        assert_eq!(parse(header), Parsed::Header { length: 41, client: Some(address("192.0.2.1:5000")) });
        for length in 0..41 {
            assert_eq!(parse(&header[..length]), Parsed::Partial, "{length}");
        }
        assert_eq!(parse(b"PROXY UNKNOWN\r\n"), Parsed::Header { length: 15, client: None });
        assert_eq!(
            parse(b"PROXY TCP6 2001:db8::1 ::1 5000 143\r\n"),
            Parsed::Header { length: 37, client: Some(address("[2001:db8::1]:5000")) }
        );
        for bad in [
            "PROXY TCP4 192.0.2.1 192.0.2.9 5000\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 5000 143 1\r\n",
            "PROXY TCP4 ::1 ::1 5000 143\r\n",
            "PROXY TCP4 192.0.2.1 ::1 5000 143\r\n",
            "PROXY TCP6 192.0.2.1 ::1 5000 143\r\n",
            "PROXY TCP6 ::1 192.0.2.1 5000 143\r\n",
            "PROXY UNIX ::1 ::1 5000 143\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.9 70000 143\r\n",
            "PROXY  TCP4 192.0.2.1 192.0.2.9 5000 143\r\n",
        ] {
            assert!(matches!(parse(bad.as_bytes()), Parsed::Malformed(_)), "{bad}");
        }
        let endless = |length: usize| format!("PROXY {}", "x".repeat(length - 6));
        assert_eq!(parse(endless(PROXY_V1_BYTES_MAX - 1).as_bytes()), Parsed::Partial);
        assert!(matches!(parse(endless(PROXY_V1_BYTES_MAX).as_bytes()), Parsed::Malformed(_)));
        let unknown = format!("PROXY UNKNOWN {}\r\n", "x".repeat(PROXY_V1_BYTES_MAX - 16));
        assert_eq!(parse(unknown.as_bytes()), Parsed::Header { length: PROXY_V1_BYTES_MAX, client: None });
        assert_eq!(parse(b"a NOOP\r\n"), Parsed::Absent);
    }

    #[test]
    fn an_address_that_is_no_clients_is_passed_over() {
        let unix = [&b"\r\n\r\n\0\r\nQUIT\n\x20\x31\0\xd8"[..], &[b'x'; 216]].concat();
        assert_eq!(parse(&unix), Parsed::Header { length: 16 + 216, client: None });
    }

    #[test]
    fn version_2_round_trip_and_cuts() {
        for (from, to) in [("192.0.2.1:5000", "192.0.2.9:143"), ("[2001:db8::1]:5000", "[::1]:993")] {
            let header = write_v2(from.parse().expect("an address"), to.parse().expect("an address"));
            assert_eq!(parse(&header), Parsed::Header { length: header.len(), client: Some(address(from)) });
            for length in 0..header.len() {
                assert_eq!(parse(&header[..length]), Parsed::Partial, "{length}");
            }
        }
    }

    #[test]
    fn version_2_extensions_and_faults() {
        let mut header =
            write_v2("192.0.2.1:5000".parse().expect("an address"), "192.0.2.9:143".parse().expect("an address"));
        header[15] += 5;
        header.extend_from_slice(&[4, 0, 2, 0, 0]);
        assert!(matches!(parse(&header), Parsed::Header { length: 33, .. }));
        header[30] = 9;
        assert!(matches!(parse(&header), Parsed::Malformed(_)), "an extension longer than the header");
        assert_eq!(parse(&write_v2_local()), Parsed::Header { length: 16, client: None });
        let header = |kind: [u8; 2], length: usize| {
            let size = u16::try_from(length).expect("a size").to_be_bytes();
            let mut bytes = [V2_SIGNATURE, &kind, &size].concat();
            bytes.resize(V2_FIXED_BYTES + length, 0);
            bytes
        };
        // Of no family or one that is not TCP's, and of a check of the load balancer's own: nobody's address.
        for (kind, size) in [
            ([0x21, 0x00], 216),
            ([0x21, 0x12], 12),
            ([0x21, 0x22], 36),
            ([0x21, 0x31], 216),
            ([0x21, 0x32], 216),
            ([0x20, 0x11], 0),
            ([0x20, 0x31], 5),
            ([0x20, 0x77], 0),
        ] {
            let bytes = header(kind, size);
            assert_eq!(parse(&bytes), Parsed::Header { length: bytes.len(), client: None }, "{kind:?}");
        }
        assert!(matches!(parse(&header([0x21, 0x31], 215)), Parsed::Malformed(_)), "a Unix address is longer");
        assert!(
            matches!(parse(&header([0x21, 0x12], 11)), Parsed::Malformed(_)),
            "an address of UDP is as long as TCP's"
        );
        let longest = PROXY_V2_BYTES_MAX - V2_FIXED_BYTES;
        for (length, is_taken) in [(longest, true), (longest + 1, false)] {
            let mut bytes = header([0x21, 0x11], length);
            // One extension to the end.
            let rest = u16::try_from(length - 12 - 3).expect("a size").to_be_bytes();
            bytes[V2_FIXED_BYTES + 12..V2_FIXED_BYTES + 15].copy_from_slice(&[4, rest[0], rest[1]]);
            assert_eq!(matches!(parse(&bytes), Parsed::Header { .. }), is_taken, "{length}");
        }
        for bad in [
            [0x31, 0x11, 0, 12],
            [0x22, 0x11, 0, 12],
            [0x21, 0x13, 0, 12],
            [0x21, 0x41, 0, 12],
            [0x21, 0x11, 0, 3],
            [0x21, 0x11, 0xff, 0xff],
        ] {
            let bytes = [V2_SIGNATURE, &bad, &[0; 12]].concat();
            assert!(matches!(parse(&bytes), Parsed::Malformed(_)), "{bad:?}");
        }
    }
}
