//! Handing mail over: what is said to a server that takes it, and what its answers come to.

use gatepost_wire::smtp::{Dialect, Fault, Grant, Handover, Mailbox, Parameter, Recipient, Reply, Sender};

/// Mail from this address to that one.
fn named(from: &str, to: &str) -> (Sender, Recipient) {
    let sender = Sender { mailbox: Some(Mailbox::of(from)), parameters: Vec::new() };
    (sender, Recipient { mailbox: Mailbox::of(to), parameters: Vec::new() })
}

/// A machine with what it has said since that was last looked at.
struct Talk {
    handover: Handover,
    out: Vec<u8>,
}

impl Talk {
    fn with(dialect: Dialect, extensions: &str) -> Self {
        Self { handover: Handover::new(dialect, extensions.into(), b""), out: Vec::new() }
    }

    fn said(&mut self) -> String {
        String::from_utf8(std::mem::take(&mut self.out)).expect("text")
    }

    fn add(&mut self, (sender, recipient): &(Sender, Recipient)) -> Result<(), Fault> {
        self.handover.add(sender, recipient, &mut self.out)
    }

    fn answer(&mut self, heard: &str) -> Result<Option<Reply>, Fault> {
        self.handover.hear(heard.as_bytes());
        self.handover.answer(&mut self.out)
    }

    fn grant(&mut self, heard: &str) -> Result<Option<Grant>, Fault> {
        self.handover.hear(heard.as_bytes());
        self.handover.grant()
    }

    fn outcome(&mut self, heard: &str) -> Result<Option<Reply>, Fault> {
        self.handover.hear(heard.as_bytes());
        self.handover.outcome()
    }

    /// One who has taken a sender and a recipient.
    fn open(dialect: Dialect, extensions: &str) -> Self {
        let mut talk = Self::with(dialect, &format!("PIPELINING {extensions}"));
        talk.add(&ann_to_kim()).expect("commands");
        talk.answer("250 Ok.\r\n250 Ok.\r\n").expect("an answer");
        talk.said();
        talk
    }

    fn open_chunk(&mut self, size: u64) -> String {
        self.handover.open_chunk(size, &mut self.out).expect("a chunk");
        self.said()
    }

    fn end(&mut self) -> Result<String, Fault> {
        self.handover.end(&mut self.out)?;
        Ok(self.said())
    }
}

fn ann_to_kim() -> (Sender, Recipient) {
    named("ann@example.net", "kim@example.org")
}

fn code(answer: Result<Option<Reply>, Fault>) -> u16 {
    answer.expect("no fault").expect("an answer").code
}

fn is_lost<T>(result: &Result<T, Fault>, how: &str) -> bool {
    matches!(result, Err(Fault::Lost(text)) if text.contains(how))
}

#[test]
fn a_recipient_is_named_behind_a_sender_who_is_known() {
    for (extensions, words) in [
        ("", &["MAIL FROM:<ann@example.net>\r\n", "RCPT TO:<kim@example.org>\r\n"][..]),
        ("PIPELINING", &["MAIL FROM:<ann@example.net>\r\nRCPT TO:<kim@example.org>\r\n", ""]),
    ] {
        let mut talk = Talk::with(Dialect::Smtp, extensions);
        talk.add(&ann_to_kim()).expect("commands");
        assert_eq!(talk.said(), words[0]);
        assert_eq!(talk.answer("250 Ok.\r\n"), Ok(None));
        assert_eq!(talk.said(), words[1]);
        assert_eq!(code(talk.answer("250 2.1.5 Known.\r\n")), 250);
        // The sender is known now.
        talk.add(&named("ann@example.net", "lee@example.org")).expect("a command");
        assert_eq!(talk.said(), "RCPT TO:<lee@example.org>\r\n");
        assert_eq!(code(talk.answer("550 No.\r\n")), 550);
    }
}

