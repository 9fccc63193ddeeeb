//! Traces of log-ins, taken by a collector that knows OpenTelemetry's own definitions.

use std::path::Path;
use std::time::Duration;

use gatepost_lab::{OTLP, Process, ensure_python_tool, free_port, free_ports, wait_for, wait_for_port};
use rustix::process::Signal;
use serde_json::Value;

use crate::bed::{Bed, KIM};

/// A collector on a port, which refuses so many requests first and wants a token.
fn collector(bed: &Bed, port: u16, refused: u32, token: &str) -> Process {
    let (package, version, program) = OTLP;
    let python = ensure_python_tool(package, version, program, true).expect("the protocol's definitions");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/otlp_collector.py");
    let [script, file, port_text, refused] =
        [script.display().to_string(), bed.path("spans").display().to_string(), port.to_string(), refused.to_string()];
    let arguments = [script.as_str(), &port_text, &file, &refused, token];
    let process = Process::start(&python, &arguments, &bed.path("collector.out"), false).expect("a collector");
    wait_for_port(port, Duration::from_secs(20)).expect("the collector");
    process
}

fn spans(bed: &Bed) -> Vec<Value> {
    let text = std::fs::read_to_string(bed.path("spans")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

/// The log-ins among them.
fn log_ins(bed: &Bed) -> Vec<Value> {
    spans(bed).into_iter().filter(|span| span["parent"] == "").collect()
}

#[test]
fn each_log_in_is_a_span_with_what_took_time_beneath() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let port = free_port().expect("a port");
    // The first two requests are refused for the moment, and made again.
    let _collector = collector(&bed, port, 2, "a-token");
    let token = bed.write("token", "a-token\n");
    let traces = format!("[traces]\nurl = \"http://127.0.0.1:{port}\"\ntoken_file = {token:?}\n");
    let gatepost = bed.gatepost(&(bed.one_backend("", store.imap) + &traces));
    let mut talk = bed.secure();
    assert!(talk.verdict("LOGIN kim wrong").starts_with("NO"));
    talk.log_in(KIM);
    wait_for(|| log_ins(&bed).len() == 2).unwrap_or_else(|_| panic!("{:?}\n{}", spans(&bed), gatepost.log()));
    let (all, found) = (spans(&bed), log_ins(&bed));
    let results: Vec<_> = found.iter().map(|span| span["gatepost.result"].clone()).collect();
    assert_eq!(results, ["denied", "ok"]);
    let [failed, good] = [&found[0], &found[1]];
    assert_eq!((&good["name"], &good["kind"], &good["status"]), (&"imap log-in".into(), &2.into(), &0.into()));
    assert_eq!((&good["service"], &good["node"]), (&"gatepost".into(), &"mail.example.org".into()));
    assert_eq!((&good["gatepost.backend"], &good["gatepost.mechanism"]), (&"store".into(), &"command".into()));
    let beneath = |span: &Value| {
        let own = all.iter().filter(|part| part["parent"] == span["id"]);
        own.map(|part| part["name"].as_str().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(beneath(failed), ["tls", "map", "backend_login"]);
    assert_eq!(beneath(good), ["map", "connect", "backend_login"]);
    // By the trace's name the session is found in the log; whose it is, only the log says.
    let name = good["trace"].as_str().expect("a name");
    assert_eq!(failed["trace"], good["trace"]);
    drop(talk);
    let record = gatepost.wait_for_log("session ended").expect("a record");
    assert!(record.contains(&format!("session=<{name}>")) && record.contains("user=<kim>"), "{name}: {record}");
    let text = std::fs::read_to_string(bed.path("spans")).expect("spans");
    let port = record.split("rport=").nth(1).and_then(|rest| rest.split(',').next()).expect("the client's port");
    assert!(!text.contains("kim") && !text.contains(port) && !text.contains("wrong"), "{text}");
}

#[test]
fn what_is_not_sent_when_gatepost_stops_is_said() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let port = free_port().expect("a port");
    // As often as it is tried before the end.
    let _collector = collector(&bed, port, 99, "-");
    let traces = format!("[traces]\nurl = \"http://127.0.0.1:{port}\"\n");
    let mut gatepost = bed.gatepost(&(bed.one_backend("", store.imap) + &traces));
    drop(bed.logged_in(KIM));
    gatepost.signal(Signal::TERM).expect("a signal");
    gatepost.wait(Duration::from_secs(30)).expect("an end");
    let record = gatepost.wait_for_log("traces of log-ins are lost").expect("a record");
    assert!(record.contains("lost=1"), "{record}");
}

#[test]
fn some_log_ins_stand_for_all_and_a_collector_that_is_gone_holds_up_nobody() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let [nobody, port] = free_ports().expect("ports");
    let traces = |port: u16, more: &str| format!("[traces]\nurl = \"http://127.0.0.1:{port}\"\n{more}");
    let configuration = bed.one_backend("", store.imap);
    let mut gatepost = bed.gatepost(&(configuration.clone() + &traces(nobody, "")));
    (0..20).for_each(|_| drop(bed.logged_in(KIM)));
    let record = gatepost.wait_for_log("traces of log-ins are lost").expect("what is lost is said");
    assert!(record.contains("Connection refused") && record.contains(&format!("127.0.0.1:{nobody}")), "{record}");
    let _collector = collector(&bed, port, 0, "-");
    gatepost.reload(&(configuration.clone() + &traces(port, "one_in = 5\n"))).expect("a reload");
    (0..20).for_each(|_| drop(bed.logged_in(KIM)));
    wait_for(|| log_ins(&bed).len() >= 4).unwrap_or_else(|_| panic!("{:?}\n{}", spans(&bed), gatepost.log()));
    // Without the section none are made; what others there were is told by the end.
    gatepost.reload(&configuration).expect("a reload");
    drop(bed.logged_in(KIM));
    gatepost.signal(Signal::TERM).expect("a signal");
    gatepost.wait(Duration::from_secs(30)).expect("an end");
    assert_eq!(log_ins(&bed).len(), 4);
    let said = bed.refusal(&(configuration.clone() + &traces(port, "one_in = 0\n")));
    assert!(said.contains("is at least 1"), "{said}");
    let token = bed.write("token", "a-token\n");
    let clear = format!("[traces]\nurl = \"http://192.0.2.1:4318\"\ntoken_file = {token:?}\n");
    assert!(bed.refusal(&(configuration + &clear)).contains("use https"));
}
