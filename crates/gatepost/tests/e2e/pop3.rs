//! POP3, end to end: real clients, a real Dovecot, and what must not get through.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gatepost_lab::{Dovecot, Gatepost, MASTER, MASTER_PASSWORD, free_ports, wait_for, wait_for_within};

use crate::bed::{Bed, KIM, LEE, all_heard, back_end, hearing, run};
use crate::talk::Talk;

/// Gatepost with POP3 alone, before the ports of `bed`, which are otherwise IMAP's.
fn configuration(bed: &Bed, pop3: &str, rest: &str) -> String {
    bed.service("pop3", &format!("{pop3}\n{rest}"))
}

/// One back end for everybody, in clear.
fn one_backend(bed: &Bed, pop3: &str, port: u16) -> String {
    configuration(
        bed,
        pop3,
        &format!(
            "[pop3.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\npop3 = {{ port = {port} }}\n"
        ),
    )
}

fn letter() -> String {
    "From: a@example.org\r\nTo: b@example.org\r\nSubject: hello\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\n\
     Message-ID: <hello@example.org>\r\n\r\nText of hello.\r\n"
        .to_owned()
}

/// A Dovecot with a letter for kim, reached over STLS with its certificate checked.
fn with_letter(bed: &Bed) -> (Dovecot, Gatepost) {
    let store = bed.dovecot("store", &[KIM, LEE]);
    store.seed("kim", [letter()]).expect("a letter");
    let backend = format!(
        "[pop3.backend]\nca = {:?}\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"localhost\"\npop3 = {{ port = {} }}\n",
        bed.authority.certificate, store.pop3
    );
    let gatepost = bed.gatepost(&configuration(bed, "", &backend));
    (store, gatepost)
}

/// A client under TLS, greeted.
fn secure(bed: &Bed) -> Talk {
    let mut talk = Talk::secure(bed.imaps, &bed.authority.certificate);
    let greeting = talk.line();
    assert_eq!(greeting, "+OK mail.example.org Gatepost ready.");
    talk
}

fn ask(talk: &mut Talk, command: &str) -> String {
    talk.send(format!("{command}\r\n"));
    talk.line()
}

fn log_in(talk: &mut Talk, user: &str, password: &str) -> String {
    assert_eq!(ask(talk, &format!("USER {user}")), "+OK");
    ask(talk, &format!("PASS {password}"))
}

#[test]
fn real_clients_read_their_mail() {
    let bed = Bed::new();
    let (store, _gatepost) = with_letter(&bed);
    let ca = &bed.authority.certificate;
    for (url, options) in [
        (format!("pop3://localhost:{}/1", bed.imap), &["--login-options", "AUTH=PLAIN"][..]),
        (format!("pop3://localhost:{}/1", bed.imap), &["--login-options", "AUTH=LOGIN"]),
        (format!("pop3s://localhost:{}/1", bed.imaps), &["--sasl-ir"]),
    ] {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "--ssl-reqd", "-u", "kim:kim's secret", "--cacert"]).arg(ca);
        assert!(run(command.args(options).arg(&url)).contains("Text of hello."), "{url} {options:?}");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/poplib_client.py");
    let mut python = Command::new("python3");
    python.arg(script).args([bed.imap.to_string(), bed.imaps.to_string()]).arg(ca).args(["kim", KIM.password]);
    assert_eq!(run(&mut python).trim(), "read 1");

    let home = bed.path("home");
    std::fs::create_dir(&home).expect("a folder");
    let mailbox = bed.write("mailbox", "");
    let write = |name: &str, text: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let path = bed.write(name, text);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("permissions");
        path
    };
    let mpop = write(
        "mpoprc",
        &format!(
            "account default\nhost localhost\nport {}\nuser kim\npassword \"kim's secret\"\nauth plain\ntls on\ntls_starttls on\n\
             tls_trust_file {}\nkeep on\nuidls_file {}\ndelivery mbox {}\n",
            bed.imap,
            ca.display(),
            bed.path("uidls").display(),
            mailbox.display()
        ),
    );
    run(Command::new("mpop").arg("-C").arg(mpop).env("HOME", &home));
    assert!(std::fs::read_to_string(&mailbox).expect("a mailbox").contains("Text of hello."));

    let fetchmail = write(
        "fetchmailrc",
        &format!(
            "poll localhost protocol pop3 port {} user kim password \"kim's secret\" ssl sslcertck sslcertfile {} keep mda \"cat >> {}\"\n",
            bed.imaps,
            ca.display(),
            mailbox.display()
        ),
    );
    std::fs::write(&mailbox, "").expect("a file");
    run(Command::new("fetchmail").arg("-f").arg(fetchmail).args(["--pidfile"]).arg(bed.path("pid")).env("HOME", &home));
    assert!(std::fs::read_to_string(&mailbox).expect("a mailbox").contains("Text of hello."));
    // Dovecot knows where they come from.
    store.wait_for_log("rip=127.0.0.1").expect("a log-in");
    assert!(store.log().contains("pop3-login: Info: Login: user=<kim>"), "{}", store.log());
}

