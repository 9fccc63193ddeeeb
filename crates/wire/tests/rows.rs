//! What each row of the table must have, and what the log may see of each protocol's conversations.

use std::collections::HashSet;

use gatepost_wire::limits::{
    ANSWER_BYTES_MAX, BACK_TALK_BYTES_MAX, CLIENT_ID_BYTES_MAX, ID_PAIRS_MAX, SIEVE_QUOTED_BYTES_MAX,
    SMTP_LINE_BYTES_MAX,
};
use gatepost_wire::sasl::{self, ActAs};
use gatepost_wire::smtp::{self, Mailbox, Receiver, Replies, Reply};
use gatepost_wire::{
    Answer, Ask, Back, BackEvent, BackFault, BackLogin, BackSetup, BackStep, Carry, ClientFacts, ClientSetup,
    ClientTls, Course, Event, Front, Introduction, LogInBy, LogInRules, Mechanism, OAuthHints, Offered, Offers,
    Outcome, PROTOCOLS, PasswordMechanism, Protocol, Refusal, ScramMechanism, Secret, Step, scram,
};

/// The mechanisms that show a password.
const PASSWORDS: [Mechanism; 2] = [Mechanism::PLAIN, Mechanism::LOGIN];

fn setup(trace: bool) -> ClientSetup {
    ClientSetup {
        name: "mail.example.org".into(),
        greeting: "Ready.".into(),
        tls: ClientTls::Up,
        offers: Offers::NONE,
        max_errors: None,
        carry: Carry::default(),
        trace,
    }
}

fn rules(mechanisms: &[Mechanism]) -> LogInRules {
    LogInRules {
        takes_secrets: true,
        has_password_command: true,
        mechanisms: mechanisms.to_vec(),
        oauth: OAuthHints::default(),
        id: true,
        max_auth_errors: None,
    }
}

fn row(name: &str) -> &'static Protocol {
    PROTOCOLS.iter().find(|protocol| protocol.name == name).expect("a protocol")
}

#[test]
fn rows_are_whole_and_can_be_told_apart() {
    let unique = |of: fn(&Protocol) -> String| PROTOCOLS.iter().map(of).collect::<HashSet<_>>().len();
    for of in [|p: &Protocol| p.name.to_owned(), |p: &Protocol| p.title.to_owned()] {
        assert_eq!(unique(of), PROTOCOLS.len());
    }
    for protocol in PROTOCOLS {
        let names = [protocol.name, protocol.title, protocol.login_name];
        assert!(names.iter().all(|name| !name.is_empty()) && protocol.port > 0, "{}", protocol.name);
        assert!(protocol.learnt.len() <= 64, "{}: a bit for each extension", protocol.name);
        let logs_in = protocol.course.log_in().is_some();
        assert_ne!(logs_in, protocol.course.dialect().is_some(), "{}: for one or the other", protocol.name);
        if !logs_in {
            continue;
        }
        // Filters against guessing go by it.
        let is_word = |name: &str| name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        assert!(protocol.login_name.strip_suffix("-login").is_some_and(is_word), "{}", protocol.login_name);
    }
    let takes_mail: Vec<_> =
        PROTOCOLS.iter().filter(|row| matches!(row.course, Course::Mail(_))).map(|row| row.name).collect();
    assert_eq!(takes_mail, ["smtp", "lmtp"]);
    let ports: Vec<_> = PROTOCOLS.iter().map(|row| (row.port, row.tls_port)).collect();
    let well_known = [(143, Some(993)), (110, Some(995)), (4190, None), (587, Some(465)), (25, None), (24, None)];
    assert_eq!(ports, well_known);
}