#[test]
fn a_sender_who_is_refused_is_the_answer_whatever_is_said_of_the_recipient() {
    for (extensions, behind) in [("", ""), ("PIPELINING", "503 First MAIL.\r\n"), ("PIPELINING", "354 What?\r\n")] {
        let mut talk = Talk::with(Dialect::Smtp, extensions);
        talk.add(&ann_to_kim()).expect("commands");
        talk.said();
        assert_eq!(code(talk.answer(&format!("550 5.7.1 Not from you.\r\n{behind}"))), 550);
        assert_eq!(talk.said(), "");
        // Nothing is left of it.
        talk.add(&ann_to_kim()).expect("commands");
        assert!(talk.said().starts_with("MAIL FROM:"));
    }
}

#[test]
fn what_was_given_up_is_reset_before_the_next() {
    let mut talk = Talk::open(Dialect::Smtp, "");
    assert!(!talk.handover.give_up(), "nothing of the content is there");
    let (sender, _) = ann_to_kim();
    talk.handover.begin(&sender, &mut talk.out).expect("commands");
    assert_eq!(talk.said(), "RSET\r\n");
    assert_eq!(talk.answer("250 Ok.\r\n"), Ok(None));
    assert_eq!(talk.said(), "MAIL FROM:<ann@example.net>\r\n");
    assert_eq!(code(talk.answer("250 Ok.\r\n")), 250);
    assert!(!talk.handover.give_up());
    talk.handover.begin(&sender, &mut talk.out).expect("commands");
    assert!(is_lost(&talk.answer("500 What?\r\n"), "it answers RSET with 500"));
    assert!(talk.handover.is_over());
}

#[test]
fn a_quarrel_with_us_is_no_answer_for_the_client() {
    for (heard, is_over) in [
        ("500 What?\r\n", false),
        ("530 5.7.0 Log in.\r\n", false),
        ("354 Go.\r\n", true),
        ("421 Bye.\r\n", true),
        ("hello\r\n", true),
    ] {
        let mut talk = Talk::open(Dialect::Smtp, "");
        talk.add(&ann_to_kim()).expect("a command");
        assert!(talk.answer(heard).is_err(), "{heard}");
        assert_eq!(talk.handover.is_over(), is_over, "{heard}");
    }
    let mut talk = Talk::with(Dialect::Smtp, "");
    let mut needs = ann_to_kim();
    needs.0.parameters.push(Parameter { name: "BODY".into(), value: Some("8BITMIME".into()) });
    let unfit = talk.add(&needs).expect_err("it can't be said");
    assert!(unfit.to_string().contains("8BITMIME"), "{unfit}");
    assert_eq!(talk.said(), "");
    talk.handover.hear(b"250 Nobody asked.\r\n");
    assert!(is_lost(&talk.add(&ann_to_kim()), "out of turn"));
}

#[test]
fn content_behind_data_has_one_end_and_is_never_whole_by_accident() {
    let mut talk = Talk::open(Dialect::Smtp, "");
    talk.handover.ask_for_content(&mut talk.out).expect("a command");
    assert_eq!((talk.said().as_str(), talk.handover.takes_content()), ("DATA\r\n", false));
    assert_eq!(talk.grant(""), Ok(None));
    assert_eq!(talk.grant("354 Go on.\r\n"), Ok(Some(Grant::Yes)));
    assert!(talk.handover.takes_content());
    assert_eq!(talk.end().as_deref(), Ok(".\r\n"));
    assert_eq!(code(talk.outcome("250 2.0.0 Kept.\r\n")), 250);
    talk.handover.conclude();
    talk.add(&ann_to_kim()).expect("the next message");
    assert!(talk.said().starts_with("MAIL FROM:<ann@example.net>"));
    let mut talk = Talk::with(Dialect::Smtp, "");
    assert!(talk.end().is_err() && talk.handover.ask_for_content(&mut talk.out).is_err(), "there is no message");
    for (heard, is_over) in [("452 Full.\r\n", false), ("250 Yes?\r\n", true)] {
        let mut talk = Talk::open(Dialect::Smtp, "");
        talk.handover.ask_for_content(&mut talk.out).expect("a command");
        assert_eq!((talk.grant(heard).is_err(), talk.handover.is_over()), (is_over, is_over), "{heard}");
    }
    let mut talk = Talk::open(Dialect::Smtp, "");
    talk.handover.ask_for_content(&mut talk.out).expect("a command");
    talk.grant("354 Go on.\r\n").expect("a yes");
    assert!(is_lost(&talk.add(&ann_to_kim()), "lost") && talk.handover.is_over(), "nothing can be said within it");
    // Whatever is asked, begun or ended can only be taken back by hanging up.
    for steps in 1..=3 {
        let mut talk = Talk::open(Dialect::Smtp, "");
        talk.handover.ask_for_content(&mut talk.out).expect("a command");
        if steps > 1 {
            talk.grant("354 Go on.\r\n").expect("a yes");
        }
        if steps > 2 {
            talk.end().expect("an end");
        }
        assert!(talk.handover.give_up() && talk.handover.is_over(), "after {steps} steps");
    }
}

