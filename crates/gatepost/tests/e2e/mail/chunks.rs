//! Messages in chunks (BDAT, RFC 3030).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gatepost_lab::wait_to_find;

use super::{KIM, LEE, configuration, greeted, postfix, postfix_with};
use crate::bed::{Bed, back_end};
use crate::talk::Talk;

/// A client in clear that has said hello, once a promise is as it must be.
pub(crate) fn promised(port: u16, hello: &str, extension: &str) -> Talk {
    let mut told = Vec::new();
    let promised = wait_to_find(|| {
        let mut talk = Talk::clear(port);
        talk.reply();
        talk.send(format!("{hello}\r\n"));
        told.clear();
        while !told.last().is_some_and(|line: &String| line.starts_with("250 ")) {
            told.push(talk.line());
        }
        told.iter().any(|line| line[4..] == *extension).then_some(talk)
    });
    promised.unwrap_or_else(|error| panic!("no {extension}: {error}: {told:?}"))
}

/// Names a sender and these recipients.
fn address(talk: &mut Talk, parameters: &str, recipients: &[&str]) {
    let answer = talk.ask(&format!("MAIL FROM:<a@example.net>{parameters}"));
    assert!(answer.starts_with("250"), "{answer}");
    for recipient in recipients {
        let answer = talk.ask(&format!("RCPT TO:<{recipient}>"));
        assert!(answer.starts_with("250"), "{recipient}: {answer}");
    }
}

fn chunk(talk: &mut Talk, content: &str, last: &str) -> String {
    talk.send(format!("BDAT {}{last}\r\n{content}", content.len()));
    talk.reply()
}

#[test]
fn messages_in_chunks_arrive_whole() {
    let bed = Bed::new();
    let (a, b) = (postfix(&bed, "a", KIM), postfix(&bed, "b", LEE));
    let gatepost = bed.gatepost(&configuration(&bed, "", "ca = \"ca.pem\"", a.port, b.port));
    let mut talk = promised(bed.imap, "EHLO mx.example.net", "CHUNKING");
    // All at once, with an end that is none within, and a command that is none at the edge of a chunk.
    let (head, body) = ("Subject: in chunks\r\n\r\na\r\n.\r\nQUIT\r\n", "MAIL FROM:<b@example.net>\r\n.\r\nend\r\n");
    let (kim, lee) = (KIM.user, LEE.user);
    let (first, second) = (head.len(), body.len());
    talk.send(format!(
        "MAIL FROM:<a@example.net> SIZE=100\r\nRCPT TO:<{kim}>\r\nRCPT TO:<{lee}>\r\nRCPT TO:<nobody@example.org>\r\n\
         BDAT {first}\r\n{head}BDAT 0\r\nBDAT {second} LAST\r\n{body}NOOP\r\n"
    ));
    let replies: Vec<_> = (0..8).map(|_| talk.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["250", "250", "250", "550", "250", "250", "250", "250"]);
    // One large chunk, ended by an empty one; lines of any length, with dots in front.
    let block: String = (0..1000).map(|n| format!(".{n:0>77}\r\n")).collect();
    address(&mut talk, "", &[LEE.user, KIM.user]);
    assert!(chunk(&mut talk, &format!("Subject: large\r\n\r\n{}", block.repeat(100)), "").starts_with("250 2.0.0 8"));
    assert!(chunk(&mut talk, "", " LAST").starts_with("250"));
    for (store, user) in [(&a, KIM.user), (&b, LEE.user)] {
        let messages = store.wait_for_messages(user, 2).expect("messages");
        let has = |end: &str| messages.iter().filter(|message| message.replace("\r\n", "\n").ends_with(end)).count();
        assert_eq!(has("\n\na\n.\nQUIT\nMAIL FROM:<b@example.net>\n.\nend\n"), 1, "{user}");
        assert_eq!(has(&block.repeat(100).replace("\r\n", "\n")), 1, "{user}");
    }
    let record = gatepost.wait_for_log(&format!("size={}", first + second)).expect("a record");
    assert!(record.contains("mail was handed over"), "{record}");
}

#[test]
fn chunks_are_offered_where_all_back_ends_take_them() {
    let bed = Bed::new();
    let a = postfix(&bed, "a", KIM);
    let b = postfix_with(&bed, "b", LEE, "smtpd_discard_ehlo_keywords = chunking");
    let _gatepost = bed.gatepost(&configuration(&bed, "", "ca = \"ca.pem\"", a.port, b.port));
    drop(promised(bed.imap, "EHLO mx.example.net", "8BITMIME"));
    let mut talk = Talk::clear(bed.imap);
    talk.send(
        "EHLO mx.example.net\r\nMAIL FROM:<a@example.net>\r\nRCPT TO:<kim@example.org>\r\nBDAT 6 LAST\r\nQUIT\r\n",
    );
    let told = talk.rest();
    assert!(!told.contains("CHUNKING\r\n") && told.ends_with("421 4.7.0 CHUNKING is not offered.\r\n"), "{told}");
    assert_eq!(a.messages(KIM.user).len(), 0);
}

