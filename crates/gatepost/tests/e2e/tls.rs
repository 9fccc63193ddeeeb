//! TLS towards clients and back ends, and what happens at STARTTLS.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::time::{Duration, SystemTime};

use gatepost_lab::Gatepost;

use crate::bed::{Bed, KIM, back_end, say_and_listen};
use crate::talk::{Talk, client_config, client_config_for};

#[test]
fn both_versions_of_tls_both_ways() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("", store.imap));
    for (version, name) in [(&rustls::version::TLS12, "TLSv1.2"), (&rustls::version::TLS13, "TLSv1.3")] {
        let config = client_config_for(&bed.authority.certificate, &[version]);
        let mut talk = Talk::secure_with(bed.imaps, "localhost", config).expect("TLS").greeted();
        talk.log_in(KIM);
        talk.command("LOGOUT");
        drop(talk);
        gatepost.wait_for_log(&format!("tls={name}")).expect("a record");
    }
    let mut talk = bed.clear();
    assert!(talk.verdict("STARTTLS").starts_with("OK"));
    talk.upgrade(&bed.authority.certificate).log_in(KIM);
}

#[test]
fn openssl_agrees() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&bed.one_backend("", store.imap));
    for how in [
        vec![format!("127.0.0.1:{}", bed.imaps)],
        vec![format!("127.0.0.1:{}", bed.imap), "-starttls".into(), "imap".into()],
    ] {
        for version in ["-tls1_2", "-tls1_3"] {
            let mut child = Command::new("openssl")
                .args(["s_client", "-quiet", "-verify_return_error", "-CAfile"])
                .arg(&bed.authority.certificate)
                .args([version, "-connect"])
                .args(&how)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl");
            let mut stdin = child.stdin.take().expect("a pipe");
            stdin.write_all(b"a LOGIN kim \"kim's secret\"\r\nb LOGOUT\r\n").expect("a pipe");
            let mut said = String::new();
            child.stdout.take().expect("a pipe").read_to_string(&mut said).expect("text");
            child.wait().expect("an end");
            assert!(said.contains("a OK ") && said.contains("b OK "), "{how:?} {version}: {said}");
        }
    }
}

#[test]
fn what_was_injected_behind_starttls_is_never_acted_on() {
    let bed = Bed::new();
    let gatepost = bed.gatepost(&bed.one_backend("", 9));
    // In the same segment: forgotten, and the conversation under TLS begins anew.
    let mut talk = bed.clear();
    talk.send("a STARTTLS\r\nb NOOP\r\n");
    assert!(talk.line().starts_with("a OK"));
    let mut talk = talk.upgrade(&bed.authority.certificate);
    assert_eq!(talk.command("CAPABILITY")[0], "* CAPABILITY IMAP4rev1 SASL-IR LITERAL- ID AUTH=PLAIN AUTH=LOGIN");
    // In a later one: TLS chokes on it.
    let mut talk = bed.clear();
    talk.send("a STARTTLS\r\n");
    assert!(talk.line().starts_with("a OK"));
    talk.send("b LOGIN mallory injected\r\n");
    let rest = talk.rest();
    assert!(!rest.contains('b') || !rest.contains("NO"), "{rest:?}");
    let line = gatepost.wait_for_log("result=tls-failed").expect("a record");
    assert!(!line.contains("mallory"), "{line}");
}

#[test]
fn a_client_hello_that_never_ends_disturbs_nobody_and_is_timed_out() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("login_timeout = \"2s\"", store.imap));
    let stuck: Vec<_> = (0..50)
        .map(|_| {
            let mut talk = Talk::clear(bed.imaps);
            talk.send(b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc");
            talk
        })
        .collect();
    bed.logged_in(KIM).command("LOGOUT");
    for mut talk in stuck {
        talk.rest();
    }
    gatepost.wait_for_log("the handshake took too long").expect("a record");
}

#[test]
fn random_server_names_get_the_first_certificate_and_leave_no_trace() {
    let bed = Bed::new();
    let other = bed.authority.issue("other", &["imap.example.org", "*.wild.example.org"]).expect("a certificate");
    let more = format!("[[tls.certificate]]\nchain = {:?}\nkey = {:?}\n[[imap.listener]]", other.chain, other.key);
    let gatepost = bed.gatepost(&bed.one_backend("", 9).replacen("[[imap.listener]]", &more, 1));
    let connect = |name: &str| Talk::secure_with(bed.imaps, name, client_config(&bed.authority.certificate));
    for (name, fits) in [
        ("localhost", true),
        ("imap.example.org", true),
        ("IMAP.example.org", true),
        ("a.wild.example.org", true),
        ("a.b.wild.example.org", false),
        ("example.org", false),
    ] {
        assert_eq!(connect(name).is_ok(), fits, "{name}");
    }
    let before = gatepost.memory_kib().expect("memory");
    for n in 0..500 {
        assert!(connect(&format!("host-{n}.example.com")).is_err(), "the certificate is not for it");
    }
    assert!(gatepost.memory_kib().expect("memory") < before + 2048);
}

