//! The bounds within which mail is taken, to the byte and the command.

use gatepost_wire::limits::{CHUNK_BYTES_MAX, PATH_BYTES_MAX, SKIPPED_BYTES_MAX};
use gatepost_wire::smtp::{Dialect, Event, Receiver, Reply, Step};
use gatepost_wire::{Carry, ClientSetup, ClientTls, Offers, PROTOCOLS};

struct Talk {
    receiver: Receiver,
    out: Vec<u8>,
}

impl Talk {
    fn new(name: &str, dialect: Dialect) -> Self {
        let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == name).expect("a protocol");
        let setup = ClientSetup {
            name: "mail.example.org".into(),
            greeting: "Ready.".into(),
            tls: ClientTls::Never,
            offers: Offers::of(protocol, "SIZE=1000 CHUNKING BINARYMIME 8BITMIME"),
            max_errors: None,
            carry: Carry::default(),
            trace: false,
        };
        let mut talk = Self { receiver: Receiver::new(protocol, dialect, false, setup), out: Vec::new() };
        talk.does(Event::Start);
        talk.says(if dialect == Dialect::Lmtp { "LHLO client.example" } else { "EHLO client.example" });
        talk
    }

    fn does(&mut self, event: Event<'_>) -> Step {
        self.out.clear();
        self.receiver.step(event, &mut self.out)
    }

    fn says(&mut self, line: &str) -> Step {
        self.does(Event::Input(format!("{line}\r\n").as_bytes()))
    }

    /// What was said to the last of it.
    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    fn answers(&mut self, code: u16) -> Step {
        self.does(Event::Reply(Reply::ours(code, "2.0.0 So be it.")))
    }

    /// Up to the content, for so many recipients.
    fn addressed(&mut self, recipients: usize) {
        assert!(matches!(self.says("MAIL FROM:<a@b.example>"), Step::Sender(_)));
        self.answers(250);
        for n in 0..recipients {
            assert!(matches!(self.says(&format!("RCPT TO:<kim{n}@b.example>")), Step::Recipient(_)));
            self.answers(250);
        }
    }

    fn is_over(&mut self, line: &str) -> bool {
        matches!(self.says(line), Step::Close(_))
    }
}

#[test]
fn a_hundred_commands_may_lead_to_nothing() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    // The greeting of the client is one of them.
    assert!((0..99).all(|_| !talk.is_over("NOOP")));
    assert!(talk.is_over("NOOP"));
    assert_eq!(talk.heard(), "421 4.7.0 Too many commands without mail.\r\n");
}

#[test]
fn recipients_count_for_nothing_once_one_is_accepted_and_chunks_with_bytes_begin_anew() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    talk.addressed(1);
    for n in 0..200 {
        assert!(matches!(talk.says(&format!("RCPT TO:<put-off{n}@b.example>")), Step::Recipient(_)));
        talk.answers(450);
    }
    assert!((0..100).all(|_| !talk.is_over("NOOP")), "those were counted");
    assert!(matches!(talk.says("BDAT 1"), Step::Close(_)), "and one is too many");
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    talk.addressed(1);
    for (chunk, is_over) in [("BDAT 1", false), ("BDAT 0", true)] {
        assert!((0..78).all(|_| !talk.is_over("NOOP")));
        let Step::Chunk(chunk) = talk.says(chunk) else { panic!("{}", talk.heard()) };
        talk.receiver.take_content(chunk.size);
        talk.answers(250);
        assert_eq!((0..21).any(|_| talk.is_over("NOOP")), is_over, "{chunk:?}");
    }
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    talk.addressed(0);
    // None was accepted: each of these counts.
    let refused = |talk: &mut Talk| {
        let step = talk.says("RCPT TO:<put-off@b.example>");
        matches!(step, Step::Recipient(_)) && matches!(talk.answers(450), Step::Read)
    };
    assert!((0..98).all(|_| refused(&mut talk)) && !refused(&mut talk));
}

