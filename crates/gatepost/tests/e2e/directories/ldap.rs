//! LDAP, with real slapd servers; servers that misbehave, or are Active Directory, are threads.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gatepost_lab::{
    Dovecot, Gatepost, LDAP_PEOPLE, LDAP_SEARCHER, LDAP_SEARCHER_PASSWORD, Mailbox, Person, Slapd, wait_for_within,
};

use super::{REFUSED, UNAVAILABLE};
use crate::bed::{Bed, KIM, LEE, back_end};

fn people() -> Vec<String> {
    let kim = Person { uid: "kim", password: KIM.password, more: "mailHost: store-a" };
    let lee = Person { uid: "lee", password: LEE.password, more: "mailHost: store-b" };
    vec![kim.ldif(), lee.ldif()]
}

/// Two stores: kim's mail is in the first, lee's in the second.
struct Site {
    stores: [Dovecot; 2],
    bed: Bed,
}

impl Site {
    fn new() -> Self {
        let bed = Bed::new();
        bed.write("ldap.secret", LDAP_SEARCHER_PASSWORD);
        let stores = [bed.dovecot("store-a", &[KIM]), bed.dovecot("store-b", &[LEE])];
        Self { stores, bed }
    }

    fn slapd(&self, name: &str, people: Vec<String>) -> Slapd {
        let tls = Some((&self.bed.authority, &self.bed.store));
        Slapd::start(&self.bed.path(name), tls, people).expect("a slapd")
    }

    /// `imap` stands in [imap], `map` in [map], `ldap` in the directory.
    fn configuration(&self, imap: &str, map: &str, urls: &[String], ldap: &str) -> String {
        self.bed.configuration(&format!(
            "{imap}\n[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"corp\"]\n{map}\n\
             [backend.store-a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
             [backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
             [directory.corp]\ntype = \"ldap\"\nurls = {urls:?}\nca = \"ca.pem\"\n{ldap}\n",
            self.stores[0].imap, self.stores[1].imap
        ))
    }

    fn gatepost(&self, imap: &str, map: &str, urls: &[String], ldap: &str) -> Gatepost {
        self.bed.gatepost(&self.configuration(imap, map, urls, ldap))
    }

    fn log_in(&self, user: Mailbox<'_>) -> String {
        self.bed.secure().try_log_in(user)
    }
}

const AT_PROXY: &str = "authenticate = \"proxy\"\ndirectory = \"corp\"";

/// Searches below the people, as the account for that.
fn searching(filter: &str, more: &str) -> String {
    format!(
        "base = \"{LDAP_PEOPLE}\"\nfilter = \"{filter}\"\nbind = {{ dn = \"{LDAP_SEARCHER}\", password_file = \"ldap.secret\" }}\n{more}"
    )
}

const FIELDS: &str = "fields = { backend = \"mailHost\" }";

fn starttls(slapd: &Slapd) -> String {
    format!("ldap://localhost:{}", slapd.ldap)
}

fn is_ok(verdict: &str) -> bool {
    verdict.starts_with("OK ")
}

#[test]
fn the_map_alone_finds_each_users_store_over_starttls() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let _gatepost = site.gatepost("", "", &[starttls(&slapd)], &searching("(uid=%n)", FIELDS));
    assert!(is_ok(&site.log_in(KIM)) && is_ok(&site.log_in(LEE)));
    site.stores[0].wait_for_log("user=<kim>").expect("kim's log-in");
    site.stores[1].wait_for_log("user=<lee>").expect("lee's log-in");
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED);
    assert_eq!(site.log_in(Mailbox { user: "nobody", password: "wrong" }), REFUSED);
}

#[test]
fn a_bind_as_the_user_checks_the_password_over_implicit_tls() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let url = format!("ldaps://localhost:{}", slapd.ldaps);
    let gatepost = site.gatepost(AT_PROXY, "", &[url], &searching("(|(uid=%n)(mail=%u))", FIELDS));
    let mut talk = site.bed.secure();
    assert_eq!(talk.verdict("LOGIN kim wrong"), REFUSED);
    assert_eq!(talk.verdict("LOGIN nobody wrong"), REFUSED);
    talk.log_in(KIM);
    site.stores[0].wait_for_log("user=<kim>").expect("kim's log-in");
    assert!(!site.stores[0].log().contains("auth failed"), "the store was asked with a wrong password");
    assert!(is_ok(&site.log_in(LEE)));
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success() && said.contains("corp checks it itself"), "{said}");
    assert!(said.contains("back end store-a, named by the directory"), "{said}");
    let unknown = gatepost.command(&["explain", "nobody"]).expect("an answer");
    assert_eq!(unknown.status.code(), Some(1), "{}", String::from_utf8_lossy(&unknown.stdout));
}

