//! A running Gatepost: reloads, stops, threads, logs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gatepost_lab::{free_port, wait_for};
use rustix::process::Signal;

use crate::bed::{Bed, KIM, imap_server};
use crate::talk::Talk;

#[test]
fn reloads_during_a_thousand_log_ins_disturb_none() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration = bed.one_backend("plaintext = \"always\"\ngreeting = \"Ready.\"", store.imap);
    let gatepost = bed.gatepost(&configuration);
    let mut witness = bed.logged_in(KIM);
    let (done, logins) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let log_in = || {
            while logins.fetch_add(1, Ordering::SeqCst) < 1000 {
                let mut talk = bed.clear();
                talk.log_in(KIM);
                assert!(talk.verdict("NOOP").starts_with("OK"));
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(log_in)).collect();
        let reloads = scope.spawn(|| {
            let mut count = 0;
            while !done.load(Ordering::SeqCst) {
                gatepost.reload(&configuration.replace("Ready.", &format!("Ready {count}."))).expect("a reload");
                count += 1;
                std::thread::sleep(Duration::from_millis(500));
            }
            count
        });
        threads.into_iter().for_each(|thread| thread.join().expect("a thread"));
        done.store(true, Ordering::SeqCst);
        assert!(reloads.join().expect("a thread") > 2);
    });
    assert!(witness.verdict("NOOP").starts_with("OK"));
}

#[test]
fn a_bad_file_changes_nothing_and_says_where() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let good = bed.one_backend("", store.imap);
    let gatepost = bed.gatepost(&good);
    for (bad, complaint) in [
        (good.replace("[map]", "[map]\nfoo = 1"), "map.foo: unknown setting"),
        (good.replace("tls = \"none\"", "tls = none"), "gatepost.toml:"),
        (
            good.replace(&format!("127.0.0.1:{}", bed.imap), &format!("127.0.0.1:{}", store.imap)),
            "is in use by another program",
        ),
        (String::new(), "no service"),
    ] {
        let answer = gatepost.refused_reload(&bad).expect("a refusal");
        assert!(answer.contains("nothing was changed"), "{answer}");
        gatepost.wait_for_log(complaint).expect(complaint);
        bed.logged_in(KIM);
    }
}

#[test]
fn a_reload_moves_listeners_and_changes_limits_under_living_sessions() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let before = bed.one_backend("plaintext = \"always\"", store.imap);
    let gatepost = bed.gatepost(&before);
    let mut talk = bed.clear();
    talk.log_in(KIM);
    let port = free_port().expect("a port");
    let after = before
        .replace(&format!("127.0.0.1:{}", bed.imap), &format!("127.0.0.1:{port}"))
        .replace("[map]", "[imap.limits]\nconnections = 2\n[map]");
    gatepost.reload(&after).expect("a reload");
    assert!(std::net::TcpStream::connect(("127.0.0.1", bed.imap)).is_err(), "the old address is gone");
    assert!(talk.verdict("NOOP").starts_with("OK"), "its session is not");
    let _second = Talk::clear(port).greeted();
    assert!(Talk::clear(port).line().starts_with("* BYE [LIMIT]"), "the session from before counts");
}

#[test]
fn a_failed_reload_is_said_even_where_only_one_service_is_logged() {
    let bed = Bed::new();
    let good = bed
        .one_backend("", 9)
        .replace("[map]", "[[log.rule]]\nservice = \"imap\"\nto = \"file\"\npath = \"imap.log\"\n[map]");
    bed.write("gatepost.toml", &good);
    let output = bed.path("gatepost.log");
    let path = bed.path("gatepost.toml").display().to_string();
    let process = gatepost_lab::Process::start(crate::bed::binary(), &["serve", "--config", &path], &output, false)
        .expect("a start");
    gatepost_lab::wait_for_port(bed.imap, Duration::from_secs(20)).expect("a listener");
    bed.write("gatepost.toml", &good.replace("[map]", "[map]\nfoo = 1"));
    process.signal(Signal::HUP).expect("a signal");
    wait_for(|| std::fs::read_to_string(&output).expect("a file").contains("map.foo: unknown setting"))
        .unwrap_or_else(|_| panic!("nothing was said"));
    bed.clear();
}

#[test]
fn a_listener_moves_from_one_address_to_all_and_back() {
    let bed = Bed::new();
    let one = bed.one_backend("", 9);
    let gatepost = bed.gatepost(&one);
    let all = one.replace(&format!("127.0.0.1:{}", bed.imap), &format!("0.0.0.0:{}", bed.imap));
    for configuration in [&all, &one] {
        gatepost.reload(configuration).expect("a reload");
        bed.clear();
    }
}

