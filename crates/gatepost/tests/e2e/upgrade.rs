//! A new binary that takes over from the one that runs.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use gatepost_lab::{Gatepost, Process, wait_for};

use crate::bed::{Bed, IMAP_GREETING, back_end, binary};
use crate::talk::Talk;

/// Sessions that are open while it happens.
const SESSIONS: usize = 1000;

/// A back end that takes everybody and says OK to everything.
fn yes_man() -> u16 {
    back_end(|mut stream: TcpStream| {
        let _ = stream.set_read_timeout(None);
        let _ = stream.write_all(IMAP_GREETING);
        let Ok(reader) = stream.try_clone() else { return };
        for line in BufReader::new(reader).lines().map_while(Result::ok) {
            let tag = line.split(' ').next().unwrap_or("*");
            if stream.write_all(format!("{tag} OK done\r\n").as_bytes()).is_err() {
                return;
            }
        }
    })
}

fn is_running(pid: u64) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // One that has ended and that nobody has asked about yet runs no more.
    !state.is_empty() && !state.contains(") Z ")
}

/// Ends what the test's own process handle doesn't know of.
struct Successor<'a>(&'a Gatepost);

impl Drop for Successor<'_> {
    fn drop(&mut self) {
        let _ = self.0.command(&["stop"]);
    }
}

#[test]
fn nobody_loses_a_session_or_is_refused_while_a_new_binary_takes_over() {
    let bed = Bed::new();
    let port = yes_man();
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"\nmechanisms = [\"PLAIN\"]", port));
    let log_in = || {
        let mut talk = bed.clear();
        assert!(talk.verdict("LOGIN kim secret").starts_with("OK"));
        talk
    };
    let mut sessions: Vec<_> = (0..SESSIONS).map(|_| log_in()).collect();
    let first = bed.list(&["status"])[0]["pid"].as_u64().expect("a pid");
    let is_over = AtomicBool::new(false);
    let (longest, count) = std::thread::scope(|threads| {
        let watching = threads.spawn(|| {
            let (mut longest, mut count) = (Duration::ZERO, 0);
            while !is_over.load(Ordering::Relaxed) {
                let began = Instant::now();
                drop(log_in());
                (longest, count) = (longest.max(began.elapsed()), count + 1);
            }
            (longest, count)
        });
        let upgraded = bed.list(&["upgrade"]);
        assert_eq!(upgraded[0]["generation"], 2);
        std::thread::sleep(Duration::from_millis(500));
        is_over.store(true, Ordering::Relaxed);
        watching.join().expect("every log-in is served")
    });
    let successor = Successor(&gatepost);
    println!("{count} log-ins meanwhile, the longest {longest:?}");
    assert!(count > 10, "{count}");
    let second = bed.list(&["status"])[0]["pid"].as_u64().expect("a pid");
    assert_ne!(first, second);
    // Every session is there and goes on, and can be seen and ended by way of the new one.
    sessions.iter_mut().for_each(|talk| assert!(talk.verdict("NOOP").starts_with("OK")));
    let _newest = log_in();
    wait_for(|| bed.list(&["sessions"]).len() == SESSIONS + 1).expect("all are listed");
    let all = bed.list(&["sessions"]);
    let of = |generation: u64| all.iter().filter(|session| session["generation"] == generation).count();
    assert_eq!((of(1), of(2)), (SESSIONS, 1));
    let old = all.iter().find(|session| session["generation"] == 1).expect("one").clone();
    assert_eq!(bed.list(&["kick", old["id"].as_str().expect("an id")]).len(), 1);
    wait_for(|| bed.list(&["sessions"]).len() == SESSIONS).expect("it is gone");
    assert!(is_running(first));
    // A ban ends what either of them has.
    assert_eq!(bed.list(&["bans", "add", "127.0.0.1"])[0]["ended"], SESSIONS);
    bed.list(&["bans", "remove", "127.0.0.1"]);
    drop(sessions);
    wait_for(|| !is_running(first)).expect("the old process ends with its last session");
    assert!(is_running(second));
    drop(log_in());
    drop(successor);
    wait_for(|| !is_running(second)).expect("it stops when it is told");
}

#[test]
fn a_new_process_that_cannot_start_changes_nothing() {
    let bed = Bed::new();
    let port = yes_man();
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"\nmechanisms = [\"PLAIN\"]", port));
    let mut kim = bed.clear();
    assert!(kim.verdict("LOGIN kim secret").starts_with("OK"));
    let good = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file");
    bed.write("gatepost.toml", &good.replace("[map]\n", "[map]\nnonsense = 1\n"));
    let output =
        gatepost.command(&["--socket", &bed.path("gatepost-state/admin.sock").display().to_string(), "upgrade"]);
    let output = output.expect("gatepost");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did not begin to serve"), "{output:?}");
    gatepost.wait_for_log("nonsense: unknown setting").expect("the new one says why");
    gatepost.wait_for_log("handing over failed, this process goes on").expect("and the old one too");
    assert!(kim.verdict("NOOP").starts_with("OK"));
    bed.write("gatepost.toml", &good);
    assert_eq!(bed.list(&["status"])[0]["pid"], gatepost.pid());
    assert!(Talk::clear(bed.imap).greeted().verdict("LOGIN kim secret").starts_with("OK"));
    // By signal, and this time well.
    gatepost.signal(rustix::process::Signal::USR2).expect("a signal");
    gatepost.wait_for_log("a new process serves").expect("a word");
    wait_for(|| bed.list(&["status"])[0]["pid"] != gatepost.pid()).expect("another process");
    assert!(kim.verdict("NOOP").starts_with("OK"));
    // It is killed: the next one finds the first with its session all the same.
    let second = bed.list(&["status"])[0]["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
    let second = second.and_then(rustix::process::Pid::from_raw).expect("a pid");
    rustix::process::kill_process(second, rustix::process::Signal::KILL).expect("a signal");
    gatepost.wait_for_log("the process that has taken over has ended").expect("the first says so");
    let _third = bed.gatepost(&good);
    let sessions = bed.list(&["sessions"]);
    assert!(sessions.len() == 1 && sessions[0]["generation"] == 1, "{sessions:?}");
    assert_eq!(bed.list(&["kick", "--user", "kim"]).len(), 1);
    wait_for(|| bed.list(&["sessions"]).is_empty()).expect("it is gone");
}