#[test]
fn whoever_is_turned_away_hears_why() {
    for protocol in PROTOCOLS {
        let words = |refusal| String::from_utf8_lossy((protocol.turned_away)(refusal)).into_owned();
        for (refusal, text) in [
            (Refusal::TooMany, "Too many connections"),
            (Refusal::Guessing, "Too many failed log-ins"),
            (Refusal::Forbidden, "Access from your address is not allowed"),
            (Refusal::ShuttingDown, "ends this session"),
            (Refusal::TimedOut, "took too long"),
            (Refusal::Unavailable, "Temporarily unavailable"),
            // Only a log-in can be refused for it.
            (Refusal::Expired, "Temporarily unavailable"),
        ] {
            let said = words(refusal);
            assert!(said.contains(text) && said.ends_with("\r\n"), "{}: {said:?}", protocol.name);
        }
    }
    let begins = |refusal, code| (row("smtp").turned_away)(refusal).starts_with(code);
    assert!(begins(Refusal::Forbidden, b"554 5.7.1 ") && begins(Refusal::ShuttingDown, b"421 4.3.2 "));
    assert!(begins(Refusal::Unavailable, b"421 4.3.0 ") && begins(Refusal::TooMany, b"421 4.7.0 "));
}

#[test]
fn a_back_ends_own_words_count_as_a_failure_unless_their_code_says_otherwise() {
    for (name, counted, not) in [
        ("imap", "[EXPIRED] Set a new one.", vec!["[LIMIT] Too many.", "[INUSE] Later.", "[inuse] Later."]),
        (
            "pop3",
            "[AUTH] No.",
            vec!["[IN-USE] Locked.", "[in-use] Locked.", "[LOGIN-DELAY] Wait.", "[SYS/TEMP] Later."],
        ),
        ("sieve", "No.", vec!["(TRYLATER) Later.", "(QUOTA) Full.", "(quota/maxsize) Full."]),
        ("submission", "535 5.7.8 No.", vec!["454 4.7.0 Later."]),
    ] {
        assert!((row(name).passed_counts)(counted), "{name}: {counted}");
        for text in not {
            assert!(!(row(name).passed_counts)(text), "{name}: {text}");
        }
    }
}

#[test]
fn what_clients_are_promised_is_what_all_back_ends_have() {
    let smtp = row("smtp");
    let (one, other) = (Offers::of(smtp, "SIZE=1000 DSN 8BITMIME"), Offers::of(smtp, "SIZE=500 8BITMIME CHUNKING"));
    let both: Vec<_> = one.and(other).names(smtp).collect();
    assert!(both.contains(&"8BITMIME") && !both.contains(&"DSN") && !both.contains(&"CHUNKING"), "{both:?}");
    assert_eq!(Offers::NONE.and(one).names(smtp).count(), 0);
}

