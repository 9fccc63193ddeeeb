//! `ManageSieve`, end to end: a real client, a real Dovecot with Pigeonhole, and what must not get through.

use std::io::Write as _;
use std::process::{Command, Stdio};

use gatepost_lab::{Dovecot, Gatepost, wait_to_find};

use crate::bed::{Bed, KIM, all_heard, hearing};
use crate::talk::Talk;

/// Gatepost with `ManageSieve` alone, on the bed's first port, and one back end for everybody.
fn configuration(bed: &Bed, sieve: &str, backend: &str, port: u16) -> String {
    format!(
        "{}[[sieve.listener]]\naddress = \"127.0.0.1:{}\"\n[sieve]\n{sieve}\n[sieve.backend]\n{backend}\n\
         [map]\ndefault = \"store\"\n[backend.store]\nhost = \"localhost\"\nsieve = {{ port = {port} }}\n",
        bed.head(),
        bed.imap
    )
}

/// A Dovecot reached over STARTTLS with its certificate checked.
fn with_store(bed: &Bed) -> (Dovecot, Gatepost) {
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&configuration(bed, "", "ca = \"ca.pem\"", store.sieve));
    (store, gatepost)
}

/// The lines of an answer, the one that ends it last.
fn answer(talk: &mut Talk) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let line = talk.line();
        let is_last = line.is_empty() || ["OK", "NO", "BYE"].iter().any(|word| line.starts_with(word));
        lines.push(line);
        if is_last {
            return lines;
        }
    }
}

fn ask(talk: &mut Talk, command: &str) -> String {
    talk.send(format!("{command}\r\n"));
    answer(talk).pop().unwrap_or_default()
}

/// A client under TLS, with what it was told of the server there.
fn secure(bed: &Bed) -> (Talk, Vec<String>) {
    let mut talk = Talk::clear(bed.imap);
    let in_clear = answer(&mut talk);
    assert!(in_clear.contains(&"\"SASL\" \"\"".to_owned()) && in_clear.contains(&"\"STARTTLS\"".to_owned()));
    assert_eq!(in_clear.last().map(String::as_str), Some("OK \"mail.example.org Gatepost ready.\""));
    assert!(ask(&mut talk, "STARTTLS").starts_with("OK "));
    let mut talk = talk.upgrade(&bed.authority.certificate);
    let under_tls = answer(&mut talk);
    (talk, under_tls)
}

/// NUL kim NUL and the password.
const CREDENTIALS: &str = "AGtpbQBraW0ncyBzZWNyZXQ=";

#[test]
fn a_real_client_puts_lists_and_activates_scripts() {
    let bed = Bed::new();
    let (store, _gatepost) = with_store(&bed);
    let script = bed.write("mine.sieve", "require \"fileinto\";\r\nfileinto \"INBOX\";\r\n");
    let run = |arguments: &[&str]| {
        let mut command = Command::new("sieve-connect");
        command.args(["--nosrv", "--server", "localhost", "--port", &bed.imap.to_string(), "--user", "kim"]);
        command.args(["--passwordfd", "0", "--authmech", "PLAIN", "--tlscafile"]).arg(&bed.authority.certificate);
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("sieve-connect");
        child.stdin.take().expect("a pipe").write_all(format!("{}\n", KIM.password).as_bytes()).expect("a password");
        let output = child.wait_with_output().expect("sieve-connect");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{arguments:?}: {said}");
        said
    };
    let local = script.display().to_string();
    run(&["--upload", "--localsieve", &local, "--remotesieve", "mine"]);
    run(&["--activate", "--remotesieve", "mine"]);
    let list = run(&["--list"]);
    assert!(list.contains("\"mine\"") && list.contains("ACTIVE"), "{list}");
    store.wait_for_log("managesieve-login: Info: Login: user=<kim>").expect("a log-in");
}

