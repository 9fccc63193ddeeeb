//! The commands that work from the file, and a start that is refused with all its reasons.

use std::net::TcpListener;
use std::process::{Command, Output};

use gatepost_lab::Process;
use rustix::process::Signal;

use crate::bed::{Bed, KIM, NOWHERE, binary};
use crate::talk::Talk;

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn a_start_is_refused_with_all_its_reasons_at_once() {
    let bed = Bed::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let taken = taken.local_addr().expect("an address");
    let other = bed.authority.issue("other", &["localhost"]).expect("a certificate");
    let configuration = format!(
        "[[tls.certificate]]\nchain = {:?}\nkey = {:?}\n[[tls.certificate]]\nchain = \"missing.pem\"\nkey = \"missing.key\"\n\
         [imap]\n[[imap.listener]]\naddress = \"{taken}\"\n[[imap.listener]]\naddress = \"192.0.2.1:143\"\n\
         [imap.backend]\nca = \"nowhere.pem\"\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n",
        bed.front.chain, other.key
    );
    let reasons = [
        ("toml:8:1: the listener ", "is in use by another program"),
        ("toml:10:1: the listener ", "is no address of this machine"),
        ("toml:5:9: ", "missing.pem: can't be read"),
        ("toml:3:7: ", "is not the key of the certificate"),
        ("toml:13:6: ", "nowhere.pem: can't be read"),
    ];
    let names_all = |refusal: &str| {
        for (place, reason) in reasons {
            let found: Vec<_> = refusal.lines().filter(|line| line.contains(reason)).collect();
            assert!(found.len() == 1 && found[0].contains(place), "{place} {reason}: {refusal}");
        }
    };
    names_all(&bed.refusal(&configuration));
    // A mistake in the file itself hides none of them.
    let refusal = bed.refusal(&format!("{configuration}prot = 143\n"));
    assert!(refusal.contains("toml:18:1: backend.store.prot: unknown setting"), "{refusal}");
    names_all(&refusal);
}

#[test]
fn two_listeners_at_one_address_are_refused_at_the_second() {
    let bed = Bed::new();
    bed.write(
        "gatepost.toml",
        "[imap]\n[[imap.listener]]\naddress = \"0.0.0.0:1143\"\ntls = \"none\"\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\n\
         tls = \"none\"\n[map]\ndefault = \"a\"\n[backend.a]\nhost = \"127.0.0.1\"\n",
    );
    let text = said(&bed.command(&["check"]));
    assert!(text.contains("toml:5:1: the listeners 0.0.0.0:1143 and 127.0.0.1:1143 want the same address"), "{text}");
}

#[test]
fn an_ordinary_user_learns_how_to_get_a_low_port() {
    // Some systems let everybody have low ports.
    let first_for_all = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    let are_for_all = first_for_all.trim().parse().is_ok_and(|first: u16| first <= 143);
    if are_for_all || !rustix::process::geteuid().is_root() {
        return;
    }
    let bed = Bed::new();
    let path = bed
        .write("gatepost.toml", &bed.one_backend("", 9).replace(&format!("127.0.0.1:{}", bed.imap), "127.0.0.1:143"));
    let key_must_be_readable = |path: &std::path::Path| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).expect("permissions");
    };
    key_must_be_readable(&bed.front.key);
    key_must_be_readable(&path);
    let output = bed.path("output");
    let mut process =
        Process::start(binary(), &["serve", "--config", &path.display().to_string()], &output, true).expect("a start");
    let status = process.wait(std::time::Duration::from_secs(20)).expect("an end");
    let text = std::fs::read_to_string(output).expect("a file");
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"), "{text}");
}

#[test]
fn errors_name_file_line_and_column_all_at_once() {
    let bed = Bed::new();
    bed.write(
        "gatepost.toml",
        "nmae = \"x\"\n[imap]\nlogin_timeout = \"5 minutes\"\nidle_timeout = \"5m\"\nmechanisms = [\"PLAIN\", \"EXTERNAL\"]\n[[imap.listener]]\naddress = \"143\"\n\
         [webmail]\n[cluster]\n[map]\ndefault = \"nobody\"\n[backend.a]\nhost = \"a b\"\nwebmail = { port = 80 }\n[directory.d]\ntype = \"nis\"\n",
    );
    let output = bed.command(&["check"]);
    assert_eq!(output.status.code(), Some(1));
    let text = said(&output);
    for complaint in [
        "gatepost.toml:1:1: nmae: unknown setting; did you mean `name`?",
        "gatepost.toml:3:17: imap.login_timeout: expected a duration such as \"90s\", \"5m\" or \"1h\", found \"5 minutes\"",
        "gatepost.toml:4:16: imap.idle_timeout: is at least 30m",
        "gatepost.toml:5:14: imap.mechanisms: EXTERNAL is offered, but no client is asked for a certificate",
        "gatepost.toml:7:11: imap.listener.address: expected an address and port",
        "gatepost.toml:8:2: webmail: not in this version of Gatepost",
        "gatepost.toml:9:2: cluster: not in this version of Gatepost",
        "gatepost.toml:11:11: map.default: there is no [backend.nobody]",
        "gatepost.toml:13:8: backend.a.host: expected a host name or address without a port, found \"a b\"",
        "gatepost.toml:14:1: backend.a.webmail: not in this version of Gatepost",
        "gatepost.toml:16:8: directory.d.type: expected sql, passwd-file, ldap, http or oauth2, found \"nis\"",
    ] {
        assert!(text.contains(complaint), "{complaint}\nis not in\n{text}");
    }
}

