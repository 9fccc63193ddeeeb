//! Submission, end to end: real clients, a real Dovecot or Postfix behind, and what must not get through.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gatepost_lab::{Dovecot, Gatepost, MASTER_PASSWORD, Mailbox, Postfix, PostfixSetup, wait_for};

use crate::bed::{Bed, all_heard, hearing, run};
use crate::talk::Talk;

const KIM: Mailbox<'_> = Mailbox { user: "kim@example.org", password: "kim's secret" };
const LEE: Mailbox<'_> = Mailbox { user: "lee@example.org", password: "lee's secret" };
/// NUL kim@example.org NUL and the password.
const CREDENTIALS: &str = "AGtpbUBleGFtcGxlLm9yZwBraW0ncyBzZWNyZXQ=";

/// Gatepost with submission alone, on the bed's ports.
fn configuration(bed: &Bed, submission: &str, rest: &str) -> String {
    bed.service("submission", &format!("{submission}\n{rest}"))
}

/// One back end for everybody.
fn one_backend(bed: &Bed, submission: &str, backend: &str, port: u16) -> String {
    let rest = format!(
        "[submission.backend]\n{backend}\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"localhost\"\nsubmission = {{ port = {port} }}\n"
    );
    configuration(bed, submission, &rest)
}

/// A Postfix that keeps mail of kim and lee, and has its clients authenticated by a Dovecot, if there is one.
fn postfix(bed: &Bed, port: u16, dovecot: Option<&Dovecot>, more: &str) -> Postfix {
    let sasl = dovecot.map(Dovecot::auth_socket);
    let users = [KIM.user, LEE.user];
    let setup = PostfixSetup { port, users: &users, certificate: Some(&bed.store), sasl: sasl.as_deref(), more };
    Postfix::start(&bed.path(&format!("postfix-{port}")), &setup).expect("a Postfix")
}

/// Postfix takes the log-ins, over STARTTLS and with its certificate checked.
fn before_postfix(bed: &Bed) -> (Dovecot, Postfix, Gatepost) {
    let store = bed.dovecot("store", &[KIM, LEE]);
    let postfix = postfix(bed, store.relay, Some(&store), "smtpd_tls_auth_only = yes");
    let gatepost = bed.gatepost(&one_backend(bed, "", "ca = \"ca.pem\"", postfix.port));
    (store, postfix, gatepost)
}

/// A client under TLS that has said EHLO, with what it was told.
fn secure(bed: &Bed) -> (Talk, Vec<String>) {
    let mut talk = Talk::secure(bed.imaps, &bed.authority.certificate);
    assert_eq!(talk.line(), "220 mail.example.org ESMTP Gatepost ready.");
    talk.send("EHLO client.example.net\r\n");
    let mut told = Vec::new();
    loop {
        let line = talk.line();
        told.push(line.get(4..).unwrap_or_default().to_owned());
        if line.get(3..4) != Some("-") {
            return (talk, told);
        }
    }
}

/// What clients are told once the back ends have been looked at.
fn promised(bed: &Bed, expected: impl Fn(&[String]) -> bool) -> Vec<String> {
    let mut latest = Vec::new();
    let promised = wait_for(|| {
        latest = secure(bed).1;
        expected(&latest)
    });
    promised.unwrap_or_else(|error| panic!("{error}: {latest:?}"));
    latest
}

const LETTER: &str = "From: kim@example.org\r\nTo: lee@example.org\r\nSubject: hello\r\n\r\nText of the letter.\r\n";

