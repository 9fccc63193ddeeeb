//! What the fuzz targets of all protocols have in common.

use std::num::NonZeroU32;

use gatepost_wire::limits::ANSWER_BYTES_MAX;
use gatepost_wire::smtp::{self, Dialect, Handover, Mailbox, Receiver, Recipient, Reply, Sender};
use gatepost_wire::{
    Answer, Ask, BackEvent, BackLogin, BackSetup, BackStep, Carry, ClientFacts, ClientSetup, ClientTls, Course, Event,
    Introduction, LogInBy, LogInRules, Mechanism, OAuthHints, Offered, Offers, PROTOCOLS, Protocol, Refusal, Secret,
    Step, Welcome,
};

/// The protocol of this name.
fn protocol(name: &str) -> &'static Protocol {
    PROTOCOLS.iter().find(|protocol| protocol.name == name).expect("a protocol of the table")
}

/// A client says anything, in pieces of any size: no panic, no growth, and what is left over is never more than was
/// said.
pub fn front(name: &str, flags: u8, pieces: &[Vec<u8>]) {
    let rules = LogInRules {
        takes_secrets: flags & 2 == 0,
        has_password_command: flags & 32 == 0,
        mechanisms: Mechanism::SASL.into(),
        oauth: OAuthHints::default(),
        id: flags & 4 == 0,
        max_auth_errors: NonZeroU32::new(3),
    };
    let setup = ClientSetup {
        name: "fuzz".into(),
        greeting: "ready".into(),
        tls: if flags & 1 == 0 { ClientTls::Offered } else { ClientTls::Up },
        offers: Offers::of(
            protocol(name),
            &if flags & 16 != 0 { protocol(name).learnt.join(" ") } else { String::new() },
        ),
        max_errors: NonZeroU32::new(u32::from(flags >> 4)),
        carry: Carry::default(),
        trace: flags & 8 == 0,
    };
    let mut front = (protocol(name).course.log_in().expect("a log-in").front)(setup, rules);
    let mut out = Vec::new();
    let mut said = 0;
    front.step(Event::Start, &mut out);
    for piece in pieces {
        said += piece.len();
        out.clear();
        let mut step = front.step(Event::Input(piece), &mut out);
        assert!(out.len() <= ANSWER_BYTES_MAX + 4096);
        while let Step::Ask(_) = step {
            let answer = match step {
                Step::Ask(Ask::Begin(Offered::External(_) | Offered::Scram(..))) if flags & 64 != 0 => {
                    Answer::Challenge(b"r=x,s=eA==,i=4096".to_vec())
                }
                _ if flags & 1 == 0 => Answer::Refused(Refusal::BadCredentials),
                _ => Answer::Welcome(Welcome::default()),
            };
            step = front.step(Event::Answer(answer), &mut out);
        }
        front.take_trace();
        if !matches!(step, Step::Read) {
            break;
        }
    }
    assert!(front.take_rest().len() <= said);
}

/// A back end says anything: no panic, and nothing but the lines `in_clear` before TLS where TLS is required.
pub fn back(name: &str, in_clear: &[&str], flags: u8, pieces: &[Vec<u8>]) {
    let needs_tls = flags & 1 == 1;
    let login = BackLogin {
        user: "us\"er".into(),
        by: {
            let secret = Secret::new(if flags & 4 == 4 { b"p\r\n\"".to_vec() } else { b"hunter2".to_vec() });
            match (flags & 2 == 2, flags & 16 == 16) {
                (true, _) => LogInBy::Master { name: "master".into(), password: secret },
                (false, true) => LogInBy::Token(secret),
                (false, false) => LogInBy::Password(secret),
            }
        },
        mechanism: [Mechanism::PLAIN, Mechanism::LOGIN, Mechanism::OAUTHBEARER, Mechanism::XOAUTH2]
            .get(usize::from(flags >> 5))
            .copied(),
    };
    let setup = BackSetup {
        starttls: needs_tls,
        client: Some(ClientFacts {
            addresses: Some(("192.0.2.1:5".parse().expect("an address"), "[::1]:6".parse().expect("an address"))),
            session: "abc".into(),
            name: Some("mx.example.net".into()),
        }),
        introduction: Introduction {
            id: vec![("name".into(), "fuzz".into())],
            utf8: flags & 4 == 4,
            helo: Some("fuzz=+\u{e4}".into()),
        },
        own_greeting: "us".into(),
        trace: flags & 8 == 8,
    };
    let protocol = protocol(name);
    let mut back = match protocol.course {
        _ if flags == 0b1110_0000 => (protocol.look)(setup),
        Course::LogIn(machines) | Course::Submission(machines) => (machines.back)(setup, login),
        Course::Mail(dialect) => dialect.back(setup),
    };
    let (mut out, mut secured) = (Vec::new(), false);
    for piece in pieces {
        out.clear();
        let mut step = back.step(BackEvent::Input(piece), &mut out);
        if needs_tls && !secured {
            let lines = out.split_inclusive(|&b| b == b'\n');
            assert!(lines.into_iter().all(|line| in_clear.iter().any(|allowed| allowed.as_bytes() == line)));
        }
        // A line of its own for each command, whatever is in names and passwords.
        assert!(out.is_empty() || out.ends_with(b"\r\n"));
        if let BackStep::StartTls = step {
            secured = true;
            step = back.step(BackEvent::TlsUp, &mut out);
        }
        back.take_trace();
        if !matches!(step, BackStep::Read) {
            break;
        }
    }
    back.take_rest();
}

