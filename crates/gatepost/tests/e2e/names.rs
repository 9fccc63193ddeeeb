//! Names of back ends and of those who send mail: a real DNS server, which dies, hangs and changes its mind, and one that
//! can't say.

use std::net::UdpSocket;
use std::path::Path;
use std::time::{Duration, Instant};

use gatepost_lab::{Dovecot, Process, free_port};
use rustix::process::Signal;

use crate::bed::{Bed, KIM};
use crate::talk::Talk;

/// dnsmasq, saying these things; each for a second.
struct Names<'b> {
    bed: &'b Bed,
    port: u16,
    process: Option<Process>,
}

impl<'b> Names<'b> {
    fn start(bed: &'b Bed, says: &[&str]) -> Self {
        let mut names = Self { bed, port: free_port().expect("a port"), process: None };
        names.say(says);
        names
    }

    fn say(&mut self, says: &[&str]) {
        self.process = None;
        let port = format!("--port={}", self.port);
        let mut words =
            vec!["--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces"];
        words.extend(["--listen-address=127.0.0.1", "--local=/test/", "--local-ttl=1", "--pid-file=", &port]);
        words.extend(says);
        let output = self.bed.path("dnsmasq.out");
        let process = Process::start(Path::new("/usr/sbin/dnsmasq"), &words, &output, false).expect("dnsmasq");
        gatepost_lab::wait_for_port(self.port, Duration::from_secs(10)).expect("dnsmasq");
        self.process = Some(process);
    }
}

fn configuration(bed: &Bed, names: &Names<'_>, host: &str, port: u16) -> String {
    let dns = format!("[dns]\nservers = [\"127.0.0.1:{}\"]\ntimeout = \"1s\"\n", names.port);
    bed.one_backend("", port).replace("host = \"127.0.0.1\"", &format!("host = \"{host}\"")) + &dns
}

#[test]
fn answers_last_their_time_and_serve_while_nobody_gives_newer_ones() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let mut names = Names::start(&bed, &["--address=/store.test/127.0.0.1"]);
    let gatepost = bed.gatepost(&configuration(&bed, &names, "store.test", store.imap));
    let log_in = || bed.secure().try_log_in(KIM);
    assert!(log_in().starts_with("OK "), "{}", gatepost.log());
    // A newer answer is taken: nobody listens there.
    names.say(&["--address=/store.test/127.0.0.9"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while log_in().starts_with("OK ") {
        assert!(Instant::now() < deadline, "the old answer's time is over after a second");
    }
    names.say(&["--address=/store.test/127.0.0.1"]);
    let deadline = Instant::now() + Duration::from_secs(10);
    while !log_in().starts_with("OK ") {
        assert!(Instant::now() < deadline);
    }
    // It hangs: the old answer serves, after half a second at the most.
    std::thread::sleep(Duration::from_millis(1100));
    let process = names.process.as_ref().expect("a process");
    process.signal(Signal::STOP).expect("a stop");
    let started = Instant::now();
    assert!(log_in().starts_with("OK "));
    // Asking twice in vain would take four.
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    process.signal(Signal::CONT).expect("going on");
    names.process = None;
    std::thread::sleep(Duration::from_millis(2100));
    assert!(log_in().starts_with("OK "), "nor does it matter that it is gone");
}

#[test]
fn a_service_says_its_hosts_and_ports() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let srv = format!("--srv-host=_imap._tcp.mail.test,store.test,{},20,1", store.imap);
    let says = [
        "--srv-host=_imap._tcp.mail.test,gone.test,9,10,1",
        &srv,
        "--address=/store.test/127.0.0.1",
        "--address=/gone.test/127.0.0.1",
    ];
    let names = Names::start(&bed, &says);
    let gatepost = bed.gatepost(&configuration(&bed, &names, "_imap._tcp.mail.test", 143));
    assert!(
        bed.secure().try_log_in(KIM).starts_with("OK "),
        "the first is gone, the second serves: {}",
        gatepost.log()
    );
    store.wait_for_log("user=<kim>").expect("a log-in");
}