#[test]
fn real_clients_submit_by_way_of_dovecot() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    let postfix = postfix(&bed, store.relay, None, "");
    let _gatepost = bed.gatepost(&one_backend(&bed, "", "ca = \"ca.pem\"", store.submission));
    let ca = &bed.authority.certificate;
    let letter = bed.write("letter", LETTER);
    let mut sent = 0;
    for (url, options) in [
        (format!("smtp://localhost:{}/client", bed.imap), &["--login-options", "AUTH=PLAIN"][..]),
        (format!("smtp://localhost:{}/client", bed.imap), &["--login-options", "AUTH=LOGIN"]),
        (format!("smtps://localhost:{}/client", bed.imaps), &["--sasl-ir"]),
    ] {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "--ssl-reqd", "-u", "kim@example.org:kim's secret", "--cacert"]).arg(ca);
        command.args(["--mail-from", KIM.user, "--mail-rcpt", LEE.user, "--upload-file"]).arg(&letter);
        run(command.args(options).arg(&url));
        sent += 1;
    }
    let swaks = |port: u16, options: &[&str]| {
        let mut command = Command::new("swaks");
        command.args(["--server", "localhost", "--port", &port.to_string(), "--from", KIM.user, "--to", LEE.user]);
        command.args(["--auth-user", KIM.user, "--auth-password", KIM.password, "--timeout", "20"]);
        command.arg("--tls-ca-path").arg(ca).arg("--tls-verify").args(options);
        command.output().expect("swaks")
    };
    for (port, options) in [
        (bed.imap, &["--tls", "--auth", "PLAIN"][..]),
        (bed.imap, &["--tls", "--auth", "LOGIN"]),
        (bed.imap, &["--tls", "--auth", "CRAM-MD5,PLAIN,LOGIN"]),
        (bed.imap, &["--tls-optional", "--auth", "PLAIN"]),
        (bed.imap, &["--tls-optional-strict", "--auth", "LOGIN"]),
        (bed.imap, &["--tls", "--auth", "PLAIN", "--tls-protocol", "tlsv1_2"]),
        (bed.imap, &["--tls", "--auth", "PLAIN", "--tls-protocol", "tlsv1_3"]),
        (bed.imap, &["--tls", "--auth-optional", "PLAIN"]),
        (bed.imaps, &["--tls-on-connect", "--auth", "PLAIN"]),
        (bed.imaps, &["--tls-on-connect", "--auth", "LOGIN"]),
    ] {
        let output = swaks(port, options);
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&output.stdout));
        sent += 1;
    }
    // In clear, and by mechanisms that need more than a password to check, nobody gets in: swaks' code for that is 28, for
    // TLS that is too old 29.
    for (options, code) in [
        (&["--auth", "PLAIN"][..], 28),
        (&["--tls", "--auth", "CRAM-MD5"], 28),
        (&["--tls", "--auth", "DIGEST-MD5"], 28),
        (&["--tls", "--auth", "PLAIN", "--tls-protocol", "tlsv1"], 29),
    ] {
        assert_eq!(swaks(bed.imap, options).status.code(), Some(code), "{options:?}");
    }
    let msmtp = bed.write(
        "msmtprc",
        &format!(
            "account default\nhost localhost\nport {}\nuser {}\npassword \"{}\"\nauth plain\nfrom {}\ntls on\ntls_starttls on\ntls_trust_file {}\n",
            bed.imap,
            KIM.user,
            KIM.password,
            KIM.user,
            ca.display()
        ),
    );
    std::fs::set_permissions(&msmtp, std::os::unix::fs::PermissionsExt::from_mode(0o600)).expect("permissions");
    let input = std::fs::File::open(&letter).expect("a letter");
    run(Command::new("msmtp").arg("-C").arg(&msmtp).arg(LEE.user).stdin(input));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/smtplib_client.py");
    let mut python = Command::new("python3");
    python.arg(script).args([bed.imap.to_string(), bed.imaps.to_string()]).arg(ca);
    assert_eq!(run(python.args([KIM.user, KIM.password, KIM.user, LEE.user])).trim(), "sent 2");
    let messages = postfix.wait_for_messages(LEE.user, sent + 3).expect("all messages");
    assert_eq!(messages.len(), sent + 3);
    assert_eq!(messages.iter().filter(|message| message.contains("\n.\n..dots\n")).count(), 2);
    store.wait_for_log("submission-login: Info: Login: user=<kim@example.org>").expect("a log-in");
}

#[test]
fn postfix_hears_of_the_client() {
    let bed = Bed::new();
    let (_store, postfix, gatepost) = before_postfix(&bed);
    let letter = bed.write("letter", LETTER);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "20", "--ssl-reqd", "-u", "kim@example.org:kim's secret", "--interface", "127.0.0.77"]);
    curl.arg("--cacert").arg(&bed.authority.certificate).args(["--mail-from", KIM.user, "--mail-rcpt", LEE.user]);
    run(curl.arg("--upload-file").arg(&letter).arg(format!("smtp://127.0.0.1:{}/laptop.example.net", bed.imap)));
    let message = postfix.wait_for_messages(LEE.user, 1).expect("a message").remove(0);
    assert!(message.contains("from laptop.example.net (unknown [127.0.0.77])"), "{message}");
    let record = gatepost.wait_for_log("result=logged-in").expect("a record");
    assert!(record.contains("gatepost submission") && record.contains("user=<kim@example.org>"), "{record}");
}

