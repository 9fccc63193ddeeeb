//! What a client is promised before its log-in is what every back end has been seen to offer.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bed::{Bed, KIM, LEE, back_end};

/// A back end that takes any log-in, and speaks `IMAP4rev2` as long as it may.
fn modern(is_modern: &Arc<AtomicBool>) -> u16 {
    let is_modern = Arc::clone(is_modern);
    back_end(move |mut stream| {
        let list = if is_modern.load(Ordering::SeqCst) { "IMAP4rev1 IMAP4rev2" } else { "IMAP4rev1" };
        let _ = stream.write_all(format!("* OK [CAPABILITY {list} SASL-IR AUTH=PLAIN] ready\r\n").as_bytes());
        let mut heard = [0; 1024];
        let _ = stream.read(&mut heard);
        let _ = stream.write_all(format!("L OK [CAPABILITY {list}] in\r\n").as_bytes());
        let _ = stream.read_to_end(&mut Vec::new());
    })
}

#[test]
fn imap4rev2_is_promised_only_while_every_back_end_has_it() {
    let bed = Bed::new();
    let modern_a = Arc::new(AtomicBool::new(true));
    let modern_b = Arc::new(AtomicBool::new(true));
    bed.write("users", "kim:::::::host=store-a\nlee:::::::host=store-b\n");
    let configuration = bed.configuration(&format!(
        "[imap.backend]\ntls = \"none\"\nannounce = \"none\"\n[map]\ndirectories = [\"people\"]\n[directory.people]\n\
         type = \"passwd-file\"\npath = \"users\"\n[backend.store-a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
         [backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
        modern(&modern_a),
        modern(&modern_b)
    ));
    let gatepost = bed.gatepost(&configuration);
    let is_promised = || bed.secure().command("CAPABILITY").join(" ").contains(" IMAP4rev2 ");
    let log_in = |user| drop(bed.logged_in(user));

    assert!(!is_promised(), "nothing is known yet");
    log_in(KIM);
    assert!(!is_promised(), "one back end is not every back end");
    log_in(LEE);
    assert!(is_promised());
    gatepost.reload(&configuration).expect("a reload");
    assert!(is_promised(), "a reload forgets nothing");

    modern_b.store(false, Ordering::SeqCst);
    log_in(LEE);
    assert!(!is_promised(), "one of them went back");

    modern_b.store(true, Ordering::SeqCst);
    log_in(LEE);
    assert!(is_promised());
    // A directory might now name a host that nobody has ever spoken to.
    gatepost.reload(&configuration.replace("[map]\n", "[map]\nhosts = [\"192.0.2.0/24\"]\n")).expect("a reload");
    assert!(!is_promised());
}
