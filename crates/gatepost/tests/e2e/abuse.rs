//! Clients that mean no good, or never learnt the protocol: bounded, refused, forgotten.

use std::io::Write as _;
use std::time::{Duration, Instant};

use gatepost_lab::wait_for;

use crate::bed::{Bed, KIM, NOWHERE};
use crate::talk::Talk;

#[test]
fn a_thousand_clients_that_never_end_their_line_cost_a_bounded_sum() {
    for bracket in ["(", ")"] {
        let bed = Bed::new();
        let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", NOWHERE));
        let before = gatepost.memory_kib().expect("memory");
        let clients: Vec<_> = (0..1000)
            .map(|_| {
                let mut talk = bed.clear();
                talk.send(format!("a LOGIN {}", bracket.repeat(4000)));
                talk
            })
            .collect();
        bed.clear().command("NOOP");
        let each = (gatepost.memory_kib().expect("memory") - before) / 1000;
        assert!(each < 24, "{each} KiB for each client");
        drop(clients);
    }
}

#[test]
fn a_megabyte_without_a_line_end_is_cut_off() {
    let bed = Bed::new();
    let gatepost = bed.gatepost(&bed.one_backend("", NOWHERE));
    let before = gatepost.memory_kib().expect("memory");
    let mut talk = bed.clear();
    let _ = talk.try_send(vec![b'a'; 1 << 20]);
    assert!(talk.rest().starts_with("* BYE [CLIENTBUG] Line or command too long."), "told why");
    assert!(gatepost.memory_kib().expect("memory") < before + 1024);
}

#[test]
fn a_literal_of_400_megabytes_is_refused_before_it_is_sent() {
    let bed = Bed::new();
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", NOWHERE));
    let before = gatepost.memory_kib().expect("memory");
    let mut talk = bed.clear();
    assert!(talk.verdict("LOGIN {400000000}").starts_with("BAD [TOOBIG]"));
    assert!(talk.verdict("NOOP").starts_with("OK"));
    assert!(gatepost.memory_kib().expect("memory") < before + 4096);
}

#[test]
fn an_id_of_a_thousand_pairs_is_bounded() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&bed.one_backend("", NOWHERE));
    let mut talk = bed.clear();
    let pairs = (0..1000).map(|n| format!("\"k{n}\" \"v\"")).collect::<Vec<_>>().join(" ");
    assert!(talk.verdict(&format!("ID ({pairs})")).starts_with("BAD"));
    assert!(talk.verdict("NOOP").starts_with("OK"));
}

#[test]
fn pipelined_nonsense_gets_a_reply_each_and_then_the_end() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&bed.one_backend("max_errors = 5", NOWHERE));
    let mut talk = bed.clear();
    talk.send((0..500).map(|n| format!("n{n} NONSENSE\r\n")).collect::<String>());
    let said = talk.rest();
    let replies = said.lines().filter(|line| line.contains(" BAD ")).count();
    assert_eq!(replies, 5, "{said}");
    assert!(said.ends_with("* BYE [CLIENTBUG] Too many errors.\r\n"), "{said}");
}

#[test]
fn a_web_request_gets_nothing_of_itself_back() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&bed.one_backend("", NOWHERE));
    let mut talk = bed.clear();
    talk.send("POST /<script>alert(1)</script> HTTP/1.1\r\nHost: x\r\n\r\na LOGIN x y\r\n");
    assert_eq!(talk.rest(), "* BYE [CLIENTBUG] This is not a web server.\r\n");
}

#[test]
fn a_byte_a_second_does_not_move_the_deadline() {
    let bed = Bed::new();
    let _gatepost = bed.gatepost(&bed.one_backend("login_timeout = \"2s\"", NOWHERE));
    let mut talk = bed.clear();
    let started = Instant::now();
    let mut slow = talk.tcp().try_clone().expect("a socket");
    let drip = std::thread::spawn(move || {
        for byte in b"a NOOP\r\nb NOOP\r\n" {
            if slow.write_all(&[*byte]).is_err() {
                break;
            }
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let said = talk.rest();
    assert!(said.ends_with("* BYE [UNAVAILABLE] Log-in took too long.\r\n"), "{said}");
    let took = started.elapsed();
    assert!(took > Duration::from_millis(1800) && took < Duration::from_secs(5), "{took:?}");
    drip.join().expect("a thread");
}

#[test]
fn a_hundred_thousand_broken_off_exchanges_leak_nothing() {
    let bed = Bed::new();
    // A worker that comes with so much work has files of its own, and stays for a while.
    let one_worker = "[threads]\nmax = 1\n[map]";
    let configuration = bed.one_backend("plaintext = \"always\"\nmax_errors = 0", NOWHERE).replace("[map]", one_worker);
    let gatepost = bed.gatepost(&configuration);
    let cancel = |rounds: u32| {
        let mut talk = bed.clear();
        for n in 0..rounds {
            talk.send("a AUTHENTICATE PLAIN\r\n*\r\n".repeat(100));
            for _ in 0..100 {
                assert_eq!(talk.line(), "+ ", "round {n}");
                assert_eq!(talk.line(), "a BAD AUTHENTICATE cancelled.");
            }
        }
    };
    let disconnect = |count: u32| {
        for _ in 0..count {
            let mut talk = bed.clear();
            talk.send("a AUTHENTICATE PLAIN\r\n");
            talk.line();
        }
    };
    cancel(10);
    disconnect(200);
    let (memory, files) = (gatepost.memory_kib().expect("memory"), gatepost.open_files().expect("files"));
    cancel(990);
    disconnect(1000);
    assert!(gatepost.memory_kib().expect("memory") < memory + 1024);
    wait_for(|| gatepost.open_files().expect("files") <= files).unwrap_or_else(|_| panic!("sockets are left"));
}

#[test]
fn without_file_descriptors_clients_wait_and_nothing_spins() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration = bed.one_backend("plaintext = \"always\"", store.imap);
    let gatepost =
        gatepost_lab::Gatepost::start_with_limit(crate::bed::binary(), &bed.path(""), &configuration, Some(64))
            .expect("Gatepost");
    let mut clients: Vec<_> = (0..200).map(|_| Talk::clear(bed.imap)).collect();
    let before = cpu_ticks(gatepost.pid());
    std::thread::sleep(Duration::from_secs(2));
    let spent = cpu_ticks(gatepost.pid()) - before;
    assert!(spent < 50, "{spent} ticks of 10 ms while everybody waits");
    // Everyone is served in turn as others leave.
    for (n, talk) in clients.drain(..).enumerate() {
        let mut talk = talk.greeted();
        if n % 20 == 0 {
            talk.log_in(KIM);
        }
    }
    assert!(gatepost.open_files().expect("files") <= 64);
}

/// Processor time used so far, in hundredths of a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("a process");
    let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().filter_map(|&n| fields.get(n)?.parse::<u64>().ok()).sum()
}