#[test]
fn each_recipient_in_lmtp_has_an_answer_to_the_last_chunk() {
    let bed = Bed::new();
    let (a, mut b) = (bed.dovecot("a", &[KIM]), bed.dovecot("b", &[LEE]));
    let backend = "tls = \"none\"\nprotocol = \"lmtp\"";
    let gatepost = bed.gatepost(&configuration(&bed, "", backend, a.lmtp, b.lmtp));
    let mut talk = promised(bed.imaps, "LHLO inside.example.org", "CHUNKING");
    let all = [KIM.user, LEE.user, KIM.user];
    address(&mut talk, "", &all);
    assert!(chunk(&mut talk, "Subject: first\r\n\r\n", "").starts_with("250"));
    talk.send("BDAT 6 LAST\r\ntext\r\n");
    assert!(all.iter().all(|_| talk.reply().starts_with("250 2.0.0")));
    // A message that is given up between its chunks costs no connection.
    address(&mut talk, "", &all);
    assert!(chunk(&mut talk, "Subject: never\r\n\r\n", "").starts_with("250"));
    assert!(talk.ask("RSET").starts_with("250"));
    address(&mut talk, "", &all);
    assert!(chunk(&mut talk, "Subject: second\r\n\r\n", "").starts_with("250"));
    b.server.kill().expect("an end");
    assert!(chunk(&mut talk, "text\r\n", "").starts_with("250"), "one still takes it");
    talk.send("BDAT 6 LAST\r\ntext\r\n");
    let replies: Vec<_> = all.iter().map(|_| talk.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["250", "451", "250"]);
    gatepost.wait_for_log("mail could not be handed over").expect("the reason");
    // Dovecot puts it once into a mailbox that is named twice.
    let messages = a.wait_for_delivered(KIM.user, 2).expect("kim's mail");
    assert!(messages.len() == 2 && messages.iter().all(|message| !message.contains("never")), "{messages:?}");
}

/// What a server of the test heard: commands, with the content of chunks behind theirs.
#[derive(Default, Clone)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Heard {
    fn add(&self, line: String) {
        self.0.lock().expect("a lock").push(line);
    }

    /// Those since this was last asked that have to do with content.
    fn take(&self) -> Vec<String> {
        let all = std::mem::take(&mut *self.0.lock().expect("a lock"));
        all.into_iter().filter(|line| ["BDAT", "RSET", "new"].iter().any(|word| line.starts_with(word))).collect()
    }
}

/// Takes chunks, but those in which its word stands.
fn taker(heard: &Heard, refused: &'static str) -> u16 {
    let heard = heard.clone();
    back_end(move |stream| {
        let mut input = BufReader::new(stream.try_clone().expect("a socket"));
        serve(&stream, &mut input, &heard, refused);
    })
}

fn serve(mut stream: &TcpStream, input: &mut BufReader<TcpStream>, heard: &Heard, refused: &str) {
    heard.add("new".into());
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    say("220 taker ESMTP");
    let mut line = String::new();
    while input.read_line(&mut line).is_ok_and(|count| count > 0) {
        let command = line.trim_end().to_owned();
        line.clear();
        let words: Vec<_> = command.split(' ').collect();
        let answer = match words[0] {
            "EHLO" | "LHLO" => "250-taker\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING",
            "BDAT" => {
                let mut content = vec![0; words[1].parse().expect("a size")];
                if input.read_exact(&mut content).is_err() {
                    return;
                }
                let content = String::from_utf8_lossy(&content).into_owned();
                heard.add(format!("{command} {content}"));
                if content.contains(refused) { "552 5.3.4 Too much" } else { "250 2.0.0 Ok" }
            }
            "QUIT" => "221 Bye",
            _ => {
                heard.add(command);
                "250 Ok"
            }
        };
        say(answer);
    }
}

/// A client that has named kim and lee, at two takers: the second refuses what has `no` in it, both what has `bad`.
fn before_takers(bed: &Bed, port: u16, hello: &str) -> (Heard, Heard, gatepost_lab::Gatepost, Talk) {
    let (a, b) = (Heard::default(), Heard::default());
    let (first, second) = (taker(&a, "bad"), taker(&b, "no"));
    let settings = "tls = \"none\"\ncheck_interval = \"1s\"";
    let gatepost = bed.gatepost(&configuration(bed, "", settings, first, second));
    let talk = promised(port, hello, "BINARYMIME");
    (a, b, gatepost, talk)
}

const BOTH: [&str; 2] = [KIM.user, LEE.user];

