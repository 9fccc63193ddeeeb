//! What becomes of a message with several recipients, and what its sender is told.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost_lab::wait_for;

use super::{KIM, LEE, LETTER, at_content, before_dovecots, configuration, greeted, postfix};
use crate::bed::{Bed, NOWHERE, back_end};

#[test]
fn lmtp_answers_for_each_recipient() {
    let bed = Bed::new();
    let (a, mut b, gatepost) = before_dovecots(&bed, "");
    let recipients = [KIM.user, LEE.user, KIM.user];
    let mut talk = at_content(bed.imaps, "LHLO inside.example.org", &recipients);
    talk.send(format!("{LETTER}.\r\n"));
    for _ in recipients {
        assert!(talk.reply().starts_with("250 2.0.0"));
    }
    b.wait_for_delivered(LEE.user, 1).expect("lee's mail");
    let mut talk = at_content(bed.imaps, "LHLO inside.example.org", &recipients);
    b.server.kill().expect("an end");
    talk.send(format!("{LETTER}.\r\n"));
    let replies: Vec<_> = recipients.iter().map(|_| talk.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["250", "451", "250"]);
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<lee@example.org>").starts_with("451 4.4.1"));
    gatepost.wait_for_log("mail was handed over for some recipients").expect("a record");
    gatepost.wait_for_log("mail could not be handed over").expect("the reason");
    b.resume().expect("a Dovecot");
    let is_taken = || talk.ask("RCPT TO:<lee@example.org>").starts_with("250");
    wait_for(is_taken).unwrap_or_else(|_| panic!("{}", gatepost.log()));
    drop(a);
}

#[test]
fn a_session_is_at_each_back_end_that_it_hands_mail_to() {
    let bed = Bed::new();
    let (_a, _b, gatepost) = before_dovecots(&bed, "");
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user, LEE.user]);
    for backend in ["store-a", "store-b"] {
        let sessions = bed.list(&["sessions", "--backend", backend]);
        assert!(matches!(&sessions[..], [session] if session["backend"] == "store-a,store-b"), "{sessions:?}");
    }
    // What is under way is taken first.
    assert_eq!(bed.list(&["kick", "--backend", "store-a"]).len(), 1);
    talk.send(format!("{LETTER}.\r\n"));
    assert!(talk.reply().starts_with("250"));
    assert!(talk.reply().starts_with("421"));
    gatepost.wait_for_log("ended by an administrator").expect("who has ended it");
}

#[test]
fn a_connection_that_is_lost_between_messages_is_made_anew() {
    let bed = Bed::new();
    let (mut a, _b, gatepost) = before_dovecots(&bed, "");
    // The connection to kim's back end is the first of the session, so that another comes behind it.
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user, LEE.user]);
    talk.send(format!("{LETTER}.\r\n"));
    assert!(talk.reply().starts_with("250"));
    a.server.kill().expect("an end");
    a.resume().expect("a Dovecot");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    for recipient in [LEE.user, KIM.user] {
        let answer = talk.ask(&format!("RCPT TO:<{recipient}>"));
        assert!(answer.starts_with("250"), "{recipient}: {answer}\n{}", gatepost.log());
    }
}

#[test]
fn the_whole_conversation_is_shown_at_level_protocol() {
    let bed = Bed::new();
    let store = postfix(&bed, "a", KIM);
    let text = configuration(&bed, "", "tls = \"none\"", store.port, store.port);
    let gatepost = bed.gatepost(&format!("{text}[log]\nlevel = \"protocol\"\n"));
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user]);
    talk.send(format!("{LETTER}.\r\n"));
    assert!(talk.reply().starts_with("250"));
    for line in ["S: 220 mail.example.org", "C: MAIL FROM:<a@example.net>", "C: DATA", "S: 354 ", "S: 250 2.0.0"] {
        gatepost.wait_for_log(line).expect(line);
    }
    assert!(!gatepost.log().contains("Text of the letter"), "content is nobody's to read");
}

/// Sends a message, and gives the replies to its recipients and to its end.
fn send(bed: &Bed, recipients: &[&str], letter: &str) -> (Vec<String>, String) {
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    let named = recipients.iter().map(|recipient| talk.ask(&format!("RCPT TO:<{recipient}>"))).collect();
    assert!(talk.ask("DATA").starts_with("354"));
    talk.send(format!("{letter}.\r\n"));
    (named, talk.reply())
}

