//! The PROXY protocol, from those who may speak it and from nobody else.

use gatepost_lab::wait_for;

use crate::bed::{Bed, KIM};
use crate::talk::Talk;

fn with_proxy(bed: &Bed, port: u16, from: &str, required: bool) -> String {
    let proxy = format!(
        "address = \"127.0.0.1:{}\"\nproxy_protocol = {{ from = [\"{from}\"], required = {required} }}",
        bed.imap
    );
    let configuration = bed.one_backend("plaintext = \"always\"", port);
    configuration.replace(&format!("address = \"127.0.0.1:{}\"", bed.imap), &proxy)
}

/// A header of version 2.
pub(crate) fn v2(bed: &Bed, client: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(client);
    header.extend([127, 0, 0, 1]);
    header.extend(4567_u16.to_be_bytes());
    header.extend(bed.imap.to_be_bytes());
    header
}

#[test]
fn the_announced_client_is_the_one_that_rules_limits_logs_and_back_ends_see() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let rules = "[[imap.access]]\ndeny = [\"192.0.2.66\"]\n[imap.limits]\nconnections_per_ip = 1\n[map]";
    let gatepost = bed.gatepost(&with_proxy(&bed, store.imap, "127.0.0.1", true).replace("[map]", rules));
    for (header, address) in [
        (b"PROXY TCP4 192.0.2.10 127.0.0.1 4567 143\r\n".to_vec(), "192.0.2.10"),
        (v2(&bed, [192, 0, 2, 11]), "192.0.2.11"),
        (b"PROXY TCP6 2001:db8::7 ::1 4567 143\r\n".to_vec(), "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1"),
        (b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec(), "127.0.0.1"),
    ] {
        let count = |log: String| log.matches(&format!("rip={address},")).count();
        let before = (count(gatepost.log()), count(store.log()));
        let mut talk = Talk::clear(bed.imap);
        // In pieces, as networks do.
        let (first, second) = header.split_at(7);
        talk.send(first);
        std::thread::sleep(std::time::Duration::from_millis(20));
        talk.send(second);
        let mut talk = talk.greeted();
        talk.log_in(KIM);
        talk.command("LOGOUT");
        drop(talk);
        wait_for(|| count(gatepost.log()) > before.0).unwrap_or_else(|error| panic!("{address}, no record: {error}"));
        wait_for(|| count(store.log()) > before.1).unwrap_or_else(|error| panic!("{address}, at the store: {error}"));
    }
    let mut denied = Talk::clear(bed.imap);
    denied.send(v2(&bed, [192, 0, 2, 66]));
    assert!(denied.line().starts_with("* BYE [CONTACTADMIN]"));
    let mut first = Talk::clear(bed.imap);
    first.send(v2(&bed, [192, 0, 2, 50]));
    let _first = first.greeted();
    let mut second = Talk::clear(bed.imap);
    second.send(v2(&bed, [192, 0, 2, 50]));
    assert!(second.line().starts_with("* BYE [LIMIT]"));
    // Commands may come in the same segment.
    let mut together = Talk::clear(bed.imap);
    together.send([v2(&bed, [192, 0, 2, 51]), b"a NOOP\r\n".to_vec()].concat());
    assert!(together.greeted().line().starts_with("a OK"));
}

#[test]
fn headers_that_lie_are_refused() {
    let bed = Bed::new();
    let gatepost = bed.gatepost(&with_proxy(&bed, 9, "127.0.0.1", true));
    let mut overlong = v2(&bed, [192, 0, 2, 1]);
    overlong[14..16].copy_from_slice(&[0xff, 0xff]);
    let mut broken_tlv = v2(&bed, [192, 0, 2, 1]);
    broken_tlv[15] += 4;
    broken_tlv.extend([4, 0xff, 0xff, 0]);
    for (what, header) in [
        ("none at all", b"a NOOP\r\n".to_vec()),
        ("version 1 without an end", format!("PROXY {}", "x".repeat(500)).into_bytes()),
        ("version 1 of nonsense", b"PROXY TCP4 a b c d\r\n".to_vec()),
        ("version 2 too long", overlong),
        ("version 2 with a broken extension", broken_tlv),
    ] {
        let mut talk = Talk::clear(bed.imap);
        let _ = talk.try_send(header);
        assert_eq!(talk.rest(), "", "{what}");
    }
    let mut cut = Talk::clear(bed.imap);
    cut.send(&v2(&bed, [192, 0, 2, 1])[..20]);
    cut.tcp().shutdown(std::net::Shutdown::Write).expect("a half-close");
    assert_eq!(cut.rest(), "");
    gatepost.wait_for_log("a header of version 1 without an end").expect("a record");
    gatepost.wait_for_log("closed within it").expect("a record");
}