#[test]
fn a_service_manager_is_told_what_becomes_of_it() {
    let bed = Bed::new();
    let manager = UnixDatagram::bind(bed.path("notify.sock")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    let hear = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("a message");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let hear_news = || std::iter::repeat_with(hear).find(|text| text != "WATCHDOG=1").expect("one");
    bed.write("gatepost.toml", &bed.one_backend("", yes_man()));
    let config = bed.path("gatepost.toml");
    let place = format!("NOTIFY_SOCKET={}", bed.path("notify.sock").display());
    let [program, config] = [binary(), &config].map(|path| path.display().to_string());
    let arguments = [&place, "WATCHDOG_USEC=30000000", &program, "serve", "--config", &config];
    let first = Process::start(Path::new("env"), &arguments, &bed.path("gatepost.log"), false);
    let mut first = first.expect("gatepost");
    assert_eq!(hear_news(), "READY=1");
    assert_eq!(hear(), "WATCHDOG=1");
    bed.said(&["reload"]);
    let reloading = hear_news();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("the news").parse::<u64>();
    assert!(since.is_ok_and(|since| since > 0), "{reloading}");
    assert_eq!(hear_news(), "READY=1");
    let second = bed.list(&["upgrade"])[0]["pid"].as_u64().expect("a pid");
    assert_eq!(hear_news(), format!("MAINPID={second}"));
    assert!(first.wait(Duration::from_secs(20)).expect("an end").success(), "it has no sessions, and ends");
    assert_eq!(hear(), "WATCHDOG=1", "of the one that has taken over");
    bed.list(&["stop"]);
    assert_eq!(hear_news(), "STOPPING=1");
    wait_for(|| !is_running(second)).expect("it stops when it is told");
}

#[test]
fn a_service_manager_may_listen_for_it() {
    let bed = Bed::new();
    let [console, other] = gatepost_lab::free_ports().expect("ports");
    bed.write(
        "gatepost.toml",
        &(bed.one_backend("", yes_man()) + &format!("[admin]\nlisten = \"127.0.0.1:{console}\"\n")),
    );
    let listen = |port: u16| format!("--listen=127.0.0.1:{port}");
    let [program, config] = [binary(), &bed.path("gatepost.toml")].map(|path| path.display().to_string());
    let sockets = [bed.imap, console, other].map(listen);
    let mut arguments: Vec<_> = sockets.iter().map(String::as_str).collect();
    arguments.extend([program.as_str(), "serve", "--config", &config]);
    let gatepost = Process::start(Path::new("systemd-socket-activate"), &arguments, &bed.path("gatepost.log"), false);
    let mut gatepost = gatepost.expect("systemd-socket-activate");
    gatepost_lab::wait_for_port(bed.imap, Duration::from_secs(20)).expect("a port");
    // It is started by who comes first, and that is served; it could not listen there by itself.
    let mut talk = bed.clear();
    assert!(talk.verdict("NOOP").starts_with("OK"));
    assert!(bed.secure().verdict("NOOP").starts_with("OK"), "a port that nobody gave it");
    let mut answer = String::new();
    let mut http = TcpStream::connect(("127.0.0.1", console)).expect("the console");
    http.write_all(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("a request");
    std::io::Read::read_to_string(&mut http, &mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let warning = || {
        let log = std::fs::read_to_string(bed.path("gatepost.log")).expect("a log");
        log.lines().find(|line| line.contains("where no listener is")).map(str::to_owned)
    };
    wait_for(|| warning().is_some()).expect("a warning");
    assert!(warning().is_some_and(|warning| warning.contains(&format!("127.0.0.1:{other}"))), "{:?}", warning());
    // A listener can go and come back, though another program could not have its address meanwhile; and one can be added.
    let waiting = TcpStream::connect(("127.0.0.1", other)).expect("somebody who waits");
    let [with, without] = [true, false].map(|has| {
        let text = std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file");
        if has { text } else { text.replace(&format!(":{}", bed.imap), &format!(":{other}")) }
    });
    let reload = |configuration: &String| {
        bed.write("gatepost.toml", configuration);
        bed.said(&["reload"]);
    };
    reload(&without);
    let mut greeting = String::new();
    BufReader::new(waiting).read_line(&mut greeting).expect("a greeting");
    assert!(greeting.starts_with("* OK"), "{greeting}");
    reload(&with);
    assert!(talk.verdict("NOOP").starts_with("OK") && bed.clear().verdict("NOOP").starts_with("OK"));
    // Those that it was given are handed on, also where nobody listens.
    bed.list(&["upgrade"]);
    assert!(gatepost.wait(Duration::from_secs(1)).is_err(), "it has a session");
    assert!(talk.verdict("NOOP").starts_with("OK") && bed.clear().verdict("NOOP").starts_with("OK"));
    reload(&without);
    assert!(crate::talk::Talk::clear(other).greeted().verdict("NOOP").starts_with("OK"));
    bed.list(&["stop"]);
}