#[test]
fn one_answer_is_for_all_and_then_each_has_its_own() {
    let bed = Bed::new();
    // The first in the order of recipients refuses once, the second takes it, and the other way round.
    for (n, recipients) in [[KIM.user, LEE.user], [LEE.user, KIM.user]].iter().enumerate() {
        let (a, b) = (postfix(&bed, &format!("a{n}"), KIM), refusing_once());
        let gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"", a.port, b.port));
        let (_, answer) = send(&bed, recipients, LETTER);
        assert!(answer.starts_with("451 4.3.0"), "{answer}");
        gatepost.wait_for_log("mail was handed over for some recipients").expect("a record");
        assert_eq!((a.wait_for_messages(KIM.user, 1).expect("kim's mail").len(), b.taken()), (1, 0));
        // From now on, one at a time: nobody has it twice, and everybody once.
        let (named, answer) = send(&bed, recipients, LETTER);
        assert!(named[0].starts_with("250") && named[1].starts_with("452 4.5.3"), "{named:?}");
        assert!(answer.starts_with("250"), "{answer}");
        let (named, answer) = send(&bed, &recipients[1..], LETTER);
        assert!(named[0].starts_with("250") && answer.starts_with("250"), "{named:?} {answer}");
        assert_eq!((a.messages(KIM.user).len(), b.taken()), (1, 1));
        // The same once more is meant, and so is another.
        for letter in [LETTER.to_owned(), format!("{LETTER}P.S.\r\n")] {
            let (named, answer) = send(&bed, recipients, &letter);
            assert!(
                named.iter().all(|reply| reply.starts_with("250")) && answer.starts_with("250"),
                "{named:?} {answer}"
            );
        }
        assert_eq!((a.wait_for_messages(KIM.user, 3).expect("kim's mail").len(), b.taken()), (3, 3));
        drop(gatepost);
    }
}

#[test]
fn what_one_refuses_for_good_is_refused_for_its_own_recipients() {
    let bed = Bed::new();
    let a = postfix(&bed, "a", KIM);
    let port = back_end(move |stream| {
        let mut input = BufReader::new(stream.try_clone().expect("a socket"));
        serve_with(&stream, &mut input, "554 5.7.1 Not from you", || true);
    });
    let _gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"", a.port, port));
    let both = [KIM.user, LEE.user];
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    let mut begin = |expected: &[&str]| {
        assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
        for (recipient, expected) in both.iter().zip(expected) {
            let answer = talk.ask(&format!("RCPT TO:<{recipient}>"));
            assert!(answer.starts_with(expected), "{recipient}: {answer}");
        }
        talk.ask("DATA")
    };
    // Nobody has it, and kim must not be refused with lee.
    assert!(begin(&["250", "250"]).starts_with("451"));
    assert!(begin(&["250", "452 4.5.3"]).starts_with("354"));
    talk.send(format!("{LETTER}.\r\n"));
    assert!(talk.reply().starts_with("250"));
    assert_eq!(a.wait_for_messages(KIM.user, 1).expect("kim's mail").len(), 1);
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<lee@example.org>").starts_with("250"));
    assert_eq!(talk.ask("DATA"), "554 5.7.1 Not from you");
}

/// A server that takes recipients, and messages but for the first.
struct Refusing {
    port: u16,
    taken: Arc<Mutex<usize>>,
}

impl Refusing {
    fn taken(&self) -> usize {
        *self.taken.lock().expect("a lock")
    }
}

fn refusing_once() -> Refusing {
    let (taken, asked) = (Arc::new(Mutex::new(0)), Mutex::new(0));
    let counting = Arc::clone(&taken);
    let port = back_end(move |stream| {
        let mut input = BufReader::new(stream.try_clone().expect("a socket"));
        serve(&stream, &mut input, || {
            let mut asked = asked.lock().expect("a lock");
            *asked += 1;
            if *asked > 1 {
                *counting.lock().expect("a lock") += 1;
            }
            *asked > 1
        });
    });
    Refusing { port, taken }
}

fn serve(stream: &TcpStream, input: &mut BufReader<TcpStream>, takes: impl Fn() -> bool) {
    serve_with(stream, input, "354 Go on", takes);
}