#[test]
fn what_a_client_is_told_and_what_the_log_says() {
    let bed = Bed::new();
    let (_store, gatepost) = with_letter(&bed);
    let mut talk = secure(&bed);
    let wrong = log_in(&mut talk, "kim", "wrong");
    assert_eq!(wrong, "-ERR [AUTH] Authentication failed.");
    gatepost
        .wait_for_log("gatepost pop3-login: Info: Aborted login (auth failed, 1 attempts")
        .expect("a line for filters");
    assert_eq!(log_in(&mut talk, "nobody", "wrong"), wrong);
    assert_eq!(log_in(&mut talk, "kim", "wrong"), wrong);
    assert_eq!(talk.rest(), "", "three are enough");

    let mut clear = Talk::clear(bed.imap);
    clear.line();
    assert_eq!(ask(&mut clear, "USER kim"), "-ERR [AUTH] Passwords are only taken under TLS.");
    assert_eq!(ask(&mut clear, "STLS"), "+OK Begin TLS negotiation now.");
    let mut secured = clear.upgrade(&bed.authority.certificate);
    assert!(log_in(&mut secured, "kim", KIM.password).starts_with("+OK"));
    assert!(ask(&mut secured, "STAT").starts_with("+OK 1 "));
    drop(secured);
    let record = gatepost.wait_for_log("result=logged-in").expect("a record");
    assert!(record.contains("user=<kim>") && record.contains("backend=store"), "{record}");
}

#[test]
fn commands_behind_the_log_in_are_delivered_once_and_in_order() {
    let bed = Bed::new();
    let (_store, _gatepost) = with_letter(&bed);
    let mut talk = secure(&bed);
    talk.send(format!("USER kim\r\nPASS {}\r\nSTAT\r\nNOOP\r\nQUIT\r\n", KIM.password));
    let said = talk.rest();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines.len(), 5, "{said}");
    assert!(lines[2].starts_with("+OK 1 ") && lines.iter().all(|line| line.starts_with("+OK")), "{said}");
}

#[test]
fn an_outage_is_never_a_wrong_password_nor_an_empty_maildrop() {
    let bed = Bed::new();
    let mut store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&one_backend(&bed, "max_errors = 0", store.pop3));
    store.server.kill().expect("an end");
    let mut talk = secure(&bed);
    let outage = "-ERR [SYS/TEMP] Temporarily unavailable, try again later.";
    assert_eq!(log_in(&mut talk, "kim", KIM.password), outage);
    store.resume().expect("a start");
    wait_for(|| log_in(&mut talk, "kim", KIM.password) != outage).expect("it is used again");
    assert!(ask(&mut talk, "STAT").starts_with("+OK 0 "));
}

#[test]
fn a_master_logs_in_and_the_directory_decides() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.write("master.secret", &format!("{MASTER_PASSWORD}\n"));
    bed.write("users", "kim:{PLAIN}other:::::: services=pop3\nlee:{PLAIN}other:::::: services=imap\n");
    let backend = format!(
        "[pop3.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\ndefault = \"store\"\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\npop3 = {{ port = {} }}\nlogin = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n",
        store.pop3
    );
    let _gatepost = bed.gatepost(&configuration(&bed, "authenticate = \"proxy\"\ndirectory = \"people\"", &backend));
    assert!(log_in(&mut secure(&bed), "kim", "other").starts_with("+OK"));
    store.wait_for_log("user=<kim>").expect("a log-in");
    let refused = log_in(&mut secure(&bed), "lee", "other");
    assert_eq!(refused, "-ERR [AUTH] This account is disabled.");
}

