//! Routing: names, rules, the spread, users who are being moved.

use std::time::{Duration, Instant};

use gatepost_lab::{Dovecot, Mailbox};

use crate::bed::{Bed, KIM, LEE};

/// Two stores that both know both.
fn stores(bed: &Bed, users: &[Mailbox<'_>]) -> ([Dovecot; 2], String) {
    let stores = [bed.dovecot("store-a", users), bed.dovecot("store-b", users)];
    let backends = format!(
        "[backend.store-a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n[backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        stores[0].imap, stores[1].imap
    );
    (stores, backends)
}

#[test]
fn names_are_completed_and_rules_place_those_whom_nobody_knows() {
    let bed = Bed::new();
    let users = ["kim@example.org", "lee@other.org", "max@example.org"].map(|user| Mailbox { user, password: "x" });
    let (stores, backends) = stores(&bed, &users);
    bed.write("users", "max@example.org:::::::host=store-b\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\ndomain = \"example.org\"\ndetail = \"+\"\n\
         strip_domains = [\"corp.local\"]\naliases = {{ \"boss@example.org\" = \"lee@other.org\" }}\n\
         [[map.rule]]\nmatch = \"[a-k].*\"\ndomain = \"example.org\"\nbackend = \"store-a\"\n\
         [[map.rule]]\ndomain = \"other.org\"\nbackend = \"store-b\"\n{backends}\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n"
    )));
    let log_in = |user| bed.secure().try_log_in(Mailbox { user, password: "x" });
    for user in ["kim", "Kim+lists", "kim@example.org", "kim@CORP.local", "kim+a+b@example.org"] {
        assert!(log_in(user).starts_with("OK "), "{user}");
    }
    for user in ["lee@other.org", "boss", "max+x"] {
        assert!(log_in(user).starts_with("OK "), "{user}");
    }
    assert!(log_in("zoe").starts_with("NO [AUTHENTICATIONFAILED]"), "no rule, no default");
    let of_kim = || stores[0].log().matches("Login: user=<kim@example.org>").count();
    gatepost_lab::wait_for(|| of_kim() >= 5).unwrap_or_else(|_| panic!("{} log-ins", of_kim()));
    assert!(!stores[0].log().contains("user=<lee@other.org>") && !stores[0].log().contains("user=<max@"));
    let explained = gatepost.command(&["explain", "Boss"]).expect("an answer");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(said.contains("\"lee@other.org\"") && said.contains("by [[map.rule]] number 2"), "{said}");
}

#[test]
fn each_listener_may_read_names_in_its_own_way() {
    let bed = Bed::new();
    let users = ["kim@a.org", "kim@b.org"].map(|user| Mailbox { user, password: "x" });
    let (stores, backends) = stores(&bed, &users);
    let configuration = bed
        .configuration(&format!(
            "[imap.backend]\ntls = \"none\"\n[map]\ndomain = \"a.org\"\n[[map.rule]]\ndomain = \"b.org\"\nbackend = \"store-b\"\n\
             [[map.rule]]\ndomain = \"a.org\"\nbackend = \"store-a\"\n{backends}"
        ))
        .replace("tls = \"implicit\"", "tls = \"implicit\"\ndomain = \"b.org\"");
    let _gatepost = bed.gatepost(&configuration);
    assert!(bed.secure().verdict("LOGIN kim x").starts_with("OK "));
    stores[1].wait_for_log("user=<kim@b.org>").expect("at the second store");
    let mut talk = bed.clear();
    assert!(talk.verdict("STARTTLS").starts_with("OK "));
    assert!(talk.upgrade(&bed.authority.certificate).verdict("LOGIN kim x").starts_with("OK "));
    stores[0].wait_for_log("user=<kim@a.org>").expect("at the first store");
}

#[test]
fn users_of_whom_nothing_is_said_are_spread_and_stay() {
    let bed = Bed::new();
    let names: Vec<_> = (0..12).map(|n| format!("user{n}")).collect();
    let users: Vec<_> = names.iter().map(|user| Mailbox { user, password: "x" }).collect();
    let (stores, backends) = stores(&bed, &users);
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\nspread = {{ store-a = 1, store-b = 1 }}\n{backends}"
    )));
    for _ in 0..2 {
        for user in &users {
            assert!(bed.secure().try_log_in(*user).starts_with("OK "), "{}", user.user);
        }
    }
    let at = |store: &Dovecot| names.iter().filter(|name| store.log().contains(&format!("user=<{name}>"))).count();
    let shares = || [at(&stores[0]), at(&stores[1])];
    gatepost_lab::wait_for(|| shares().iter().sum::<usize>() >= 12).unwrap_or_else(|_| panic!("{:?}", shares()));
    let shares = shares();
    assert_eq!(shares[0] + shares[1], 12, "each at one store: {shares:?}");
    assert!(shares[0] > 0 && shares[1] > 0, "{shares:?}");
    let explained = gatepost.command(&["explain", "user0"]).expect("an answer");
    assert!(String::from_utf8_lossy(&explained.stdout).contains("by `map.spread`"));
}

#[test]
fn log_ins_of_a_user_who_is_being_moved_wait() {
    let bed = Bed::new();
    let (stores, backends) = stores(&bed, &[KIM, LEE]);
    bed.write("users", "kim:::::::host=store-a hold\nlee:::::::host=store-a\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\nhold_time = \"4s\"\n{backends}\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n"
    )));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| bed.secure().try_log_in(KIM));
        assert!(bed.secure().try_log_in(LEE).starts_with("OK "), "nobody else waits");
        assert!(!waiting.is_finished());
        // Moved, and released.
        bed.write("users", "kim:::::::host=store-b\nlee:::::::host=store-a\n");
        assert!(waiting.join().expect("an answer").starts_with("OK "));
    });
    stores[1].wait_for_log("user=<kim>").expect("at the new store");
    bed.write("users", "kim:::::::host=store-b hold\nlee:::::::host=store-a\n");
    let started = Instant::now();
    // Until the file is seen to have changed, the old one holds.
    while bed.secure().try_log_in(KIM).starts_with("OK ") {
        assert!(started.elapsed() < Duration::from_secs(4));
    }
    gatepost.wait_for_log("the user's log-ins are held").expect("the reason");
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    assert!(!explained.status.success() && String::from_utf8_lossy(&explained.stdout).contains("held"));
}
