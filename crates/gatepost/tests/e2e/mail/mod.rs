//! Mail that comes in, end to end: real senders, real Dovecot and Postfix servers behind, and what must never be taken.

pub(crate) mod chunks;
mod outcomes;
mod strangers;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gatepost_lab::{Dovecot, Gatepost, Mailbox, Postfix, PostfixSetup, free_ports, wait_to_find};

use crate::bed::{Bed, back_end, run, say_and_listen};
use crate::talk::Talk;

const KIM: Mailbox<'_> = Mailbox { user: "kim@example.org", password: "kim's secret" };
const LEE: Mailbox<'_> = Mailbox { user: "lee@example.org", password: "lee's secret" };
const LETTER: &str = "From: a@example.net\r\nTo: kim@example.org\r\nSubject: hello\r\nMessage-ID: <1@example.net>\r\n\r\nText of the letter.\r\n";

/// Gatepost with SMTP on the bed's first port and LMTP on its second; kim is at store-a, lee at store-b.
fn configuration(bed: &Bed, smtp: &str, backend: &str, a: u16, b: u16) -> String {
    bed.write("users", "kim@example.org:::::::host=store-a\nlee@example.org:::::::host=store-b\n");
    format!(
        "{}[[smtp.listener]]\naddress = \"127.0.0.1:{}\"\n[smtp]\n{smtp}\n[smtp.backend]\n{backend}\n\
         [[lmtp.listener]]\naddress = \"127.0.0.1:{}\"\n[lmtp]\n[lmtp.backend]\n{backend}\n\
         [map]\ndirectories = [\"people\"]\naliases = {{ \"info@example.org\" = \"kim@example.org\" }}\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store-a]\nhost = \"localhost\"\nsmtp = {{ port = {a} }}\nlmtp = {{ port = {a} }}\n\
         [backend.store-b]\nhost = \"localhost\"\nsmtp = {{ port = {b} }}\nlmtp = {{ port = {b} }}\n",
        bed.head(),
        bed.imap,
        bed.imaps
    )
}

/// Both stores are Dovecots, to which mail goes by LMTP.
fn before_dovecots(bed: &Bed, smtp: &str) -> (Dovecot, Dovecot, Gatepost) {
    let (a, b) = (bed.dovecot("a", &[KIM]), bed.dovecot("b", &[LEE]));
    let backend = "tls = \"none\"\nprotocol = \"lmtp\"";
    let gatepost = bed.gatepost(&configuration(bed, smtp, backend, a.lmtp, b.lmtp));
    (a, b, gatepost)
}

fn postfix(bed: &Bed, name: &str, user: Mailbox<'_>) -> Postfix {
    postfix_with(bed, name, user, "")
}

fn postfix_with(bed: &Bed, name: &str, user: Mailbox<'_>, more: &str) -> Postfix {
    let [port] = free_ports().expect("a port");
    let users = [user.user];
    let more = format!("message_size_limit = 100000000\nvirtual_mailbox_limit = 0\n{more}");
    let setup = PostfixSetup { port, users: &users, certificate: Some(&bed.store), sasl: None, more: &more };
    Postfix::start(&bed.path(name), &setup).expect("a Postfix")
}

/// A client in clear that has said hello.
fn greeted(port: u16, hello: &str) -> Talk {
    let mut talk = Talk::clear(port);
    let greeting = talk.reply();
    assert!(greeting.starts_with("220 mail.example.org "), "{greeting}");
    let answer = talk.ask(hello);
    assert!(answer.starts_with("250"), "{answer}");
    talk
}

/// One that has come as far as the content, for these recipients.
fn at_content(port: u16, hello: &str, recipients: &[&str]) -> Talk {
    let mut talk = greeted(port, hello);
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    for recipient in recipients {
        let answer = talk.ask(&format!("RCPT TO:<{recipient}>"));
        assert!(answer.starts_with("250"), "{recipient}: {answer}");
    }
    assert!(talk.ask("DATA").starts_with("354"));
    talk
}

#[test]
fn a_session_in_which_mail_is_taken_is_no_log_in() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"", 1, 1));
    let _talk = greeted(bed.imap, "EHLO mx.example.net");
    assert_eq!(bed.list(&["sessions"])[0]["state"], "mail");
}