/// Answers each line of a POP3 client as `script` says, and gives what it heard.
fn scripted(greeting: &'static str, script: &'static [(&'static str, &'static str)]) -> u16 {
    back_end(move |mut stream: TcpStream| {
        let _ = stream.write_all(format!("{greeting}\r\n").as_bytes());
        let lines = BufReader::new(stream.try_clone().expect("a socket")).lines();
        for line in lines.map_while(Result::ok) {
            let answer =
                script.iter().find(|(command, _)| line.starts_with(command)).map_or("-ERR", |(_, answer)| answer);
            if stream.write_all(format!("{answer}\r\n").as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn what_back_ends_say_is_passed_on_or_understood() {
    for (answer, told) in [
        ("-ERR [IN-USE] Do you have another session?", "-ERR [IN-USE] Do you have another session?"),
        ("-ERR [LOGIN-DELAY] Not yet", "-ERR [LOGIN-DELAY] Not yet"),
        ("-ERR [SYS/TEMP] Later", "-ERR [SYS/TEMP] Temporarily unavailable, try again later."),
        ("-ERR whatever", "-ERR [AUTH] Authentication failed."),
    ] {
        let script: &'static [_] =
            Box::leak(Box::new([("CAPA", "+OK\r\nSASL PLAIN\r\n."), ("AUTH", answer), ("QUIT", "+OK")]));
        let bed = Bed::new();
        let _gatepost = bed.gatepost(&one_backend(&bed, "", scripted("+OK ready", script)));
        assert_eq!(log_in(&mut secure(&bed), "kim", "x"), told);
    }
    for (greeting, reason) in
        [("* OK IMAP4rev1", "its greeting is not one"), ("+OK mail.example.org Gatepost ready.", "leads back")]
    {
        let bed = Bed::new();
        let gatepost = bed.gatepost(&one_backend(&bed, "", scripted(greeting, &[])));
        assert!(log_in(&mut secure(&bed), "kim", "x").starts_with("-ERR [SYS/TEMP]"));
        gatepost.wait_for_log(reason).expect("the reason");
    }
}

#[test]
fn clients_are_promised_what_every_back_end_has() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let other = scripted("+OK ready", &[("CAPA", "+OK\r\nUIDL\r\nSASL PLAIN\r\n."), ("QUIT", "+OK")]);
    let text = one_backend(&bed, "", store.pop3);
    let gatepost = bed.gatepost(&text);
    let promised = || {
        let mut talk = secure(&bed);
        talk.send("CAPA\r\n");
        let mut lines = Vec::new();
        loop {
            let line = talk.line();
            if line == "." || line.is_empty() {
                return lines;
            }
            lines.push(line);
        }
    };
    let wait_until = |name: &str, there: bool| {
        // Long before the back ends are looked at again by themselves.
        wait_for_within(Duration::from_secs(10), || promised().iter().any(|line| line == name) == there)
            .unwrap_or_else(|_| panic!("{name} {there}: {:?}", promised()));
    };
    // Learnt without anybody's log-in.
    wait_until("TOP", true);
    wait_until("UIDL", true);
    let second = format!(
        "directories = []\n[[map.rule]]\ndomain = \"b.org\"\nbackend = \"b\"\n[backend.b]\nhost = \"127.0.0.1\"\npop3 = {{ port = {other} }}\n[backend.store]"
    );
    gatepost.reload(&text.replace("[backend.store]", &second)).expect("a reload");
    wait_until("TOP", false);
    wait_until("UIDL", true);
}

#[test]
fn a_password_that_would_be_two_commands_reaches_nobody() {
    let bed = Bed::new();
    let (port, heard) = hearing(b"+OK ready\r\n+OK\r\nUSER\r\n.\r\n");
    let _gatepost = bed.gatepost(&one_backend(&bed, "mechanisms = [\"PLAIN\"]\n", port));
    let mut talk = secure(&bed);
    // NUL kim NUL a CR LF DELE 1
    assert!(ask(&mut talk, "AUTH PLAIN AGtpbQBhDQpERUxFIDE=").starts_with("-ERR"));
    let heard = all_heard(&heard);
    assert!(!heard.contains("DELE") && !heard.contains("PASS"), "{heard}");
}

#[test]
fn imap_and_pop3_stand_side_by_side() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let [pop3] = free_ports().expect("a port");
    let text = bed.one_backend("", store.imap).replace(
        "[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n",
        &format!(
            "[pop3]\n[[pop3.listener]]\naddress = \"127.0.0.1:{pop3}\"\ntls = \"implicit\"\n[pop3.backend]\ntls = \"none\"\n\
             [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\npop3 = {{ port = {} }}\n",
            store.pop3
        ),
    );
    let gatepost = bed.gatepost(&text);
    bed.logged_in(KIM);
    let mut talk = Talk::secure(pop3, &bed.authority.certificate);
    talk.line();
    assert!(log_in(&mut talk, "kim", KIM.password).starts_with("+OK"));
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    let explained = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.contains("imap: to 127.0.0.1") && explained.contains("pop3: to 127.0.0.1"), "{explained}");
    let refusal = bed.refusal(&text.replace("[pop3]\n", "[pop3]\nidle_timeout = \"5m\"\n"));
    assert!(refusal.contains("pop3.idle_timeout: is at least 10m (RFC 1939, section 3)"), "{refusal}");
}
