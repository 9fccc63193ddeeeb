//! Peers that are gone without a word: keep-alive finds them.

use std::io::{BufRead as _, BufReader};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gatepost_lab::{Gatepost, wait_for};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Socket, TcpKeepalive};

use crate::bed::{Bed, KIM};

/// A machine of its own behind a wire of its own: a network namespace. Dropped, both are gone.
struct FarAway {
    name: String,
}

/// Our end of the wire, and the far one.
const HERE: &str = "10.213.47.1";
const THERE: &str = "10.213.47.2";

impl FarAway {
    fn new() -> Self {
        let id = std::process::id();
        let (name, here, there) = (format!("gatepost-{id}"), format!("gp{id}a"), format!("gp{id}b"));
        ip(&["netns", "add", &name]);
        let far_away = Self { name: name.clone() };
        ip(&["link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &name]);
        ip(&["address", "add", &format!("{HERE}/30"), "dev", &here]);
        ip(&["link", "set", &here, "up"]);
        ip(&["-n", &name, "address", "add", &format!("{THERE}/30"), "dev", &there]);
        ip(&["-n", &name, "link", "set", &there, "up"]);
        far_away
    }

    /// Runs a program there.
    fn run(&self, program: &str, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program")
    }

    /// From now on nothing comes back from there, as when a NAT has forgotten a connection.
    fn fall_silent(&self) {
        ip(&["-n", &self.name, "route", "add", "blackhole", &format!("{HERE}/32")]);
    }
}

impl Drop for FarAway {
    fn drop(&mut self) {
        // The wire goes with the namespace that holds its other end.
        ip(&["netns", "delete", &self.name]);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output().expect("ip");
    assert!(output.status.success(), "ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
}

/// Gatepost's own sockets that are connected to somebody, shared with this process.
fn connections(gatepost: &Gatepost) -> Vec<Socket> {
    let pid = gatepost.pid();
    let process = Pid::from_raw(pid.cast_signed()).expect("a process id");
    let process = pidfd_open(process, PidfdFlags::empty()).expect("a process");
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("files").flatten();
    let numbers = files.filter_map(|file| file.file_name().to_str()?.parse().ok());
    let opened = numbers.filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok());
    let is_connected = |socket: &Socket| socket.peer_addr().is_ok_and(|peer| peer.as_socket().is_some());
    opened.map(|file: OwnedFd| Socket::from(file)).filter(is_connected).collect()
}

#[test]
fn a_client_that_is_gone_without_a_word_is_found() {
    let bed = Bed::new();
    let far_away = FarAway::new();
    let store = bed.dovecot("store", &[KIM]);
    let [port] = gatepost_lab::free_ports().expect("a port");
    let gatepost = bed.gatepost(&bed.configuration(&format!(
        "plaintext = \"always\"\n[imap.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n\
         imap = {{ port = {} }}\n[[imap.listener]]\naddress = \"{HERE}:{port}\"\ntls = \"none\"\n",
        store.imap
    )));

    let client = format!(
        "import imaplib, sys; c = imaplib.IMAP4({HERE:?}, {port}); print(c.login({:?}, {:?})[0], flush=True); sys.stdin.read()",
        KIM.user, KIM.password
    );
    let mut client = far_away.run("python3", &["-c", &client]);
    let mut heard = String::new();
    BufReader::new(client.stdout.take().expect("a pipe")).read_line(&mut heard).expect("the client's word");
    assert_eq!(heard, "OK\n", "the client is logged in");

    let connections = connections(&gatepost);
    assert_eq!(connections.len(), 2, "{connections:?}");
    // Only sessions that last are worth the system calls.
    let all_kept = || connections.iter().all(|leg| leg.keepalive().expect("an option"));
    wait_for(all_kept).unwrap_or_else(|_| panic!("both legs have keep-alive"));
    for leg in &connections {
        // Found ten minutes after the last word: five of silence, then a probe each minute.
        assert_eq!(leg.tcp_keepalive_time().expect("an option"), Duration::from_mins(5));
        assert_eq!(leg.tcp_keepalive_interval().expect("an option"), Duration::from_mins(1));
        assert_eq!(leg.tcp_keepalive_retries().expect("an option"), 5);
    }
    far_away.fall_silent();
    // Ten minutes are too long for a test: the same timer, with shorter times.
    let second = Duration::from_secs(1);
    for leg in connections {
        let keepalive = TcpKeepalive::new().with_time(second).with_interval(second).with_retries(2);
        leg.set_tcp_keepalive(&keepalive).expect("an option");
    }
    let record = gatepost.wait_for_log("session ended").expect("the end of the session");
    assert!(record.contains("the connection to the client broke: timed out"), "{record}");
    assert!(record.contains(&format!("rip={THERE}")), "{record}");
    let _ = client.kill();
    let _ = client.wait();
}