#[test]
fn a_stop_says_goodbye_and_ends_by_its_deadline() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let mut gatepost = bed.gatepost(&bed.one_backend("", store.imap));
    let mut idle: Vec<_> = (0..40).map(|_| bed.logged_in(KIM)).collect();
    for talk in &mut idle {
        talk.command("SELECT INBOX");
        talk.send("i IDLE\r\n");
        assert!(talk.line().starts_with("+ "));
    }
    let mut waiting = bed.clear();
    std::thread::sleep(Duration::from_millis(2200));
    let started = Instant::now();
    gatepost.signal(Signal::TERM).expect("a signal");
    assert_eq!(waiting.line(), "* BYE [UNAVAILABLE] The server ends this session.");
    for talk in &mut idle {
        // Dovecot may have a word of its own for clients in IDLE just then.
        let last = std::iter::repeat_with(|| talk.line()).find(|line| line != "* OK Still here");
        assert_eq!(last.as_deref(), Some("* BYE [UNAVAILABLE] The server ends this session."));
        assert_eq!(talk.line(), "");
    }
    let status = gatepost.wait(Duration::from_secs(6)).expect("an end");
    assert!(status.success(), "{status}");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    assert!(gatepost.log().contains("Gatepost has stopped"));
}

#[test]
fn a_stop_does_not_wait_for_sessions_that_never_rest() {
    let bed = Bed::new();
    let port = imap_server(|mut stream| {
        use std::io::Write as _;
        while stream.write_all(b"* half a li").is_ok() {
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut gatepost = bed.gatepost(&bed.one_backend("", port));
    let mut busy = bed.logged_in(KIM);
    gatepost.signal(Signal::TERM).expect("a signal");
    let status = gatepost.wait(Duration::from_secs(6)).expect("an end");
    assert!(status.success(), "{status}");
    assert!(!busy.rest().contains("BYE"), "nothing is put into the middle of a line");
}

#[test]
fn a_stop_does_not_wait_for_who_has_yet_to_log_in() {
    let bed = Bed::new();
    let proxied = free_port().expect("a port");
    bed.write("users", "kim:{PLAIN}x::::::host=store hold\n");
    let configuration = bed
        .configuration(&format!(
            "[map]\ndirectories = [\"people\"]\nhold_time = \"50s\"\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
             [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = 9 }}\n[[imap.listener]]\naddress = \"127.0.0.1:{proxied}\"\n\
             proxy_protocol = {{ from = [\"127.0.0.1\"], required = true }}\n"
        ))
        .replace("drain = \"3s\"", "drain = \"1m\"");
    let mut gatepost = bed.gatepost(&configuration);
    // Without a word where TLS comes first, and where a header does.
    let silent =
        [bed.imaps, proxied].map(|port| std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection"));
    let mut held = bed.secure();
    held.send("a LOGIN kim x\r\n");
    wait_for(|| bed.list(&["sessions"]).iter().any(|session| session["user"] == "kim")).expect("a log-in");
    assert_eq!(bed.list(&["sessions"]).len(), 3);
    gatepost.signal(Signal::TERM).expect("a signal");
    let status = gatepost.wait(Duration::from_secs(30)).expect("an end, in half the time that sessions have");
    assert!(status.success(), "{status}");
    assert!(held.rest().contains("a NO [UNAVAILABLE]"), "it is told");
    assert!(!gatepost.log().contains("a PROXY header was refused"), "it is not the balancer's fault");
    drop(silent);
}

#[test]
fn threads_come_with_the_work_and_go_with_it() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration =
        bed.one_backend("plaintext = \"always\"", store.imap).replace("[map]", "[threads]\nmin = 1\nmax = 2\n[map]");
    let gatepost = bed.gatepost(&configuration);
    // The thread takes its name once it runs.
    wait_for(|| workers(&gatepost) == 1).expect("one worker");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // So many that the worker always has some of them waiting, however little of the processor the clients get.
        for _ in 0..16 {
            scope.spawn(|| {
                // TLS handshakes are the hardest work there is.
                while !stop.load(Ordering::SeqCst) {
                    drop(Talk::secure(bed.imaps, &bed.authority.certificate));
                }
            });
        }
        let grown = gatepost.wait_for_log("workers=2");
        stop.store(true, Ordering::SeqCst);
        grown.expect("a second worker");
    });
    // Live: fewer at once by a reload, and the last of its sessions ends the thread.
    gatepost.reload(&configuration.replace("max = 2", "max = 1")).expect("a reload");
    gatepost.wait_for_log("a worker retires").expect("a record");
    wait_for(|| workers(&gatepost) <= 1).unwrap_or_else(|_| panic!("the thread stays"));
    bed.logged_in(KIM);
}

