//! Guessing passwords, and getting in all the same for those who belong there.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use gatepost_lab::{Mailbox, wait_for};

use crate::bed::{Bed, KIM, LEE};
use crate::talk::Talk;

const REFUSED: &str = "NO [AUTHENTICATIONFAILED] Authentication failed.";
const STOPPED: &str = "NO [LIMIT] Too many failed log-ins, try again later.";

const DEFENCE: &str =
    "[defence]\nfailures_per_ip = 5\nfailures_per_user = 4\ndelay = \"1s\"\nban = \"3s\"\nexempt = [\"127.0.0.99\"]\n";

fn from(n: u8) -> IpAddr {
    Ipv4Addr::new(127, 0, 0, n).into()
}

/// A log-in in clear from this address; the verdict, or what else was said.
fn log_in(bed: &Bed, n: u8, user: &str, password: &str) -> String {
    let mut talk = Talk::clear_from(from(n), bed.imap);
    let greeting = talk.line();
    if greeting.starts_with("* BYE") {
        return greeting;
    }
    talk.try_log_in(Mailbox { user, password })
}

#[test]
fn an_address_that_guesses_is_slowed_banned_and_let_in_again() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    let gatepost = bed.gatepost(&format!("{}{DEFENCE}", bed.one_backend("plaintext = \"always\"", store.imap)));
    for n in 0..5 {
        assert_eq!(log_in(&bed, 2, &format!("user{n}"), "guess"), REFUSED);
    }
    gatepost.wait_for_log("an address is banned").expect("a word");
    assert_eq!(log_in(&bed, 2, "kim", KIM.password), "* BYE [LIMIT] Too many failed log-ins, try again later.");
    assert!(log_in(&bed, 3, "kim", KIM.password).starts_with("OK "), "nobody else is");
    wait_for(|| log_in(&bed, 2, "kim", KIM.password).starts_with("OK ")).expect("the ban is over after three seconds");
}

#[test]
fn a_user_under_attack_gets_in_from_where_they_are_known() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    let gatepost = bed.gatepost(&format!("{}{DEFENCE}", bed.one_backend("plaintext = \"always\"", store.imap)));
    assert!(log_in(&bed, 1, "kim", KIM.password).starts_with("OK "));
    for n in 10..14 {
        assert_eq!(log_in(&bed, n, "kim", &format!("guess {n}")), REFUSED);
    }
    assert_eq!(log_in(&bed, 20, "kim", KIM.password), STOPPED, "from a new place, right or wrong");
    gatepost.wait_for_log("log-ins of a user from new places are refused").expect("a word");
    let started = Instant::now();
    assert!(log_in(&bed, 1, "kim", KIM.password).starts_with("OK "), "from a known one");
    assert!(started.elapsed() < Duration::from_millis(900), "and at once");
    assert!(log_in(&bed, 20, "lee", LEE.password).starts_with("OK "), "nobody else is concerned");
    // Side by side they are no cheaper: no more are asked than may fail.
    std::thread::scope(|scope| {
        let guesses = (0..12).map(|n| {
            let bed = &bed;
            scope.spawn(move || log_in(bed, 30, "lee", &format!("guess {n}")))
        });
        let verdicts: Vec<_> =
            guesses.collect::<Vec<_>>().into_iter().map(|guess| guess.join().expect("an end")).collect();
        let asked = verdicts.iter().filter(|verdict| *verdict == REFUSED).count();
        assert!(asked <= 5, "{verdicts:?}");
    });
}

#[test]
fn programs_with_an_old_password_and_exempt_hosts_are_not_guessing() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&format!("{}{DEFENCE}", bed.one_backend("plaintext = \"always\"", store.imap)));
    for _ in 0..8 {
        assert_eq!(log_in(&bed, 5, "kim", "the old one"), REFUSED);
    }
    assert!(log_in(&bed, 5, "kim", KIM.password).starts_with("OK "));
    for n in 0..8 {
        assert_eq!(log_in(&bed, 99, "kim", &format!("guess {n}")), REFUSED);
    }
    assert!(log_in(&bed, 99, "kim", KIM.password).starts_with("OK "));
}

#[test]
fn a_directory_that_is_out_of_order_makes_nobody_a_guesser() {
    let bed = Bed::new();
    let gatepost = bed.gatepost(&format!("{}{DEFENCE}", bed.one_backend("plaintext = \"always\"", 9)));
    for _ in 0..8 {
        assert!(log_in(&bed, 6, "kim", "x").starts_with("NO [UNAVAILABLE]"));
    }
    assert!(!gatepost.log().contains("banned"));
}
