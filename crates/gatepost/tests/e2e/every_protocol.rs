//! What must hold before a log-in whatever the protocol: the cases are run for the protocols in which users log in.

use std::net::TcpListener;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_lab::{free_port, wait_for_within};

use crate::bed::{Bed, KIM, back_end, counting, say_and_listen};
use crate::talk::Talk;

/// A protocol's words for the same things.
struct Protocol {
    name: &'static str,
    starttls: &'static str,
    /// What comes before a log-in, and what begins it; the message in base64 and `end` follow.
    log_in: &'static str,
    end: &'static str,
    bad_command: &'static str,
    bad: &'static str,
    wrong: &'static str,
    unavailable: &'static str,
    /// What back ends say at first: as they should, of themselves to everybody, and when they are overloaded.
    greeting: &'static str,
    overloaded: &'static str,
    /// A greeting whose sender turns out to have no way in.
    no_way_in: &'static [u8],
}

const PROTOCOLS: [Protocol; 4] = [
    Protocol {
        name: "imap",
        starttls: "t STARTTLS",
        log_in: "t AUTHENTICATE PLAIN ",
        end: "",
        bad_command: "t WHAT",
        bad: "t BAD ",
        wrong: "t NO [AUTHENTICATIONFAILED] ",
        unavailable: "t NO [UNAVAILABLE] Temporarily unavailable, try again later.",
        greeting: "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n",
        overloaded: "* BYE overloaded\r\n",
        no_way_in: b"* OK [CAPABILITY IMAP4rev1 LOGINDISABLED] ready\r\n",
    },
    Protocol {
        name: "pop3",
        starttls: "STLS",
        log_in: "AUTH PLAIN ",
        end: "",
        bad_command: "WHAT",
        bad: "-ERR ",
        wrong: "-ERR [AUTH] ",
        unavailable: "-ERR [SYS/TEMP] ",
        greeting: "+OK ready\r\n",
        overloaded: "-ERR [SYS/TEMP] overloaded\r\n",
        no_way_in: b"+OK ready\r\n+OK\r\nTOP\r\n.\r\n",
    },
    Protocol {
        name: "sieve",
        starttls: "STARTTLS",
        log_in: "AUTHENTICATE \"PLAIN\" \"",
        end: "\"",
        bad_command: "WHAT",
        bad: "NO ",
        wrong: "NO \"Authentication failed.\"",
        unavailable: "NO (TRYLATER) ",
        greeting: "\"SASL\" \"PLAIN\"\r\nOK \"ready\"\r\n",
        overloaded: "BYE (TRYLATER) \"overloaded\"\r\n",
        no_way_in: b"\"SASL\" \"\"\r\nOK \"ready\"\r\n",
    },
    Protocol {
        name: "submission",
        starttls: "STARTTLS",
        log_in: "EHLO client\r\nAUTH PLAIN ",
        end: "",
        bad_command: "WHAT",
        bad: "500 ",
        wrong: "535 5.7.8 ",
        unavailable: "454 4.7.0 ",
        greeting: "220 store ESMTP\r\n",
        overloaded: "421 4.3.2 overloaded\r\n",
        no_way_in: b"220 store ESMTP\r\n250 store\r\n",
    },
];

impl Protocol {
    /// Gatepost with this service alone before the back end on a port, in clear.
    fn configuration(&self, bed: &Bed, service: &str, backend: &str, port: u16) -> String {
        let name = self.name;
        let rest = format!(
            "{service}\n[{name}.backend]\ntls = \"none\"\ncheck_interval = \"0s\"\n{backend}\n\
             [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n{name} = {{ port = {port} }}\n"
        );
        bed.service(name, &rest)
    }

    /// The lines of a log-in.
    fn log_in(&self, user: &str, password: &str) -> String {
        let message = STANDARD.encode(format!("\0{user}\0{password}"));
        format!("{}{message}{}\r\n", self.log_in, self.end)
    }

    /// Reads on until a line begins so; whatever is said on the way is let pass.
    fn hear(&self, talk: &mut Talk, start: &str) {
        let mut heard = Vec::new();
        loop {
            let line = talk.line();
            if line.starts_with(start) {
                return;
            }
            heard.push(line);
            assert!(heard.len() < 40 && heard.last() != Some(&String::new()), "{}: {start:?} in {heard:?}", self.name);
        }
    }

