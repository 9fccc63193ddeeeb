//! Who may connect, and how many: rules, limits, and slots that come back.

use std::net::IpAddr;
use std::time::Duration;

use gatepost_lab::wait_to_find;

use crate::bed::{Bed, KIM, NOWHERE};
use crate::talk::Talk;

fn from(bed: &Bed, n: u8) -> Talk {
    Talk::clear_from(IpAddr::from([127, 0, 0, n]), bed.imap)
}

#[test]
fn the_most_specific_level_with_a_rule_decides() {
    let bed = Bed::new();
    let rules = "[[imap.access]]\nallow = [\"127.0.0.4\"]\npriority = 1\n[[imap.access]]\ndeny = [\"127.0.0.0-127.0.0.9\"]\npriority = 5\n\
                 [[access]]\ndeny = [\"127.0.0.20\", \"127.0.0.4\"]\n";
    let gatepost = bed.gatepost(&bed.one_backend("", NOWHERE).replace("[map]", &format!("{rules}[map]")));
    assert!(
        from(&bed, 4).line().starts_with("* OK"),
        "the service's rule overrides the global one, and its lower number wins"
    );
    assert!(from(&bed, 10).line().starts_with("* OK"), "nothing matches");
    for denied in [5, 20] {
        assert_eq!(from(&bed, denied).rest(), "* BYE [CONTACTADMIN] Access from your address is not allowed.\r\n");
    }
    let line = gatepost.wait_for_log("rip=127.0.0.5").expect("a record");
    assert!(line.contains("result=turned-away") && line.contains("denied by imap rule 2"), "{line}");
}

#[test]
fn limits_at_once_refuse_in_clear_before_tls_and_slots_come_back() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let limits = "[imap.limits]\nconnections = 5\nconnections_per_ip = 3\n";
    let gatepost = bed.gatepost(&bed.one_backend("", store.imap).replace("[map]", &format!("{limits}[map]")));
    let held: Vec<_> = (0..3).map(|_| from(&bed, 1).greeted()).collect();
    assert_eq!(from(&bed, 1).rest(), "* BYE [LIMIT] Too many connections, try again later.\r\n");
    let others: Vec<_> = (0..2).map(|_| from(&bed, 2).greeted()).collect();
    assert_eq!(from(&bed, 3).rest(), "* BYE [LIMIT] Too many connections, try again later.\r\n");
    // Under implicit TLS it just ends: no byte of TLS is spent on it.
    assert_eq!(Talk::clear(bed.imaps).rest(), "");
    let line = gatepost.wait_for_log("rip=127.0.0.3").expect("a record");
    assert!(line.contains("connections 5 of imap"), "{line}");

    // Slots come back however a session ends: by LOGOUT, by a close, by a reset, after a log-in.
    let mut held = held.into_iter();
    held.next().expect("a session").command("LOGOUT");
    drop(held.next());
    let last = held.next().expect("a session");
    socket2::SockRef::from(last.tcp()).set_linger(Some(Duration::ZERO)).expect("an option");
    drop(last);
    drop(others);
    for round in 0..10 {
        let mut talk = eventually_greeted(&bed);
        if round % 2 == 0 {
            let mut secure = {
                talk.command("STARTTLS");
                talk.upgrade(&bed.authority.certificate)
            };
            secure.log_in(KIM);
        }
    }
}

/// A greeting, as soon as earlier sessions have given their slots back.
fn eventually_greeted(bed: &Bed) -> Talk {
    let greeted = wait_to_find(|| {
        let mut talk = from(bed, 1);
        talk.line().starts_with("* OK").then_some(talk)
    });
    greeted.expect("the slots come back")
}

#[test]
fn limits_are_exact_under_concurrent_connects() {
    let bed = Bed::new();
    let limits = "[imap.limits]\nconnections = 37\n[threads]\nmin = 2\nmax = 2\n";
    let _gatepost = bed.gatepost(&bed.one_backend("", NOWHERE).replace("[map]", &format!("{limits}[map]")));
    let greeted: Vec<_> = std::thread::scope(|scope| {
        let connect = || {
            (0..20)
                .filter_map(|_| {
                    let mut talk = Talk::clear(bed.imap);
                    talk.line().starts_with("* OK").then_some(talk)
                })
                .collect::<Vec<_>>()
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(connect)).collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("a thread")).collect()
    });
    assert_eq!(greeted.len(), 37);
}

#[test]
fn new_connections_are_limited_within_the_interval() {
    let bed = Bed::new();
    let limits = "[imap.limits]\nnew_connections = 6\nnew_connections_per_ip = 4\ninterval = \"3s\"\n";
    let _gatepost = bed.gatepost(&bed.one_backend("", NOWHERE).replace("[map]", &format!("{limits}[map]")));
    let count = |n: u8, tries: usize| (0..tries).filter(|_| from(&bed, n).line().starts_with("* OK")).count();
    assert_eq!(count(1, 8), 4, "of one address");
    assert_eq!(count(2, 8), 2, "in all");
    std::thread::sleep(Duration::from_millis(3100));
    assert_eq!(count(1, 8), 4, "in the next interval");
}

#[test]
fn a_rules_own_limits_hold_for_those_it_lets_in() {
    let bed = Bed::new();
    let rule = "[[imap.access]]\nallow = [\"127.0.0.0/28\"]\nlimits = { connections = 4, connections_per_ip = 2 }\n";
    let listener = bed
        .one_backend("", NOWHERE)
        .replace("[imap]\n", &format!("limits = {{ connections_per_ip = 9 }}\n[imap]\n{rule}[imap]\n"));
    // The rule stands in the file once, before the section it belongs to is opened again.
    let _gatepost = bed.gatepost(&listener.replacen("[imap]\n[[imap.access]]", "[[imap.access]]", 1));
    let open = |n: u8, tries: usize| {
        (0..tries)
            .map(|_| from(&bed, n))
            .filter_map(|mut talk| talk.line().starts_with("* OK").then_some(talk))
            .collect::<Vec<_>>()
    };
    let first = open(1, 3);
    let second = open(2, 3);
    let third = open(3, 3);
    assert_eq!((first.len(), second.len(), third.len()), (2, 2, 0), "each address two, and four in all");
    assert_eq!(open(100, 3).len(), 3, "whom the rule isn't about");
}