#[test]
fn a_name_never_becomes_part_of_the_filter() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let _gatepost = site.gatepost(AT_PROXY, "", &[starttls(&slapd)], &searching("(uid=%n)", FIELDS));
    for name in ["*", "k*", "kim)(uid=*", "*)(|(uid=kim", "%u", "${uid}", "kim\\\\00", "\\\\2a", "kim,ou=people"] {
        let mut talk = site.bed.secure();
        assert_eq!(talk.verdict(&format!("LOGIN \"{name}\" \"{}\"", KIM.password)), REFUSED, "{name}");
    }
}

#[test]
fn a_name_never_becomes_part_of_the_dn() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let dn = format!("dn = \"uid=%n,{LDAP_PEOPLE}\"\n{FIELDS}");
    let _gatepost = site.gatepost(AT_PROXY, "", &[starttls(&slapd)], &dn);
    // A straight bind, and what the user may read of itself says where the mail is.
    assert!(is_ok(&site.log_in(KIM)) && is_ok(&site.log_in(LEE)));
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED);
    assert_eq!(site.log_in(Mailbox { user: "nobody", password: "wrong" }), REFUSED);
    for name in ["kim,ou=people", "kim+cn=kim", "#6b696d", " kim", "kim\\\\,", "\\\"kim\\\""] {
        let mut talk = site.bed.secure();
        assert_eq!(talk.verdict(&format!("LOGIN \"{name}\" \"{}\"", KIM.password)), REFUSED, "{name}");
    }
}

#[test]
fn a_user_whose_entry_is_not_seen_is_not_let_in() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let urls = [starttls(&slapd)];
    let dn = format!("dn = \"uid=%n,{LDAP_PEOPLE}\"\nfilter = \"(uid=lee)\"\n{FIELDS}");
    let gatepost = site.gatepost(AT_PROXY, "default = \"store-a\"", &urls, &dn);
    assert_eq!(site.log_in(KIM), REFUSED, "the password is right, but the filter wants another");
    gatepost.wait_for_log("or `filter` excludes it").expect("the reason");
    assert!(is_ok(&site.log_in(LEE)));
    // The name that the directory has must be the one that was looked for.
    let named =
        searching("(|(uid=%n)(uid=kim))", "several = \"first\"\nfields = { backend = \"mailHost\", name = \"uid\" }");
    gatepost.reload(&site.configuration(AT_PROXY, "", &urls, &named)).expect("a reload");
    assert!(is_ok(&site.log_in(KIM)));
    assert_eq!(site.log_in(Mailbox { user: "max", password: KIM.password }), REFUSED);
    gatepost.wait_for_log("what was shown is that of 'kim'").expect("the reason");
}

#[test]
fn hashes_are_compared_and_passwords_in_clear_only_where_allowed() {
    let site = Site::new();
    // By `doveadm pw`, of "kim's secret" and "lee's secret"; max has his in clear.
    let hash = |scheme: &str, password: &str| {
        let output = std::process::Command::new("doveadm").args(["pw", "-s", scheme, "-p", password]).output();
        String::from_utf8(output.expect("doveadm").stdout).expect("a hash").trim().to_owned()
    };
    let people = [
        Person { uid: "kim", password: &hash("SSHA", KIM.password), more: "mailHost: store-a" }.ldif(),
        Person {
            uid: "lee",
            password: &hash("SHA512-CRYPT", LEE.password).replace("SHA512-CRYPT", "CRYPT"),
            more: "mailHost: store-b",
        }
        .ldif(),
        Person { uid: "max", password: "in clear", more: "mailHost: store-a" }.ldif(),
    ];
    let slapd = site.slapd("ldap", people.into());
    let fields = "verify = \"compare\"\nfields = { backend = \"mailHost\", password = \"userPassword\" }";
    let urls = [starttls(&slapd)];
    let gatepost = site.gatepost(AT_PROXY, "", &urls, &searching("(uid=%n)", fields));
    assert!(is_ok(&site.log_in(KIM)) && is_ok(&site.log_in(LEE)));
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED);
    assert_eq!(site.log_in(Mailbox { user: "lee", password: "wrong" }), REFUSED);
    let max = Mailbox { user: "max", password: "in clear" };
    assert_eq!(site.log_in(max), UNAVAILABLE);
    gatepost.wait_for_log("which only cleartext = true allows").expect("the reason");
    let allowing =
        site.configuration(AT_PROXY, "", &urls, &searching("(uid=%n)", &format!("cleartext = true\n{fields}")));
    gatepost.reload(&allowing).expect("a reload");
    // The store doesn't know max: it is the store that refuses now.
    assert_eq!(site.log_in(max), REFUSED);
    site.stores[0].wait_for_log("max").expect("the store was asked");
}