#[test]
fn chunks_are_announced_and_the_last_is_empty() {
    let mut talk = Talk::open(Dialect::Smtp, "CHUNKING");
    assert_eq!(talk.open_chunk(5), "BDAT 5\r\n");
    assert_eq!(talk.grant("250 Five.\r\n"), Ok(Some(Grant::Yes)));
    assert_eq!((talk.open_chunk(0).as_str(), talk.grant("")), ("", Ok(Some(Grant::Yes))));
    assert_eq!(talk.end().as_deref(), Ok("BDAT 0 LAST\r\n"));
    assert_eq!(code(talk.outcome("554 No.\r\n")), 554);
    let mut talk = Talk::open(Dialect::Smtp, "CHUNKING");
    talk.open_chunk(5);
    assert!(matches!(talk.grant("552 Too large.\r\n"), Ok(Some(Grant::No(reply))) if reply.code == 552));
    assert!(!talk.handover.takes_content() && !talk.handover.give_up());
    let mut talk = Talk::open(Dialect::Smtp, "CHUNKING");
    talk.open_chunk(5);
    talk.grant("250 Five.\r\n").expect("a yes");
    assert!(!talk.handover.give_up(), "whole chunks can be reset");
    let mut talk = Talk::open(Dialect::Smtp, "CHUNKING");
    talk.open_chunk(5);
    assert!(is_lost(&talk.end(), "lost"), "a chunk that is not whole can't be the last");
    let mut talk = Talk::open(Dialect::Smtp, "");
    assert!(matches!(talk.handover.open_chunk(5, &mut talk.out), Err(Fault::Unfit(_))));
}

#[test]
fn lmtp_has_an_outcome_for_each_and_the_end_of_a_conversation_is_none() {
    let mut talk = Talk::open(Dialect::Lmtp, "");
    assert!(talk.handover.answers_each() && !Talk::open(Dialect::Smtp, "").handover.answers_each());
    talk.handover.ask_for_content(&mut talk.out).expect("a command");
    talk.grant("354 Go on.\r\n").expect("a yes");
    talk.said();
    talk.end().expect("an end");
    assert_eq!(code(talk.outcome("250 First.\r\n452 Second.\r\n")), 250);
    assert_eq!(code(talk.outcome("")), 452);
    assert_eq!(talk.outcome(""), Ok(None));
    assert!(is_lost(&talk.outcome("421 Bye.\r\n"), "it ends the conversation"));
    talk.handover.hear(b"550 Because.\r\n");
    assert!(matches!(talk.handover.last_word(), Ok(Some(reply)) if reply.code == 550));
    assert!(is_lost(&Talk::open(Dialect::Lmtp, "").outcome("354 What?\r\n"), "out of turn"));
}

#[test]
fn goodbye_is_said_where_it_can_be_heard() {
    let mut talk = Talk::open(Dialect::Smtp, "");
    talk.handover.leave(&mut talk.out);
    assert_eq!((talk.said().as_str(), talk.handover.is_over()), ("QUIT\r\n", true));
    let mut talk = Talk::open(Dialect::Smtp, "");
    talk.handover.ask_for_content(&mut talk.out).expect("a command");
    talk.said();
    talk.handover.leave(&mut talk.out);
    assert_eq!(talk.said(), "", "it would be content");
    assert!(talk.handover.is_quiet());
}