#[test]
fn of_a_services_hosts_the_one_of_the_lowest_priority_comes_first() {
    let bed = Bed::new();
    let [first, second] = ["first", "second"].map(|name| bed.dovecot(name, &[KIM]));
    let record = |store: &Dovecot, priority: u16| {
        format!("--srv-host=_imap._tcp.mail.test,store.test,{},{priority},1", store.imap)
    };
    let (preferred, other) = (record(&first, 9), record(&second, 20));
    let names = Names::start(&bed, &[&other, &preferred, "--address=/store.test/127.0.0.1"]);
    let _gatepost = bed.gatepost(&configuration(&bed, &names, "_imap._tcp.mail.test", 143));
    let _held = [KIM; 3].map(|user| bed.logged_in(user));
    let hosts: Vec<_> = bed.list(&["sessions"]).iter().map(|session| session["host"].clone()).collect();
    assert_eq!(hosts, vec![format!("127.0.0.1:{}", first.imap); 3]);
}

#[test]
fn a_name_that_nobody_knows_is_an_outage_with_a_reason() {
    for (host, reason) in [
        ("nowhere.test", "its name can't be looked up: nowhere.test. does not exist"),
        ("_imap._tcp.nowhere.test", "its SRV can't be looked up: _imap._tcp.nowhere.test. does not exist"),
    ] {
        let bed = Bed::new();
        let names = Names::start(&bed, &[]);
        let gatepost = bed.gatepost(&configuration(&bed, &names, host, 143));
        assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"));
        gatepost.wait_for_log(reason).expect("the reason");
    }
}

/// A name server that says of whatever it is asked this code (RFC 1035, section 4.1.1), and nothing else.
fn name_server(port: u16, code: u8) {
    let socket = UdpSocket::bind(("127.0.0.1", port)).expect("a socket");
    std::thread::spawn(move || {
        let mut message = [0; 512];
        while let Ok((length, asker)) = socket.recv_from(&mut message) {
            // An answer, from one who asks others on a client's behalf.
            message[2] |= 0x80;
            message[3] = 0x80 | code;
            let _ = socket.send_to(&message[..length], asker);
        }
    });
}

#[test]
fn a_name_server_that_can_not_say_is_an_outage_and_what_it_said_before_still_serves() {
    const SERVFAIL: u8 = 2;
    const REFUSED: u8 = 5;
    for code in [SERVFAIL, REFUSED] {
        let bed = Bed::new();
        let store = bed.dovecot("store", &[KIM]);
        let mut names = Names::start(&bed, &["--address=/store.test/127.0.0.1"]);
        let gatepost = bed.gatepost(&configuration(&bed, &names, "store.test", store.imap));
        assert!(bed.secure().try_log_in(KIM).starts_with("OK "));
        names.process = None;
        name_server(names.port, code);
        std::thread::sleep(Duration::from_millis(1100));
        assert!(bed.secure().try_log_in(KIM).starts_with("OK "), "code {code}: {}", gatepost.log());
        gatepost.reload(&configuration(&bed, &names, "other.test", store.imap)).expect("a reload");
        assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"), "code {code}");
        gatepost.wait_for_log("its name can't be looked up").expect("the reason");
    }
}

#[test]
fn a_name_without_an_address_is_an_outage_with_a_reason() {
    const NO_ERROR: u8 = 0;
    for (host, reason) in
        [("empty.test", "empty.test. has no A"), ("_imap._tcp.empty.test", "_imap._tcp.empty.test. has no SRV record")]
    {
        let bed = Bed::new();
        let names = Names { bed: &bed, port: free_port().expect("a port"), process: None };
        name_server(names.port, NO_ERROR);
        let gatepost = bed.gatepost(&configuration(&bed, &names, host, 143));
        assert!(bed.secure().try_log_in(KIM).starts_with("NO [UNAVAILABLE]"), "{host}");
        gatepost.wait_for_log(reason).expect("the reason");
    }
}

