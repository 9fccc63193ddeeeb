//! Log-ins that show no password: client certificates (EXTERNAL), and proofs that it is known (SCRAM).

use std::path::Path;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_lab::{Certificate, Dovecot, Gatepost, MASTER, MASTER_PASSWORD, Mailbox};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::bed::{Bed, KIM, LEE};
use crate::talk::{Talk, client_config_for, roots};

/// Gatepost with the embedded directory, a master log-in at the back end, and these settings of [imap].
struct Setup {
    store: Dovecot,
    gatepost: Gatepost,
    bed: Bed,
}

impl Setup {
    fn new(imap: &str, users: &[(Mailbox<'_>, &[&str])]) -> Self {
        let bed = Bed::new();
        let at_store = ["kim", "lee"].map(|user| Mailbox { user, password: "another at the store" });
        let store = bed.dovecot("store", &at_store);
        bed.write("master.secret", &format!("{MASTER_PASSWORD}\n"));
        let configuration = bed.configuration(&format!(
            "{imap}\n[imap.backend]\ntls = \"none\"\n\
             [map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n\
             [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
             login = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n",
            store.imap
        ));
        bed.write("gatepost.toml", &configuration);
        for (user, options) in users {
            let arguments = [&["add", user.user, "--backend", "store"], *options].concat();
            bed.user(&arguments, Some(user.password));
        }
        let gatepost = bed.gatepost(&configuration);
        Self { store, gatepost, bed }
    }

    /// Changes the configuration while Gatepost runs.
    fn change(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.bed.path("gatepost.toml")).expect("a file");
        assert!(text.contains(from), "{text}");
        self.gatepost.reload(&text.replace(from, to)).expect("a reload");
    }
}

/// A client that shows this certificate; an error where TLS fails at once.
fn with_certificate(bed: &Bed, certificate: &Certificate) -> std::io::Result<Talk> {
    let chain = vec![CertificateDer::from_pem_file(&certificate.chain).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_file(&certificate.key).expect("a key");
    let builder = rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
    let builder = builder.with_protocol_versions(rustls::ALL_VERSIONS).expect("versions");
    let config = builder.with_root_certificates(roots(&bed.authority.certificate)).with_client_auth_cert(chain, key);
    Talk::secure_with(bed.imaps, "localhost", config.expect("settings"))
}

/// The greeting, or nothing where the server ends the connection over the certificate.
fn greeting(talk: std::io::Result<Talk>) -> (String, Option<Talk>) {
    let Ok(mut talk) = talk else { return (String::new(), None) };
    match talk.try_line() {
        Ok(line) if !line.is_empty() => (line, Some(talk)),
        _ => (String::new(), None),
    }
}

const EXTERNAL: &str = "authenticate = \"proxy\"\ndirectory = \"people\"\nmechanisms = [\"PLAIN\", \"EXTERNAL\"]\n\
                        client_certificate = { ca = \"ca.pem\" }";

#[test]
fn a_certificate_lets_its_owner_in_and_nobody_else() {
    let setup = Setup::new(EXTERNAL, &[(KIM, &[]), (LEE, &[])]);
    let bed = &setup.bed;
    let kim = bed.authority.issue_to_person("kim-laptop", &["kim", "kim.old"]).expect("a certificate");
    let (hello, talk) = greeting(with_certificate(bed, &kim));
    assert!(hello.contains(" AUTH=PLAIN AUTH=EXTERNAL]"), "{hello}");
    let mut talk = talk.expect("a session");
    assert!(talk.verdict("AUTHENTICATE EXTERNAL =").starts_with("OK "));
    assert!(talk.verdict("SELECT INBOX").starts_with("OK "));
    setup.store.wait_for_log("user=<kim>").expect("a log-in");
    // The name may be given, if it is the certificate's; base64 of "kim" and "lee".
    let session = || greeting(with_certificate(bed, &kim)).1.expect("a session");
    assert!(session().verdict("AUTHENTICATE EXTERNAL a2lt").starts_with("OK "));
    let refused = "NO [AUTHENTICATIONFAILED] Authentication failed.";
    assert_eq!(session().verdict("AUTHENTICATE EXTERNAL bGVl"), refused);
    setup.gatepost.wait_for_log("certificate is that of").expect("the reason");
    // Somebody whom the directory doesn't know, and a certificate without a name.
    let max = bed.authority.issue_to_person("max", &["max"]).expect("a certificate");
    assert_eq!(greeting(with_certificate(bed, &max)).1.expect("a session").verdict("AUTHENTICATE EXTERNAL ="), refused);
    let nobody = bed.authority.issue_to_person("nobody", &[]).expect("a certificate");
    assert_eq!(
        greeting(with_certificate(bed, &nobody)).1.expect("a session").verdict("AUTHENTICATE EXTERNAL ="),
        refused
    );
    setup.gatepost.wait_for_log("holds no name").expect("the reason");
    // Without a certificate the mechanism isn't there, and passwords serve as ever.
    let mut bare = Talk::secure(bed.imaps, &bed.authority.certificate);
    let hello = bare.line();
    assert!(hello.contains(" AUTH=PLAIN]"), "{hello}");
    assert_eq!(bare.verdict("AUTHENTICATE EXTERNAL ="), "NO This mechanism is not offered.");
    bare.log_in(KIM);
}

#[test]
fn whoever_is_disabled_or_revoked_is_out_at_once() {
    let setup = Setup::new(EXTERNAL, &[(KIM, &[]), (LEE, &[])]);
    let bed = &setup.bed;
    let kim = bed.authority.issue_to_person("kim-laptop", &["kim"]).expect("a certificate");
    let lee = bed.authority.issue_to_person("lee-laptop", &["lee"]).expect("a certificate");
    let verdict = |certificate: &Certificate| {
        greeting(with_certificate(bed, certificate)).1.map(|mut talk| talk.verdict("AUTHENTICATE EXTERNAL ="))
    };
    assert!(verdict(&kim).is_some_and(|verdict| verdict.starts_with("OK ")));
    bed.user(&["set", "kim", "--disable"], None);
    assert!(verdict(&kim).is_some_and(|verdict| verdict.starts_with("NO [CONTACTADMIN]")));
    bed.user(&["set", "kim", "--enable"], None);
    bed.authority.revoke(&["kim-laptop"]).expect("a list");
    setup.change("{ ca = \"ca.pem\" }", "{ ca = \"ca.pem\", crl = \"crl.pem\", required = true }");
    assert_eq!(verdict(&kim), None, "revoked");
    assert!(verdict(&lee).is_some_and(|verdict| verdict.starts_with("OK ")));
    assert_eq!(greeting(Ok(Talk::secure(bed.imaps, &bed.authority.certificate))).0, "", "a certificate is required");
    setup.gatepost.wait_for_log("Revoked").expect("the reason");
}

#[test]
fn a_back_end_that_cannot_be_told_is_an_outage_that_says_what_to_do() {
    let setup = Setup::new(EXTERNAL, &[(KIM, &[])]);
    let bed = &setup.bed;
    let login = format!("login = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n");
    setup.change(&login, "");
    let kim = bed.authority.issue_to_person("kim-laptop", &["kim"]).expect("a certificate");
    let mut talk = greeting(with_certificate(bed, &kim)).1.expect("a session");
    assert!(talk.verdict("AUTHENTICATE EXTERNAL =").starts_with("NO [UNAVAILABLE]"));
    setup.gatepost.wait_for_log("store needs a master log-in").expect("the reason");
}

#[test]
fn certificates_serve_where_the_back_end_checks_passwords() {
    let imap =
        "mechanisms = [\"PLAIN\", \"EXTERNAL\"]\nclient_certificate = { ca = \"ca.pem\", name = [\"upn\", \"cn\"] }";
    let setup = Setup::new(imap, &[(KIM, &[])]);
    let bed = &setup.bed;
    let kim = bed.authority.issue_to_person("kim", &["somebody@else.org"]).expect("a certificate");
    let session = || greeting(with_certificate(bed, &kim)).1.expect("a session");
    assert!(session().verdict("AUTHENTICATE EXTERNAL =").starts_with("OK "));
    bed.user(&["set", "kim", "--disable"], None);
    assert!(session().verdict("AUTHENTICATE EXTERNAL =").starts_with("NO [CONTACTADMIN]"));
}

#[test]
fn curl_logs_in_by_its_certificate() {
    let setup = Setup::new(EXTERNAL, &[(KIM, &[])]);
    let bed = &setup.bed;
    let kim = bed.authority.issue_to_person("kim-laptop", &["kim"]).expect("a certificate");
    let mut command = Command::new("curl");
    command.args(["-sS", "-m", "20", "--ssl-reqd", "-u", "kim:", "--login-options", "AUTH=EXTERNAL", "--cacert"]);
    command.arg(&bed.authority.certificate).arg("--cert").arg(&kim.chain).arg("--key").arg(&kim.key);
    let output = command.arg(format!("imap://localhost:{}/", bed.imap)).output().expect("curl");
    assert!(String::from_utf8_lossy(&output.stdout).contains("INBOX"), "{output:?}");
}

const SCRAM: &str = "authenticate = \"proxy\"\ndirectory = \"people\"\n\
                     mechanisms = [\"PLAIN\", \"SCRAM-SHA-256\", \"SCRAM-SHA-256-PLUS\"]";

/// A password that must be prepared before it is hashed.
const ODD: Mailbox<'_> = Mailbox { user: "kim", password: "k\u{ad}im, \u{aa}=s" };

fn scram_client(bed: &Bed, user: &str, password: &str, how: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/scram_client.py");
    let mut command = Command::new("python3");
    command.arg(script).arg(bed.imaps.to_string()).arg(&bed.authority.certificate).args([user, password]).args(how);
    let output = command.output().expect("python3");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
}

#[test]
fn a_proof_of_the_password_is_enough_bound_or_not() {
    let setup = Setup::new(SCRAM, &[(KIM, &["--scram"]), (LEE, &[])]);
    let bed = &setup.bed;
    let client = |user: &str, password: &str, how: &[&str]| scram_client(bed, user, password, how);
    assert_eq!(client("kim", KIM.password, &["n"]), "in OK");
    assert_eq!(client("kim", KIM.password, &["tls-server-end-point"]), "in OK");
    // The same password serves the other mechanisms.
    bed.logged_in(KIM);
    let wrong = client("kim", "wrong", &["n"]);
    assert!(wrong.starts_with("refused [AUTHENTICATIONFAILED]"), "{wrong}");
    // Somebody in between: another channel, or one who says that the server can't bind.
    for how in [&["tls-server-end-point", "elsewhere"][..], &["y"]] {
        let refused = client("kim", KIM.password, how);
        assert!(refused.starts_with("refused [AUTHENTICATIONFAILED]"), "{how:?}: {refused}");
    }
    // Whoever has nothing to check against is challenged like anybody, the same each time, also after a restart.
    let stranger = client("nobody", "x", &["n"]);
    let iterations = |said: &str| said.rsplit_once("i=").map(|(_, rest)| rest.to_owned());
    assert_eq!(iterations(&stranger), iterations(&wrong), "{stranger} and {wrong}");
    let text = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file");
    let unverified = client("lee", LEE.password, &["n"]);
    assert!(unverified.starts_with("refused [AUTHENTICATIONFAILED]"), "{unverified}");
    setup.gatepost.wait_for_log("user set --scram").expect("what to do");
    let mut command = Command::new(crate::bed::binary());
    let explained = command.arg("--config").arg(bed.path("gatepost.toml")).args(["explain", "lee"]).output();
    let explained = String::from_utf8_lossy(&explained.expect("gatepost").stdout).into_owned();
    assert!(explained.contains("people keeps no verifier for SCRAM"), "{explained}");
    let Setup { bed, gatepost, .. } = setup;
    drop(gatepost);
    let _gatepost = bed.gatepost(&text);
    assert_eq!(scram_client(&bed, "nobody", "x", &["n"]), stranger);
}

#[test]
fn a_verifier_that_can_not_be_used_is_an_outage_whatever_the_mechanism() {
    let setup = Setup::new(SCRAM, &[(KIM, &["--scram"]), (LEE, &["--scram"])]);
    let bed = &setup.bed;
    bed.sqlite("people.db", "UPDATE users SET password = '{SCRAM-SHA-256}nonsense' WHERE name = 'kim'");
    let proved = scram_client(bed, "kim", KIM.password, &["n"]);
    assert!(proved.starts_with("refused [UNAVAILABLE]"), "{proved}");
    let shown = bed.secure().try_log_in(KIM);
    assert!(shown.starts_with("NO [UNAVAILABLE]"), "{shown}");
    let is_told = || setup.gatepost.log().matches("the directory's entry can't be used").count() == 2;
    gatepost_lab::wait_for(is_told).expect("whose fault it is, each time");
    assert_eq!(scram_client(bed, "lee", LEE.password, &["n"]), "in OK");
}

#[test]
fn a_challenge_without_its_answer_is_a_log_in_that_failed() {
    let setup = Setup::new(SCRAM, &[(KIM, &["--scram"])]);
    setup.change("[map]", "[defence]\nfailures_per_ip = 5\nban = \"1h\"\n[map]");
    let begin = |tag: &str, user: &str| {
        let first = STANDARD.encode(format!("n,,n={user},r=abc"));
        format!("{tag} AUTHENTICATE SCRAM-SHA-256 {first}\r\n")
    };
    // Left, cancelled, answered by nonsense; and cancelled for another at once, which is left.
    let overtaken = format!("*\r\n{}", begin("b", "eve"));
    for (user, then, last) in
        [("ann", "", ""), ("bob", "*\r\n", "a BAD "), ("kim", "bm9uc2Vuc2U=\r\n", "a NO "), ("dan", &overtaken, "+ ")]
    {
        let mut talk = setup.bed.secure();
        talk.send(begin("a", user));
        assert!(talk.line().starts_with("+ "), "a challenge");
        talk.send(then);
        if !last.is_empty() {
            std::iter::repeat_with(|| talk.line()).find(|line| line.starts_with(last) || line.is_empty());
        }
    }
    setup.gatepost.wait_for_log("an address is banned").expect("five have failed");
    let log = setup.gatepost.log();
    let failed: Vec<_> = log.lines().filter(|line| line.contains("auth failed")).collect();
    assert!(matches!(failed[..], [line] if line.contains("user=<kim>") && line.contains("1 attempts")), "{failed:?}");
}

#[test]
fn gsasl_logs_in_by_scram_and_by_a_bound_one() {
    let setup = Setup::new(SCRAM, &[(ODD, &["--scram"])]);
    let bed = &setup.bed;
    let gsasl = |mechanism: &str, password: &str| {
        let mut command = Command::new("gsasl");
        command.args(["--client", "--imap", "--mechanism", mechanism, "--quality=auth"]);
        // Without it, gsasl finds that it could be bound, and refuses to go on unbound.
        command.args((mechanism == "SCRAM-SHA-256").then_some("--no-cb"));
        command.args(["--authentication-id", "kim", "--authorization-id", "", "--password", password]);
        command.arg("--x509-ca-file").arg(&bed.authority.certificate).arg("--connect");
        command.arg(format!("localhost:{}", bed.imap)).env("LC_ALL", "C.UTF-8");
        let output = command.stdin(std::process::Stdio::null()).output().expect("gsasl");
        format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"] {
        let said = gsasl(mechanism, ODD.password);
        assert!(said.contains("Logged in"), "{mechanism}: {said}");
        setup.gatepost.wait_for_log(&format!("method={mechanism},")).expect("a log-in");
        let said = gsasl(mechanism, "wrong");
        assert!(said.contains("AUTHENTICATIONFAILED"), "{mechanism}: {said}");
    }
}

#[test]
fn only_over_tls_that_can_be_bound_is_binding_offered() {
    let setup = Setup::new(SCRAM, &[(KIM, &["--scram"])]);
    let bed = &setup.bed;
    for versions in [&[&rustls::version::TLS12][..], &[&rustls::version::TLS13]] {
        let config = client_config_for(&bed.authority.certificate, versions);
        let hello = Talk::secure_with(bed.imaps, "localhost", config).expect("TLS").line();
        assert!(hello.contains(" AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS]"), "{hello}");
    }
    let hello = Talk::clear(bed.imap).line();
    assert!(!hello.contains("AUTH="), "{hello}");
    for (imap, expected) in [
        ("mechanisms = [\"SCRAM-SHA-256\"]", "SCRAM-SHA-256 is checked against what a directory keeps"),
        ("mechanisms = [\"EXTERNAL\"]", "add [imap.client_certificate]"),
    ] {
        let refusal = bed.refusal(&bed.one_backend(imap, 1));
        assert!(refusal.contains(expected), "{refusal}");
    }
}
