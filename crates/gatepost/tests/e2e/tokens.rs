//! Tokens that the back end checks: a real Dovecot with a key of its own, before which Gatepost only passes them on.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gatepost_lab::{Dovecot, Mailbox, Postfix, PostfixSetup, free_ports};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;

use crate::bed::Bed;

const KIM: Mailbox<'_> = Mailbox { user: "kim@example.org", password: "kim's secret" };

#[test]
fn xoauth2_reaches_a_real_server_over_every_protocol() {
    let bed = Bed::new();
    let key = rcgen::KeyPair::generate().expect("a key");
    let store = Dovecot::start_taking_tokens(&bed.path("store"), &bed.store, &[KIM], &key.public_key_pem());
    let store = store.expect("a Dovecot");
    let setup =
        PostfixSetup { port: store.relay, users: &["lee@example.org"], certificate: None, sasl: None, more: "" };
    let postfix = Postfix::start(&bed.path("postfix"), &setup).expect("a Postfix");
    let [pop3, submission] = free_ports().expect("ports");
    // What the back end is spoken to by is not what the client speaks.
    let service = |name: &str, port: u16, mechanism: &str| {
        format!(
            "[[{name}.listener]]\naddress = \"127.0.0.1:{port}\"\n[{name}]\nmechanisms = [\"PLAIN\", \"OAUTHBEARER\", \"XOAUTH2\"]\n\
             [{name}.backend]\nca = \"ca.pem\"\nmechanism = \"{mechanism}\"\n"
        )
    };
    let gatepost = bed.gatepost(&format!(
        "name = \"mail.example.org\"\n[[tls.certificate]]\nchain = {:?}\nkey = {:?}\n{}{}{}[map]\ndefault = \"store\"\n\
         [backend.store]\nhost = \"localhost\"\nimap = {{ port = {} }}\npop3 = {{ port = {} }}\nsubmission = {{ port = {} }}\n",
        bed.front.chain,
        bed.front.key,
        service("imap", bed.imap, "OAUTHBEARER"),
        service("pop3", pop3, "XOAUTH2"),
        service("submission", submission, "XOAUTH2"),
        store.imap,
        store.pop3,
        store.submission
    ));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time");
    let claims = json!({
        "email": KIM.user, "sub": "kim", "iat": now.as_secs() - 5, "exp": (now + Duration::from_mins(10)).as_secs()
    });
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let token = encode(&header, &claims, &EncodingKey::from_ec_der(&key.serialize_der())).expect("a token");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/xoauth2_client.py");
    let mut python = Command::new("python3");
    python.arg(script).args([bed.imap, pop3, submission].map(|port| port.to_string()));
    python.arg(&bed.authority.certificate).args([KIM.user, &token, KIM.user, "lee@example.org"]);
    let output = python.output().expect("python3");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && said.trim() == "logged in 3", "{said}\n{}\n{}", gatepost.log(), store.log());
    for (service, mechanism) in [("imap", "OAUTHBEARER"), ("pop3", "XOAUTH2"), ("submission", "XOAUTH2")] {
        let line = format!("{service}-login: Info: Login: user=<{}>, method={mechanism}", KIM.user);
        store.wait_for_log(&line).expect("a log-in by token");
    }
    postfix.wait_for_messages("lee@example.org", 1).expect("a message");
    let failed = || gatepost.log().matches("Aborted login (auth failed").count();
    gatepost_lab::wait_for(|| failed() >= 3).unwrap_or_else(|_| panic!("{}", gatepost.log()));
    let log = gatepost.log();
    assert!(!log.contains(&token), "a token in the log");
    assert_eq!(failed(), 3, "{log}");
}