/// A configuration that nobody serves, with its file in place.
fn written() -> Bed {
    let bed = Bed::new();
    bed.write("users", "kim:{PLAIN}x::::::host=store-b\nmax:{PLAIN}x::::::nologin\nlost:::::::host=nowhere\n");
    let configuration = bed.configuration(
        "max_auth_errors = 0\n[imap.backend]\ntls = \"none\"\nconnect_timeout = \"3s\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store-a]\nhost = \"127.0.0.1\"\n[backend.store-b]\nhost = [\"10.0.0.1\", \"10.0.0.2\"]\nimap = { port = 1143, tls = \"implicit\", verify = false }\n",
    );
    bed.write("gatepost.toml", &configuration);
    bed
}

#[test]
fn check_needs_no_server() {
    let bed = written();
    let check = bed.command(&["check"]);
    assert!(check.status.success(), "{}", said(&check));
    assert!(said(&check).contains("0: one connection may guess passwords without end"), "{}", said(&check));
    let json: serde_json::Value = serde_json::from_slice(&bed.command(&["check", "--json"]).stdout).expect("JSON");
    assert_eq!(json["check"]["ok"], true);
}

#[test]
fn explain_needs_no_server() {
    let bed = written();
    let explain = bed.command(&["explain", "KIM"]);
    let text = said(&explain);
    assert!(explain.status.success(), "{text}");
    for step in [
        "\"KIM\" is looked up, logged and logged in as \"kim\"",
        "people knows the user: at \"store-b\"",
        "to 10.0.0.1, then 10.0.0.2, port 1143, with implicit TLS",
    ] {
        assert!(text.contains(step), "{step}: {text}");
    }
    for user in ["max", "lost", "nobody"] {
        assert_eq!(bed.command(&["explain", user]).status.code(), Some(1), "{user}");
    }
}

#[test]
fn the_reference_needs_no_configuration() {
    let bed = Bed::new();
    let reference = said(&bed.command(&["config", "reference"]));
    assert!(reference.contains("# [[imap.listener]]") && reference.contains("#max_auth_errors = 3"), "{reference}");
    let json = bed.command(&["config", "reference", "--json"]).stdout;
    let json: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let settings = json["reference"].as_array().map_or(0, Vec::len);
    assert!(settings > 50, "{settings} settings");
}

#[test]
fn what_is_in_force_is_itself_a_configuration() {
    let bed = written();
    let json = bed.command(&["config", "effective", "--json"]).stdout;
    let effective: serde_json::Value = serde_json::from_slice(&json).expect("JSON");
    let timeout =
        effective["effective"].as_array().and_then(|all| all.iter().find(|one| one["key"] == "connect_timeout"));
    assert_eq!(timeout.map(|one| (&one["value"], &one["default"])), Some((&"\"3s\"".into(), &false.into())));
    let effective = said(&bed.command(&["config", "effective"]));
    assert!(
        effective.contains("login_timeout = \"1m\"  # default") && effective.contains("connect_timeout = \"3s\"\n"),
        "{effective}"
    );
    bed.write("gatepost.toml", &effective);
    // The same one, once it is read again.
    let again = said(&bed.command(&["config", "effective"]));
    let plain = |text: &str| text.replace("  # default", "").replace(bed.path("").to_str().unwrap_or_default(), "");
    assert_eq!(plain(&again), plain(&effective));
}

#[test]
fn wrong_usage_has_a_code_of_its_own() {
    assert_eq!(Bed::new().command(&["frobnicate"]).status.code(), Some(2));
}

#[test]
fn explain_promises_nothing_to_a_password_where_none_is_taken() {
    let bed = Bed::new();
    for (mechanisms, right) in [("PLAIN", "password"), ("OAUTHBEARER", "token, certificate or proof")] {
        bed.write("gatepost.toml", &bed.one_backend(&format!("mechanisms = [\"{mechanisms}\"]"), NOWHERE));
        let text = said(&bed.command(&["explain", "kim"]));
        assert!(text.contains(&format!("with the right {right}, this user can log in")), "{text}");
    }
}