#[test]
fn mechanisms_are_what_they_are_called() {
    let are = |is: fn(Mechanism) -> bool| Mechanism::SASL.into_iter().filter(move |it| is(*it)).map(Mechanism::name);
    assert_eq!(are(Mechanism::is_scram).collect::<Vec<_>>(), ["SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]);
    assert_eq!(are(Mechanism::shows_token).collect::<Vec<_>>(), ["OAUTHBEARER", "XOAUTH2"]);
    let carried: HashSet<_> = are(Mechanism::is_carried).collect();
    assert_eq!(carried, HashSet::from(["EXTERNAL", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS"]));
    assert_eq!(sasl::external(&Secret::new(b"kim".to_vec())), Some(ActAs::User("kim".to_owned())));
    assert_eq!(sasl::external(&Secret::default()), Some(ActAs::Itself));
    assert_eq!(sasl::external(&Secret::new(b"\0".to_vec())), None);
    assert_eq!(scram::server_first("nonce", b"salt", 4096), "r=nonce,s=c2FsdA==,i=4096");
    assert_eq!(scram::server_final(b"signature"), "v=c2lnbmF0dXJl");
}

/// A conversation in which a secret is said in every way there is.
fn conversation(name: &str) -> &'static [u8] {
    match name {
        "imap" => {
            b"a CAPABILITY\r\ny ID (\"name\" \"a client\")\r\nz NOOP hushed\r\nb LOGIN kim hushed\r\nc LOGIN kim {6+}\r\nhushed\r\nd AUTHENTICATE PLAIN AGtpbQBodXNoZWQ=\r\n\
              e hushed\r\nhushed e\r\n"
        }
        "pop3" => b"CAPA\r\nCAPA hushed\r\nUSER kim\r\nPASS hushed\r\nAUTH PLAIN AGtpbQBodXNoZWQ=\r\nhushed\r\nAPOP kim hushed\r\n",
        "sieve" => {
            b"CAPABILITY\r\nCAPABILITY hushed\r\nAUTHENTICATE \"PLAIN\" \"AGtpbQBodXNoZWQ=\"\r\nAUTHENTICATE \"PLAIN\" {16+}\r\nAGtpbQBodXNoZWQ=\r\nhushed\r\n"
        }
        _ => b"EHLO client.example.org\r\nNOOP hushed\r\nAUTH PLAIN AGtpbQBodXNoZWQ=\r\nhushed\r\n",
    }
}

/// That conversation as the log has it.
fn in_the_log(name: &str) -> &'static [&'static str] {
    match name {
        "imap" => &[
            "a CAPABILITY",
            "y ID (\"name\" \"a client\")",
            "[struck out]",
            "b LOGIN [struck out]",
            "c LOGIN [struck out]",
            "d AUTHENTICATE PLAIN [struck out]",
            "[struck out]",
            "[struck out]",
        ],
        "pop3" => &[
            "CAPA",
            "[struck out]",
            "USER [struck out]",
            "PASS [struck out]",
            "AUTH PLAIN [struck out]",
            "[struck out]",
            "[struck out]",
        ],
        "sieve" => &[
            "CAPABILITY",
            "[struck out]",
            "AUTHENTICATE PLAIN [struck out]",
            "AUTHENTICATE PLAIN [struck out]",
            "[struck out]",
        ],
        _ => &["EHLO client.example.org", "[struck out]", "AUTH PLAIN [struck out]", "[struck out]"],
    }
}

#[test]
fn a_conversation_in_the_log_has_every_command_and_no_secret() {
    for protocol in PROTOCOLS {
        for trace in [true, false] {
            let Some(machines) = protocol.course.log_in() else { continue };
            let mut front = (machines.front)(setup(trace), rules(&PASSWORDS));
            let mut out = Vec::new();
            front.step(Event::Start, &mut out);
            let mut step = front.step(Event::Input(conversation(protocol.name)), &mut out);
            let mut asked = 0;
            while let Step::Ask(_) = step {
                asked += 1;
                step = front.step(Event::Answer(Answer::Refused(Refusal::BadCredentials)), &mut out);
            }
            assert!(asked >= 1, "{}: nobody was asked", protocol.name);
            let heard = front.take_trace();
            if !trace {
                assert!(heard.is_empty(), "{}: {heard:?}", protocol.name);
                continue;
            }
            assert_eq!(heard, in_the_log(protocol.name), "{}", protocol.name);
            assert!(front.take_trace().is_empty(), "{}: it is told once", protocol.name);
        }
    }
}

#[test]
fn what_a_mail_client_says_is_in_the_log() {
    let mut receiver = Receiver::new(row("smtp"), smtp::Dialect::Smtp, false, setup(true));
    let mut out = Vec::new();
    receiver.step(smtp::Event::Start, &mut out);
    receiver.step(smtp::Event::Input(b"EHLO client.example.org\r\n"), &mut out);
    assert_eq!(receiver.helo(), Some("client.example.org"));
    receiver.step(smtp::Event::Input(b"NOOP\r\nNOOP hushed\r\nNONSENSE\r\n"), &mut out);
    // They may be passwords that came to the wrong door.
    assert_eq!(receiver.take_trace(), ["EHLO client.example.org", "NOOP", "[struck out]", "[struck out]"]);
    assert!(receiver.take_trace().is_empty());
}

#[test]
fn towards_a_back_end_the_log_sees_no_secret() {
    for (name, said) in [
        ("imap", "* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n"),
        ("pop3", "+OK ready\r\n+OK\r\nSASL PLAIN\r\nUSER\r\n.\r\n"),
        ("sieve", "\"SASL\" \"PLAIN\"\r\nOK\r\n"),
        ("submission", "220 store ESMTP\r\n250-store\r\n250 AUTH PLAIN\r\n"),
    ] {
        for trace in [true, false] {
            let mut back = back(name, false, trace);
            let mut out = Vec::new();
            let step = back.step(BackEvent::Input(said.as_bytes()), &mut out);
            assert!(matches!(step, BackStep::Read), "{name}: {step:?}");
            assert!(!out.is_empty(), "{name} logs in");
            let heard = back.take_trace().join("\n");
            assert_eq!(!heard.is_empty(), trace, "{name}: {heard}");
            assert!(!heard.contains("hushed") && !heard.contains("AGtpbQBodXNoZWQ"), "{name}: {heard}");
        }
    }
}

/// The machine towards a client that logs in by a protocol.
fn front(name: &str, setup: ClientSetup, rules: LogInRules) -> Box<dyn Front> {
    (row(name).course.log_in().expect("a log-in").front)(setup, rules)
}

/// A back end's machine of a protocol, which begins with STARTTLS where that is asked.
fn back(name: &str, starttls: bool, trace: bool) -> Box<dyn Back> {
    logs_in(name, hushed(), back_setup(starttls, trace))
}

fn hushed() -> LogInBy {
    LogInBy::Password(Secret::new(b"hushed".to_vec()))
}

/// A back end's machine of a protocol that logs in so.
fn logs_in(name: &str, by: LogInBy, setup: BackSetup) -> Box<dyn Back> {
    let login = BackLogin { user: "kim".into(), by, mechanism: None };
    (row(name).course.log_in().expect("a log-in").back)(setup, login)
}

fn back_setup(starttls: bool, trace: bool) -> BackSetup {
    BackSetup {
        starttls,
        client: None,
        introduction: Introduction::default(),
        own_greeting: "mail.example.org Ready.".into(),
        trace,
    }
}

#[test]
fn nothing_may_come_behind_the_word_that_tls_begins() {
    for (name, greeting, go) in [
        ("imap", "* OK ready\r\n", "S OK begin\r\n"),
        ("pop3", "+OK ready\r\n", "+OK begin\r\n"),
        ("sieve", "\"STARTTLS\"\r\nOK\r\n", "OK\r\n"),
        ("submission", "220 store ESMTP\r\n250-store\r\n250 STARTTLS\r\n", "220 go\r\n"),
    ] {
        for trailing in ["", "x"] {
            let mut back = back(name, true, false);
            let mut out = Vec::new();
            back.step(BackEvent::Input(greeting.as_bytes()), &mut out);
            let step = back.step(BackEvent::Input(format!("{go}{trailing}").as_bytes()), &mut out);
            let is_as_it_should = match trailing {
                "" => matches!(step, BackStep::StartTls),
                _ => matches!(step, BackStep::Fault(BackFault::TrailingBytes)),
            };
            assert!(is_as_it_should, "{name} {trailing:?}: {step:?}");
        }
    }
}

#[test]
fn a_back_end_may_say_so_much_and_no_more() {
    let says = |pieces: &[&str]| {
        let (mut back, mut out) = (back("imap", false, false), Vec::new());
        pieces.iter().map(|piece| back.step(BackEvent::Input(piece.as_bytes()), &mut out)).last().expect("a step")
    };
    let greeting = "* OK ready\r\n";
    // Untagged lines are read past, each within its bound.
    let left = BACK_TALK_BYTES_MAX - greeting.len();
    let line = format!("* {}\r\n", "x".repeat(1020));
    let rest = &line.repeat(left.div_ceil(line.len()))[..left];
    let too_much = "it says too much before the log-in is answered";
    assert!(matches!(says(&[greeting, rest]), BackStep::Read));
    let step = says(&[greeting, rest, "x"]);
    assert!(matches!(step, BackStep::Fault(BackFault::Protocol(what)) if what == too_much), "{step:?}");
    let literal = |size: usize| says(&[&format!("* OK {{{size}}}\r\n")]);
    assert!(matches!(literal(BACK_TALK_BYTES_MAX), BackStep::Read));
    let half = BACK_TALK_BYTES_MAX / 2;
    let whole = says(&[&format!("* OK {{{half}}}\r\n"), &"x".repeat(half), "\r\n"]);
    assert!(matches!(whole, BackStep::Read), "a literal may be longer than a line: {whole:?}");
    assert!(matches!(literal(BACK_TALK_BYTES_MAX + 1), BackStep::Fault(BackFault::Protocol("a literal is too large"))));
}

#[test]
fn a_front_knows_whether_an_exchange_is_under_way_and_what_its_client_calls_itself() {
    let mut front = front("submission", setup(false), rules(&[Mechanism::SCRAM]));
    let mut out = Vec::new();
    front.step(Event::Start, &mut out);
    assert_eq!(front.introduction().helo, None);
    let step =
        front.step(Event::Input(b"EHLO client.example.org\r\nAUTH SCRAM-SHA-256 biwsbj1raW0scj14\r\n"), &mut out);
    let is_asked = matches!(&step, Step::Ask(Ask::Begin(Offered::Scram(ScramMechanism::Unbound, _))));
    assert!(is_asked, "{step:?}");
    assert_eq!(front.introduction().helo.as_deref(), Some("client.example.org"));
    front.step(Event::Answer(Answer::Challenge(b"challenge".to_vec())), &mut out);
    assert!(front.is_exchanging());
    front.step(Event::Input(b"*\r\n"), &mut out);
    assert!(!front.is_exchanging(), "it is cancelled");
    let said = String::from_utf8_lossy(&out).into_owned();
    assert!(said.contains("334 Y2hhbGxlbmdl\r\n") && said.ends_with("501 5.5.2 AUTH cancelled.\r\n"), "{said}");
}

#[test]
fn what_a_client_says_of_itself_is_merged_and_kept_within_bounds() {
    let mut front = front("imap", setup(false), rules(&PASSWORDS));
    let mut out = Vec::new();
    front.step(Event::Start, &mut out);
    let mut says = |pairs: &[(String, String)]| {
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| format!("\"{key}\" \"{value}\"")).collect();
        front.step(Event::Input(format!("a ID ({})\r\n", pairs.join(" ")).as_bytes()), &mut out);
        front.introduction().id
    };
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    // What only a proxy may say is the proxy's to say.
    let known = says(&[pair("name", "Mutt"), pair("X-Originating-IP", "192.0.2.1"), pair("os", "Plan 9")]);
    assert_eq!(known, [pair("name", "Mutt"), pair("os", "Plan 9")]);
    assert_eq!(says(&[pair("NAME", "Pine")]), [pair("name", "Pine"), pair("os", "Plan 9")]);
    let many: Vec<_> = (0..ID_PAIRS_MAX).map(|number| pair(&format!("k{number}"), "v")).collect();
    let known = says(&many);
    assert_eq!(known.len(), ID_PAIRS_MAX);
    assert_eq!(known[2..], many[..ID_PAIRS_MAX - 2]);
}

/// What an IMAP back end is told of a client who says this of itself.
fn announced(said: &[(String, String)]) -> String {
    let introduction = Introduction { id: said.to_vec(), ..Introduction::default() };
    let addresses = "192.0.2.7:4711".parse().ok().zip("192.0.2.9:143".parse().ok());
    let client = Some(ClientFacts { addresses, session: "s".into(), name: None });
    let mut back = logs_in("imap", hushed(), BackSetup { client, introduction, ..back_setup(false, false) });
    let mut out = Vec::new();
    back.step(BackEvent::Input(b"* OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN] ready\r\n"), &mut out);
    let said = String::from_utf8(out).expect("UTF-8");
    let id = said.strip_prefix("I ID (").and_then(|rest| rest.split_once(")\r\n")).expect("an ID").0;
    let facts = r#""x-originating-ip" "192.0.2.7" "x-originating-port" "4711" "x-connected-ip" "192.0.2.9" "x-connected-port" "143" "x-session-id" "s""#;
    id.strip_prefix(facts).expect("the proxy's own words").trim_start().to_owned()
}

#[test]
fn a_clients_words_beyond_ascii_are_left_out_and_all_others_announced() {
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let said = [pair("name", "Müllers Post"), pair("os", "Plan \"9\""), pair("gerät", "x"), pair("version", "2")];
    assert_eq!(announced(&said), r#""os" "Plan \"9\"" "version" "2""#);
}

#[test]
fn a_clients_own_words_get_the_room_that_the_proxys_leave() {
    let pair = |number: usize, bytes: usize| (format!("k{number:02}"), "v".repeat(bytes - 3));
    let count = |said: &[(String, String)]| announced(said).matches("\"k").count();
    let short: Vec<_> = (0..ID_PAIRS_MAX).map(|number| pair(number, 4)).collect();
    assert_eq!(count(&short), ID_PAIRS_MAX - 5);
    let quarter = CLIENT_ID_BYTES_MAX / 4;
    let mut long: Vec<_> = (0..4).map(|number| pair(number, quarter)).collect();
    assert_eq!(count(&long), 4, "they fit to the byte");
    long[3].1.push('v');
    assert_eq!(count(&long), 3);
    long[0].1.push_str(&"v".repeat(3 * quarter + 1));
    assert_eq!(count(&long), 0, "nothing is skipped");
}

#[test]
fn a_line_of_xclient_is_as_long_as_a_line_may_be_and_no_longer() {
    let said = |session: usize| {
        let client = Some(ClientFacts { addresses: None, session: "s".repeat(session), name: None });
        let mut back = logs_in("submission", hushed(), BackSetup { client, ..back_setup(false, false) });
        let mut out = Vec::new();
        back.step(BackEvent::Input(b"220 store ESMTP\r\n"), &mut out);
        out.clear();
        back.step(BackEvent::Input(b"250-store\r\n250-XCLIENT SESSION PROTO\r\n250 AUTH PLAIN\r\n"), &mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    let fixed = "XCLIENT PROTO=ESMTP SESSION=\r\n".len();
    let longest = said(SMTP_LINE_BYTES_MAX - fixed);
    assert_eq!(longest.len(), SMTP_LINE_BYTES_MAX);
    assert!(longest.starts_with("XCLIENT PROTO=ESMTP SESSION=s"), "{longest}");
    assert_eq!(said(SMTP_LINE_BYTES_MAX - fixed + 1), "XCLIENT PROTO=ESMTP\r\n");
}

#[test]
fn who_asks_for_more_at_once_than_it_takes_must_go() {
    for (name, command, longest) in [
        ("imap", "a CAPABILITY", 1024),
        ("pop3", "CAPA", 1024),
        ("sieve", "CAPABILITY", 2048),
        ("submission", "EHLO x", 1024),
    ] {
        let protocol = row(name);
        let promising = ClientSetup { offers: Offers::of(protocol, &protocol.learnt.join(" ")), ..setup(false) };
        let mut front = front(name, promising, rules(&PASSWORDS));
        let mut out = Vec::new();
        front.step(Event::Start, &mut out);
        let few = format!("{command}\r\n").repeat(20);
        assert!(matches!(front.step(Event::Input(few.as_bytes()), &mut out), Step::Read), "{name}");
        out.clear();
        let many = format!("{command}\r\n").repeat(5000);
        let step = front.step(Event::Input(many.as_bytes()), &mut out);
        assert!(matches!(step, Step::Close(Outcome::Refused(Refusal::Misbehaved))), "{name}: {step:?}");
        assert!((ANSWER_BYTES_MAX..ANSWER_BYTES_MAX + longest).contains(&out.len()), "{name}: {} bytes", out.len());
    }
    for (name, dialect) in [("smtp", smtp::Dialect::Smtp), ("lmtp", smtp::Dialect::Lmtp)] {
        let mut receiver = Receiver::new(row(name), dialect, false, setup(false));
        let mut out = Vec::new();
        receiver.step(smtp::Event::Start, &mut out);
        // Lines that are no commands, and are not counted as such.
        let step = receiver.step(smtp::Event::Input("\n".repeat(65536).as_bytes()), &mut out);
        assert!(matches!(step, smtp::Step::Close(Outcome::Refused(Refusal::Misbehaved))), "{name}: {step:?}");
        assert!((ANSWER_BYTES_MAX..ANSWER_BYTES_MAX + 1024).contains(&out.len()), "{name}: {} bytes", out.len());
    }
}

#[test]
fn a_message_that_is_too_long_for_a_quoted_string_is_a_literal() {
    // `user=kim^Aauth=Bearer TOKEN^A^A` in base64.
    let longest = SIEVE_QUOTED_BYTES_MAX / 4 * 3 - "user=kim\x01auth=Bearer \x01\x01".len();
    let said = |bytes: usize| {
        let by = LogInBy::Token(Secret::new(vec![b't'; bytes]));
        let mut back = logs_in("sieve", by, back_setup(false, false));
        let mut out = Vec::new();
        back.step(BackEvent::Input(b"\"SASL\" \"XOAUTH2\"\r\nOK\r\n"), &mut out);
        String::from_utf8(out).expect("UTF-8")
    };
    let quoted = "AUTHENTICATE \"XOAUTH2\" \"dXNlcj1raW0B";
    assert!(said(longest).starts_with(quoted) && said(longest).ends_with("\"\r\n"), "{}", said(longest));
    let literal = format!("AUTHENTICATE \"XOAUTH2\" {{{}+}}\r\ndXNlcj1raW0B", SIEVE_QUOTED_BYTES_MAX + 4);
    assert!(said(longest + 1).starts_with(&literal), "{}", said(longest + 1));
}

#[test]
fn an_answer_with_a_bare_line_feed_is_none() {
    for (name, begin) in
        [("imap", "a AUTHENTICATE PLAIN\r\n"), ("pop3", "AUTH PLAIN\r\n"), ("submission", "EHLO x\r\nAUTH PLAIN\r\n")]
    {
        for (end, is_asked) in [("\r\n", true), ("\n", false)] {
            let mut front = front(name, setup(false), rules(&PASSWORDS));
            let mut out = Vec::new();
            front.step(Event::Start, &mut out);
            front.step(Event::Input(begin.as_bytes()), &mut out);
            let step = front.step(Event::Input(format!("AGtpbQBodXNoZWQ={end}").as_bytes()), &mut out);
            assert_eq!(
                matches!(&step, Step::Ask(Ask::Begin(Offered::Password(PasswordMechanism::Plain, Some(_))))),
                is_asked,
                "{name} {end:?}: {step:?}"
            );
        }
    }
}

#[test]
fn replies_come_whole_in_order_and_one_at_a_time() {
    let mut replies = Replies::after(b"250-one\r\n250 t");
    assert!(!replies.is_empty(), "something has come");
    assert_eq!(replies.next_reply(), Ok(None));
    replies.push(b"wo\r\n354 go\r\n");
    let first = replies.next_reply().expect("a reply").expect("a reply");
    assert_eq!((first.code, first.joined().contains("one")), (250, true));
    assert_eq!(replies.next_reply(), Ok(Some(Reply::ours(354, "go"))));
    assert!(replies.is_empty() && replies.next_reply() == Ok(None));
    replies.push(b"250\r\n");
    assert_eq!(replies.next_reply(), Ok(Some(Reply::ours(250, ""))));
    for bad in ["no reply at all", "600 what", "2x0 what", "250what"] {
        assert!(Replies::after(format!("{bad}\r\n").as_bytes()).next_reply().is_err(), "{bad}");
    }
}

#[test]
fn an_address_that_leads_elsewhere_is_known() {
    for (name, is_routed) in
        [("kim@example.org", false), ("kim%elsewhere@example.org", true), ("kim!x@example.org", true)]
    {
        assert_eq!(Mailbox::of(name).is_routed(), is_routed, "{name}");
    }
}