#[test]
fn nothing_is_promised_that_a_back_end_has_not() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let large = postfix(&bed, store.relay, Some(&store), "message_size_limit = 20000000");
    let [port] = gatepost_lab::free_ports().expect("a port");
    let less = "message_size_limit = 5000000\nsmtpd_discard_ehlo_keywords = dsn, chunking";
    let small = postfix(&bed, port, Some(&store), less);
    let rest = |backends: &str| {
        format!(
            "[submission.backend]\nca = \"ca.pem\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n{backends}"
        )
    };
    bed.write("users", "kim@example.org:::::::host=large\n");
    let backend =
        |name: &str, port: u16| format!("[backend.{name}]\nhost = \"localhost\"\nsubmission = {{ port = {port} }}\n");
    let both = backend("large", large.port) + &backend("small", small.port);
    let gatepost = bed.gatepost(&configuration(&bed, "", &rest(&both)));
    let has = |told: &[String], line: &str| told.iter().any(|one| one == line);
    let told = promised(&bed, |told| has(told, "SIZE 5000000"));
    assert!(has(&told, "SIZE 5000000") && has(&told, "PIPELINING") && has(&told, "8BITMIME"), "{told:?}");
    assert!(!has(&told, "DSN") && !has(&told, "CHUNKING") && !has(&told, "STARTTLS"), "{told:?}");
    assert!(has(&told, "AUTH PLAIN LOGIN") && !told.iter().any(|line| line.starts_with("XCLIENT")), "{told:?}");
    gatepost.reload(&configuration(&bed, "", &rest(&backend("large", large.port)))).expect("a reload");
    let told = promised(&bed, |told| has(told, "SIZE 20000000"));
    assert!(has(&told, "SIZE 20000000") && has(&told, "DSN") && has(&told, "CHUNKING"), "{told:?}");
}

#[test]
fn what_is_pipelined_and_what_is_large_arrives_whole() {
    let bed = Bed::new();
    let (_store, postfix, _gatepost) = before_postfix(&bed);
    let (mut talk, _) = secure(&bed);
    talk.send(format!("AUTH PLAIN {CREDENTIALS}\r\nMAIL FROM:<{}>\r\nRCPT TO:<{}>\r\nDATA\r\n", KIM.user, LEE.user));
    let replies: Vec<_> = (0..4).map(|_| talk.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["235", "250", "250", "354"]);
    let line = format!("{}\r\n", "x".repeat(900));
    let body = line.repeat(8_000_000 / line.len());
    talk.send(format!("Subject: large\r\n\r\n{body}.\r\nQUIT\r\n"));
    assert!(talk.reply().starts_with("250"));
    assert!(talk.reply().starts_with("221"));
    let message = postfix.wait_for_messages(LEE.user, 1).expect("a message").remove(0);
    assert!(message.ends_with(&body.replace("\r\n", "\n")), "{} bytes", message.len());
}

/// What a user is told whose back end can't be had.
const OUTAGE: &str = "454 4.7.0 Temporarily unavailable, try again later.";

#[test]
fn a_wrong_password_has_its_own_words_and_a_line_for_filters() {
    let bed = Bed::new();
    let (_store, _postfix, gatepost) = before_postfix(&bed);
    let (mut talk, _) = secure(&bed);
    // NUL kim@example.org NUL wrong
    assert_eq!(talk.ask("AUTH PLAIN AGtpbUBleGFtcGxlLm9yZwB3cm9uZw=="), "535 5.7.8 Authentication failed.");
    let line = "gatepost submission-login: Info: Aborted login (auth failed";
    gatepost.wait_for_log(line).expect("a line for filters");
}

#[test]
fn an_outage_has_its_own_words_and_ends_with_the_back_ends_return() {
    let bed = Bed::new();
    let (_store, mut postfix, gatepost) = before_postfix(&bed);
    let (mut talk, _) = secure(&bed);
    postfix.server.kill().expect("an end");
    let log_in = format!("AUTH PLAIN {CREDENTIALS}");
    assert_eq!(talk.ask(&log_in), OUTAGE);
    postfix.resume().expect("a Postfix");
    let started = Instant::now();
    while !talk.ask(&log_in).starts_with("235") {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", gatepost.log());
        (talk, _) = secure(&bed);
    }
}

#[test]
fn where_starttls_was_taken_away_nobody_logs_in() {
    let bed = Bed::new();
    let (stripped, heard) = hearing(b"220 store ESMTP\r\n250-store\r\n250 AUTH PLAIN\r\n");
    let gatepost = bed.gatepost(&one_backend(&bed, "", "ca = \"ca.pem\"", stripped));
    let (mut talk, _) = secure(&bed);
    assert_eq!(talk.ask(&format!("AUTH PLAIN {CREDENTIALS}")), OUTAGE);
    gatepost.wait_for_log("offers no STARTTLS or refused it").expect("the reason");
    let heard = all_heard(&heard);
    assert!(heard.contains("EHLO") && !heard.contains("AUTH"), "{heard}");
}