#[test]
fn a_web_browser_on_a_mail_port_gets_an_alert() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&bed.one_backend("", 9));
    let mut config = client_config(&bed.authority.certificate);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let error = Talk::secure_with(bed.imaps, "localhost", config).err().expect("an alert");
    assert!(error.to_string().contains("NoApplicationProtocol"), "{error}");
    let mut config = client_config(&bed.authority.certificate);
    config.alpn_protocols = vec![b"imap".to_vec()];
    Talk::secure_with(bed.imaps, "localhost", config).expect("TLS").greeted();
}

/// Logs in through Gatepost to a back end whose link is set as `link`; gives the verdict and Gatepost.
fn verdict(bed: &Bed, host: &str, link: &str, port: u16) -> (String, Gatepost) {
    let configuration = bed.configuration(&format!(
        "[imap.backend]\n{link}\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"{host}\"\nimap = {{ port = {port} }}\n"
    ));
    let gatepost = bed.gatepost(&configuration);
    let verdict = bed.secure().try_log_in(KIM);
    (verdict, gatepost)
}

#[test]
fn back_ends_are_verified_and_everything_fails_closed() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let expired = bed
        .authority
        .issue_until("expired", &["localhost"], SystemTime::now() - Duration::from_hours(1))
        .expect("a certificate");
    let old = gatepost_lab::Dovecot::start(&bed.path("old"), &expired, &[KIM]).expect("a Dovecot");
    let ca = format!("ca = {:?}", bed.authority.certificate);
    let stranger = Bed::new();
    let strangers = format!("ca = {:?}", stranger.authority.certificate);
    let pin = fingerprint(&bed.store.chain);
    let ours = bed.path("front.pem");
    for (what, host, link, port, expected) in [
        ("STARTTLS, verified", "localhost", ca.clone(), store.imap, None),
        ("by address", "127.0.0.1", ca.clone(), store.imap, None),
        ("implicit, verified", "localhost", format!("tls = \"implicit\"\n{ca}"), store.imaps, None),
        ("pinned", "127.0.0.1", format!("pin_sha256 = \"{pin}\""), store.imap, None),
        ("not checked", "localhost", "verify = false".into(), old.imap, None),
        (
            "another pin",
            "127.0.0.1",
            format!("pin_sha256 = \"{}\"", fingerprint(&ours)),
            store.imap,
            Some("none of those pinned"),
        ),
        ("an unknown authority", "localhost", strangers, store.imap, Some("invalid peer certificate")),
        ("expired", "localhost", ca.clone(), old.imap, Some("expired")),
        ("the system's authorities", "localhost", String::new(), store.imap, Some("TLS failed")),
    ] {
        let (verdict, gatepost) = verdict(&bed, host, &link, port);
        match expected {
            None => assert!(verdict.starts_with("OK "), "{what}: {verdict}\n{}", gatepost.log()),
            Some(reason) => {
                assert!(verdict.starts_with("NO [UNAVAILABLE]"), "{what}: {verdict}");
                gatepost.wait_for_log(reason).expect(what);
            }
        }
    }
    let misnamed = bed.authority.issue("misnamed", &["elsewhere.example.org"]).expect("a certificate");
    let misnamed = gatepost_lab::Dovecot::start(&bed.path("misnamed"), &misnamed, &[KIM]).expect("a Dovecot");
    let (verdict, gatepost) = verdict(&bed, "localhost", &ca, misnamed.imap);
    assert!(verdict.starts_with("NO [UNAVAILABLE]"), "{verdict}");
    gatepost.wait_for_log("not valid for name").expect("the reason");
    assert!(!misnamed.log().contains("user=<kim>"), "no credential was sent");
}

fn fingerprint(chain: &std::path::Path) -> String {
    let output = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(chain)
        .output()
        .expect("openssl");
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().rsplit('=').next().unwrap_or_default().to_owned()
}

#[test]
fn no_credential_reaches_a_back_end_that_tampers_with_starttls() {
    let bed = Bed::new();
    for (what, greeting, answer) in [
        ("STARTTLS is stripped", "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n", "S BAD what\r\n"),
        ("bytes trail the OK", "* OK ready\r\n", "S OK begin\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\r\n"),
        ("PREAUTH", "* PREAUTH welcome\r\n", ""),
        ("garbage instead of TLS", "* OK ready\r\n", "S OK begin\r\n\0\0\0\0\0\0\0\0\0\0"),
    ] {
        let (heard, hears) = channel();
        let port = back_end(move |mut stream: TcpStream| {
            let _ = stream.write_all(greeting.as_bytes());
            let mut buffer = [0; 64];
            let count = stream.read(&mut buffer).unwrap_or(0);
            let mut all = buffer[..count].to_vec();
            all.extend(say_and_listen(stream, answer.as_bytes()));
            let _ = heard.send(all);
        });
        let (verdict, gatepost) = verdict(&bed, "127.0.0.1", "verify = false", port);
        assert!(verdict.starts_with("NO [UNAVAILABLE]"), "{what}: {verdict}\n{}", gatepost.log());
        let heard = hears.recv_timeout(Duration::from_secs(20)).expect("what it heard");
        let text = String::from_utf8_lossy(&heard);
        assert!(!text.contains("AUTHENTICATE") && !text.contains("LOGIN") && !text.contains("ID "), "{what}: {text:?}");
    }
}

