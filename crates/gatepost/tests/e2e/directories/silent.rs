//! Directories that take a connection and never say a word.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use super::UNAVAILABLE;
use crate::bed::{Bed, KIM, LEE};

/// kim is asked of the silent one, behind a file that knows only lee.
fn a_silent_directory_is_an_outage_for_its_own_users_alone(directory: impl Fn(u16) -> String) {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.write("users", "lee:{PLAIN}lee's secret\n");
    bed.write("secret", "of the site");
    // Whoever connects is taken by the kernel, and by nobody else.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("an address").port();
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "authenticate = \"proxy\"\ndirectory = [\"people\", \"hung\"]\n[imap.backend]\ntls = \"none\"\n\
         [map]\ndefault = \"store\"\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n[directory.hung]\ntimeout = \"2s\"\n{}",
        store.imap,
        directory(port)
    )));
    let mut kim = bed.secure();
    let started = Instant::now();
    kim.send(format!("a LOGIN kim \"{}\"\r\n", KIM.password));
    bed.logged_in(LEE);
    let answer = kim.answer("a").pop().expect("an answer");
    assert_eq!(answer, format!("a {UNAVAILABLE}"));
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(20), "{took:?}");
    let record = gatepost.wait_for_log("could not be served").expect("the reason");
    assert!(record.contains("hung") && record.contains("user=<kim>"), "{record}");
    assert!(!gatepost.log().contains("Aborted login"), "nobody is said to have guessed");
}

#[test]
fn a_silent_ldap_server() {
    a_silent_directory_is_an_outage_for_its_own_users_alone(|port| {
        format!(
            "type = \"ldap\"\nurls = [\"ldap://127.0.0.1:{port}\"]\nca = \"ca.pem\"\nbase = \"dc=example\"\nfilter = \"(uid=%u)\"\n"
        )
    });
}

#[test]
fn a_silent_postgresql() {
    a_silent_directory_is_an_outage_for_its_own_users_alone(|port| sql("postgres", port));
}

#[test]
fn a_silent_mariadb() {
    a_silent_directory_is_an_outage_for_its_own_users_alone(|port| sql("mysql", port));
}

fn sql(scheme: &str, port: u16) -> String {
    format!(
        "type = \"sql\"\nurl = \"{scheme}://gatepost@127.0.0.1:{port}/gatepost\"\npassword_file = \"secret\"\ntls = \"none\"\n\
         query = \"SELECT hash AS password FROM people WHERE name = :user\"\n"
    )
}

#[test]
fn a_silent_responder() {
    a_silent_directory_is_an_outage_for_its_own_users_alone(|port| {
        format!("type = \"http\"\nurl = \"http://127.0.0.1:{port}/auth\"\n")
    });
}