#[test]
fn what_is_promised_is_what_the_back_end_has() {
    let bed = Bed::new();
    let (store, gatepost) = with_store(&bed);
    let extensions = |lines: &[String]| {
        let line = lines.iter().find_map(|line| line.strip_prefix("\"SIEVE\" \"")).unwrap_or_default().to_owned();
        line.trim_end_matches('"').split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    };
    // Learnt without anybody's log-in.
    let learnt = wait_to_find(|| Some(extensions(&secure(&bed).1)).filter(|promised| !promised.is_empty()));
    let promised = learnt.unwrap_or_else(|_| panic!("nothing is learnt: {}", gatepost.log()));
    let mut direct = Talk::clear(store.sieve);
    let of_store = extensions(&answer(&mut direct));
    assert!(promised.iter().all(|name| of_store.contains(name)), "{promised:?} and {of_store:?}");
    let unknown: Vec<_> = of_store.iter().filter(|name| !promised.contains(name)).collect();
    assert!(unknown.is_empty(), "not in the table: {unknown:?}");
}

#[test]
fn credentials_come_in_every_form_and_the_rest_is_delivered() {
    let bed = Bed::new();
    let (store, gatepost) = with_store(&bed);
    let (mut talk, under_tls) = secure(&bed);
    assert!(under_tls.contains(&"\"SASL\" \"PLAIN LOGIN\"".to_owned()), "{under_tls:?}");
    let literal = format!(
        "AUTHENTICATE \"PLAIN\" {{{}+}}\r\n{CREDENTIALS}\r\nHAVESPACE \"x\" 10\r\nLISTSCRIPTS\r\n",
        CREDENTIALS.len()
    );
    talk.send(literal);
    for expected in ["OK", "OK", "OK"] {
        let lines = answer(&mut talk);
        assert!(lines.last().is_some_and(|line| line.starts_with(expected)), "{lines:?}");
    }
    let body = "keep;\r\n";
    assert!(ask(&mut talk, &format!("PUTSCRIPT \"a\" {{{}+}}\r\n{body}", body.len())).starts_with("OK"));
    assert!(ask(&mut talk, "LOGOUT").starts_with("OK"));
    drop(talk);
    store.wait_for_log("user=<kim>").expect("a log-in");
    let record = gatepost.wait_for_log("result=logged-in").expect("a record");
    assert!(record.contains("gatepost sieve") && record.contains("user=<kim>"), "{record}");
    let (mut talk, _) = secure(&bed);
    // NUL kim NUL wrong
    assert_eq!(ask(&mut talk, "AUTHENTICATE \"PLAIN\" \"AGtpbQB3cm9uZw==\""), "NO \"Authentication failed.\"");
    gatepost.wait_for_log("gatepost managesieve-login: Info: Aborted login (auth failed").expect("a line for filters");
}

#[test]
fn an_outage_is_no_wrong_password_and_a_stripped_starttls_no_way_in() {
    let bed = Bed::new();
    let mut store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&configuration(&bed, "", "tls = \"none\"", store.sieve));
    store.server.kill().expect("an end");
    let log_in = format!("AUTHENTICATE \"PLAIN\" \"{CREDENTIALS}\"");
    let outage = "NO (TRYLATER) \"Temporarily unavailable, try again later.\"";
    let (mut talk, _) = secure(&bed);
    assert_eq!(ask(&mut talk, &log_in), outage);
    let (stripped, heard) = hearing(b"\"SASL\" \"PLAIN\"\r\nOK \"ready\"\r\nNO \"what\"\r\n");
    gatepost.reload(&configuration(&bed, "", "ca = \"ca.pem\"", stripped)).expect("a reload");
    let (mut talk, _) = secure(&bed);
    assert_eq!(ask(&mut talk, &log_in), outage);
    gatepost.wait_for_log("offers no STARTTLS or refused it").expect("the reason");
    let heard = all_heard(&heard);
    assert!(!heard.contains("AUTHENTICATE"), "{heard}");
}
