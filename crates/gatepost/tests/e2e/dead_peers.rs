//! Peers that are gone without a word: keep-alive finds them.

use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use gatepost_lab::{Gatepost, wait_for};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use socket2::{Socket, TcpKeepalive};

use crate::bed::{Bed, KIM, run};

/// A machine of its own behind a wire of its own: a network namespace. Both are gone with the one process that keeps
/// it, and that one ends with this one, however this one ends.
struct FarAway {
    keeper: Child,
    /// Our end of the wire, and the far one.
    here: Ipv4Addr,
    there: Ipv4Addr,
}

impl FarAway {
    fn new() -> Self {
        let id = std::process::id();
        let mut keep = Command::new("unshare");
        // It says when it is there, and reads until nobody holds the other end of its pipe.
        let mut keeper = spawn(keep.args(["--net", "sh", "-c", "echo; exec cat"]));
        assert_eq!(line_of(&mut keeper), "\n", "a namespace");
        // Of the networks for measurements between networks (RFC 2544), four addresses for this run alone.
        let network = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + id % 0x8000 * 4;
        let far_away = Self { keeper, here: Ipv4Addr::from(network + 1), there: Ipv4Addr::from(network + 2) };
        let (near, far) = (format!("gp{id}a"), format!("gp{id}b"));
        let peer = format!("link add {near} type veth peer name {far} netns {}", far_away.keeper.id());
        run(Command::new("ip").args(peer.split(' ')));
        run(Command::new("ip").args(["address", "add", &format!("{}/30", far_away.here), "dev", &near]));
        run(Command::new("ip").args(["link", "set", &near, "up"]));
        run(far_away.command("ip").args(["address", "add", &format!("{}/30", far_away.there), "dev", &far]));
        run(far_away.command("ip").args(["link", "set", &far, "up"]));
        far_away
    }

    /// A command that runs there.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.id().to_string(), "--net", program]);
        command
    }

    /// From now on nothing comes back from there, as when a NAT has forgotten a connection.
    fn fall_silent(&self) {
        run(self.command("ip").args(["route", "add", "blackhole", &format!("{}/32", self.here)]));
    }
}

impl Drop for FarAway {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

fn spawn(command: &mut Command) -> Child {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a program")
}

/// What a program says first.
fn line_of(program: &mut Child) -> String {
    let mut line = String::new();
    let said = program.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut line).expect("a line");
    line
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
         imap = {{ port = {} }}\n[[imap.listener]]\naddress = \"{}:{port}\"\ntls = \"none\"\n",
        store.imap, far_away.here
    )));

    let client = format!(
        "import imaplib, sys; c = imaplib.IMAP4('{}', {port}); print(c.login({:?}, {:?})[0], flush=True); sys.stdin.read()",
        far_away.here, KIM.user, KIM.password
    );
    let mut client = spawn(far_away.command("python3").args(["-c", &client]));
    assert_eq!(line_of(&mut client), "OK\n", "the client is logged in");

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
    assert!(record.contains(&format!("rip={}", far_away.there)), "{record}");
    let _ = client.kill();
    let _ = client.wait();
}
