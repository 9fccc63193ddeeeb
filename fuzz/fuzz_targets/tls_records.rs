//! A TLS client's bytes, cut anywhere and damaged or not: no panic, and what arrives is what was said,
//! or nothing.
#![no_main]

use std::sync::{Arc, LazyLock};

use gatepost::fuzzing::{TlsServer, tls_config};
use libfuzzer_sys::fuzz_target;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

struct Setting {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

static SETTING: LazyLock<Setting> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join(format!("gatepost-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let authority = gatepost_lab::Authority::create(&folder).expect("an authority");
    let certificate = authority.issue("front", &["localhost"]).expect("a certificate");
    let server = tls_config(&certificate.chain, &certificate.key);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&authority.certificate).expect("a certificate")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let client = builder.expect("a provider").with_root_certificates(roots).with_no_client_auth();
    std::fs::remove_dir_all(&folder).expect("the folder");
    Setting { server, client: Arc::new(client) }
});

fuzz_target!(|input: (u8, Vec<(u16, u16, u8)>)| {
    let (piece_bytes, damages) = input;
    let mut server = TlsServer::new(Arc::clone(&SETTING.server));
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::clone(&SETTING.client), name).expect("a client");
    let (mut said, mut arrived) = (Vec::new(), Vec::new());
    for round in 0..6_u16 {
        if !client.is_handshaking() && round > 1 {
            let words = vec![b'x'; usize::from(round) * 700];
            std::io::Write::write_all(&mut client.writer(), &words).expect("room");
            said.extend_from_slice(&words);
        }
        let mut flight = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut flight).expect("memory");
        }
        for (_, at, bits) in damages.iter().filter(|(when, ..)| when % 6 == round) {
            let length = flight.len().max(1);
            if let Some(byte) = flight.get_mut(usize::from(*at) % length) {
                *byte ^= bits;
            }
        }
        let mut answer = Vec::new();
        for piece in flight.chunks(usize::from(piece_bytes) * 8 + 1) {
            let Some((plain, sent)) = server.take(piece) else {
                assert!(said.starts_with(&arrived));
                return;
            };
            arrived.extend(plain);
            answer.extend(sent);
        }
        assert!(said.starts_with(&arrived));
        let mut answer = answer.as_slice();
        while !answer.is_empty() {
            if client.read_tls(&mut answer).is_err() || client.process_new_packets().is_err() {
                return;
            }
            let mut heard = Vec::new();
            let _ = std::io::Read::read_to_end(&mut client.reader(), &mut heard);
        }
    }
    if damages.iter().all(|(.., bits)| *bits == 0) {
        assert_eq!(arrived, said);
        assert!(!said.is_empty());
    }
});
