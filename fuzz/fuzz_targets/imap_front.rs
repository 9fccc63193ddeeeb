//! A client says anything, in pieces of any size: no panic, no growth, and what is left over is never
//! more than was said.
#![no_main]

use std::num::NonZeroU32;

use gatepost_wire::{
    Answer, Ask, Carry, ClientTls, Event, FrontSetup, Mechanism, OAuthHints, Offers, PROTOCOLS, Refusal, Step, Welcome,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (flags, pieces) = input;
    let setup = FrontSetup {
        name: "fuzz".into(),
        greeting: "ready".into(),
        tls: if flags & 1 == 0 { ClientTls::Offered } else { ClientTls::Up },
        passwords: flags & 2 == 0,
        mechanisms: Mechanism::SASL.into(),
        has_passwords: flags & 32 == 0,
        oauth: OAuthHints::default(),
        id: flags & 4 == 0,
        offers: Offers(u32::from(flags & 16 != 0)),
        max_errors: NonZeroU32::new(u32::from(flags >> 4)),
        max_auth_errors: NonZeroU32::new(3),
        carry: Carry::default(),
        trace: flags & 8 == 0,
    };
    let mut front = (PROTOCOLS[0].front)(setup);
    let mut out = Vec::new();
    let mut said = 0;
    front.step(Event::Start, &mut out);
    for piece in pieces {
        said += piece.len();
        out.clear();
        let mut step = front.step(Event::Input(&piece), &mut out);
        assert!(out.len() <= 1024 + 256 * (piece.len() + 64 * 1024));
        while let Step::Ask(_) = step {
            let answer = match step {
                Step::Ask(Ask::Exchange(..)) if flags & 64 != 0 => Answer::Challenge(b"r=x,s=eA==,i=4096".to_vec()),
                _ if flags & 1 == 0 => Answer::Refused(Refusal::BadCredentials),
                _ => Answer::Welcome(Welcome::default()),
            };
            step = front.step(Event::Answer(answer), &mut out);
        }
        front.take_trace();
        if !matches!(step, Step::Read) {
            break;
        }
    }
    assert!(front.take_rest().len() <= said);
});
