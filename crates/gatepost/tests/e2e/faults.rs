//! Back ends that fail: users get a clean temporary failure, everybody else notices nothing.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

use gatepost_lab::{free_port, wait_for, wait_for_within};

use crate::bed::{Bed, IMAP_GREETING, KIM, LEE, back_end, say_and_listen};

#[test]
fn a_back_end_that_dies_takes_only_its_own_users_along_and_is_used_again_at_once() {
    let bed = Bed::new();
    let mut a = bed.dovecot("a", &[KIM]);
    let b = bed.dovecot("b", &[LEE]);
    bed.write("users", "kim:::::::host=store-a\nlee:::::::host=store-b\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store-a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n[backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        a.imap, b.imap
    )));
    let mut kim = bed.logged_in(KIM);
    let mut lee = bed.logged_in(LEE);
    a.server.kill().expect("an end");
    assert_eq!(kim.rest(), "", "the session ends");
    assert!(lee.verdict("NOOP").starts_with("OK"));
    let mut retry = bed.secure();
    assert_eq!(retry.try_log_in(KIM), "NO [UNAVAILABLE] Temporarily unavailable, try again later.");
    assert!(bed.secure().try_log_in(LEE).starts_with("OK"));
    gatepost.wait_for_log("Connection refused").expect("the reason");
    a.resume().expect("a start");
    let is_back = || retry.try_log_in(KIM).starts_with("OK");
    wait_for_within(Duration::from_secs(5), is_back).expect("the back end is used again");
    assert!(lee.verdict("NOOP").starts_with("OK"));
}

#[test]
fn a_log_in_that_fails_is_not_put_down_to_the_back_end_of_the_one_before() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    bed.write("users", "kim:::::::host=store\nlee:::::::host=nowhere\n");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        store.imap
    )));
    let mut talk = bed.secure();
    assert!(talk.verdict("LOGIN kim wrong").starts_with("NO [AUTHENTICATIONFAILED]"));
    assert!(talk.verdict("LOGIN lee x").starts_with("NO [UNAVAILABLE]"));
    let fault = gatepost.wait_for_log("a log-in could not be served").expect("a record");
    assert!(fault.contains("user=<lee>") && !fault.contains("backend="), "{fault}");
    drop(talk);
    let record = gatepost.wait_for_log("session ended").expect("a record");
    assert!(record.contains("user=<lee>") && !record.contains("backend="), "{record}");
    assert!(record.contains("ms_tls=") && !record.contains("ms_connect="), "{record}");
}

#[test]
fn hosts_are_tried_in_order_and_the_first_is_used_again_when_it_returns() {
    let bed = Bed::new();
    let first = free_port().expect("a port");
    let store = bed.dovecot("store", &[KIM]);
    // The same port on two addresses: one refuses at first, the other is Dovecot behind a forwarder.
    let forward = |address: &str, to: u16| {
        let listener = TcpListener::bind((address, first)).expect("a listener");
        std::thread::spawn(move || {
            for mut client in listener.incoming().flatten() {
                std::thread::spawn(move || {
                    let mut server = TcpStream::connect(("127.0.0.1", to)).expect("a back end");
                    let (mut client_read, mut server_write) =
                        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
                    std::thread::spawn(move || std::io::copy(&mut client_read, &mut server_write));
                    let _ = std::io::copy(&mut server, &mut client);
                });
            }
        });
    };
    forward("127.0.0.3", store.imap);
    let configuration =
        bed.one_backend("", first).replace("host = \"127.0.0.1\"", "host = [\"127.0.0.2\", \"127.0.0.3\"]");
    let gatepost = bed.gatepost(&configuration);
    assert_eq!(bed.host_of(&gatepost, KIM), "127.0.0.3", "the first is down");
    forward("127.0.0.2", store.imap);
    wait_for(|| bed.host_of(&gatepost, KIM) == "127.0.0.2").expect("the first is used again");
}

#[test]
fn a_back_end_asking_for_patience_is_tried_again_within_the_deadline() {
    let bed = Bed::new();
    let tries = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = std::sync::Arc::clone(&tries);
    let port = back_end(move |mut stream| {
        let _ = stream.write_all(IMAP_GREETING);
        let _ = stream.read(&mut [0; 1024]);
        let answer = if count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0 {
            "NO [UNAVAILABLE] busy"
        } else {
            "OK [CAPABILITY IMAP4rev1] in"
        };
        let _ = say_and_listen(stream, format!("L {answer}\r\n").as_bytes());
    });
    let _gatepost = bed.gatepost(&bed.one_backend("", port));
    assert_eq!(bed.secure().try_log_in(KIM), "OK [CAPABILITY IMAP4rev1] in");
    assert_eq!(tries.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn a_back_end_takes_no_more_connections_than_it_may() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&bed.one_backend("", store.imap).replace("[map]", "max_connections = 2\n[map]"));
    let held = [bed.logged_in(KIM), bed.logged_in(KIM)];
    let mut third = bed.secure();
    assert_eq!(third.try_log_in(KIM), "NO [LIMIT] Too many connections, try again later.");
    drop(held);
    wait_for(|| third.try_log_in(KIM).starts_with("OK")).expect("the connections come back");
}

#[test]
fn a_map_that_leads_back_to_gatepost_is_seen() {
    let bed = Bed::new();
    // By address …
    let gatepost = bed.gatepost(&bed.one_backend("", bed.imap));
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"));
    gatepost.wait_for_log("is one of our own listeners").expect("the reason");
    drop(gatepost);
    // … and by greeting, where something stands between.
    let own = bed.imap;
    let port = back_end(move |mut client| {
        let mut server = TcpStream::connect(("127.0.0.1", own)).expect("Gatepost");
        let _ = std::io::copy(&mut server, &mut client);
    });
    let gatepost = bed.gatepost(&bed.one_backend("", port));
    assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"));
    gatepost.wait_for_log("our own name and greeting").expect("the reason");
}

#[test]
fn a_client_that_leaves_while_the_back_end_connects_frees_everything() {
    let bed = Bed::new();
    let silent = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = silent.local_addr().expect("an address").port();
    let gatepost = bed
        .gatepost(&bed.one_backend("plaintext = \"always\"", port).replace("[map]", "connect_timeout = \"1s\"\n[map]"));
    let before = gatepost.open_files().expect("files");
    for _ in 0..50 {
        let mut talk = bed.clear();
        talk.send("a LOGIN kim secret\r\n");
    }
    wait_for(|| gatepost.open_files().expect("files") > before).expect("attempts to connect");
    // Long before the log-in's own end.
    wait_for_within(Duration::from_secs(5), || gatepost.open_files().expect("files") <= before)
        .unwrap_or_else(|_| panic!("sockets are left"));
}

#[test]
fn connections_come_from_the_source_addresses_in_turn() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let configuration = bed
        .one_backend("", store.imap)
        .replace("[map]", "source_address = [\"127.0.0.41\", \"127.0.0.42\"]\nannounce = \"none\"\n[map]");
    let _gatepost = bed.gatepost(&configuration);
    for _ in 0..4 {
        bed.logged_in(KIM).command("LOGOUT");
    }
    store.wait_for_log("rip=127.0.0.41").expect("the first");
    store.wait_for_log("rip=127.0.0.42").expect("the second");
}