/// Answers DATA with this.
fn serve_with(mut stream: &TcpStream, input: &mut BufReader<TcpStream>, data: &str, takes: impl Fn() -> bool) {
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    say("220 refusing ESMTP");
    let mut is_content = false;
    for line in input.lines().map_while(Result::ok) {
        let answer = match line.as_str() {
            "." if is_content => {
                is_content = false;
                if takes() { "250 2.0.0 Ok" } else { "452 4.2.2 Full" }
            }
            _ if is_content => continue,
            "DATA" => {
                is_content = data.starts_with('3');
                data
            }
            "QUIT" => "221 Bye",
            _ => "250 Ok",
        };
        say(answer);
    }
}

#[test]
fn an_answer_too_many_is_nobodys_answer() {
    let bed = Bed::new();
    let ended = Arc::new(Mutex::new(0));
    let counting = Arc::clone(&ended);
    let port = back_end(move |stream| {
        let mut input = BufReader::new(stream.try_clone().expect("a socket"));
        // Each end is answered twice: the second answer must not be taken for that to the next command.
        serve(&stream, &mut input, || {
            *counting.lock().expect("a lock") += 1;
            (&stream).write_all(b"250 2.0.0 Ok\r\n").expect("a connection");
            true
        });
    });
    let _gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"\ncheck_interval = \"0s\"", port, port));
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    let (mut taken, mut tries) = (0, 0);
    while taken < 3 {
        tries += 1;
        assert!(tries < 10, "{taken} taken in {tries} tries");
        assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
        // Whether it is noticed here or later, nothing is taken for an answer that is none.
        if !talk.ask("RCPT TO:<kim@example.org>").starts_with("250") || !talk.ask("DATA").starts_with("354") {
            assert!(talk.ask("RSET").starts_with("250"));
            continue;
        }
        talk.send(format!("{LETTER}.\r\n"));
        assert!(talk.reply().starts_with("250"));
        taken += 1;
        assert_eq!(*ended.lock().expect("a lock"), taken, "what was answered was sent");
    }
}

#[test]
fn an_outage_puts_mail_off() {
    let bed = Bed::new();
    let (mut a, _b, gatepost) = before_dovecots(&bed, "");
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<kim@example.org>").starts_with("250"));
    a.server.kill().expect("an end");
    // Nobody has anything of it yet: all of it is put off.
    assert!(talk.ask("RCPT TO:<lee@example.org>").starts_with("250"));
    let answer = talk.ask("DATA");
    assert!(answer.starts_with("451 4.4.2"), "{answer}");
    drop(gatepost);
}

#[test]
fn a_directory_that_can_not_answer_puts_mail_off() {
    let bed = Bed::new();
    let ldap = format!(
        "[directory.corp]\ntype = \"ldap\"\nurls = [\"ldap://127.0.0.1:{NOWHERE}\"]\ntls = \"none\"\n\
         base = \"dc=example,dc=org\"\nfilter = \"(mail=%u)\"\nfields = {{ backend = \"mailHost\" }}\n"
    );
    let text = configuration(&bed, "", "tls = \"none\"", 1, 1);
    let (before, after) = text.split_once("[directory.people]").expect("a directory");
    let before = before.replace("directories = [\"people\"]", "directories = [\"corp\"]");
    let _gatepost = bed.gatepost(&format!("{before}{ldap}[directory.people]{after}"));
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    let answer = talk.ask("RCPT TO:<lee@example.org>");
    assert!(answer.starts_with("451 4.3.0"), "{answer}");
}

#[test]
fn a_message_under_way_outlives_a_stop_and_a_reload() {
    let bed = Bed::new();
    let (a, _b, mut gatepost) = before_dovecots(&bed, "");
    let mut idle = greeted(bed.imap, "EHLO mx.example.net");
    let mut talk = at_content(bed.imap, "EHLO mx.example.net", &[KIM.user]);
    talk.send("Subject: slow\r\n\r\nfirst half\r\n");
    let configuration = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a configuration");
    gatepost.reload(&configuration).expect("a reload");
    gatepost.signal(rustix::process::Signal::TERM).expect("a signal");
    assert_eq!(idle.line(), "421 4.3.2 The server ends this session.");
    talk.send("second half\r\n.\r\n");
    assert!(talk.reply().starts_with("250"));
    assert_eq!(talk.line(), "421 4.3.2 The server ends this session.");
    gatepost.wait(Duration::from_secs(10)).expect("an end");
    let message = a.wait_for_delivered(KIM.user, 1).expect("kim's mail").remove(0);
    assert!(message.contains("first half") && message.contains("second half"), "{message}");
}
