//! A back end says anything: no panic, and no credential before TLS where TLS is required.
#![no_main]

use gatepost_wire::{BackAim, BackEvent, BackLogin, BackSetup, BackStep, Mechanism, PROTOCOLS, Proof, Secret};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (flags, pieces) = input;
    let starttls = flags & 1 == 1;
    let login = BackLogin {
        user: "us\"er".into(),
        master: (flags & 2 == 2).then(|| "master".into()),
        proof: {
            let secret = Secret::new(if flags & 4 == 4 { b"p\r\n\"".to_vec() } else { b"hunter2".to_vec() });
            if flags & 16 == 16 { Proof::Token(secret) } else { Proof::Password(secret) }
        },
        mechanism: [Mechanism::Plain, Mechanism::Login, Mechanism::OAuthBearer, Mechanism::XOAuth2]
            .get(usize::from(flags >> 5))
            .copied(),
    };
    let setup = BackSetup {
        starttls,
        aim: if flags == 0b1110_0000 { BackAim::Check } else { BackAim::LogIn(login) },
        id: vec![("x-session-id".into(), "abc".into())],
        own_greeting: "us".into(),
        trace: flags & 8 == 8,
    };
    let mut back = (PROTOCOLS[0].back)(setup);
    let (mut out, mut secured) = (Vec::new(), false);
    for piece in pieces {
        out.clear();
        let mut step = back.step(BackEvent::Input(&piece), &mut out);
        if starttls && !secured {
            assert!(out.is_empty() || out == b"S STARTTLS\r\n");
        }
        if let BackStep::StartTls = step {
            secured = true;
            step = back.step(BackEvent::TlsUp, &mut out);
        }
        back.take_trace();
        if !matches!(step, BackStep::Read) {
            break;
        }
    }
    back.take_rest();
});
