//! Whoever comes with mail: how they are held to rules, and that nothing they say is taken for what it isn't.

use std::time::{Duration, Instant};

use gatepost_lab::{free_port, wait_for_within};

use super::{KIM, LEE, before_dovecots, configuration, greeted, postfix};
use crate::bed::Bed;
use crate::proxy_header::v2;
use crate::talk::Talk;

/// The services, with the first port of a bed or the second, and their hellos.
fn services(bed: &Bed) -> [(u16, &'static str); 2] {
    [(bed.imap, "EHLO mx.example.net"), (bed.imaps, "LHLO mx.example.net")]
}

#[test]
fn strangers_are_held_to_rules() {
    let bed = Bed::new();
    let smtp =
        "helo = \"strict\"\nreverse_dns = \"require\"\n[smtp.rates]\nmessages_per_sender = 2\nrecipients_per_ip = 4\n";
    let (_a, _b, gatepost) = before_dovecots(&bed, smtp);
    let mut talk = Talk::clear(bed.imap);
    assert!(talk.reply().starts_with("220"));
    assert!(talk.ask("EHLO localhost").starts_with("504 5.5.2"));
    assert!(talk.ask("EHLO mail.example.org").starts_with("550 5.7.1"));
    assert!(talk.ask("EHLO mx.example.net").starts_with("250"));
    // 127.0.0.1 is localhost, and back.
    for expected in ["250", "250", "450 4.7.1"] {
        let answer = talk.ask("MAIL FROM:<a@example.net>");
        assert!(answer.starts_with(expected), "{answer}");
        assert!(talk.ask("RSET").starts_with("250"));
    }
    assert!(talk.ask("MAIL FROM:<>").starts_with("250"));
    for expected in ["250", "250", "250", "250", "450 4.7.1"] {
        let answer = talk.ask("RCPT TO:<kim@example.org>");
        assert!(answer.starts_with(expected), "{answer}");
    }
    gatepost.wait_for_log("mail was put off").expect("a record");
}

#[test]
fn who_talks_before_the_greeting_is_turned_away() {
    let bed = Bed::new();
    let implicit = free_port().expect("a port");
    let smtp =
        format!("greet_delay = \"1s\"\n[[smtp.listener]]\naddress = \"127.0.0.1:{implicit}\"\ntls = \"implicit\"");
    let gatepost = bed.gatepost(&configuration(&bed, &smtp, "tls = \"none\"", 1, 1));
    let both = || [Talk::clear(bed.imap), Talk::secure(implicit, &bed.authority.certificate)];
    for mut talk in both() {
        talk.send("EHLO mx.example.net\r\n");
        assert_eq!(talk.rest(), "554 5.5.1 You talk before it is your turn.\r\n");
    }
    for mut talk in both() {
        assert!(talk.reply().starts_with("220"));
        assert!(talk.ask("EHLO mx.example.net").starts_with("250"));
    }
    gatepost.wait_for_log("Misbehaved").expect("a record");
}

#[test]
fn an_announced_client_is_the_one_that_rules_rates_and_back_ends_see() {
    let bed = Bed::new();
    let (a, b) = (postfix(&bed, "a", KIM), postfix(&bed, "b", LEE));
    let rules = "[[smtp.access]]\ndeny = [\"192.0.2.66\"]\n[smtp.rates]\nmessages_per_ip = 1";
    let from = "proxy_protocol = { from = [\"127.0.0.1\"], required = true }\n[smtp]";
    let configuration = configuration(&bed, rules, "ca = \"ca.pem\"", a.port, b.port).replacen("[smtp]", from, 1);
    let gatepost = bed.gatepost(&configuration);
    let announced = |client| {
        let mut talk = Talk::clear(bed.imap);
        talk.send(v2(&bed, client));
        talk
    };
    for _ in 0..2 {
        assert!(announced([192, 0, 2, 66]).line().starts_with("554 5.7.1"));
    }
    // With the header in one segment.
    let mut talk = Talk::clear(bed.imap);
    talk.send([v2(&bed, [192, 0, 2, 11]), b"EHLO mx.example.net\r\n".to_vec()].concat());
    assert!(talk.reply().starts_with("220") && talk.reply().starts_with("250"));
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
    assert!(talk.ask("RCPT TO:<kim@example.org>").starts_with("250"));
    assert!(talk.ask("DATA").starts_with("354"));
    talk.send("Subject: announced\r\n\r\n.\r\n");
    assert!(talk.reply().starts_with("250"));
    let message = a.wait_for_messages(KIM.user, 1).expect("a message").remove(0);
    assert!(message.contains("from mx.example.net (unknown [192.0.2.11])"), "{message}");
    assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("450 4.7.1"), "one message from there");
    let mut other = announced([192, 0, 2, 12]);
    assert!(other.reply().starts_with("220"));
    assert!(other.ask("EHLO mx.example.net").starts_with("250"));
    assert!(other.ask("MAIL FROM:<a@example.net>").starts_with("250"), "none yet from here");
    gatepost.wait_for_log("rip=192.0.2.11").expect("a record");
    // Without a header nobody is heard.
    let mut silent = Talk::clear(bed.imap);
    silent.send("EHLO mx.example.net\r\n");
    assert_eq!(silent.rest(), "");
}