#[test]
fn nobody_has_a_message_of_which_one_refuses_a_chunk() {
    let bed = Bed::new();
    let (a, b, _gatepost, mut talk) = before_takers(&bed, bed.imap, "EHLO mx.example.net");
    // Lines of any kind are the message's own; its end is only said when everybody has all of it.
    address(&mut talk, " BODY=BINARYMIME", &BOTH);
    a.take();
    b.take();
    assert!(chunk(&mut talk, "\n.\n\r.\r", "").starts_with("250"));
    assert!(chunk(&mut talk, "\0", " LAST").starts_with("250"));
    let whole = ["BDAT 6 \n.\n\r.\r", "BDAT 1 \0", "BDAT 0 LAST "].map(str::to_owned).to_vec();
    assert_eq!((a.take(), b.take()), (whole.clone(), whole));
    // One takes all of it, the other does not, and what was sent before that was heard is read past.
    address(&mut talk, "", &BOTH);
    talk.send("BDAT 2\r\nab");
    assert!(talk.reply().starts_with("250"));
    talk.send("BDAT 2\r\nnoBDAT 2\r\ncdBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    let replies: Vec<_> = (0..4).map(|_| talk.reply()).collect();
    assert!(replies[0].starts_with("451") && replies[3] == "250 2.0.0 Ok.", "{replies:?}");
    assert!(replies[1..3].iter().all(|reply| reply == "503 5.5.1 MAIL comes first."), "{replies:?}");
    assert_eq!(
        (a.take(), b.take()),
        (vec!["BDAT 2 ab".into(), "BDAT 2 no".into()], vec!["BDAT 2 ab".into(), "BDAT 2 no".into()])
    );
    // The last of them is refused no differently, and nobody is told that it was the last.
    address(&mut talk, "", &[KIM.user]);
    assert_eq!(
        talk.ask(&format!("RCPT TO:<{}>", LEE.user)),
        "452 4.5.3 Not together with the others: some have this sender's mail, some have not."
    );
    assert!(talk.ask("RSET").starts_with("250"));
    address(&mut talk, "", &[LEE.user]);
    assert_eq!(chunk(&mut talk, "no", " LAST"), "552 5.3.4 Too much");
    assert!(!a.take().iter().chain(&b.take()).any(|line| line.contains("LAST")));
    // The connections are good for more; what was begun is forgotten there.
    address(&mut talk, "", &[LEE.user]);
    assert!(chunk(&mut talk, "x", " LAST").starts_with("250"));
    assert_eq!(b.take(), ["RSET", "BDAT 1 x", "BDAT 0 LAST "]);
}

#[test]
fn whoever_leaves_within_a_chunk_leaves_nothing_behind() {
    let bed = Bed::new();
    let (a, b, gatepost, mut talk) = before_takers(&bed, bed.imap, "EHLO mx.example.net");
    address(&mut talk, "", &BOTH);
    talk.send("BDAT 10 LAST\r\nabc");
    drop(talk);
    gatepost.wait_for_log("closed by the client within a message").expect("a record");
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    address(&mut talk, "", &BOTH);
    talk.send("BDAT x LAST\r\nMAIL FROM:<a@example.net>\r\n");
    assert_eq!(talk.rest(), "421 4.7.0 BDAT takes a size, and LAST or nothing.\r\n");
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    address(&mut talk, "", &BOTH);
    talk.send("BDAT 4294967302\r\nA: b\r\nMAIL FROM:<c@example.net>\r\n");
    assert_eq!(talk.rest(), "421 4.7.0 The chunk is too large.\r\n");
    for heard in [&a, &b] {
        let lines = heard.take();
        assert!(!lines.iter().any(|line| line.contains("LAST") || line.contains("4294967302")), "{lines:?}");
    }
}

#[test]
fn a_last_chunk_in_lmtp_that_nobody_takes_has_an_answer_for_each_recipient() {
    let bed = Bed::new();
    let (_a, _b, _gatepost, mut talk) = before_takers(&bed, bed.imaps, "LHLO inside.example.org");
    address(&mut talk, "", &BOTH);
    talk.send("BDAT 6 LAST\r\nbad no");
    assert_eq!([talk.reply(), talk.reply()], ["552 5.3.4 Too much"; 2]);
    assert!(talk.ask("NOOP").starts_with("250"), "in step");
    // Of those behind a chunk that failed, the last has as many.
    address(&mut talk, "", &BOTH);
    talk.send("BDAT 6\r\nbad noBDAT 2 LAST\r\nxyNOOP\r\n");
    let replies: Vec<_> = (0..4).map(|_| talk.reply()[..3].to_owned()).collect();
    assert_eq!(replies, ["552", "503", "503", "250"]);
}

#[test]
fn a_message_in_chunks_outlives_a_stop() {
    let bed = Bed::new();
    let (a, _b, mut gatepost, mut talk) = before_takers(&bed, bed.imap, "EHLO mx.example.net");
    address(&mut talk, "", &[KIM.user]);
    a.take();
    assert!(chunk(&mut talk, "first", "").starts_with("250"));
    gatepost.signal(rustix::process::Signal::TERM).expect("a signal");
    gatepost.wait_for_log("Gatepost is stopping").expect("a record");
    std::thread::sleep(Duration::from_millis(200));
    let answer = chunk(&mut talk, "second", " LAST");
    assert!(answer.starts_with("250"), "{answer}: {}", gatepost.log());
    assert_eq!(a.take(), ["BDAT 5 first", "BDAT 6 second", "BDAT 0 LAST "]);
    assert!(talk.rest().starts_with("421 4.3.2"));
    assert!(gatepost.wait(Duration::from_secs(20)).expect("an end").success());
}