    /// Reads the greeting, as far as it goes.
    fn greeted(&self, mut talk: Talk) -> Talk {
        self.hear(
            &mut talk,
            match self.name {
                "imap" => "* OK ",
                "pop3" => "+OK ",
                "sieve" => "OK ",
                _ => "220 ",
            },
        );
        talk
    }

    fn secure(&self, bed: &Bed) -> Talk {
        self.greeted(Talk::secure(bed.imaps, &bed.authority.certificate))
    }
}

#[test]
fn commands_behind_starttls_are_never_acted_on() {
    for protocol in &PROTOCOLS {
        let bed = Bed::new();
        let (port, count) = counting();
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "plaintext = \"always\"", "", port));
        let mut talk = protocol.greeted(Talk::clear(bed.imap));
        talk.send(format!("{}\r\n{}", protocol.starttls, protocol.log_in("kim", "secret")));
        // One answer, and then TLS; what was said in clear has none.
        let answer = talk.line();
        assert!(["t OK", "+OK", "OK", "220"].iter().any(|ok| answer.starts_with(ok)), "{}: {answer}", protocol.name);
        let mut talk = talk.upgrade(&bed.authority.certificate);
        if protocol.name == "sieve" {
            protocol.hear(&mut talk, "OK ");
        }
        talk.send(format!("{}\r\n", protocol.bad_command));
        let answer = talk.line();
        assert!(answer.starts_with(protocol.bad), "{}: {answer}", protocol.name);
        assert_eq!(count.load(Ordering::Relaxed), 0, "{}: somebody was logged in", protocol.name);
    }
}

#[test]
fn what_stands_behind_a_log_in_is_delivered_once_and_in_order() {
    for (n, commands, expected) in [
        (0, "u CREATE once\r\nv CREATE once\r\nw LOGOUT\r\n", ["t OK", "u OK", "v NO", "* BYE", "w OK"].as_slice()),
        (1, "NOOP\r\nWHAT\r\nQUIT\r\n", &["+OK", "+OK", "-ERR", "+OK"]),
        (2, "HAVESPACE \"a\" 1\r\nDELETESCRIPT \"a\"\r\nLOGOUT\r\n", &["OK", "OK", "NO", "OK"]),
    ] {
        let (protocol, bed) = (&PROTOCOLS[n], Bed::new());
        let store = bed.dovecot("store", &[KIM]);
        let port = [store.imap, store.pop3, store.sieve][n];
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "", "", port));
        let mut talk = protocol.secure(&bed);
        talk.send(protocol.log_in(KIM.user, KIM.password) + commands);
        let said = talk.rest();
        let answers: Vec<_> = said.lines().filter(|line| !line.starts_with("* CAPABILITY")).collect();
        assert_eq!(answers.len(), expected.len(), "{}: {said}", protocol.name);
        assert!(answers.iter().zip(expected).all(|(answer, start)| answer.starts_with(start)), "{said}");
    }
}

#[test]
fn wrong_commands_have_their_replies_and_then_it_is_the_end() {
    for protocol in &PROTOCOLS {
        let bed = Bed::new();
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "max_errors = 3", "", 1));
        for is_pipelined in [true, false] {
            let mut talk = protocol.secure(&bed);
            let line = format!("{}\r\n", protocol.bad_command);
            if is_pipelined {
                talk.send(line.repeat(6));
            } else {
                for _ in 0..3 {
                    talk.send(&line);
                }
            }
            let said = talk.rest();
            let replies = said.lines().filter(|said| said.starts_with(protocol.bad)).count();
            assert_eq!(replies, 3, "{}: {said}", protocol.name);
        }
    }
}

#[test]
fn a_browser_learns_nothing() {
    for_each_client(|protocol, mut talk| {
        talk.send("POST /<script> HTTP/1.1\r\nHost: <script>\r\n\r\n<script>\r\n");
        let said = talk.rest();
        assert!(!said.contains("script") && !said.contains("POST"), "{}: {said}", protocol.name);
    });
}

#[test]
fn no_line_is_endless() {
    for_each_client(|protocol, mut talk| {
        let _ = talk.try_send("x".repeat(200_000));
        let said = talk.rest();
        assert!(said.len() < 200 && !said.contains("xxx"), "{}: {said}", protocol.name);
    });
}

