//! Real mail clients, which notice nothing.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use gatepost_lab::{Dovecot, Gatepost};

use crate::bed::{Bed, KIM, LEE};

/// Two back ends, two users, one embedded passwd-file that says who is where.
fn two_stores(bed: &Bed) -> (Dovecot, Dovecot, Gatepost) {
    let a = bed.dovecot("a", &[KIM]);
    let b = bed.dovecot("b", &[LEE]);
    bed.write("users", "kim:::::::host=store-a\nlee:::::::host=store-b\n");
    let configuration = bed.configuration(&format!(
        "[imap.backend]\nca = {:?}\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store-a]\nhost = \"localhost\"\nimap = {{ port = {} }}\n\
         [backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {}, tls = \"implicit\" }}\n",
        bed.authority.certificate, a.imap, b.imaps
    ));
    let gatepost = bed.gatepost(&configuration);
    (a, b, gatepost)
}

fn letter(subject: &str) -> String {
    format!(
        "From: a@example.org\r\nTo: b@example.org\r\nSubject: {subject}\r\nDate: Mon, 23 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{subject}@example.org>\r\n\r\nText of {subject}.\r\n"
    )
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn succeed(command: &mut Command) -> String {
    let output = run(command);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn curl(bed: &Bed, user: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("curl");
    command
        .args(["-sS", "-m", "20", "--ssl-reqd", "--cacert"])
        .arg(&bed.authority.certificate)
        .args(["-u", user])
        .args(arguments);
    run(&mut command)
}

#[test]
fn curl_reads_and_appends_on_both_back_ends() {
    let bed = Bed::new();
    let (a, b, _gatepost) = two_stores(&bed);
    let mail = bed.write("mail", &letter("hello"));
    let mail = mail.display().to_string();
    for (user, store) in [("kim:kim's secret", &a), ("lee:lee's secret", &b)] {
        for (base, options) in [
            (format!("imap://localhost:{}", bed.imap), &["--login-options", "AUTH=PLAIN"][..]),
            (format!("imap://localhost:{}", bed.imap), &["--login-options", "AUTH=LOGIN"]),
            (format!("imaps://localhost:{}", bed.imaps), &["--sasl-ir"]),
        ] {
            let inbox = format!("{base}/INBOX");
            let appended = curl(&bed, user, &[options, &["-T", &mail, &inbox]].concat());
            assert!(appended.status.success(), "{}", String::from_utf8_lossy(&appended.stderr));
            let first = format!("{inbox};MAILINDEX=1");
            let read = curl(&bed, user, &[options, &[&first[..]]].concat());
            assert!(String::from_utf8_lossy(&read.stdout).contains("Text of hello."), "{read:?}");
        }
        let name = user.split(':').next().unwrap_or_default();
        store.wait_for_log(&format!("user=<{name}>")).expect("the right back end");
    }
    let wrong = curl(&bed, "kim:wrong", &[&format!("imaps://localhost:{}/INBOX", bed.imaps)]);
    assert_eq!(wrong.status.code(), Some(67), "curl's code for a refused log-in");
}

#[test]
fn the_back_end_learns_the_clients_address_and_session() {
    let bed = Bed::new();
    let (a, _b, gatepost) = two_stores(&bed);
    let read =
        curl(&bed, "kim:kim's secret", &["--interface", "127.0.0.77", &format!("imaps://127.0.0.1:{}/", bed.imaps)]);
    assert!(read.status.success(), "{read:?}");
    let line = gatepost.wait_for_log("session ended").expect("a record");
    let session = line.split("session=<").nth(1).and_then(|rest| rest.split('>').next()).expect("a session");
    a.wait_for_log("rip=127.0.0.77").expect("the client's address");
    a.wait_for_log(&format!("session=<{session}>")).expect("the session");
}

#[test]
fn pythons_imaplib_with_compression() {
    let bed = Bed::new();
    let (_a, _b, _gatepost) = two_stores(&bed);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/imaplib_client.py");
    for (user, password) in [(KIM.user, KIM.password), (LEE.user, LEE.password)] {
        let mut command = Command::new("python3");
        command.arg(&script).args([&bed.imap.to_string(), &bed.imaps.to_string()]);
        command.arg(&bed.authority.certificate).args([user, password]);
        let said = succeed(&mut command);
        assert_eq!(said.matches("compressed ok").count(), 2, "{said}");
    }
}

#[test]
fn mbsync_syncs_two_thousand_messages_both_ways() {
    let bed = Bed::new();
    let (a, _b, _gatepost) = two_stores(&bed);
    a.seed("kim", (0..2000).map(|n| letter(&format!("far-{n}")))).expect("mail");
    for (how, port) in [("STARTTLS", bed.imap), ("IMAPS", bed.imaps)] {
        let near = bed.path(&format!("near-{how}"));
        let rc = bed.write(
            "mbsyncrc",
            &format!(
                "IMAPAccount lab\nHost localhost\nPort {port}\nUser kim\nPass \"kim's secret\"\nSSLType {how}\nCertificateFile {}\nAuthMechs PLAIN\nTimeout 20\n\n\
                 IMAPStore far\nAccount lab\n\nMaildirStore near\nPath {near}/\nInbox {near}/INBOX\n\n\
                 Channel lab\nFar :far:\nNear :near:\nPatterns INBOX\nCreate Both\nExpunge Both\nSync All\nSyncState *\n",
                bed.authority.certificate.display(),
                near = near.display(),
            ),
        );
        std::fs::create_dir_all(&near).expect("a folder");
        let sync = || succeed(Command::new("mbsync").arg("-c").arg(&rc).arg("lab"));
        sync();
        std::fs::write(near.join(format!("INBOX/new/1700099999.{how}.lab:2,")), letter(&format!("near-{how}")))
            .expect("mail");
        let mail = bed.write("mail", &letter(&format!("appended-{how}")));
        let appended = curl(
            &bed,
            "kim:kim's secret",
            &["-T", &mail.display().to_string(), &format!("imaps://localhost:{}/INBOX", bed.imaps)],
        );
        assert!(appended.status.success(), "{appended:?}");
        sync();
        let count = |folder: &str| std::fs::read_dir(near.join("INBOX").join(folder)).map_or(0, Iterator::count);
        let mut talk = bed.logged_in(KIM);
        let far = talk.command("STATUS INBOX (MESSAGES)").join(" ");
        let expected = if how == "STARTTLS" { 2002 } else { 2004 };
        assert_eq!(count("cur") + count("new"), expected, "{how}: on the near side");
        assert!(far.contains(&format!("MESSAGES {expected})")), "{how}: on the far side: {far}");
    }
}

#[test]
fn mutt_opens_the_mailbox() {
    let bed = Bed::new();
    let (_a, b, _gatepost) = two_stores(&bed);
    b.seed("lee", (0..5).map(|n| letter(&format!("m-{n}")))).expect("mail");
    for url in [format!("imap://localhost:{}/", bed.imap), format!("imaps://localhost:{}/", bed.imaps)] {
        let rc = bed.write(
            "muttrc",
            &format!(
                "set ssl_ca_certificates_file={ca}\nset certificate_file={certs}\nset ssl_starttls=yes\nset ssl_force_tls=yes\n\
                 set imap_user=lee\nset imap_pass=\"lee's secret\"\nset imap_authenticators=plain\nset imap_check_subscribed=no\n\
                 set header_cache=\nset sleep_time=0\nset wait_key=no\nset quit=yes\nset mark_old=no\nset mail_check=0\n\
                 set folder={url}\nset spoolfile={url}INBOX\n",
                ca = bed.authority.certificate.display(),
                certs = bed.path("certs").display(),
            ),
        );
        let mutt = format!("mutt -F {} -n -R -e 'push <exit>'", rc.display());
        let output = run(Command::new("timeout")
            .args(["40", "env", "TERM=xterm", "script", "-qec", &mutt, "/dev/null"])
            .stdin(std::process::Stdio::null()));
        let screen = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(screen.contains("Msgs:5"), "{url}: {screen}");
    }
}

#[test]
fn fetchmail_fetches_everything() {
    let bed = Bed::new();
    let (a, _b, _gatepost) = two_stores(&bed);
    a.seed("kim", (0..3).map(|n| letter(&format!("f-{n}")))).expect("mail");
    let ca = bed.authority.certificate.display();
    for (how, options) in [
        ("starttls", format!("port {} auth password\n user 'kim' password \"kim's secret\" sslproto 'auto'", bed.imap)),
        ("implicit", format!("port {} auth password\n user 'kim' password \"kim's secret\" ssl", bed.imaps)),
    ] {
        let mbox = bed.path(&format!("{how}.mbox"));
        let rc = bed.write(
            how,
            &format!(
                "set no bouncemail\nset no syslog\npoll localhost protocol imap {options} sslcertck sslcertfile '{ca}'\n fetchall keep\n mda \"cat >> {}\"\n",
                mbox.display()
            ),
        );
        std::fs::set_permissions(&rc, PermissionsExt::from_mode(0o600)).expect("permissions");
        let home = bed.path("home");
        std::fs::create_dir_all(&home).expect("a folder");
        let mut command = Command::new("timeout");
        command
            .args(["40", "fetchmail", "-s", "--nodetach", "-f"])
            .arg(&rc)
            .env("HOME", &home)
            .env("FETCHMAILHOME", &home);
        succeed(&mut command);
        let fetched = std::fs::read_to_string(&mbox).expect("mail");
        assert_eq!(fetched.matches("Text of f-").count(), 3, "{how}");
    }
}

#[test]
fn idle_delivers() {
    let bed = Bed::new();
    let (_a, _b, _gatepost) = two_stores(&bed);
    let mut watcher = bed.logged_in(KIM);
    watcher.command("SELECT INBOX");
    watcher.send("i IDLE\r\n");
    assert!(watcher.line().starts_with("+ "));
    let mail = bed.write("mail", &letter("news"));
    let appended = curl(
        &bed,
        "kim:kim's secret",
        &["-T", &mail.display().to_string(), &format!("imaps://localhost:{}/INBOX", bed.imaps)],
    );
    assert!(appended.status.success(), "{appended:?}");
    watcher.tcp().set_read_timeout(Some(Duration::from_secs(40))).expect("a time-out");
    let news = std::iter::repeat_with(|| watcher.line()).find(|line| line.contains("EXISTS") || line.is_empty());
    assert_eq!(news.as_deref(), Some("* 1 EXISTS"));
    watcher.send("DONE\r\n");
    assert!(watcher.answer("i").pop().expect("an answer").starts_with("i OK"));
}