#[test]
fn accounts_are_disabled_and_kept_to_their_services() {
    let site = Site::new();
    let person = |uid, password, more| Person { uid, password, more }.ldif();
    let people = vec![
        person("kim", KIM.password, "mailHost: store-a\nuserAccountControl: 514\nmailService: imap"),
        person("lee", LEE.password, "mailHost: store-b\nuserAccountControl: 512\nmailService: POP3"),
    ];
    let slapd = site.slapd("ldap", people);
    let fields = "fields = { backend = \"mailHost\", disabled = \"useraccountcontrol\", services = \"mailService\" }";
    let _gatepost = site.gatepost(AT_PROXY, "", &[starttls(&slapd)], &searching("(uid=%n)", fields));
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED, "only the right password learns it");
    assert_eq!(site.log_in(KIM), "NO [CONTACTADMIN] This account is disabled.");
    assert_eq!(site.log_in(LEE), "NO [CONTACTADMIN] This account is disabled.", "not for IMAP");
}

#[test]
fn several_entries_are_refused_unless_the_first_will_do() {
    let site = Site::new();
    let slapd = site.slapd("ldap", people());
    let urls = [starttls(&slapd)];
    let gatepost = site.gatepost(AT_PROXY, "", &urls, &searching("(|(uid=%n)(uid=lee))", FIELDS));
    assert_eq!(site.log_in(KIM), UNAVAILABLE);
    let said = gatepost.wait_for_log("several entries match").expect("the reason");
    assert!(said.contains("uid=kim") && said.contains("uid=lee"), "{said}");
    let first = searching("(|(uid=%n)(uid=lee))", &format!("several = \"first\"\n{FIELDS}"));
    gatepost.reload(&site.configuration(AT_PROXY, "", &urls, &first)).expect("a reload");
    assert!(is_ok(&site.log_in(KIM)), "kim is the first in the database");
}

#[test]
fn active_directory_names_its_users_twice() {
    let site = Site::new();
    let ad = "mailHost: store-a\nsAMAccountName: kim\nuserPrincipalName: kim.k@corp.example\nuserAccountControl: 512";
    let slapd = site.slapd("ldap", vec![Person { uid: "4711", password: KIM.password, more: ad }.ldif()]);
    let fields = "fields = { backend = \"mailHost\", disabled = \"userAccountControl\", login = \"sAMAccountName\" }";
    // From the root of the domain, below which the people are nested.
    let ldap = format!(
        "base = \"dc=example,dc=org\"\nfilter = \"(&(objectClass=adUser)(|(sAMAccountName=%n)(userPrincipalName=%u)))\"\n\
         bind = {{ dn = \"{LDAP_SEARCHER}\", password_file = \"ldap.secret\" }}\n{fields}"
    );
    let _gatepost = site.gatepost(AT_PROXY, "", &[starttls(&slapd)], &ldap);
    assert!(is_ok(&site.log_in(KIM)));
    assert!(is_ok(&site.log_in(Mailbox { user: "kim.k@corp.example", password: KIM.password })), "as kim at the store");
}

#[test]
fn a_server_that_dies_and_returns_under_load_fails_nobody() {
    let site = Site::new();
    let mut first = site.slapd("ldap-1", people());
    let second = site.slapd("ldap-2", people());
    let gatepost = site.gatepost(AT_PROXY, "", &[starttls(&first), starttls(&second)], &searching("(uid=%n)", FIELDS));
    assert!(is_ok(&site.log_in(KIM)));
    let (is_over, done) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let clients = [KIM, LEE, KIM, LEE].map(|user| {
            let (is_over, done, site) = (&is_over, &done, &site);
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let verdict = site.log_in(user);
                    assert!(is_ok(&verdict), "{verdict}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let go_on = |more: u32| {
            let target = done.load(Ordering::Relaxed) + more;
            let has_failed = || clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
            let is_due = || done.load(Ordering::Relaxed) >= target || has_failed();
            wait_for_within(Duration::from_mins(5), is_due).expect("log-ins");
        };
        for _ in 0..2 {
            go_on(30);
            first.server.kill().expect("an end");
            go_on(30);
            first.resume().expect("a start");
        }
        go_on(30);
        is_over.store(true, Ordering::Relaxed);
    });
    assert!(done.load(Ordering::Relaxed) >= 120);
    assert!(!gatepost.log().contains("can't answer"), "{}", gatepost.log());
}