#[test]
fn real_senders_reach_users_at_their_back_ends() {
    let bed = Bed::new();
    let (a, b, gatepost) = before_dovecots(&bed, "");
    let swaks = |more: &[&str]| {
        let mut command = Command::new("swaks");
        command.args(["--server", "127.0.0.1", "--port", &bed.imap.to_string(), "--from", "a@example.net"]);
        command.args(["--helo", "mx.example.net", "--timeout", "20"]).args(more);
        run(&mut command)
    };
    swaks(&["--to", KIM.user, "--header", "Subject: in clear"]);
    let ca = bed.authority.certificate.display().to_string();
    swaks(&["--to", LEE.user, "--tls", "--tls-ca-path", &ca, "--header", "Subject: under TLS"]);
    swaks(&["--to", "kim@example.org,lee@example.org", "--header", "Subject: to all"]);
    swaks(&["--to", "info@example.org", "--header", "Subject: to an alias"]);
    let letter = bed.write("letter", LETTER);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-m", "20", "--ssl-reqd", "--cacert"]).arg(&bed.authority.certificate);
    curl.args(["--mail-from", "a@example.net", "--mail-rcpt", KIM.user, "--upload-file"]).arg(&letter);
    run(curl.arg(format!("smtp://localhost:{}/mx.example.net", bed.imap)));
    // One Postfix as the sender: its mail for example.org goes by way of Gatepost.
    let [port] = free_ports().expect("a port");
    let more = format!("relayhost = [127.0.0.1]:{}\nmyhostname = sender.example.net", bed.imap);
    let setup = PostfixSetup { port, users: &["x@sender.example.net"], certificate: None, sasl: None, more: &more };
    let sender = Postfix::start(&bed.path("sender"), &setup).expect("a Postfix");
    let mut command = Command::new("swaks");
    command.args(["--server", "127.0.0.1", "--port", &port.to_string(), "--from", "x@sender.example.net"]);
    run(command.args(["--to", "kim@example.org,lee@example.org", "--header", "Subject: by Postfix"]));
    sender.wait_for_log("status=sent").expect("a delivery");

    let subjects = |messages: Vec<String>| {
        let mut subjects: Vec<String> = messages
            .iter()
            .filter_map(|message| message.lines().find_map(|line| line.strip_prefix("Subject: ")).map(str::to_owned))
            .collect();
        subjects.sort();
        subjects
    };
    let expected = ["by Postfix", "hello", "in clear", "to all", "to an alias"];
    assert_eq!(subjects(a.wait_for_delivered(KIM.user, 5).expect("kim's mail")), expected);
    assert_eq!(subjects(b.wait_for_delivered(LEE.user, 3).expect("lee's mail")), ["by Postfix", "to all", "under TLS"]);
    let record = gatepost.wait_for_log("mail was handed over").expect("a record");
    assert!(record.contains("from=<a@example.net>") && record.contains("helo=<mx.example.net>"), "{record}");
    gatepost.wait_for_log("result=mail-taken").expect("the session's record");
}

#[test]
fn only_mail_for_users_is_taken() {
    let bed = Bed::new();
    let (_a, _b, gatepost) = before_dovecots(&bed, "max_errors = 100");
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    for (recipient, code) in [
        ("nobody@example.org", "550 5.1.1"),
        ("victim@example.net", "550 5.1.1"),
        ("victim%example.net@example.org", "550 5.1.1"),
        ("example.net!victim@example.org", "550 5.1.1"),
        ("\"victim@example.net\"@example.org", "550 5.1.1"),
        ("victim@example.net@example.org", "501 5.1.3"),
        ("@example.org:victim@example.net", "550 5.1.1"),
        ("kim@example.org\0", "501 5.1.3"),
        ("*@example.org", "550 5.1.1"),
        ("kim", "550 5.1.1"),
        ("KIM@Example.ORG", "250"),
        ("\"kim\"@example.org", "250"),
    ] {
        let answer = talk.ask(&format!("RCPT TO:<{recipient}>"));
        assert!(answer.starts_with(code), "{recipient}: {answer}");
    }
    gatepost.wait_for_log("a recipient was refused").expect("a record");
    // A default is no licence to relay: it is for the domains that are ours.
    let [nobody] = free_ports().expect("a port");
    let rules = configuration(&bed, "domains = [\"example.com\"]", "tls = \"none\"", nobody, nobody)
        .replace("directories = [\"people\"]", "directories = [\"people\"]\ndefault = \"store-a\"");
    gatepost.reload(&rules).expect("a reload");
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<victim@example.net>").starts_with("550 5.1.1"));
    assert!(talk.ask("RCPT TO:<any%example.net@example.com>").starts_with("550 5.1.1"));
    assert!(talk.ask("RCPT TO:<anybody@example.com>").starts_with("451 4.4.1"), "placed, but nobody is there");
}