#[test]
fn a_header_that_does_not_come_or_does_not_end_is_waited_for_as_long_as_a_log_in() {
    let bed = Bed::new();
    let text = with_proxy(&bed, 9, "127.0.0.1", true).replace("[imap]\n", "[imap]\nlogin_timeout = \"1s\"\n");
    let gatepost = bed.gatepost(&text);
    for (begun, reason) in [("", "none came in time"), ("PROXY TCP4 192.0.2.1", "it never ended")] {
        let started = std::time::Instant::now();
        let mut talk = Talk::clear(bed.imap);
        talk.send(begun);
        assert_eq!(talk.rest(), "", "{reason}");
        assert!(started.elapsed() > std::time::Duration::from_millis(800), "{reason}: {:?}", started.elapsed());
        gatepost.wait_for_log(reason).expect("the reason");
    }
}

#[test]
fn a_sender_that_is_not_listed_is_an_ordinary_client() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&with_proxy(&bed, 9, "127.0.0.2", true));
    let mut talk = bed.clear();
    talk.send("PROXY TCP4 192.0.2.10 127.0.0.1 4567 143\r\n");
    assert_eq!(talk.line(), "PROXY BAD Unknown command, or not allowed before log-in.");
}

#[test]
fn where_it_is_not_required_both_kinds_are_served() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&with_proxy(&bed, 9, "127.0.0.1", false));
    bed.clear();
    let mut talk = Talk::clear(bed.imap);
    talk.send(v2(&bed, [192, 0, 2, 1]));
    talk.greeted();
}

#[test]
fn back_ends_are_told_by_proxy_v2() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration = bed
        .one_backend("plaintext = \"always\"", store.haproxy)
        .replace("tls = \"none\"\n[map]", "tls = \"none\"\nannounce = \"proxy-v2\"\n[map]");
    let _gatepost = bed.gatepost(&configuration);
    let mut talk = Talk::clear_from([127, 0, 0, 55].into(), bed.imap).greeted();
    talk.log_in(KIM);
    store.wait_for_log("rip=127.0.0.55").expect("the client's address");
}

#[test]
fn what_a_client_claims_of_its_address_by_id_is_dropped() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", store.imap));
    let mut talk = bed.clear();
    talk.command("ID (\"name\" \"mailer\" \"x-originating-ip\" \"198.51.100.1\" \"X-Session-ID\" \"forged\")");
    talk.log_in(KIM);
    store.wait_for_log("user=<kim>").expect("a log-in");
    let log = store.log();
    assert!(log.contains("rip=127.0.0.1") && !log.contains("198.51.100.1") && !log.contains("forged"), "{log}");
}

#[test]
fn under_implicit_tls_the_hello_may_come_with_the_header_and_nothing_in_clear_gets_past() {
    let bed = Bed::new();
    for required in [true, false] {
        let implicit = format!(
            "address = \"127.0.0.1:{}\"\nproxy_protocol = {{ from = [\"127.0.0.1\"], required = {required} }}",
            bed.imaps
        );
        let configuration =
            bed.one_backend("", 9).replace(&format!("address = \"127.0.0.1:{}\"", bed.imaps), &implicit);
        let gatepost = bed.gatepost(&configuration);
        let header = v2(&bed, [192, 0, 2, 1]);
        Talk::secure_behind(bed.imaps, &header, &bed.authority.certificate).expect("TLS").greeted();
        if !required {
            bed.secure();
        }
        let injected = [header, b"a NOOP\r\n".to_vec()].concat();
        assert!(Talk::secure_behind(bed.imaps, &injected, &bed.authority.certificate).is_err());
        gatepost.wait_for_log("result=tls-failed").expect("a record");
    }
}