/// A server that mail is handed over to says anything, whatever is wanted of it: no panic, whole commands, and none within
/// content.
pub fn handover(flags: u8, pieces: &[(u8, Vec<u8>)]) {
    let dialect = if flags & 1 == 0 { Dialect::Smtp } else { Dialect::Lmtp };
    let extensions = if flags & 2 == 0 { "PIPELINING CHUNKING SIZE=1000" } else { "" };
    let mut handover = Handover::new(dialect, extensions.into(), b"");
    let sender = Sender { mailbox: Some(Mailbox::of("ann@example.net")), parameters: Vec::new() };
    let recipient = Recipient { mailbox: Mailbox::of("kim@example.org"), parameters: Vec::new() };
    for (wanted, heard) in pieces {
        let mut out = Vec::new();
        let is_within = handover.takes_content();
        // What can't be done now is an error, and no more.
        let _ = match wanted % 8 {
            0 => handover.begin(&sender, &mut out),
            1 => handover.add(&sender, &recipient, &mut out),
            2 => handover.ask_for_content(&mut out),
            3 => handover.open_chunk(u64::from(*wanted), &mut out),
            4 => handover.grant().map(drop),
            5 => handover.outcome().map(drop),
            6 => {
                handover.give_up();
                Ok(())
            }
            _ => handover.end(&mut out),
        };
        assert!(out.is_empty() || out.ends_with(b"\r\n"));
        assert!(!is_within || out.is_empty() || !out.starts_with(b"MAIL") && !out.starts_with(b"RCPT"));
        out.clear();
        handover.hear(heard);
        let _ = handover.answer(&mut out);
        assert!(out.is_empty() || out.ends_with(b"\r\n"));
    }
}

/// Somebody who sends mail says anything: no panic, no growth, and what would be said to a back end is one line.
pub fn receiver(flags: u8, pieces: &[Vec<u8>]) {
    let protocol = protocol(if flags & 1 == 0 { "smtp" } else { "lmtp" });
    let Course::Mail(dialect) = protocol.course else { return };
    let list = if flags & 2 == 0 { protocol.learnt.join(" ") } else { String::new() };
    let setup = ClientSetup {
        name: "fuzz".into(),
        greeting: "ready".into(),
        tls: if flags & 4 == 0 { ClientTls::Offered } else { ClientTls::Never },
        offers: Receiver::carries(protocol, Offers::of(protocol, &list)),
        max_errors: NonZeroU32::new(u32::from(flags >> 4)),
        carry: Carry::default(),
        trace: flags & 8 == 0,
    };
    let yes_or_no = || smtp::Event::Reply(Reply::ours(if flags & 16 == 0 { 250 } else { 450 }, "2.1.0 Ok."));
    let mut receiver = Receiver::new(protocol, dialect, flags & 8 == 0, setup);
    let mut out = Vec::new();
    receiver.step(smtp::Event::Start, &mut out);
    for piece in pieces {
        out.clear();
        let mut step = receiver.step(smtp::Event::Input(piece), &mut out);
        while !matches!(step, smtp::Step::Read) {
            let event = match &step {
                smtp::Step::Sender(sender) => {
                    assert!(sender.command(|_| true).is_ok_and(|line| !line.contains(char::is_control)));
                    yes_or_no()
                }
                smtp::Step::Recipient(recipient) => {
                    assert!(recipient.command(|_| true).is_ok_and(|line| !line.contains(char::is_control)));
                    yes_or_no()
                }
                smtp::Step::Content => {
                    step = receiver.step(smtp::Event::Reply(Reply::ours(354, "Go on.")), &mut out);
                    assert!(matches!(step, smtp::Step::Read));
                    smtp::Event::Outcome(vec![Reply::ours(250, "2.0.0 Ok.")])
                }
                smtp::Step::Chunk(chunk) => {
                    let taken = receiver.take_content(chunk.size);
                    assert!(taken.len() as u64 <= chunk.size);
                    let reply = Reply::ours(if flags & 32 == 0 { 250 } else { 451 }, "2.0.0 Ok.");
                    let event = match chunk.is_last {
                        true => smtp::Event::Outcome(vec![reply]),
                        false => smtp::Event::Reply(reply),
                    };
                    event
                }
                smtp::Step::Reset => smtp::Event::Done,
                smtp::Step::Read | smtp::Step::StartTls | smtp::Step::Close(_) => return,
            };
            step = receiver.step(event, &mut out);
        }
        assert!(out.len() <= 1024 + 1024 * (piece.len() + 1));
        assert!(out.is_empty() || out.ends_with(b"\r\n"));
        receiver.take_trace();
    }
}