#[test]
fn a_directory_that_looks_at_the_local_part_makes_no_relay() {
    let bed = Bed::new();
    let accounts = bed.sqlite(
        "accounts.db",
        "create table accounts (uid, name); insert into accounts values ('kim', 'kim@example.org')",
    );
    let [nobody] = free_ports().expect("a port");
    let configure = |columns: &str, map: &str, smtp: &str| {
        let text = configuration(&bed, smtp, "tls = \"none\"", nobody, nobody);
        let directory = format!(
            "type = \"sql\"\nurl = \"sqlite://{}\"\nquery = \"select {columns} from accounts where uid = :local\"",
            accounts.display()
        );
        text.replace("type = \"passwd-file\"\npath = \"users\"", &directory)
            .replace("[map]\n", &format!("[map]\n{map}\n"))
    };
    let gatepost = bed.gatepost(&configure("'store-a' as backend", "", ""));
    let answers = |recipients: &[&str]| {
        let mut talk = greeted(bed.imap, "EHLO mx.example.net");
        assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
        let answers = recipients.iter().map(|recipient| talk.ask(&format!("RCPT TO:<{recipient}>")));
        answers.map(|answer| answer[..9].to_owned()).collect::<Vec<_>>()
    };
    let all =
        ["kim@example.org", "kim@gmail.com", "kim+x%evil.example@example.org", "\"kim+x@evil.example\"@example.org"];
    // It finds a user kim whatever the domain: nothing says that any of them is ours.
    assert_eq!(answers(&all), ["550 5.7.1", "550 5.7.1", "550 5.1.1", "550 5.1.1"]);
    gatepost.wait_for_log("domains that are not in `domains`").expect("a hint");
    // 451: it is taken, and only its back end is not there.
    for (columns, map, smtp) in [
        ("'store-a' as backend, name", "detail = \"+\"", ""),
        ("'store-a' as backend", "detail = \"+\"", "domains = [\"example.org\"]"),
        ("'store-a' as backend", "detail = \"+\"\nstrip_domains = [\"*\"]\ndomain = \"example.org\"", ""),
    ] {
        gatepost.reload(&configure(columns, map, smtp)).expect("a reload");
        let answers = answers(&all);
        assert_eq!(answers[0], "451 4.4.1", "{columns} {map} {smtp}");
        assert!(answers[1..].iter().all(|answer| answer.starts_with("550")), "{columns} {map} {smtp}: {answers:?}");
    }
    // A name without a domain is of the first that is ours.
    gatepost.reload(&configure("'store-a' as backend", "", "domains = [\"example.org\"]")).expect("a reload");
    assert_eq!(answers(&["kim", "Postmaster"]), ["451 4.4.1", "550 5.1.1"]);
}

#[test]
fn nothing_but_the_end_ends_a_message() {
    let bed = Bed::new();
    let (a, _b, _gatepost) = before_dovecots(&bed, "");
    let smuggled =
        "MAIL FROM:<evil@example.net>\r\nRCPT TO:<kim@example.org>\r\nDATA\r\nSubject: smuggled\r\n\r\n.\r\n";
    for end in ["\n.\n", "\n.\r\n", "\r\n.\n", "\r.\r", "\r\n.\r\r\n", "\r.\r\n"] {
        let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user]);
        talk.send(format!("Subject: outer\r\n\r\nx{end}{smuggled}"));
        let answer = talk.reply();
        assert!(answer.starts_with("550 5.5.2"), "{end:?}: {answer}");
        assert!(talk.ask("NOOP").starts_with("250"), "in step after {end:?}");
    }
    // The same from the other side of a dot: a message may hold such lines, stuffed.
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user]);
    for piece in ["Subject: dots\r\n\r\n.", ".\r\n..", "..\r\nend\r\n", ".", "\r", "\nNOOP\r\n"] {
        talk.send(piece);
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(talk.reply().starts_with("250") && talk.reply().starts_with("250"));
    let messages = a.wait_for_delivered(KIM.user, 1).expect("kim's mail");
    assert!(messages.len() == 1 && messages[0].ends_with("\n\n.\n...\nend\n"), "{messages:?}");
    // Content before it may come could become commands.
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    talk.send(format!("MAIL FROM:<a@example.net>\r\nRCPT TO:<{}>\r\nDATA\r\nSubject: early\r\n.\r\n", KIM.user));
    assert!(talk.reply().starts_with("250") && talk.reply().starts_with("250"));
    assert!(talk.reply().starts_with("421 4.7.0 You talk before"));
}

