//! Log-ins: at the back end, at the proxy, as a master; and what must not get in.

use std::io::{Read as _, Write as _};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gatepost_lab::{Dovecot, Gatepost, MASTER, MASTER_PASSWORD, Mailbox, wait_for};

use crate::bed::{Bed, IMAP_GREETING, KIM, LEE, back_end, counting};

/// Gatepost checks passwords against a `SQLite` directory that `gatepost user` fills, then logs in with
/// the user's password or as the master.
struct AtProxy {
    store: Dovecot,
    gatepost: Gatepost,
    bed: Bed,
}

impl AtProxy {
    fn new(store_users: &[Mailbox<'_>], login: &str) -> Self {
        let bed = Bed::new();
        let store = bed.dovecot("store", store_users);
        let configuration = bed.configuration(&format!(
            "authenticate = \"proxy\"\ndirectory = \"people\"\n[imap.backend]\ntls = \"none\"\n\
             [map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n\
             [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n{login}",
            store.imap
        ));
        bed.write("master.secret", &format!("{MASTER_PASSWORD}\r\nnot this\n"));
        bed.write("gatepost.toml", &configuration);
        for user in [KIM, LEE] {
            bed.user(&["add", user.user, "--backend", "store"], Some(user.password));
        }
        let gatepost = bed.gatepost(&configuration);
        Self { store, gatepost, bed }
    }
}

#[test]
fn the_proxy_checks_first_and_the_back_end_second() {
    let setup = AtProxy::new(&[KIM], "");
    let mut talk = setup.bed.secure();
    let wrong = talk.verdict("LOGIN kim wrong");
    assert_eq!(wrong, "NO [AUTHENTICATIONFAILED] Authentication failed.");
    assert_eq!(talk.verdict("LOGIN nobody wrong"), wrong);
    talk.log_in(KIM);
    // The proxy knows lee, the back end does not.
    assert_eq!(setup.bed.secure().try_log_in(LEE), wrong);
}

#[test]
fn a_master_logs_in_for_users_whose_passwords_it_does_not_need() {
    let login = format!("login = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n");
    let at_store = Mailbox { user: "kim", password: "another at the store" };
    let setup = AtProxy::new(&[at_store], &login);
    let mut talk = setup.bed.secure();
    talk.log_in(KIM);
    talk.command("LOGOUT");
    setup.store.wait_for_log("user=<kim>").expect("a log-in");
    assert!(setup.bed.secure().try_log_in(at_store).starts_with("NO [AUTHENTICATIONFAILED]"));
    let warning = setup.gatepost.wait_for_log("master.secret").expect("a warning");
    assert!(warning.contains("can be read by everyone"), "{warning}");
}

#[test]
fn a_master_may_be_named_behind_the_user_and_one_mechanism_be_asked_for() {
    let login = format!("login = {{ master = \"{MASTER}\", password_file = \"master.secret\", separator = \"*\" }}\n");
    let setup = AtProxy::new(&[Mailbox { user: "kim", password: "another" }], &login);
    setup.bed.logged_in(KIM);
    setup.store.wait_for_log("user=<kim>").expect("a log-in");
    let configuration = std::fs::read_to_string(setup.bed.path("gatepost.toml")).expect("a file");
    let with = |mechanism: &str| {
        let line = format!("[imap.backend]\nmechanism = \"{mechanism}\"");
        setup.gatepost.reload(&configuration.replace("[imap.backend]", &line)).expect("a reload");
    };
    for (mechanism, shown) in [("LOGIN", "method=LOGIN,"), ("command", "method=PLAIN,")] {
        let count = || setup.store.log().matches(shown).count();
        let before = count();
        with(mechanism);
        setup.bed.logged_in(KIM);
        wait_for(|| count() > before).unwrap_or_else(|error| panic!("{mechanism}: {error}"));
    }
    // One that the store doesn't offer.
    with("XOAUTH2");
    assert!(setup.bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"));
    setup.gatepost.wait_for_log("it offers no way to log in").expect("the reason");
}

#[test]
fn quotes_and_backslashes_reach_the_back_end_exactly() {
    let odd = Mailbox { user: "kim", password: r#"a"b\c\\"# };
    let bed = Bed::new();
    let store = bed.dovecot("store", &[odd]);
    let with = |mechanism: &str| {
        bed.one_backend("", store.imap)
            .replace("tls = \"none\"", &format!("tls = \"none\"\nmechanism = \"{mechanism}\""))
    };
    let gatepost = bed.gatepost(&with("PLAIN"));
    for mechanism in ["PLAIN", "LOGIN", "command"] {
        gatepost.reload(&with(mechanism)).expect("a reload");
        let quoted = bed.secure().verdict(r#"LOGIN "kim" "a\"b\\c\\\\""#);
        assert!(quoted.starts_with("OK "), "{mechanism}: {quoted}");
        let literal = bed.secure().verdict(&format!("LOGIN kim {{{}+}}\r\n{}", odd.password.len(), odd.password));
        assert!(literal.starts_with("OK "), "{mechanism}: {literal}");
    }
}

#[test]
fn a_remembered_password_says_nothing_else() {
    let setup = AtProxy::new(&[KIM, LEE], "");
    let bed = &setup.bed;
    let text = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file");
    let remembering = text.replace("[map]\n", "[map]\nhold_time = \"1s\"\ncache = { verified = \"1h\" }\n");
    setup.gatepost.reload(&remembering).expect("a reload");
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "));
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "));
    bed.user(&["set", "kim", "--hold"], None);
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"), "held at once");
    let patient = remembering.replace("hold_time = \"1s\"", "hold_time = \"1m\"");
    setup.gatepost.reload(&patient.replace("[imap]\n", "[imap]\nlogin_timeout = \"5s\"\n")).expect("a reload");
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"), "held for as long as a log-in may take");
    wait_for(|| setup.gatepost.log().matches("the user's log-ins are held").count() >= 2).expect("why, both times");
    setup.gatepost.reload(&remembering).expect("a reload");
    bed.user(&["set", "kim", "--release", "--disable"], None);
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [CONTACTADMIN]"), "disabled at once");
    bed.user(&["set", "kim", "--enable"], None);
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "), "enabled at once");
    bed.user(&["set", "kim"], Some("a new one"));
    let new = Mailbox { user: "kim", password: "a new one" };
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "), "the old one is still remembered");
    assert!(bed.secure().try_log_in(new).starts_with("NO [AUTHENTICATIONFAILED]"), "the store still has the old one");
    setup.store.wait_for_log("auth failed").expect("it was asked with the new one");
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [AUTHENTICATIONFAILED]"), "the new one is remembered instead");
}

#[test]
fn a_back_end_never_hears_of_what_the_proxy_refuses() {
    let bed = Bed::new();
    let (port, count) = counting();
    bed.write("users", "kim:{PLAIN}x::::::host=store\n");
    let _gatepost = bed.gatepost(&bed.configuration(&format!(
        "authenticate = \"proxy\"\ndirectory = \"people\"\n[imap.backend]\ntls = \"none\"\ncheck_interval = \"0s\"\n\
         [map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {port} }}\n"
    )));
    let mut talk = bed.secure();
    for user in ["kim", "nobody"] {
        assert!(talk.verdict(&format!("LOGIN {user} wrong")).starts_with("NO [AUTHENTICATIONFAILED]"));
    }
    assert_eq!(count.load(Ordering::Relaxed), 0, "somebody was asked");
    // With the right one it does.
    assert!(talk.verdict("LOGIN kim x").starts_with("NO [UNAVAILABLE]"));
    assert!(count.load(Ordering::Relaxed) > 0);
}

#[test]
fn app_passwords_are_made_used_listed_and_revoked() {
    let login = format!("login = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n");
    let setup = AtProxy::new(&[Mailbox { user: "kim", password: "another" }], &login);
    let bed = &setup.bed;
    let json = |arguments: &[&str]| -> serde_json::Value {
        let said = bed.user(&[arguments, &["--json"]].concat(), None);
        serde_json::from_str(&said).expect("JSON")
    };
    let made = json(&["app-password", "add", "kim", "--label", "phone", "--services", "imap", "--expires", "90d"]);
    let password = made["app-passwords"][0]["password"].as_str().expect("a password").to_owned();
    let phone = Mailbox { user: "kim", password: &password };
    assert!(bed.secure().try_log_in(phone).starts_with("OK "));
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "), "the user's own goes on");
    let lee = Mailbox { user: "lee", password: &password };
    assert!(bed.secure().try_log_in(lee).starts_with("NO [AUTHENTICATIONFAILED]"), "it is kim's alone");
    let list = json(&["app-password", "list", "kim"]);
    let listed = &list["app-passwords"][0];
    assert_eq!(
        (&listed["label"], &listed["services"], &listed["last_from"]),
        (&"phone".into(), &"imap".into(), &"127.0.0.1".into())
    );
    assert!(!list.to_string().contains(&password[..11]));
    let id = listed["id"].to_string();
    bed.user(&["app-password", "revoke", "kim", &id], None);
    assert!(bed.secure().try_log_in(phone).starts_with("NO [AUTHENTICATIONFAILED]"), "at once");
    assert!(!setup.gatepost.log().contains(&password));
    assert!(bed.user(&["app-password", "list", "kim"], None).is_empty());
}

#[test]
fn a_master_never_stands_in_for_a_password_that_nobody_checked() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.write("master.secret", MASTER_PASSWORD);
    bed.write("users", "kim:{PLAIN}kim's secret\nlee:\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\ndirectories = [\"people\"]\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
         login = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n",
        store.imap
    )));
    let mut talk = bed.secure();
    assert!(talk.verdict("LOGIN kim wrong").starts_with("NO [AUTHENTICATIONFAILED]"));
    assert!(talk.verdict("LOGIN lee wrong").starts_with("NO [AUTHENTICATIONFAILED]"), "no password to check against");
    assert!(bed.secure().verdict("LOGIN max wrong").starts_with("NO [AUTHENTICATIONFAILED]"), "nobody knows max");
    gatepost.wait_for_log("no directory can check its password").expect("the reason");
    talk.log_in(KIM);
}

#[test]
fn accounts_are_disabled_enabled_and_removed_while_it_runs() {
    let setup = AtProxy::new(&[KIM, LEE], "");
    let bed = &setup.bed;
    bed.user(&["set", "kim", "--disable"], None);
    let mut talk = bed.secure();
    assert_eq!(
        talk.verdict("LOGIN kim wrong"),
        "NO [AUTHENTICATIONFAILED] Authentication failed.",
        "only the right password learns it"
    );
    assert_eq!(talk.try_log_in(KIM), "NO [CONTACTADMIN] This account is disabled.");
    bed.user(&["set", "kim", "--enable"], None);
    talk.log_in(KIM);
    bed.user(&["set", "lee"], Some("a new one"));
    assert!(bed.secure().try_log_in(LEE).starts_with("NO [AUTHENTICATIONFAILED]"), "the old password ended at once");
    bed.user(&["remove", "kim"], None);
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [AUTHENTICATIONFAILED]"));
    let list = bed.user(&["list", "--json"], None);
    let list: serde_json::Value = serde_json::from_str(&list).expect("JSON");
    let lee = serde_json::json!({ "name": "lee", "backend": "store", "disabled": false, "held": false, "services": null, "password": true });
    assert_eq!(list, serde_json::json!({ "users": [lee] }));
}

#[test]
fn a_passwd_file_of_dovecots_serves_as_it_is() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    let users = "kim:{SSHA}AAAA::::::nologin\nlee:{PLAIN}lee's secret:1000:1000::/home/lee::host=store allow_nets=127.0.0.0/30\n";
    bed.write("users", users);
    let _gatepost = bed.gatepost(&bed.configuration(&format!(
        "plaintext = \"always\"\nauthenticate = \"proxy\"\ndirectory = \"people\"\n[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        store.imap
    )));
    assert!(bed.clear().try_log_in(LEE).starts_with("OK"));
    let mut elsewhere = crate::talk::Talk::clear_from([127, 0, 0, 9].into(), bed.imap).greeted();
    assert!(elsewhere.try_log_in(LEE).starts_with("NO [AUTHENTICATIONFAILED]"), "outside allow_nets");
    assert!(bed.clear().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"), "a broken hash is not the user's fault");
    bed.write("users", &users.replace("{SSHA}AAAA::::::nologin", "{PLAIN}kim's secret::::::host=store"));
    wait_for(|| bed.clear().try_log_in(KIM).starts_with("OK")).expect("the changed file is read again");
}

#[test]
fn strange_names_are_never_expanded_and_match_nobody() {
    let setup = AtProxy::new(&[KIM, LEE], "");
    let names = [
        "%u",
        "${user}",
        "*)(uid=*",
        "k%m",
        "k_m",
        "kim'--",
        "kim\\\\",
        "kim,dc=x",
        "../kim",
        "kim*gatepost",
        "<script>",
        "kim\u{202e}",
    ];
    let in_quotes = names.iter().map(|name| format!("x LOGIN \"{name}\" \"kim's secret\"\r\n").into_bytes());
    // Bytes that no name may have: refused before any directory sees them.
    let literals = [&b"k\xffm"[..], b"kim\r\n", b"kim\x1b[2J"]
        .map(|literal| [format!("x LOGIN {{{}+}}\r\n", literal.len()).as_bytes(), literal, b" secret\r\n"].concat());
    // Each refusal takes its time, and all of them side by side.
    let ask = |command: Vec<u8>| {
        let mut fresh = setup.bed.secure();
        fresh.send(&command);
        (command, fresh)
    };
    for (command, mut talk) in in_quotes.chain(literals).map(ask).collect::<Vec<_>>() {
        let answer = talk.answer("x").pop().expect("an answer");
        let command = String::from_utf8_lossy(&command);
        assert_eq!(answer, "x NO [AUTHENTICATIONFAILED] Authentication failed.", "{command}");
    }
    assert!(
        setup.bed.secure().verdict("LOGIN KIM \"kim's secret\"").starts_with("OK"),
        "names are folded to lower case"
    );
    let log = setup.gatepost.wait_for_log("user=<\\u{3c}script\\u{3e}>").expect("an escaped name");
    assert!(log.contains("Aborted login (auth failed, 1 attempts in"), "{log}");
    assert!(!setup.gatepost.log().contains(['\u{1b}', '\u{202e}']), "nothing raw reaches the log");
}

/// How long a back end takes to refuse.
const REFUSAL_TIME: Duration = Duration::from_millis(300);

#[test]
fn unknown_users_and_wrong_passwords_look_and_feel_the_same() {
    let bed = Bed::new();
    let store = back_end(|mut stream| {
        let _ = stream.write_all(IMAP_GREETING);
        let _ = stream.read(&mut [0; 1024]);
        std::thread::sleep(REFUSAL_TIME);
        let _ = stream.write_all(b"L NO [AUTHENTICATIONFAILED] no\r\n");
    });
    bed.write("users", "kim:::::::host=store\n");
    let _gatepost = bed.gatepost(&bed.configuration(&format!(
        "max_auth_errors = 0\n[imap.backend]\ntls = \"none\"\ncheck_interval = \"0s\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {store} }}\n"
    )));
    let mut talk = bed.secure();
    let mut time = |name: &str| {
        let started = Instant::now();
        assert_eq!(talk.verdict(&format!("LOGIN {name} wrong")), "NO [AUTHENTICATIONFAILED] Authentication failed.");
        started.elapsed()
    };
    // Whoever never asks the back end takes as long as it took lately.
    let known: Vec<_> = (0..4).map(|_| time("kim")).collect();
    let unknown: Vec<_> = (0..4).map(|_| time("nobody")).collect();
    let slowest = known.iter().max().expect("times");
    assert!(
        unknown.iter().all(|took| *took >= REFUSAL_TIME && *took <= *slowest * 2 + Duration::from_secs(1)),
        "known {known:?}, unknown {unknown:?}"
    );
}

#[test]
fn where_the_proxy_checks_too_the_clock_tells_nothing() {
    let setup = AtProxy::new(&[KIM], "");
    setup.bed.user(&["add", "nohash", "--backend", "store"], None);
    let times: Vec<_> = ["kim", "nobody", "nohash"]
        .map(|name| {
            let mut talk = setup.bed.secure();
            let started = Instant::now();
            assert_eq!(
                talk.verdict(&format!("LOGIN {name} wrong")),
                "NO [AUTHENTICATIONFAILED] Authentication failed."
            );
            started.elapsed()
        })
        .into();
    assert!(times.iter().all(|took| *took >= Duration::from_secs(1)), "a refusal came before its time: {times:?}");
}

#[test]
fn a_second_user_on_the_same_connection_is_never_the_first() {
    let setup = AtProxy::new(&[KIM, LEE], "");
    let mut talk = setup.bed.secure();
    assert!(talk.verdict("LOGIN kim \"lee's secret\"").starts_with("NO"));
    talk.send("p AUTHENTICATE PLAIN\r\n");
    assert_eq!(talk.line(), "+ ");
    talk.send("*\r\n");
    assert!(talk.answer("p").pop().expect("an answer").starts_with("p BAD"));
    talk.log_in(LEE);
    talk.command("LOGOUT");
    drop(talk);
    let line = setup.gatepost.wait_for_log("result=logged-in").expect("a record");
    assert!(line.contains("user=<lee>"), "{line}");
}

#[test]
fn the_map_completes_and_refuses() {
    let bed = Bed::new();
    let full = Mailbox { user: "kim@example.org", password: KIM.password };
    let store = bed.dovecot("store", &[full]);
    bed.write("users", "kim@example.org:::::::host=store\nlost@example.org:::::::host=10.1.2.3\nloop@example.org:::::::host=evil.example.org\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\ndomain = \"example.org\"\nhosts = [\"10.9.0.0/16\"]\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        store.imap
    )));
    bed.secure().log_in(KIM);
    bed.secure().log_in(Mailbox { user: "Kim@Example.ORG", ..KIM });
    assert!(bed.secure().verdict("LOGIN stranger x").starts_with("NO [AUTHENTICATIONFAILED]"));
    for name in ["lost", "loop"] {
        assert!(bed.secure().verdict(&format!("LOGIN {name} x")).starts_with("NO [UNAVAILABLE]"));
    }
    let line = gatepost.wait_for_log("`map.hosts` does not allow").expect("the reason");
    assert!(line.contains("10.1.2.3"), "{line}");
}