#[test]
fn who_sends_mail_has_a_name_that_leads_back() {
    let bed = Bed::new();
    let mut names = Names::start(
        &bed,
        &[
            "--host-record=mx.sender.test,192.0.2.5",
            // Anybody can say that they are somebody else.
            "--ptr-record=6.2.0.192.in-addr.arpa,mx.sender.test",
            "--ptr-record=7.2.0.192.in-addr.arpa,_smtp._tcp.sender.test",
            "--local=/2.0.192.in-addr.arpa/",
        ],
    );
    let configuration = |policy: &str| {
        format!(
            "name = \"mail.example.org\"\n[[smtp.listener]]\naddress = \"127.0.0.1:{}\"\ntls = \"none\"\n\
             proxy_protocol = {{ from = [\"127.0.0.1\"] }}\n[smtp]\ndomains = [\"example.org\"]\nreverse_dns = \"{policy}\"\n[smtp.backend]\ntls = \"none\"\n\
             [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\nsmtp = {{ port = 1 }}\n\
             [dns]\nservers = [\"127.0.0.1:{}\"]\ntimeout = \"1s\"\n",
            bed.imap, names.port
        )
    };
    let sender = |from: &str| {
        let mut talk = Talk::clear(bed.imap);
        talk.send(format!("PROXY TCP4 {from} 192.0.2.1 5000 25\r\n"));
        assert!(talk.reply().starts_with("220"));
        assert!(talk.ask("EHLO mx.sender.test").starts_with("250"));
        talk.ask("MAIL FROM:<a@sender.test>")
    };
    let gatepost = bed.gatepost(&configuration("require"));
    assert_eq!(sender("192.0.2.5"), "250 2.1.0 Ok.");
    for stranger in ["192.0.2.6", "192.0.2.7", "192.0.2.8"] {
        assert!(sender(stranger).starts_with("550 5.7.25"), "{stranger}");
    }
    // Nobody is refused for good because our name server is down.
    let noting = configuration("note");
    names.process = None;
    assert!(sender("192.0.2.5").starts_with("450 4.7.25"));
    gatepost.reload(&noting).expect("a reload");
    assert!(sender("192.0.2.6").starts_with("250"));
}

#[test]
fn a_stop_does_not_wait_for_the_name_of_who_sends_mail() {
    let bed = Bed::new();
    // It hears, and says nothing.
    let silent = UdpSocket::bind(("127.0.0.1", 0)).expect("a socket");
    let port = silent.local_addr().expect("an address").port();
    let mut gatepost = bed.gatepost(&format!(
        "name = \"mail.example.org\"\n[[smtp.listener]]\naddress = \"127.0.0.1:{}\"\ntls = \"none\"\n\
         proxy_protocol = {{ from = [\"127.0.0.1\"] }}\n[smtp]\ndomains = [\"example.org\"]\nreverse_dns = \"note\"\n\
         [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\nsmtp = {{ port = 1, tls = \"none\" }}\n\
         [dns]\nservers = [\"127.0.0.1:{port}\"]\ntimeout = \"1m\"\n",
        bed.imap
    ));
    let mut talk = Talk::clear(bed.imap);
    // Of 127.0.0.1 /etc/hosts may have a name, and then nobody is asked.
    talk.send("PROXY TCP4 192.0.2.5 192.0.2.1 5000 25\r\n");
    let mut question = [0; 512];
    silent.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
    silent.recv(&mut question).expect("the name is looked for");
    gatepost.signal(Signal::TERM).expect("a signal");
    assert!(talk.rest().starts_with("421 "), "there was no greeting before");
    gatepost.wait(Duration::from_secs(30)).expect("an end");
}
