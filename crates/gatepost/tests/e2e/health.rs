//! Hosts that fail and return: looks, the circuit breaker, and users spread over hosts.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};

use gatepost_lab::{Gatepost, Mailbox, wait_for};

use crate::bed::{Bed, IMAP_GREETING, KIM};
use crate::talk::Talk;

/// A host that lets everybody in, greets and then hangs up on whoever logs in, or hangs up at once.
#[derive(Clone)]
struct Host {
    mood: Arc<AtomicU8>,
    log_ins: Arc<AtomicU32>,
}

const SERVES: u8 = 0;
const GREETS: u8 = 1;
const HANGS_UP: u8 = 2;

impl Host {
    fn start(listener: TcpListener, mood: u8) -> Self {
        let host = Self { mood: Arc::new(AtomicU8::new(mood)), log_ins: Arc::default() };
        let serving = host.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(stream));
            }
        });
        host
    }

    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        if self.mood.load(Ordering::SeqCst) == HANGS_UP {
            return None;
        }
        stream.write_all(IMAP_GREETING).ok()?;
        let lines = BufReader::new(stream.try_clone().ok()?).lines();
        for line in lines.map_while(Result::ok) {
            match line.split_once(' ')? {
                (tag, "LOGOUT") => return stream.write_all(format!("* BYE\r\n{tag} OK\r\n").as_bytes()).ok(),
                (tag, command) if command.starts_with("AUTHENTICATE") => {
                    self.log_ins.fetch_add(1, Ordering::SeqCst);
                    if self.mood.load(Ordering::SeqCst) != SERVES {
                        return None;
                    }
                    stream.write_all(format!("{tag} OK [CAPABILITY IMAP4rev1] in\r\n").as_bytes()).ok()?;
                }
                (tag, _) => stream.write_all(format!("{tag} OK\r\n").as_bytes()).ok()?,
            }
        }
        None
    }

    fn set(&self, mood: u8) {
        self.mood.store(mood, Ordering::SeqCst);
    }
}

/// Waits until the log has said this so many times.
fn wait_for_nth(gatepost: &Gatepost, words: &str, count: usize) {
    wait_for(|| gatepost.log().matches(words).count() >= count)
        .unwrap_or_else(|_| panic!("{words:?} not {count} times: {}", gatepost.log()));
}

const OUT: &str = "a host of a back end is out of order";
const BACK: &str = "a host of a back end is in order again";

#[test]
fn looks_find_a_dead_server_before_users_do_and_say_when_it_is_back() {
    let bed = Bed::new();
    let mut store = bed.dovecot("store", &[KIM]);
    let configuration = bed
        .one_backend("", store.imaps)
        .replace("tls = \"none\"\n[map]", "ca = \"ca.pem\"\ntls = \"implicit\"\ncheck_interval = \"1s\"\n[map]");
    let gatepost = bed.gatepost(&configuration);
    // It leaves politely, and Dovecot has nothing else to say about it.
    store.wait_for_log("Aborted login by logging out").expect("a look");
    for count in 1..=2 {
        store.server.kill().expect("an end");
        wait_for_nth(&gatepost, OUT, count);
        store.resume().expect("a start");
        wait_for_nth(&gatepost, BACK, count);
        bed.logged_in(KIM);
    }
    assert!(gatepost.log().contains("Connection refused"), "the reason is told");
}

#[test]
fn looks_come_behind_the_proxy_header_where_log_ins_do() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let settings = "announce = \"proxy-v2\"\ncheck_interval = \"1s\"\n[map]";
    let gatepost = bed.gatepost(&bed.one_backend("", store.haproxy).replacen("[map]", settings, 1));
    store.wait_for_log("Aborted login by logging out").expect("a look");
    bed.logged_in(KIM);
    assert!(!gatepost.log().contains(OUT), "{}", gatepost.log());
}

#[test]
fn a_host_that_says_nothing_costs_no_user_its_time_once_it_is_known() {
    let bed = Bed::new();
    let silent = TcpListener::bind("127.0.0.2:0").expect("a listener");
    let port = silent.local_addr().expect("an address").port();
    let _second = Host::start(TcpListener::bind(("127.0.0.3", port)).expect("a listener"), SERVES);
    let configuration = bed
        .one_backend("", port)
        .replace("host = \"127.0.0.1\"", "host = [\"127.0.0.2\", \"127.0.0.3\"]")
        .replacen("[map]", "check_interval = \"1s\"\n[map]", 1);
    let gatepost = bed.gatepost(&configuration);
    wait_for_nth(&gatepost, OUT, 1);
    assert_eq!(bed.host_of(&gatepost, KIM), "127.0.0.3");
    // Had the first been tried, its five seconds would have passed.
    let log = gatepost.log();
    let took = log.split("ms_connect=").last().and_then(|rest| rest.split(',').next()?.parse::<u32>().ok());
    assert!(took.is_some_and(|took| took < 5000), "{log}");
}