#[test]
fn a_server_that_hangs_costs_one_time_out() {
    let site = Site::new();
    let (first, second) = (site.slapd("ldap-1", people()), site.slapd("ldap-2", people()));
    let ldap = searching("(uid=%n)", &format!("timeout = \"1s\"\n{FIELDS}"));
    let _gatepost = site.gatepost(AT_PROXY, "", &[starttls(&first), starttls(&second)], &ldap);
    assert!(is_ok(&site.log_in(KIM)));
    first.server.freeze().expect("a stop");
    let started = Instant::now();
    assert!(is_ok(&site.log_in(KIM)));
    let took = started.elapsed();
    assert!(took < Duration::from_millis(2900), "a time-out for the search, not one for each step: {took:?}");
    first.server.thaw().expect("going on");
}

#[test]
fn an_outage_is_never_a_wrong_password_and_what_is_known_still_serves() {
    let site = Site::new();
    let mut slapd = site.slapd("ldap", people());
    let map = "cache = { found = \"1s\", missing = \"1h\", stale = \"1h\", verified = \"1s\" }";
    let gatepost = site.gatepost(
        AT_PROXY,
        map,
        &[starttls(&slapd)],
        &searching("(uid=%n)", &format!("timeout = \"1s\"\n{FIELDS}")),
    );
    assert!(is_ok(&site.log_in(KIM)));
    slapd.server.kill().expect("an end");
    std::thread::sleep(Duration::from_millis(1100));
    assert!(is_ok(&site.log_in(KIM)), "found right before, and nobody can say otherwise");
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), UNAVAILABLE, "which may have become right");
    assert_eq!(site.log_in(LEE), UNAVAILABLE);
    gatepost.wait_for_log("can't connect").expect("the reason");
    slapd.resume().expect("a start");
    let deadline = Instant::now() + Duration::from_secs(4);
    while !is_ok(&site.log_in(LEE)) {
        assert!(Instant::now() < deadline, "the outage was not remembered as an unknown user");
    }
    assert_eq!(site.log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED);
}

#[test]
fn nothing_is_sent_in_clear_where_tls_fails() {
    let site = Site::new();
    // One without TLS; one whose certificate nobody vouches for.
    let bare = Slapd::start(&site.bed.path("bare"), None, people()).expect("a slapd");
    let ldap = searching("(uid=%n)", &format!("timeout = \"1s\"\n{FIELDS}"));
    let gatepost = site.gatepost(AT_PROXY, "", &[starttls(&bare)], &ldap);
    assert_eq!(site.log_in(KIM), UNAVAILABLE);
    gatepost.wait_for_log("can't connect").expect("the reason");
    drop(gatepost);
    let stranger = Bed::new();
    let other = Slapd::start(&site.bed.path("other"), Some((&stranger.authority, &stranger.store)), people());
    let other = other.expect("a slapd");
    for url in [starttls(&other), format!("ldaps://localhost:{}", other.ldaps)] {
        let gatepost = site.gatepost(AT_PROXY, "", &[url], &ldap);
        assert_eq!(site.log_in(KIM), UNAVAILABLE);
        gatepost.wait_for_log("certificate").expect("the reason");
    }
}

#[test]
fn places_that_a_directory_may_not_name_are_refused_and_said_once() {
    let site = Site::new();
    let own = format!("mailHost: 127.0.0.1:{}", site.bed.imap);
    let person = |uid, more| Person { uid, password: "x", more }.ldif();
    let people =
        vec![person("kim", "mailHost: 10.9.9.9"), person("lee", &own), person("max", "mailHost:: c3RvcmUtYQ0KQQ==")];
    let slapd = site.slapd("ldap", people);
    let gatepost = site.gatepost("", "hosts = [\"127.0.0.1\"]", &[starttls(&slapd)], &searching("(uid=%n)", FIELDS));
    let log_in = |user| site.log_in(Mailbox { user, password: "x" });
    for user in ["kim", "kim", "kim", "lee", "max"] {
        assert_eq!(log_in(user), UNAVAILABLE, "{user}");
    }
    let said = gatepost.wait_for_log("10.9.9.9").expect("the reason");
    assert!(said.contains("`map.hosts` does not allow it"), "{said}");
    gatepost.wait_for_log("one of our own listeners").expect("the loop");
    let log = gatepost.log();
    assert_eq!(log.matches("10.9.9.9").count(), 1, "{log}");
    assert!(!log.contains("store-a\r"), "no control character reaches the log");
}