#[test]
fn explain_promises_only_what_a_log_in_keeps() {
    let bed = Bed::new();
    bed.write("users", "kim:{PLAIN}x::::::host=store\nlee:::::::host=store\nold:{MD5-CRYPT}x::::::host=store\n");
    let configuration = bed.configuration(
        "authenticate = \"proxy\"\ndirectory = \"people\"\n[imap.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n[backend.store]\nhost = \"127.0.0.1\"\n",
    );
    bed.write("gatepost.toml", &configuration);
    for (user, is_possible, step) in [
        ("kim", true, "can log in"),
        ("lee", false, "has no password for the user"),
        ("old", false, "a scheme that is not supported"),
        ("nobody", false, "does not know the user"),
        ("", false, "a user name is not empty"),
    ] {
        let output = bed.command(&["explain", user]);
        assert_eq!(output.status.success(), is_possible, "{user}: {}", said(&output));
        assert!(said(&output).contains(step), "{user}: {}", said(&output));
    }
    // Nobody can log in where no listener takes passwords.
    bed.write(
        "gatepost.toml",
        "[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n[imap.backend]\ntls = \"none\"\n\
         [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n",
    );
    assert!(said(&bed.command(&["check"])).contains("no listener has TLS, so that nobody can log in"));
    let output = bed.command(&["explain", "kim"]);
    assert!(!output.status.success() && said(&output).contains("no listener takes passwords"), "{}", said(&output));
}

#[test]
fn a_directory_that_is_none_is_refused_before_anybody_asks_it() {
    let bed = Bed::new();
    bed.write("gatepost.toml", &bed.configuration("[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n[backend.store]\nhost = \"127.0.0.1\"\n"));
    for content in ["", "garbage, and more of it than a head would take: garbage garbage garbage"] {
        bed.write("people.db", content);
        let output = bed.command(&["check"]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains("is no SQLite file"), "{}", said(&output));
    }
}

#[test]
fn a_reader_that_goes_away_ends_a_command_quietly() {
    let shell = format!("{} config reference | head -1", binary().display());
    let output = Command::new("bash").args(["-c", &format!("set -o pipefail; {shell}")]).output().expect("a shell");
    assert!(output.status.success(), "{output:?}");
    assert!(!said(&output).contains("panicked"), "{}", said(&output));
    let full = Command::new("bash")
        .args(["-c", &format!("{} config reference > /dev/full", binary().display())])
        .output()
        .expect("a shell");
    assert_eq!(full.status.code(), Some(1));
}

#[test]
fn users_are_kept_without_a_server() {
    let bed = Bed::new();
    bed.write("gatepost.toml", &bed.configuration("[map]\ndirectories = [\"people\"]\ndomain = \"example.org\"\n[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n[backend.store]\nhost = \"127.0.0.1\"\n"));
    let missing = bed.command(&["check"]);
    assert!(said(&missing).contains("make it with `gatepost user add`"), "{}", said(&missing));
    let password = bed.write("password", "secret\n").display().to_string();
    assert!(bed.command(&["user", "add", "Kim", "--backend", "store", "--password-file", &password]).status.success());
    for (arguments, complaint) in [
        (&["user", "add", "kim"][..], "there is such a user already"),
        (&["user", "add", "lee", "--backend", "elsewhere"], "there is no [backend.elsewhere]"),
        (&["user", "set", "lee", "--disable"], "there is no such user"),
        (&["user", "remove", "lee"], "there is no such user"),
        (&["user", "list", "--directory", "other"], "there is no embedded [directory.other]"),
        (&["user", "add", "lee", "--password-file", "/nonexistent"], "/nonexistent: can't be read"),
    ] {
        let output = bed.command(arguments);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(complaint), "{}", said(&output));
    }
    let old = bed
        .write("old", "lee:{SHA256}K7gNU3sdo+OL0wNhqoVWhr3g6s1xYv72ol/pe/Unols=::::::host=store\nkim:{PLAIN}x\n")
        .display()
        .to_string();
    let imported = said(&bed.command(&["user", "import", &old]));
    assert!(imported.contains("1 users added, 1 were there already"), "{imported}");
    let list = said(&bed.command(&["user", "list"]));
    assert_eq!(list, "kim@example.org  store\nlee@example.org  store\n");
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(bed.path("people.db")).expect("a file").permissions(),
    );
    assert_eq!(mode & 0o777, 0o600, "hashes are for the owner's eyes");
}

#[test]
fn one_existing_server_is_fronted_without_any_file() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let output = bed.path("output");
    let to = format!("127.0.0.1:{}", store.imap);
    let mut process = Process::start(binary(), &["serve", "--to", &to], &output, false).expect("a start");
    if let Err(error) = gatepost_lab::wait_for_port(1143, std::time::Duration::from_secs(20)) {
        panic!("{error}: {}", std::fs::read_to_string(output).unwrap_or_default());
    }
    Talk::clear(1143).greeted().log_in(KIM);
    process.signal(Signal::TERM).expect("a signal");
    assert!(process.wait(std::time::Duration::from_secs(40)).expect("an end").success());
}