#[test]
fn mail_named_before_starttls_is_forgotten_and_what_stands_behind_it_never_acted_on() {
    let bed = Bed::new();
    let (a, _b, _gatepost) = before_dovecots(&bed, "");
    for (port, hello) in services(&bed) {
        let mut talk = greeted(port, hello);
        assert!(talk.ask("MAIL FROM:<a@example.net>").starts_with("250"));
        assert!(talk.ask("RCPT TO:<kim@example.org>").starts_with("250"));
        let hidden = format!("STARTTLS\r\n{hello}\r\nMAIL FROM:<b@example.net>\r\nRCPT TO:<kim@example.org>\r\n");
        talk.send(hidden);
        assert_eq!(talk.line(), "220 2.0.0 Begin TLS negotiation now.");
        let mut talk = talk.upgrade(&bed.authority.certificate);
        for command in ["RCPT TO:<kim@example.org>", "DATA", "MAIL FROM:<a@example.net>"] {
            let answer = talk.ask(command);
            assert!(answer.starts_with("503 5.5.1"), "{hello}, {command}: {answer}");
        }
        assert!(talk.ask(hello).starts_with("250"));
        assert!(talk.ask("DATA").starts_with("503 5.5.1"));
    }
    assert!(a.delivered(KIM.user).is_empty());
}

#[test]
fn wrong_commands_have_their_replies_and_then_it_is_the_end() {
    let bed = Bed::new();
    let limits = "max_errors = 3";
    let text = configuration(&bed, limits, "tls = \"none\"", 1, 1).replace("[lmtp]", &format!("[lmtp]\n{limits}"));
    let _gatepost = bed.gatepost(&text);
    for (port, hello) in services(&bed) {
        for is_pipelined in [true, false] {
            let mut talk = greeted(port, hello);
            if is_pipelined {
                talk.send("WHAT\r\n".repeat(6));
            } else {
                (0..3).for_each(|_| talk.send("WHAT\r\n"));
            }
            let said = talk.rest();
            assert_eq!(said.lines().filter(|line| line.starts_with("500 5.5.1")).count(), 3, "{hello}: {said}");
        }
    }
}

#[test]
fn nothing_that_a_browser_or_an_endless_line_says_comes_back() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"", 1, 1));
    for (port, hello) in services(&bed) {
        let mut talk = greeted(port, hello);
        talk.send("POST /<script> HTTP/1.1\r\nHost: <script>\r\n\r\n<script>\r\n");
        let said = talk.rest();
        assert!(!said.contains("script") && !said.contains("POST"), "{hello}: {said}");
        let mut talk = greeted(port, hello);
        let _ = talk.try_send("x".repeat(200_000));
        let said = talk.rest();
        assert!(said.len() < 200 && !said.contains("xxx"), "{hello}: {said}");
    }
}

#[test]
fn names_that_would_be_more_than_one_command_are_refused() {
    let bed = Bed::new();
    let (a, _b, _gatepost) = before_dovecots(&bed, "");
    for (port, hello) in services(&bed) {
        let mut talk = greeted(port, hello);
        for sender in ["a\0@example.net", "a\rRSET@example.net", "\"a\r\"@example.net", "a@example.net\r>", "a\u{1b}@b"]
        {
            let answer = talk.ask(&format!("MAIL FROM:<{sender}>"));
            assert!(answer.starts_with("501") || answer.starts_with("500"), "{hello}, {sender:?}: {answer}");
        }
        // A line feed by itself ends a line, and the command is refused; what follows is a command of its own.
        talk.send("MAIL FROM:<a\nRSET\r\n");
        assert!(talk.reply().starts_with("500 5.5.2") && talk.reply().starts_with("250"), "{hello}");
    }
    assert!(a.delivered(KIM.user).is_empty());
}

#[test]
fn slowness_ends_by_the_deadline() {
    let bed = Bed::new();
    let limits = "login_timeout = \"2s\"";
    let text = configuration(&bed, limits, "tls = \"none\"", 1, 1).replace("[lmtp]", &format!("[lmtp]\n{limits}"));
    let _gatepost = bed.gatepost(&text);
    for (port, hello) in services(&bed) {
        let started = Instant::now();
        let mut talk = greeted(port, hello);
        let is_ended = || talk.try_send("x").is_err();
        wait_for_within(Duration::from_secs(8), is_ended).unwrap_or_else(|error| panic!("{hello}: {error}"));
        assert!(started.elapsed() > Duration::from_millis(1800), "{hello}: {:?}", started.elapsed());
    }
}