/// One message of LDAP whose protocol operation has this tag: code, text.
fn ldap_result(id: u8, tag: u8, code: u8, text: &str) -> Vec<u8> {
    let mut operation = vec![0x0a, 1, code, 0x04, 0, 0x04, u8::try_from(text.len()).expect("a short text")];
    operation.extend(text.as_bytes());
    let mut message = vec![0x02, 1, id, tag, u8::try_from(operation.len()).expect("short")];
    message.extend(operation);
    let mut whole = vec![0x30, u8::try_from(message.len()).expect("short")];
    whole.extend(message);
    whole
}

#[test]
fn active_directorys_reasons_reach_the_user_who_has_the_password() {
    let site = Site::new();
    // Answers each bind as Active Directory would, by the password that was sent.
    let server = back_end(|mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let request = &buffer[..count];
            let (id, said) = (request[4], String::from_utf8_lossy(request).into_owned());
            let data = ["533", "532", "773", "775", "52e"].into_iter().find(|data| said.contains(&format!("pw{data}")));
            let text = format!(
                "80090308: LdapErr: DSID-0C09, comment: AcceptSecurityContext error, data {}, v4563",
                data.unwrap_or("52e")
            );
            let _ = stream.write_all(&ldap_result(id, 0x61, 49, &text));
        }
    });
    let ldap = format!("tls = \"none\"\ndn = \"cn=%n,{LDAP_PEOPLE}\"");
    let _gatepost = site.gatepost(AT_PROXY, "default = \"store-a\"", &[format!("ldap://127.0.0.1:{server}")], &ldap);
    let verdict = |password| site.log_in(Mailbox { user: "kim", password });
    assert_eq!(verdict("pw533"), "NO [CONTACTADMIN] This account is disabled.");
    assert_eq!(verdict("pw532"), "NO [EXPIRED] This account or its password has expired.");
    assert_eq!(verdict("pw773"), "NO [EXPIRED] This account or its password has expired.");
    assert_eq!(verdict("pw775"), REFUSED, "locked: the password may be wrong");
    assert_eq!(verdict("pw52e"), REFUSED);
}

#[test]
fn a_referral_is_never_followed() {
    let site = Site::new();
    let server = back_end(|mut stream| {
        use std::io::{Read as _, Write as _};
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let id = buffer[..count][4];
            // A search that is done, with the code of a referral.
            let _ = stream.write_all(&ldap_result(id, 0x65, 10, "ldap://elsewhere.example"));
        }
    });
    let ldap = format!("tls = \"none\"\nbase = \"{LDAP_PEOPLE}\"\nfilter = \"(uid=%n)\"\n{FIELDS}");
    let gatepost = site.gatepost("", "", &[format!("ldap://127.0.0.1:{server}")], &ldap);
    assert_eq!(site.log_in(KIM), UNAVAILABLE);
    gatepost.wait_for_log("which is never followed").expect("the reason");
}

#[test]
fn mistakes_are_said_with_their_lines() {
    let site = Site::new();
    let refusal = |ldap: &str| site.bed.refusal(&site.configuration("", "", &["ldap://127.0.0.1".into()], ldap));
    let said = refusal("filter = \"(uid=%n\"\nbase = \"dc=example\"\ntimeot = \"1s\"\nverify = \"compare\"");
    assert!(said.contains("is no LDAP filter") && said.contains("did you mean `timeout`?"), "{said}");
    assert!(said.contains("needs `fields.password`"), "{said}");
    let said = refusal("filter = \"(uid=kim)\"\nbase = \"dc=example\"");
    assert!(said.contains("the same entries for everybody"), "{said}");
    let said = refusal("filter = \"(uid=%n)\"");
    assert!(said.contains("needs `base`"), "{said}");
    let said = refusal("filter = \"(uid=%x)\"\nbase = \"dc=example\"\ntls = \"implicit\"");
    assert!(said.contains("expected none or starttls") && said.contains("%u (whole name)"), "{said}");
}