#[test]
fn a_back_end_without_log_ins_is_never_sent_one() {
    let bed = Bed::new();
    let [port] = gatepost_lab::free_ports().expect("a port");
    let _open = self::postfix(&bed, port, None, "");
    let gatepost = bed.gatepost(&one_backend(&bed, "", "ca = \"ca.pem\"", port));
    assert_eq!(secure(&bed).0.ask(&format!("AUTH PLAIN {CREDENTIALS}")), OUTAGE);
    gatepost.wait_for_log("it offers no way to log in").expect("the reason");
}

#[test]
fn a_master_log_in_speaks_for_users_that_gatepost_has_checked() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    let postfix = postfix(&bed, store.relay, Some(&store), "");
    bed.write("master", MASTER_PASSWORD);
    bed.write("users", "kim@example.org:{PLAIN}another secret::::::\n");
    let rest = format!(
        "authenticate = \"proxy\"\ndirectory = \"people\"\nmechanisms = [\"PLAIN\", \"SCRAM-SHA-256\"]\n\
         [submission.backend]\nca = \"ca.pem\"\n[map]\ndefault = \"store\"\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"localhost\"\nsubmission = {{ port = {} }}\nlogin = {{ master = \"gatepost\", password_file = \"master\" }}\n",
        postfix.port
    );
    let _gatepost = bed.gatepost(&configuration(&bed, "", &rest));
    let (mut talk, _) = secure(&bed);
    assert!(talk.ask(&format!("AUTH PLAIN {CREDENTIALS}")).starts_with("535"));
    // NUL kim@example.org NUL another secret
    assert!(talk.ask("AUTH PLAIN AGtpbUBleGFtcGxlLm9yZwBhbm90aGVyIHNlY3JldA==").starts_with("235"));
    assert!(talk.ask("MAIL FROM:<kim@example.org>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<lee@example.org>").starts_with("250"));
}

/// Postfix behind a Gatepost that lets users send by names of their own: two are one account's, one is somebody else's.
fn with_own_senders(bed: &Bed) -> (Dovecot, Postfix, Gatepost) {
    let store = bed.dovecot("store", &[KIM, LEE]);
    let postfix = postfix(bed, store.relay, Some(&store), "recipient_delimiter = +");
    let accounts = bed.sqlite(
        "accounts.db",
        "create table accounts (name, login); insert into accounts values ('kim@example.org', 'kim@example.org'),
         ('sales@example.org', 'kim@example.org'), ('lee@example.org', 'lee@example.org')",
    );
    let rest = format!(
        "[submission.backend]\nca = \"ca.pem\"\n[map]\ndirectories = [\"people\"]\ndefault = \"store\"\ndetail = \"+\"\n\
         aliases = {{ \"info@example.org\" = \"kim@example.org\" }}\n[directory.people]\ntype = \"sql\"\n\
         url = \"sqlite://{}\"\nquery = \"select name, login from accounts where name = :user\"\n\
         [backend.store]\nhost = \"localhost\"\nsubmission = {{ port = {} }}\n",
        accounts.display(),
        postfix.port
    );
    let gatepost = bed.gatepost(&configuration(bed, "senders = \"own\"", &rest));
    promised(bed, |told| told.iter().any(|line| line == "8BITMIME"));
    (store, postfix, gatepost)
}

/// Kim, logged in.
fn kim(bed: &Bed) -> Talk {
    let (mut talk, _) = secure(bed);
    assert!(talk.ask(&format!("AUTH PLAIN {CREDENTIALS}")).starts_with("235"));
    talk
}

/// Replies with these codes, one after another.
fn hear(talk: &mut Talk, codes: &[&str]) {
    codes.iter().for_each(|code| assert!(talk.reply().starts_with(code), "{codes:?}"));
}