#[test]
fn sizes_are_taken_up_to_their_bounds() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    assert!(matches!(talk.says("MAIL FROM:<a@b.example> SIZE=1000 BODY=BINARYMIME"), Step::Sender(_)));
    talk.answers(450);
    assert!(matches!(talk.says("MAIL FROM:<a@b.example> BODY=NONSENSE"), Step::Read));
    assert!(talk.heard().starts_with("555 5.5.4"), "{}", talk.heard());
    let longest = format!("{}@b.example", "a".repeat(PATH_BYTES_MAX - "@b.example".len()));
    assert!(matches!(talk.says(&format!("MAIL FROM:<{longest}>")), Step::Sender(_)));
    talk.answers(450);
    assert!(matches!(talk.says(&format!("MAIL FROM:<a{longest}>")), Step::Read));
    assert_eq!(talk.heard(), "501 5.1.3 The address is too long.\r\n");
    talk.addressed(1);
    assert!(
        matches!(talk.says(&format!("BDAT {CHUNK_BYTES_MAX}")), Step::Chunk(chunk) if chunk.size == CHUNK_BYTES_MAX)
    );
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    assert!(!talk.is_over(&format!("BDAT {SKIPPED_BYTES_MAX}")), "it is read past");
    assert!(talk.heard().is_empty());
}

#[test]
fn what_is_said_while_the_outside_is_asked_waits_for_its_answer() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    assert!(matches!(talk.says("MAIL FROM:<a@b.example>"), Step::Sender(_)));
    assert!(matches!(talk.says("RCPT TO:<kim@b.example>"), Step::Read));
    assert!(talk.heard().is_empty(), "{}", talk.heard());
    assert!(matches!(talk.answers(250), Step::Recipient(_)));
    assert_eq!(talk.heard(), "250 2.0.0 So be it.\r\n");
    talk.answers(250);
    assert!(matches!(talk.says("DATA"), Step::Content));
    talk.answers(354);
    assert!(matches!(talk.says("NOOP"), Step::Read));
    assert!(talk.heard().is_empty(), "that was content: {}", talk.heard());
}

#[test]
fn a_message_in_chunks_takes_neither_recipients_nor_data() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    talk.addressed(1);
    assert!(matches!(talk.says("BDAT 2"), Step::Chunk(_)));
    talk.receiver.take_content(2);
    talk.answers(250);
    for (line, words) in [
        ("MAIL FROM:<a@b.example>", "503 5.5.1 A sender is named already.\r\n"),
        ("RCPT TO:<kim@b.example>", "503 5.5.1 The message has begun.\r\n"),
        ("DATA", "503 5.5.1 This message is sent by BDAT.\r\n"),
    ] {
        assert!(matches!(talk.says(line), Step::Read));
        assert_eq!(talk.heard(), words);
    }
    assert!(matches!(talk.says("BDAT 0 LAST"), Step::Chunk(chunk) if chunk.is_last));
    talk.answers(250);
    let recipient = "RCPT TO:<kim@b.example>";
    assert!((0..110).any(|_| talk.is_over(recipient)), "such recipients lead to nothing");
}

#[test]
fn help_is_had() {
    let mut talk = Talk::new("smtp", Dialect::Smtp);
    assert!(matches!(talk.says("HELP"), Step::Read));
    assert_eq!(talk.heard(), "214 2.0.0 See RFC 5321.\r\n");
}

#[test]
fn a_chunk_that_nobody_wants_has_one_reply_but_for_those_whom_a_failure_left() {
    let mut talk = Talk::new("lmtp", Dialect::Lmtp);
    talk.addressed(2);
    assert!(matches!(talk.says("DATA"), Step::Content));
    talk.answers(354);
    talk.does(Event::Outcome(vec![Reply::ours(250, "2.0.0 Ok."), Reply::ours(250, "2.0.0 Ok.")]));
    talk.says("BDAT 2 LAST\r\nxy\r\n");
    assert_eq!(talk.heard().matches("503 ").count(), 1, "nobody was left: {}", talk.heard());
    talk.addressed(2);
    assert!(matches!(talk.says("BDAT 2"), Step::Chunk(_)));
    talk.receiver.take_content(2);
    talk.answers(452);
    talk.says("BDAT 0");
    assert_eq!(talk.heard().matches("503 ").count(), 1, "a chunk has one: {}", talk.heard());
    talk.says("BDAT 0 LAST");
    assert_eq!(talk.heard().matches("503 ").count(), 2, "the last has one for each: {}", talk.heard());
    talk.addressed(2);
    assert!(matches!(talk.says("DATA"), Step::Content));
    talk.answers(452);
    talk.says("BDAT 0 LAST");
    assert_eq!(talk.heard().matches("503 ").count(), 1, "behind DATA there are no chunks: {}", talk.heard());
    talk.addressed(2);
    assert!(matches!(talk.says("BDAT 0"), Step::Chunk(_)));
    talk.answers(452);
    assert!(matches!(talk.says("MAIL FROM:<a@b.example>"), Step::Sender(_)));
    talk.answers(450);
    talk.says("BDAT 0 LAST");
    assert_eq!(talk.heard().matches("503 ").count(), 1, "another message was begun: {}", talk.heard());
}
