//! Commands to the running server.

use std::process::Output;
use std::time::Duration;

use gatepost_lab::{Gatepost, free_port};

use crate::bed::{Bed, KIM};

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Two back ends, one of them with a host that is down, and answers that are remembered for an hour.
fn two_stores(bed: &Bed) -> (gatepost_lab::Dovecot, gatepost_lab::Dovecot, Gatepost) {
    let [a, b] = ["a", "b"].map(|name| bed.dovecot(name, &[KIM]));
    let configuration = bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\ncache = {{ found = \"1h\" }}\n\
         [directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n\
         [backend.a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n[backend.b]\nhost = [\"127.0.0.2\", \"127.0.0.1\"]\nimap = {{ port = {} }}\n",
        a.imap, b.imap
    ));
    bed.write("gatepost.toml", &configuration);
    bed.user(&["add", "kim", "--backend", "a"], None);
    let gatepost = bed.gatepost(&configuration);
    (a, b, gatepost)
}

#[test]
fn what_is_remembered_is_forgotten_on_request() {
    let bed = Bed::new();
    let (a, b, _gatepost) = two_stores(&bed);
    bed.logged_in(KIM);
    a.wait_for_log("user=<kim>").expect("a log-in");
    bed.user(&["set", "kim", "--backend", "b"], None);
    let second = bed.logged_in(KIM);
    let places: Vec<_> = bed.list(&["sessions"]).iter().map(|session| session["backend"].clone()).collect();
    assert!(places.iter().all(|place| place == "a"), "the old place is remembered: {places:?}");
    drop(second);
    assert_eq!(bed.list(&["cache", "flush", "--user", "nobody"])[0]["forgotten"], 0);
    assert_eq!(bed.list(&["cache", "flush", "--user", "kim"])[0]["forgotten"], 1);
    bed.logged_in(KIM);
    b.wait_for_log("user=<kim>").expect("a log-in");
    assert_eq!(bed.list(&["cache", "flush"])[0]["forgotten"], 1);
}

#[test]
fn it_says_how_it_and_its_back_ends_are() {
    let bed = Bed::new();
    let (_a, _b, gatepost_process) = two_stores(&bed);
    let _kim = bed.logged_in(KIM);
    let status = &bed.list(&["status"])[0];
    assert_eq!((&status["name"], &status["sessions"]), (&"mail.example.org".into(), &1.into()));
    assert_eq!(status["pid"], gatepost_process.pid());
    bed.user(&["set", "kim", "--backend", "b"], None);
    bed.list(&["cache", "flush"]);
    let _second = bed.logged_in(KIM);
    let backends = bed.list(&["backends"]);
    assert_eq!(backends.len(), 2);
    let b = &backends[1];
    assert_eq!((&b["name"], &b["state"], &b["connections"]), (&"b".into(), &"up".into(), &1.into()));
    let states: Vec<_> = b["hosts"].as_array().expect("hosts").iter().map(|host| host["state"].clone()).collect();
    assert_eq!(states, ["down", "up"]);
    let text = said(&bed.command(&["backends"]));
    assert!(text.contains("Connection refused") && text.contains("127.0.0.2"), "{text}");
}

#[test]
fn a_reload_is_answered_with_what_came_of_it() {
    let bed = Bed::new();
    let (_a, _b, _gatepost) = two_stores(&bed);
    let good = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file");
    let output = bed.command(&["reload"]);
    assert!(output.status.success() && said(&output).contains("the configuration was reloaded"), "{}", said(&output));
    bed.write("gatepost.toml", &good.replace("[map]\n", "[map]\ndefault = \"nobody\"\n"));
    let output = bed.command(&["reload"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("map.default: there is no [backend.nobody]"), "{}", said(&output));
    bed.logged_in(KIM);
    // The socket moves with its setting, and the old one goes.
    let port = free_port().expect("a port");
    let moved = good.replace("[map]\n", "[admin]\nsocket = \"elsewhere/gate.sock\"\n[map]\n");
    bed.write(
        "gatepost.toml",
        &moved.replace("[map]\n", &format!("[[imap.listener]]\naddress = \"127.0.0.1:{port}\"\n[map]\n")),
    );
    let old = bed.path("gatepost-state/admin.sock").display().to_string();
    assert!(bed.command(&["--socket", &old, "reload"]).status.success());
    assert!(!bed.path("gatepost-state/admin.sock").exists());
    assert_eq!(bed.list(&["status"])[0]["listeners"].as_array().map(Vec::len), Some(3));
}

#[test]
fn a_stop_is_answered_and_done() {
    let bed = Bed::new();
    let (_a, _b, mut process) = two_stores(&bed);
    let mut kim = bed.logged_in(KIM);
    kim.command("NOOP");
    assert_eq!(bed.list(&["stop"])[0]["drain_seconds"], 3);
    assert!(kim.rest().contains("* BYE"));
    assert!(process.wait(Duration::from_secs(20)).expect("an end").success());
    let output = bed.command(&["status"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is Gatepost running with this configuration?"), "{}", said(&output));
    assert!(!bed.path("gatepost-state/admin.sock").exists());
}