#[test]
fn no_client_says_where_it_comes_from() {
    for_each_client(|protocol, mut talk| {
        talk.send(if protocol.name == "imap" { "t XCLIENT ADDR=192.0.2.1\r\n" } else { "XCLIENT ADDR=192.0.2.1\r\n" });
        let answer = talk.line();
        assert!(answer.starts_with(protocol.bad), "{}: {answer}", protocol.name);
    });
}

/// Does something with a client of each protocol, before its log-in.
fn for_each_client(work: impl Fn(&'static Protocol, Talk) + Sync) {
    for_each_protocol(|protocol| {
        let bed = Bed::new();
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "", "", 1));
        work(protocol, protocol.secure(&bed));
    });
}

/// Does something for all protocols side by side, since most of it is waiting.
fn for_each_protocol(work: impl Fn(&'static Protocol) + Sync) {
    std::thread::scope(|scope| PROTOCOLS.iter().for_each(|protocol| drop(scope.spawn(|| work(protocol)))));
}

#[test]
fn names_that_no_protocol_can_carry_reach_no_back_end() {
    for_each_protocol(|protocol| {
        let bed = Bed::new();
        let (port, count) = counting();
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "max_auth_errors = 0", "", port));
        // Each is refused as slowly as by a back end, and all of them side by side.
        let names =
            [("kim\r\nX", "secret"), ("kim\0lee", "secret"), ("", "secret"), ("kim", ""), ("kim\u{1b}", "secret")];
        let mut talks = names.map(|(user, password)| {
            let mut talk = protocol.secure(&bed);
            talk.send(protocol.log_in(user, password));
            talk
        });
        talks.iter_mut().for_each(|talk| protocol.hear(talk, protocol.wrong));
        assert_eq!(count.load(Ordering::Relaxed), 0, "{}: somebody was asked", protocol.name);
    });
}

#[test]
fn slowness_ends_by_the_deadline() {
    for_each_protocol(|protocol| {
        let bed = Bed::new();
        let _gatepost = bed.gatepost(&protocol.configuration(&bed, "login_timeout = \"2s\"", "", 1));
        let started = Instant::now();
        let mut talk = protocol.secure(&bed);
        let is_ended = || talk.try_send("x").is_err();
        wait_for_within(Duration::from_secs(8), is_ended).unwrap_or_else(|error| panic!("{}: {error}", protocol.name));
        assert!(started.elapsed() > Duration::from_millis(1800), "{}: {:?}", protocol.name, started.elapsed());
    });
}

#[test]
fn every_way_to_fail_is_an_outage_with_its_own_reason() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let says = |words: &'static [u8]| back_end(move |stream| drop(say_and_listen(stream, words)));
    let endless: &'static [u8] = Box::leak("x".repeat(100_000).into_bytes().into_boxed_slice());
    for_each_protocol(|protocol| {
        let resets = back_end(|stream| {
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
        });
        for (what, port, reason) in [
            ("refusing", free_port().expect("a port"), "Connection refused"),
            ("black-holed", silent.local_addr().expect("an address").port(), "no greeting within"),
            ("resetting", resets, "Connection reset by peer"),
            ("silent after its greeting", says(protocol.greeting.as_bytes()), "no answer within"),
            ("another protocol", says(b"SSH-2.0-OpenSSH\r\n"), "its greeting is not one that can be used"),
            ("overloaded", says(protocol.overloaded.as_bytes()), "overloaded"),
            ("an endless line", says(endless), "a line is too long"),
            ("no way in", says(protocol.no_way_in), "it offers no way to log in"),
        ] {
            let bed = Bed::new();
            let backend = "connect_timeout = \"1s\"\nlogin_timeout = \"2s\"";
            let gatepost = bed.gatepost(&protocol.configuration(&bed, "login_timeout = \"8s\"", backend, port));
            let started = Instant::now();
            let mut talk = protocol.secure(&bed);
            talk.send(protocol.log_in("kim", "secret"));
            protocol.hear(&mut talk, protocol.unavailable);
            let took = started.elapsed();
            assert!(took < Duration::from_secs(6), "{}, {what}: took {took:?}", protocol.name);
            gatepost.wait_for_log(reason).unwrap_or_else(|error| panic!("{}, {what}: {error}", protocol.name));
        }
    });
}