#[test]
fn large_messages_pass_whole_and_take_no_memory() {
    let bed = Bed::new();
    let (a, b) = (postfix(&bed, "a", KIM), postfix(&bed, "b", LEE));
    let gatepost = bed.gatepost(&configuration(&bed, "", "ca = \"ca.pem\"", a.port, b.port));
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user, LEE.user]);
    let before = gatepost.memory_kib().expect("memory");
    let block: String = (0..10_000).map(|n| format!("{n:0>78}\r\n")).collect();
    talk.send("Subject: large\r\n\r\n");
    for _ in 0..64 {
        talk.send(&block);
    }
    talk.send(".\r\n");
    let answer = talk.reply();
    assert!(answer.starts_with("250"), "{answer}");
    let grown = gatepost.memory_kib().expect("memory").saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 50 MB");
    let expected = block.replace("\r\n", "\n").repeat(64);
    for (store, user) in [(&a, KIM.user), (&b, LEE.user)] {
        let message = store.wait_for_messages(user, 1).expect("a message").remove(0);
        assert!(message.ends_with(&expected), "{user}: {} bytes", message.len());
    }
}

#[test]
fn postfix_hears_who_sends() {
    let bed = Bed::new();
    let (a, b) = (postfix(&bed, "a", KIM), postfix(&bed, "b", LEE));
    let _gatepost = bed.gatepost(&configuration(&bed, "", "ca = \"ca.pem\"", a.port, b.port));
    let mut command = Command::new("swaks");
    command.args(["--server", "127.0.0.1", "--port", &bed.imap.to_string(), "--local-interface", "127.0.0.99"]);
    run(command.args(["--from", "a@example.net", "--helo", "mx.example.net", "--to", KIM.user]));
    let message = a.wait_for_messages(KIM.user, 1).expect("a message").remove(0);
    assert!(message.contains("from mx.example.net (unknown [127.0.0.99])"), "{message}");
    // Nothing is promised that a back end has not, and nothing that can't be passed on.
    let mut latest = Vec::new();
    let learnt = wait_to_find(|| {
        let mut talk = Talk::clear(bed.imap);
        talk.reply();
        talk.send("EHLO x\r\n");
        let told: Vec<_> = std::iter::repeat_with(|| talk.line()).take_while(|line| line.starts_with("250-")).collect();
        let is_learnt = told.contains(&"250-8BITMIME".into());
        latest = told;
        is_learnt.then(|| latest.clone())
    });
    let told = learnt.unwrap_or_else(|error| panic!("{error}: {latest:?}"));
    assert!(told.contains(&"250-PIPELINING".into()) && told.contains(&"250-DSN".into()), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("BINARYMIME") || line.contains("AUTH")), "{told:?}");
}

