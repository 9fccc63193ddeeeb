//! Records that go elsewhere: to a real rsyslog, by all its ways in.

use std::time::{Duration, Instant};

use gatepost_lab::{Process, free_ports, wait_for, wait_for_port};

use crate::bed::{Bed, KIM};

/// An rsyslog that writes what comes each way to a file of its own.
struct Rsyslog {
    _process: Process,
    udp: u16,
    tcp: u16,
    tls: u16,
}

impl Rsyslog {
    fn start(bed: &Bed) -> Self {
        let [udp, tcp, tls] = free_ports().expect("ports");
        let path = |name: &str| bed.path(name).display().to_string();
        let template =
            "template(name=\"all\" type=\"string\" string=\"%pri% %hostname% %app-name% %procid% %msgid%%msg%\\n\")\n";
        let way = |name: &str, input: &str| {
            format!(
                "ruleset(name=\"{name}\") {{ action(type=\"omfile\" file=\"{}\" template=\"all\") }}\n\
                 input({input} address=\"127.0.0.1\" ruleset=\"{name}\")\n",
                path(&format!("{name}.log"))
            )
        };
        let configuration = format!(
            "global(workDirectory=\"{}\" DefaultNetstreamDriver=\"ossl\" DefaultNetstreamDriverCAFile=\"{}\" \
             DefaultNetstreamDriverCertFile=\"{}\" DefaultNetstreamDriverKeyFile=\"{}\")\n\
             module(load=\"imudp\")\nmodule(load=\"imtcp\")\n{template}{}{}{}",
            path(""),
            bed.authority.certificate.display(),
            bed.store.chain.display(),
            bed.store.key.display(),
            way("udp", &format!("type=\"imudp\" port=\"{udp}\"")),
            way("tcp", &format!("type=\"imtcp\" port=\"{tcp}\"")),
            way(
                "tls",
                &format!(
                    "type=\"imtcp\" port=\"{tls}\" StreamDriver.Name=\"ossl\" StreamDriver.Mode=\"1\" StreamDriver.AuthMode=\"anon\""
                )
            ),
        );
        let file = bed.write("rsyslog.conf", &configuration);
        let arguments = ["-n", "-f", &file.display().to_string(), "-i", &path("rsyslog.pid")];
        let process = Process::start(std::path::Path::new("rsyslogd"), &arguments, &bed.path("rsyslog.out"), false)
            .expect("rsyslogd");
        wait_for_port(tcp, Duration::from_secs(20)).expect("rsyslog");
        wait_for_port(tls, Duration::from_secs(20)).expect("rsyslog");
        Self { _process: process, udp, tcp, tls }
    }
}

#[test]
fn records_reach_a_real_syslog_server_by_udp_tcp_and_tls() {
    let bed = Bed::new();
    let dovecot = bed.dovecot("store", &[KIM]);
    let rsyslog = Rsyslog::start(&bed);
    let rule = |server: String| {
        format!(
            "[[log.rule]]\nto = \"syslog\"\nserver = \"{server}\"\nfacility = \"local3\"\nca = {:?}\n",
            bed.authority.certificate
        )
    };
    let configuration = bed.one_backend("", dovecot.imap)
        + &rule(format!("udp://127.0.0.1:{}", rsyslog.udp))
        + &rule(format!("tcp://127.0.0.1:{}", rsyslog.tcp))
        + &rule(format!("tls://localhost:{}", rsyslog.tls));
    let path = bed.path("gatepost.toml");
    std::fs::write(&path, &configuration).expect("a file");
    let arguments = ["serve", "--config", &path.display().to_string()];
    let _gatepost =
        Process::start(crate::bed::binary(), &arguments, &bed.path("gatepost.log"), false).expect("gatepost");
    wait_for_port(bed.imaps, Duration::from_secs(20)).expect("gatepost");
    drop(bed.logged_in(KIM));
    for name in ["udp.log", "tcp.log", "tls.log"] {
        let text = || std::fs::read_to_string(bed.path(name)).unwrap_or_default();
        wait_for(|| text().contains("user=<kim>")).unwrap_or_else(|_| panic!("{name}: {}", text()));
        let text = text();
        let line = text.lines().find(|line| line.contains("user=<kim>")).expect("a record");
        // local3 and info, by their numbers.
        assert!(
            line.starts_with("158 ") && line.contains(" gatepost ") && line.contains("imap: Info: session ended"),
            "{line}"
        );
        assert!(text.contains("is ready"), "{text}");
    }
}

#[test]
fn a_syslog_server_that_is_gone_holds_up_nobody() {
    let bed = Bed::new();
    let dovecot = bed.dovecot("store", &[KIM]);
    let [nobody] = free_ports().expect("a port");
    // Nobody answers at all behind this address: it takes no connections, and refuses none.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let configuration = bed.one_backend("", dovecot.imap)
        + &format!(
            "[[log.rule]]\nto = \"syslog\"\nserver = \"tcp://127.0.0.1:{nobody}\"\n[[log.rule]]\nto = \"syslog\"\nserver = \"tls://127.0.0.1:{}\"\n\
             [[log.rule]]\nto = \"stderr\"\n",
            silent.local_addr().expect("an address").port()
        );
    let gatepost = bed.gatepost(&configuration);
    let began = Instant::now();
    (0..20).for_each(|_| drop(bed.logged_in(KIM)));
    gatepost.wait_for_log("session ended").expect("the other places go on");
    gatepost.wait_for_log("takes no records: Connection refused").expect("what is lost is said");
    // Far below what one of the places takes to give up.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}