#[test]
fn certificates_are_replaced_under_living_sessions() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration = bed.one_backend("", store.imap);
    let gatepost = bed.gatepost(&configuration);
    let mut before = bed.logged_in(KIM);
    let serves_for = |name: &str| Talk::secure_with(bed.imaps, name, client_config(&bed.authority.certificate)).is_ok();
    assert!(serves_for("localhost") && !serves_for("new.example.org"));

    // Half written: the old pair stays.
    let whole = std::fs::read(&bed.front.chain).expect("a certificate");
    std::fs::write(&bed.front.chain, &whole[..whole.len() / 2]).expect("a file");
    let answer = gatepost.refused_reload(&configuration).expect("a refusal");
    assert!(answer.contains("nothing was changed") && answer.contains("front.pem"), "{answer}");
    assert!(serves_for("localhost"));
    // A certificate without its key: the old pair stays.
    let new = bed.authority.issue("new", &["new.example.org", "localhost"]).expect("a certificate");
    std::fs::copy(&new.chain, &bed.front.chain).expect("a file");
    let answer = gatepost.refused_reload(&configuration).expect("a refusal");
    assert!(answer.contains("is not the key of the certificate"), "{answer}");
    assert!(serves_for("localhost") && !serves_for("new.example.org"));
    // Both, one by rename, one by symbolic link.
    std::fs::rename(&new.chain, &bed.front.chain).expect("a rename");
    std::fs::remove_file(&bed.front.key).expect("a removal");
    std::os::unix::fs::symlink(&new.key, &bed.front.key).expect("a link");
    gatepost.reload(&configuration).expect("a reload");
    assert!(serves_for("new.example.org"));
    assert!(before.verdict("NOOP").starts_with("OK"), "a session from before goes on");
}

#[test]
fn renewed_certificates_are_taken_into_use_by_themselves_once_they_are_whole() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("", store.imap));
    let mut before = bed.logged_in(KIM);
    let serves_for = |name: &str| Talk::secure_with(bed.imaps, name, client_config(&bed.authority.certificate)).is_ok();
    // The configuration is being edited at the same time: that is nobody's business yet.
    bed.write("gatepost.toml", "[imap\n");
    let new = bed.authority.issue("new", &["new.example.org", "localhost"]).expect("a certificate");
    std::fs::rename(&new.chain, &bed.front.chain).expect("a rename");
    gatepost.wait_for_log("changed certificates can't be used, those before stay").expect("a word");
    assert!(serves_for("localhost") && !serves_for("new.example.org"));
    std::fs::rename(&new.key, &bed.front.key).expect("a rename");
    gatepost.wait_for_log("renewed certificates are in use").expect("a word");
    assert!(serves_for("new.example.org"));
    assert!(before.verdict("NOOP").starts_with("OK"), "a session from before goes on");
}

#[test]
fn a_certificate_near_its_end_is_warned_of() {
    let mut bed = Bed::new();
    let soon = SystemTime::now() + Duration::from_hours(73);
    bed.front = bed.authority.issue_until("soon", &["localhost"], soon).expect("a certificate");
    let gatepost = bed.gatepost(&bed.one_backend("", 9));
    let line = gatepost.wait_for_log("expires in 3 days").expect("a warning");
    assert!(line.contains("Warning") && line.contains("soon.pem"), "{line}");
}

#[test]
fn a_handshake_message_that_is_never_finished_breaks_nothing() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("login_timeout = \"2s\"", store.imap));
    // A ClientHello cut over two records, the second of which never comes; then one with an alert instead.
    let first_half: &[u8] = b"\x16\x03\x01\x00\x06\x01\x00\x02\x00\x03\x03";
    for rest in [&b""[..], b"\x15\x03\x01\x00\x02\x02\x28"] {
        let mut talk = bed.clear();
        talk.send("a STARTTLS\r\n");
        assert!(talk.line().starts_with("a OK"));
        talk.send([first_half, rest].concat());
        talk.rest();
    }
    gatepost.wait_for_log("result=tls-failed").expect("a record");
    bed.logged_in(KIM);
    assert!(!gatepost.log().contains("panicked"), "{}", gatepost.log());
}
