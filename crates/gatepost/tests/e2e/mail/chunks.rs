//! Messages in chunks (BDAT, RFC 3030).

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{KIM, LEE, configuration, greeted, postfix, postfix_with};
use crate::bed::{Bed, back_end};
use crate::talk::Talk;

/// A client in clear that has said hello, once a promise is as it must be.
pub(crate) fn promised(port: u16, hello: &str, extension: &str) -> Talk {
    let started = Instant::now();
    loop {
        let mut talk = Talk::clear(port);
        talk.reply();
        talk.send(format!("{hello}\r\n"));
        let mut told = Vec::new();
        while !told.last().is_some_and(|line: &String| line.starts_with("250 ")) {
            told.push(talk.line());
        }
        if told.iter().any(|line| line[4..] == *extension) {
            return talk;
        }
        assert!(started.elapsed() < Duration::from_secs(10), "no {extension}: {told:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
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

/// Takes chunks, but those in which `no` stands.
fn taker(heard: &Heard) -> u16 {
    let heard = heard.clone();
    back_end(move |stream| {
        let mut input = BufReader::new(stream.try_clone().expect("a socket"));
        serve(&stream, &mut input, &heard);
    })
}

fn serve(mut stream: &TcpStream, input: &mut BufReader<TcpStream>, heard: &Heard) {
    heard.add("new".into());
    let mut say = |text: &str| stream.write_all(format!("{text}\r\n").as_bytes()).is_ok();
    say("220 taker ESMTP");
    let mut line = String::new();
    while input.read_line(&mut line).is_ok_and(|count| count > 0) {
        let command = line.trim_end().to_owned();
        line.clear();
        let words: Vec<_> = command.split(' ').collect();
        let answer = match words[0] {
            "EHLO" => "250-taker\r\n250-PIPELINING\r\n250-BINARYMIME\r\n250 CHUNKING",
            "BDAT" => {
                let mut content = vec![0; words[1].parse().expect("a size")];
                if input.read_exact(&mut content).is_err() {
                    return;
                }
                let content = String::from_utf8_lossy(&content).into_owned();
                heard.add(format!("{command} {content}"));
                if content.contains("no") { "552 5.3.4 Too much" } else { "250 2.0.0 Ok" }
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

#[test]
fn nobody_has_a_message_of_which_one_refuses_a_chunk() {
    let bed = Bed::new();
    let (a, b) = (Heard::default(), Heard::default());
    let (first, second) = (taker(&a), taker(&b));
    let settings = "tls = \"none\"\ncheck_interval = \"1s\"";
    let _gatepost = bed.gatepost(&configuration(&bed, "", settings, first, second));
    let mut talk = promised(bed.imap, "EHLO mx.example.net", "BINARYMIME");
    let both = [KIM.user, LEE.user];
    // Lines of any kind are the message's own; its end is only said when everybody has all of it.
    address(&mut talk, " BODY=BINARYMIME", &both);
    a.take();
    b.take();
    assert!(chunk(&mut talk, "\n.\n\r.\r", "").starts_with("250"));
    assert!(chunk(&mut talk, "\0", " LAST").starts_with("250"));
    let whole = ["BDAT 6 \n.\n\r.\r", "BDAT 1 \0", "BDAT 0 LAST "];
    assert_eq!((a.take(), b.take()), (whole.map(str::to_owned).to_vec(), whole.map(str::to_owned).to_vec()));
    // Each refuses what holds this, so both do: and what was sent before that was heard is read past.
    address(&mut talk, "", &both);
    talk.send("BDAT 2\r\nab");
    assert!(talk.reply().starts_with("250"));
    talk.send("BDAT 2\r\nnoBDAT 2\r\ncdBDAT 6 LAST\r\nQUIT\r\nNOOP\r\n");
    let replies: Vec<_> = (0..4).map(|_| talk.reply()).collect();
    assert_eq!(
        replies,
        ["552 5.3.4 Too much", "503 5.5.1 MAIL comes first.", "503 5.5.1 MAIL comes first.", "250 2.0.0 Ok."]
    );
    assert_eq!(a.take(), ["BDAT 2 ab", "BDAT 2 no"]);
    // The connections are good for more; what was begun is forgotten there.
    address(&mut talk, "", &both);
    assert!(chunk(&mut talk, "x", " LAST").starts_with("250"));
    assert_eq!(a.take(), ["RSET", "BDAT 1 x", "BDAT 0 LAST "]);
    // Whoever leaves within a chunk, or says no size, leaves nothing behind.
    address(&mut talk, "", &both);
    talk.send("BDAT 10 LAST\r\nabc");
    drop(talk);
    let mut talk = greeted(bed.imap, "EHLO mx.example.net");
    address(&mut talk, "", &both);
    talk.send("BDAT x LAST\r\nMAIL FROM:<a@example.net>\r\n");
    assert_eq!(talk.rest(), "421 4.7.0 BDAT takes a size, and LAST or nothing.\r\n");
    assert!(!a.take().iter().any(|line| line.contains("LAST")));
}
