//! Records that go elsewhere: to a real rsyslog, by all its ways in.

use std::path::Path;
use std::time::{Duration, Instant};

use gatepost_lab::{Gatepost, Mailbox, Process, free_ports, wait_for, wait_for_port};
use rustix::process::Signal;

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
        let process =
            Process::start(Path::new("rsyslogd"), &arguments, &bed.path("rsyslog.out"), false).expect("rsyslogd");
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

/// A Gatepost with a console, at this port under TLS, whose log a file keeps too.
fn keeper(bed: &Bed, port: u16) -> Gatepost {
    let (file, chain, key) = (bed.path("kept.log"), &bed.front.chain, &bed.front.key);
    let configuration = bed.one_backend("", 1)
        + &format!(
            "[admin]\nlisten = \"127.0.0.1:{port}\"\ncertificate = {{ chain = {chain:?}, key = {key:?} }}\n\
             [[log.rule]]\nto = \"file\"\npath = {file:?}\nlevel = \"protocol\"\n{STDERR}"
        );
    bed.gatepost(&configuration)
}

/// A rule that sends records to the Gatepost of another bed, at this port.
fn to_keeper(port: u16, token: &Path, kept: &Bed) -> String {
    format!(
        "[[log.rule]]\nto = \"remote\"\nurl = \"https://localhost:{port}\"\ntoken_file = {token:?}\nca = {:?}\n",
        kept.authority.certificate
    )
}

const STDERR: &str = "[[log.rule]]\nto = \"stderr\"\n";

#[test]
fn another_gatepost_keeps_records_and_misses_none_while_it_is_away() {
    let (bed, kept) = (Bed::new(), Bed::new());
    let dovecot = bed.dovecot("store", &[KIM]);
    let [port, own] = free_ports().expect("ports");
    let mut there = keeper(&kept, port);
    let token = bed.write("token", &kept.said(&["admin", "token", "mx1", "--role", "sender"]));
    let configuration = bed.one_backend("", dovecot.imap) + &to_keeper(port, &token, &kept) + STDERR;
    let here = bed.gatepost(&configuration);
    let text = || std::fs::read_to_string(kept.path("kept.log")).unwrap_or_default();
    let ended = || text().lines().filter(|line| line.contains("node=<mx1>: session ended")).count();
    let mut talk = bed.secure();
    talk.try_log_in(Mailbox { user: "<x>", password: "wrong" });
    drop(talk);
    drop(bed.logged_in(KIM));
    wait_for(|| ended() >= 2).unwrap_or_else(|_| panic!("{}", text()));
    let failed = text().lines().find(|line| line.contains("auth failed")).expect("a failed log-in").to_owned();
    assert!(
        failed.contains(" gatepost imap-login: Info: node=<mx1>: Aborted login (auth failed")
            && failed.contains("user="),
        "{failed}"
    );
    assert!(failed.contains("rip=127.0.0.1") && !failed.contains("<x>"), "{failed}");
    // What is traced comes along whatever the level.
    bed.said(&["trace", "kim"]);
    drop(bed.logged_in(KIM));
    wait_for(|| ended() >= 3 && text().contains("Protocol: node=<mx1>: C: ")).unwrap_or_else(|_| panic!("{}", text()));
    // While it is away records wait.
    there.signal(Signal::TERM).expect("a signal");
    there.wait(Duration::from_secs(20)).expect("an end");
    // What is set anew meanwhile changes nothing of that.
    here.reload(&configuration).expect("a reload");
    assert_eq!(ended(), 3);
    (0..30).for_each(|_| drop(bed.logged_in(KIM)));
    let there = keeper(&kept, port);
    wait_for(|| ended() >= 33).unwrap_or_else(|_| panic!("{} of 33\n{}", ended(), here.log()));
    let log = here.log();
    assert!(
        log.contains("takes no records")
            && !log.lines().any(|line| line.contains("are lost, ") && !line.contains("; 0 are lost")),
        "{log}"
    );
    // Each is there once, and none comes back where two send each other theirs.
    let back = kept.write("back", &bed.said(&["admin", "token", "keeper", "--role", "sender"]));
    let (chain, key) = (&bed.front.chain, &bed.front.key);
    let admin =
        format!("[admin]\nlisten = \"127.0.0.1:{own}\"\ncertificate = {{ chain = {chain:?}, key = {key:?} }}\n");
    here.reload(&(configuration + &admin)).expect("a reload");
    let theirs = std::fs::read_to_string(kept.path("gatepost.toml")).expect("a file");
    there.reload(&(theirs + &to_keeper(own, &back, &bed))).expect("a reload");
    drop(bed.logged_in(KIM));
    wait_for(|| ended() >= 34).expect("another record");
    here.wait_for_log("node=<keeper>").expect("a record from there");
    // What came back would come before the next.
    drop(bed.logged_in(KIM));
    wait_for(|| ended() >= 35).expect("a further record");
    assert_eq!(ended(), 35, "{}", text());
    assert!(!here.log().contains("node=<mx1>") && !text().contains("node=<keeper>"), "{}", here.log());
}

#[test]
fn a_token_that_may_not_send_is_refused_and_that_is_said() {
    let (bed, kept) = (Bed::new(), Bed::new());
    let [port] = free_ports().expect("a port");
    let there = keeper(&kept, port);
    let token = bed.write("token", &kept.said(&["admin", "token", "viewer", "--role", "viewer"]));
    let to_keeper = to_keeper(port, &token, &kept);
    let here = bed.gatepost(&(bed.one_backend("", 1) + &to_keeper + STDERR));
    here.wait_for_log("takes no records: it answers 403").expect("why");
    assert!(!there.log().contains("node="), "{}", there.log());
    kept.write("password", "a long password");
    let password = kept.path("password").display().to_string();
    let refused = kept.command(&["admin", "add", "kim", "--role", "sender", "--password-file", &password]);
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sender is for tokens"), "{refused:?}");
    let clear = to_keeper.replace("https://localhost", "http://192.0.2.1");
    assert!(bed.refusal(&(bed.one_backend("", 1) + &clear)).contains("use https"));
}