#[test]
fn a_host_where_every_log_in_fails_is_left_alone_and_does_not_flap() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let host = Host::start(listener, GREETS);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"\nmax_auth_errors = 0\nmax_errors = 0", port));
    let outage = "NO [UNAVAILABLE] Temporarily unavailable, try again later.";
    let mut talks =
        (1..=6).map(|n| Talk::clear_from(IpAddr::from([127, 0, 0, n]), bed.imap).greeted()).collect::<Vec<_>>();
    // One client's failures are not held against it, however many.
    for _ in 0..20 {
        assert_eq!(talks[0].try_log_in(KIM), outage);
    }
    assert_eq!(host.log_ins.load(Ordering::SeqCst), 20);
    let is_broken = || {
        talks.iter_mut().for_each(|talk| assert_eq!(talk.try_log_in(KIM), outage));
        gatepost.log().contains("not tried, too many log-ins in a row failed there: it closed the connection")
    };
    wait_for(is_broken).unwrap_or_else(|_| panic!("{}", gatepost.log()));
    // It greets: looks alone would have it up and down in turns.
    gatepost.wait_for_log("greets, but log-ins fail there").expect("a word about it");
    let tried = host.log_ins.load(Ordering::SeqCst);
    let refused = (0..50).filter(|_| talks[0].try_log_in(KIM) == outage).count();
    let since = host.log_ins.load(Ordering::SeqCst) - tried;
    assert!(refused == 50 && since < 10, "{since} of 50 log-ins were tried");
    host.set(SERVES);
    wait_for(|| talks[0].try_log_in(KIM).starts_with("OK")).expect("it is used again");
    for _ in 0..10 {
        bed.logged_in(KIM);
    }
}

#[test]
fn a_reload_takes_back_nothing_that_looks_have_found() {
    let bed = Bed::new();
    let mut store = bed.dovecot("store", &[KIM]);
    let text = bed.one_backend("greeting = \"Hello.\"", store.imap);
    let text = text.replacen("[map]", "check_interval = \"1s\"\n[map]", 1);
    let gatepost = bed.gatepost(&text);
    store.server.kill().expect("an end");
    wait_for_nth(&gatepost, OUT, 1);
    gatepost.reload(&text.replace("Hello.", "Ready.")).expect("a reload");
    store.resume().expect("a start");
    wait_for_nth(&gatepost, BACK, 1);
    let state = gatepost.command(&["backends", "--json"]).expect("an answer");
    assert!(String::from_utf8_lossy(&state.stdout).contains("\"state\":\"up\""), "{state:?}");
}

#[test]
fn what_one_client_cannot_do_there_is_not_held_against_a_host() {
    let bed = Bed::new();
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let _host = Host::start(listener, SERVES);
    let imap = "mechanisms = [\"PLAIN\", \"XOAUTH2\"]\nmax_auth_errors = 0\nmax_errors = 0";
    let gatepost = bed.gatepost(&bed.one_backend(imap, port));
    let mut talk = bed.secure();
    for _ in 0..10 {
        // user=kim, Bearer tok.en
        let verdict = talk.verdict("AUTHENTICATE XOAUTH2 dXNlcj1raW0BYXV0aD1CZWFyZXIgdG9rLmVuAQE=");
        assert!(verdict.starts_with("NO [UNAVAILABLE]"), "{verdict}");
    }
    gatepost.wait_for_log("no way to log in").expect("the reason");
    talk.log_in(KIM);
    assert!(!gatepost.log().contains("not tried"), "{}", gatepost.log());
}

#[test]
fn users_are_spread_over_hosts_and_only_those_of_a_dead_one_move() {
    let bed = Bed::new();
    let first = TcpListener::bind("127.0.0.2:0").expect("a listener");
    let port = first.local_addr().expect("an address").port();
    let other = |address: &str| TcpListener::bind((address, port)).expect("a listener");
    let listeners = [first, other("127.0.0.3"), other("127.0.0.4")];
    let hosts = listeners.map(|listener| Host::start(listener, SERVES));
    let configuration = bed
        .one_backend("", port)
        .replace("host = \"127.0.0.1\"", "host = [\"127.0.0.2\", \"127.0.0.3\", \"127.0.0.4\"]\norder = \"spread\"");
    let gatepost = bed.gatepost(&configuration);
    let places = || -> BTreeMap<String, String> {
        let users = (0..16).map(|n| format!("user{n}"));
        users.map(|user| (user.clone(), bed.host_of(&gatepost, Mailbox { user: &user, password: "x" }))).collect()
    };
    let at_first = places();
    assert_eq!(places(), at_first, "each stays where it is");
    let with = |host: &str| at_first.values().filter(|at| *at == host).count();
    let shares = ["127.0.0.2", "127.0.0.3", "127.0.0.4"].map(with);
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    // What `explain` says of a user is where it goes.
    let mut command = std::process::Command::new(crate::bed::binary());
    let output = command.arg("--config").arg(bed.path("gatepost.toml")).args(["explain", "user7"]).output();
    let explained = String::from_utf8_lossy(&output.expect("gatepost").stdout).into_owned();
    assert!(explained.contains(&format!("to {}, then", at_first["user7"])), "{explained}");

    hosts[1].set(HANGS_UP);
    for (user, host) in places() {
        let before = &at_first[&user];
        assert!(host != "127.0.0.3" && (before == "127.0.0.3" || *before == host), "{user}: {before}, then {host}");
    }
    hosts[1].set(SERVES);
    wait_for(|| places() == at_first).unwrap_or_else(|_| panic!("they don't return"));
}