#[test]
fn every_way_to_fail_puts_mail_off_with_its_own_reason() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let black_hole = silent.local_addr().expect("an address").port();
    let says = |words: &'static str| back_end(move |stream| drop(say_and_listen(stream, words.as_bytes())));
    // Answers a hello, and then each line with the next of these.
    let answers = |words: &'static [&'static str]| {
        back_end(move |stream| {
            let mut output = stream.try_clone().expect("a socket");
            let mut say = |text: &str| drop(output.write_all(format!("{text}\r\n").as_bytes()));
            say("220 store ESMTP");
            let mut lines = BufReader::new(&stream).lines().map_while(Result::ok);
            for answer in std::iter::once(&"250 store").chain(words) {
                let Some(_) = lines.next() else { return };
                say(answer);
            }
            // Whoever hangs up on what it has not read resets the connection.
            lines.next();
        })
    };
    let [refusing] = free_ports().expect("a port");
    for (what, port, reason) in [
        ("refusing", refusing, "Connection refused"),
        ("black-holed", black_hole, "no greeting within"),
        ("silent after its greeting", says("220 store ESMTP\r\n"), "no answer"),
        ("another protocol", says("* OK IMAP\r\n"), "its greeting is not one that can be used"),
        ("closing", says("421 4.3.2 overloaded\r\n"), "overloaded"),
        ("refusing us", says("554 5.7.1 go away\r\n"), "go away"),
        ("an endless line", says(Box::leak("220 x".repeat(30_000).into_boxed_str())), "a line is too long"),
        ("ourselves", says("220 mail.example.org ESMTP Gatepost ready.\r\n"), "the map leads back to Gatepost"),
        ("two codes", answers(&["250-2.1.0 Ok\r\n550 no"]), "the lines of a reply have different codes"),
        ("closing at the sender", answers(&["421 4.3.2 going down"]), "it ends the conversation"),
        ("gone at the recipient", answers(&["250 2.1.0 Ok"]), "it closed the connection"),
        ("no reply at all", answers(&["whatever"]), "a line is no reply"),
    ] {
        let bed = Bed::new();
        let backend = "tls = \"none\"\nconnect_timeout = \"1s\"\nlogin_timeout = \"2s\"\ncheck_interval = \"0s\"";
        let gatepost = bed.gatepost(&configuration(&bed, "", backend, port, port));
        let started = Instant::now();
        let mut talk = greeted(bed.imap, "EHLO mx.example.net");
        assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
        let answer = talk.ask("RCPT TO:<kim@example.org>");
        assert!(answer.starts_with("451 4.4."), "{what}: {answer}");
        assert!(started.elapsed() < Duration::from_secs(6), "{what} took {:?}", started.elapsed());
        gatepost.wait_for_log(reason).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(talk.ask("NOOP").starts_with("250"), "{what}");
    }
    drop(silent);
}

#[test]
fn what_a_client_says_of_others_is_not_passed_on() {
    let bed = Bed::new();
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hearing = Arc::clone(&heard);
    let port = back_end(move |stream| {
        let mut output = stream.try_clone().expect("a socket");
        let mut say = |text: &str| drop(output.write_all(format!("{text}\r\n").as_bytes()));
        say("220 store ESMTP");
        for line in BufReader::new(&stream).lines().map_while(Result::ok) {
            say(if line.starts_with("EHLO") { "250-store\r\n250 XCLIENT ADDR HELO NAME" } else { "220 Ok" });
            hearing.lock().expect("a lock").push(line);
        }
    });
    let _gatepost =
        bed.gatepost(&configuration(&bed, "max_errors = 50", "tls = \"none\"\ncheck_interval = \"0s\"", port, port));
    let mut talk = Talk::clear(bed.imap);
    talk.reply();
    assert!(talk.ask("XCLIENT ADDR=192.0.2.1").starts_with("500"));
    assert!(talk.ask("XFORWARD ADDR=192.0.2.1").starts_with("500"));
    assert!(talk.ask("EHLO mx.example.net\tADDR=192.0.2.1").starts_with("501"));
    assert!(talk.ask("EHLO evil+=\u{e4}").starts_with("250"));
    for bad in ["<a@example.net>\rRSET", "<a@example.net> SIZE=1\tX", "<a\r@example.net>", "<a@example.net> X=\u{1b}"] {
        assert!(talk.ask(&format!("MAIL FROM:{bad}")).starts_with('5'), "{bad:?}");
    }
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<kim@example.org>").starts_with('2'));
    let heard = heard.lock().expect("a lock").clone();
    assert!(heard.contains(&"XCLIENT ADDR=127.0.0.1 NAME=[UNAVAILABLE] HELO=evil+2B+3D+C3+A4".to_owned()), "{heard:?}");
    assert_eq!(heard.iter().filter(|line| line.starts_with("RSET")).count(), 0, "{heard:?}");
}