fn workers(gatepost: &gatepost_lab::Gatepost) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", gatepost.pid())).expect("threads").flatten();
    tasks
        .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("worker-")))
        .count()
}

#[test]
fn log_rules_send_what_they_name_where_they_say() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let rules = "[[log.rule]]\n[[log.rule]]\nservice = \"imap\"\nto = \"file\"\npath = \"imap.json\"\nformat = \"json\"\nrotate = { size = \"1KiB\", keep = 2 }\n\
                 [[log.rule]]\nlevel = \"error\"\nto = \"file\"\npath = \"errors.log\"\n[map]";
    let gatepost = bed.gatepost(&bed.one_backend("", store.imap).replace("[map]", rules));
    for _ in 0..8 {
        bed.logged_in(KIM).command("LOGOUT");
    }
    bed.secure().verdict("LOGIN kim wrong");
    gatepost.wait_for_log("auth failed").expect("a record");
    let files = || -> Vec<_> {
        let names = std::fs::read_dir(bed.path("")).expect("a folder").flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| name.starts_with("imap.json")).collect()
    };
    wait_for(|| files().len() == 3).unwrap_or_else(|_| panic!("{:?}", files()));
    let mut services = Vec::new();
    for name in files() {
        for line in std::fs::read_to_string(bed.path(&name)).expect("a file").lines() {
            let record: serde_json::Value = serde_json::from_str(line).expect("JSON");
            services.push(record["service"].as_str().expect("a service").to_owned());
            assert!(
                record["time"].is_string() && record["level"].is_string() && record["message"].is_string(),
                "{line}"
            );
        }
    }
    assert!(services.iter().all(|service| service.starts_with("imap")), "{services:?}");
    assert_eq!(std::fs::read_to_string(bed.path("errors.log")).expect("a file"), "");
}

#[test]
fn no_password_is_ever_written_down_or_kept() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration =
        bed.one_backend("plaintext = \"always\"", store.imap).replace("[map]", "[log]\nlevel = \"protocol\"\n[map]");
    let gatepost = bed.gatepost(&configuration);
    let mut sessions = Vec::new();
    for secure in [false, true] {
        let mut talk = if secure { bed.secure() } else { bed.clear() };
        talk.verdict("LOGIN kim \"wr0ng-passw0rd-1\"");
        // Malformed, but all of the password is there.
        talk.verdict("LOGIN kim \"wr0ng-passw0rd-1\\x\"");
        talk.send("a AUTHENTICATE PLAIN\r\nAGtpbQB3cjBuZy1wYXNzdzByZC0x=\r\n");
        talk.answer("a");
        talk.verdict("NOOP wr0ng-passw0rd-1");
        talk.send("a AUTHENTICATE PLAIN\r\nAGtpbQB3cjBuZy1wYXNzdzByZC0x\r\n");
        talk.answer("a");
        talk.log_in(KIM);
        sessions.push(talk);
    }
    gatepost.wait_for_log("auth failed").expect("a record");
    let secrets = [
        &b"wr0ng-passw0rd-1"[..],
        b"AGtpbQB3cjBuZy1wYXNzdzByZC0x",
        KIM.password.as_bytes(),
        b"AGtpbQBraW0ncyBzZWNyZXQ=",
    ];
    let log = gatepost.log().into_bytes();
    let text = String::from_utf8_lossy(&log).into_owned();
    assert!(text.contains("C: t1 LOGIN [struck out]") && text.contains("S: t1 NO [AUTHENTICATIONFAILED]"), "{text}");
    for secret in secrets {
        let text = String::from_utf8_lossy(secret).into_owned();
        assert!(!holds(&log, secret), "{text} is in the log");
    }
    // What a core dump would hold: with the sessions alive, their secrets are gone.
    for secret in secrets {
        let text = String::from_utf8_lossy(secret).into_owned();
        wait_for(|| !holds(&memory(gatepost.pid()), secret)).unwrap_or_else(|_| panic!("{text} is in memory"));
    }
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

/// All that a process has written to memory of its own.
fn memory(pid: u32) -> Vec<u8> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("maps");
    let file = std::fs::File::open(format!("/proc/{pid}/mem")).expect("memory");
    let mut all = Vec::new();
    for line in maps.lines().filter(|line| line.contains(" rw-p ") || line.contains(" rw-s ")) {
        let (start, end) = line.split(' ').next().and_then(|range| range.split_once('-')).expect("a range");
        let number = |text| u64::from_str_radix(text, 16).expect("a number");
        let mut bytes = vec![0; (number(end) - number(start)) as usize];
        if file.read_exact_at(&mut bytes, number(start)).is_ok() {
            all.extend(bytes);
        }
    }
    all
}