#[test]
fn users_send_by_names_of_their_own() {
    let bed = Bed::new();
    let (_store, postfix, gatepost) = with_own_senders(&bed);
    let names = [
        "kim@example.org",
        "KIM@Example.ORG",
        "\"kim\"@example.org",
        "kim+work@example.org",
        "info@example.org",
        "sales@example.org",
        "",
    ];
    let mut talk = kim(&bed);
    for own in names {
        let mail = talk.ask(&format!("MAIL FROM:<{own}> BODY=8BITMIME SIZE=200 RET=HDRS AUTH=lee@example.org"));
        assert!(mail.starts_with("250"), "{own}: {mail}");
        assert!(talk.ask("RCPT TO:<lee@example.org> NOTIFY=NEVER").starts_with("250"), "{own}");
        assert!(talk.ask("RCPT TO:<nobody@example.org>").starts_with("550"), "the back end's word");
        assert!(talk.ask("DATA").starts_with("354"));
        let answer = talk.ask(&format!("Subject: by {own}\r\n\r\nx\r\nMAIL FROM:<lee@example.org>\r\n."));
        assert!(answer.starts_with("250"), "{own}: {answer}");
    }
    assert!(talk.ask("QUIT").starts_with("221"));
    let messages = postfix.wait_for_messages(LEE.user, names.len()).expect("all messages");
    assert!(messages.len() == names.len() && messages.iter().all(|it| it.contains("ESMTPSA")), "{messages:?}");
    let record = gatepost.wait_for_log("mail was handed over").expect("a record");
    assert!(record.contains("user=<kim@example.org>"), "{record}");
}

#[test]
fn nobody_sends_by_a_name_of_somebody_elses() {
    let bed = Bed::new();
    let (_store, _postfix, gatepost) = with_own_senders(&bed);
    let (mut talk, told) = secure(&bed);
    assert!(told.contains(&"CHUNKING".to_owned()) && !told.contains(&"VRFY".to_owned()), "{told:?}");
    talk.send(format!("AUTH PLAIN {CREDENTIALS}\r\nMAIL FROM:<lee@example.org>\r\nRCPT TO:<lee@example.org>\r\n"));
    assert!(talk.reply().starts_with("235"));
    assert_eq!(talk.reply(), "553 5.7.1 This is not your address.");
    assert!(talk.reply().starts_with("503"));
    for stranger in ["kim@example.net", "kim@example.org@example.net", "nobody@example.org", "\"lee\"@example.org"] {
        assert!(talk.ask(&format!("MAIL FROM:<{stranger}>")).starts_with('5'), "{stranger}");
    }
    assert!(talk.ask("AUTH PLAIN x").starts_with("503"), "whoever it is, they stay");
    gatepost.wait_for_log("a sender was refused").expect("a record");
}

#[test]
fn a_user_sends_in_chunks_and_may_give_up_between_them() {
    let bed = Bed::new();
    let (_store, postfix, _gatepost) = with_own_senders(&bed);
    let mut talk = kim(&bed);
    let envelope = "MAIL FROM:<kim@example.org>\r\nRCPT TO:<lee@example.org>\r\nRCPT TO:<nobody@example.org>\r\n";
    talk.send(format!("{envelope}BDAT 5\r\nnever"));
    hear(&mut talk, &["250", "250", "550", "250"]);
    assert!(talk.ask("RSET").starts_with("250"));
    talk.send(format!("{envelope}BDAT 6\r\nA: b\r\nBDAT 5 LAST\r\n\r\nx\r\n"));
    hear(&mut talk, &["250", "250", "550", "250", "250"]);
    let messages = postfix.wait_for_messages(LEE.user, 1).expect("the message");
    assert!(messages.len() == 1 && messages[0].contains("ESMTPSA") && !messages[0].contains("never"), "{messages:?}");
}

#[test]
fn what_another_server_could_take_for_the_end_of_a_users_message_is_refused_with_it() {
    let bed = Bed::new();
    let (_store, postfix, _gatepost) = with_own_senders(&bed);
    let mut talk = kim(&bed);
    let envelope = "MAIL FROM:<kim@example.org>\r\nRCPT TO:<lee@example.org>\r\nDATA\r\n";
    talk.send(envelope);
    hear(&mut talk, &["250", "250", "354"]);
    let answer = talk.ask("Subject: never\r\n\r\nx\n.\nMAIL FROM:<lee@example.org>\r\n.");
    assert!(answer.starts_with("550 5.5.2"), "{answer}");
    // The connection to the back end ended with it.
    assert!(talk.ask("MAIL FROM:<kim@example.org>").starts_with("421"));
    let mut talk = kim(&bed);
    talk.send(envelope);
    hear(&mut talk, &["250", "250", "354"]);
    assert!(talk.ask("Subject: good\r\n\r\nx\r\n.").starts_with("250"));
    let messages = postfix.wait_for_messages(LEE.user, 1).expect("the message");
    assert!(messages.len() == 1 && !messages[0].contains("never"), "{messages:?}");
}
