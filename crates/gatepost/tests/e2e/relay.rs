//! After the log-in every byte passes, both ways, in order, and memory stays flat.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::time::Duration;

use sha2::{Digest as _, Sha256};

use gatepost_lab::wait_for;

use crate::bed::{Bed, KIM, imap_server};

const GIB: u64 = 1 << 30;
const PIECE: usize = 1 << 16;

/// The same bytes every time, without lines of meaning.
fn piece(n: u64) -> Vec<u8> {
    let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(PIECE);
    while bytes.len() < PIECE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes().map(|byte| b' ' + byte % 90));
    }
    bytes
}

#[test]
fn a_gibibyte_goes_in_and_comes_back_unchanged_with_flat_memory() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", store.imap));
    let mut talk = bed.logged_in(KIM);
    let before = gatepost.memory_kib().expect("memory");
    talk.send(format!("a APPEND INBOX {{{GIB}}}\r\n"));
    assert!(talk.line().starts_with("+ "));
    let mut sent = Sha256::new();
    let mut peak = before;
    for n in 0..GIB / PIECE as u64 {
        let bytes = piece(n);
        sent.update(&bytes);
        talk.send(&bytes);
        if n % 512 == 0 {
            peak = peak.max(gatepost.memory_kib().expect("memory"));
        }
    }
    talk.send("\r\n");
    talk.tcp().set_read_timeout(Some(Duration::from_mins(2))).expect("a time-out");
    assert!(talk.answer("a").pop().expect("an answer").starts_with("a OK"));
    talk.command("SELECT INBOX");
    // Read slowly at first: what is not read yet must not pile up in Gatepost.
    talk.send("f FETCH 1 BODY[]\r\n");
    std::thread::sleep(Duration::from_millis(500));
    peak = peak.max(gatepost.memory_kib().expect("memory"));
    let head = talk.line();
    let size: u64 =
        head.rsplit('{').next().and_then(|rest| rest.trim_end_matches('}').parse().ok()).expect("a literal");
    assert_eq!(size, GIB, "{head}");
    let (mut received, mut count) = (Sha256::new(), 0_u64);
    talk.bytes(size, |bytes| {
        received.update(bytes);
        count += bytes.len() as u64;
        if count % (1 << 26) < bytes.len() as u64 {
            peak = peak.max(gatepost.memory_kib().expect("memory"));
        }
    });
    assert_eq!(received.finalize(), sent.finalize());
    assert!(peak < before + 4096, "memory grew from {before} to {peak} KiB");
}

#[test]
fn commands_behind_the_log_in_are_delivered_once_and_in_order() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let _gatepost = bed.gatepost(&bed.one_backend("", store.imap));
    let mut talk = bed.secure();
    let commands: String = (0..200).map(|n| format!("n{n} NOOP\r\n")).collect();
    talk.send(format!("l LOGIN kim \"kim's secret\"\r\ns SELECT INBOX\r\n{commands}o LOGOUT\r\n"));
    let said = talk.rest();
    let tagged: Vec<_> = said.lines().filter(|line| !line.starts_with("* ")).collect();
    let mut expected = vec!["l OK".to_owned(), "s OK".to_owned()];
    expected.extend((0..200).map(|n| format!("n{n} OK")));
    expected.push("o OK".to_owned());
    assert_eq!(tagged.len(), expected.len(), "{said}");
    assert!(tagged.iter().zip(&expected).all(|(line, start)| line.starts_with(start)), "{said}");
}

#[test]
fn a_client_that_half_closes_still_gets_every_answer() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", store.imap));
    let mut talk = bed.clear();
    talk.send("a LOGIN kim \"kim's secret\"\r\nb SELECT INBOX\r\nc LOGOUT\r\n");
    talk.tcp().shutdown(Shutdown::Write).expect("a half-close");
    let said = talk.rest();
    assert!(said.contains("a OK ") && said.contains("b OK ") && said.contains("c OK "), "{said}");
    gatepost.wait_for_log("result=logged-in").expect("the session ends");
}

#[test]
fn a_back_end_that_half_closes_is_flushed_and_may_still_be_written_to() {
    let bed = Bed::new();
    let (heard, hears) = std::sync::mpsc::channel();
    let port = imap_server(move |mut stream| {
        let _ = stream.write_all(&vec![b'x'; 3_000_000]);
        let _ = stream.shutdown(Shutdown::Write);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        let _ = heard.send(rest);
    });
    let _gatepost = bed.gatepost(&bed.one_backend("", port));
    let mut talk = bed.logged_in(KIM);
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(talk.rest().len(), 3_000_000);
    talk.send("still here\r\n");
    drop(talk);
    assert_eq!(hears.recv_timeout(Duration::from_secs(20)).expect("bytes"), b"still here\r\n");
}

#[test]
fn a_back_end_whose_data_nobody_reads_is_not_read_further() {
    let bed = Bed::new();
    let (sent, progress) = std::sync::mpsc::channel();
    let port = imap_server(move |mut stream| {
        stream.set_write_timeout(Some(Duration::from_secs(2))).expect("a time-out");
        let mut total = 0_u64;
        while stream.write_all(&vec![b'x'; PIECE]).is_ok() {
            total += PIECE as u64;
        }
        let _ = sent.send(total);
    });
    let gatepost = bed.gatepost(&bed.one_backend("", port));
    let before = gatepost.memory_kib().expect("memory");
    let _talk = bed.logged_in(KIM);
    let taken = progress.recv_timeout(Duration::from_secs(30)).expect("the back end is stopped");
    // What was taken lies in the kernel's buffers, of a few MiB each; in Gatepost there is one piece.
    assert!(taken < 64 << 20, "{taken} bytes were taken");
    assert!(gatepost.memory_kib().expect("memory") < before + 2048);
}

#[test]
fn thousands_of_idle_sessions_come_and_go_without_a_trace() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", store.imap));
    let open = |count: usize| {
        let login = |_| {
            let mut talk = bed.clear();
            talk.log_in(KIM);
            talk
        };
        (0..count).map(login).collect::<Vec<_>>()
    };
    let ended = || gatepost.log().matches("result=logged-in").count();
    let wait_for_end = |count| {
        wait_for(|| ended() >= count).unwrap_or_else(|_| panic!("{} of {count} have ended", ended()));
    };
    drop(open(10));
    wait_for_end(10);
    let files = || gatepost.open_files().expect("files");
    let before = files();
    drop(open(1000));
    wait_for_end(1010);
    wait_for(|| files() <= before).unwrap_or_else(|_| panic!("sockets are left: {} files, {before} before", files()));
    assert_eq!(ended(), 1010);
}
