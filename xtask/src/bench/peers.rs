//! The proxies that are measured, each set up for speed, with one worker.

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gatepost_lab::{Authority, Certificate, Process, Result, free_ports, wait_for_port};

use super::Folder;
use super::measures::Leg;
use crate::cargo;

/// How long a proxy may take to start.
const START_PATIENCE: Duration = Duration::from_secs(15);

/// A proxy, and what must be known to measure it.
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) packages: &'static [&'static str],
    /// Prints its version.
    version: &'static [&'static str],
    /// Takes no more sessions than this within reason.
    pub(super) sessions_max: Option<u32>,
    /// Differs from another peer in nothing but relaying.
    pub(super) is_relay_only: bool,
    start: fn(&Setting, &Peer, [Endpoints; 2]) -> Result<Launch>,
}

pub(super) static GATEPOST: Peer =
    Peer { name: "gatepost", packages: &[], version: &[], sessions_max: None, is_relay_only: false, start: gatepost };

/// Gatepost as it was built before a change; measured where `--before` names its program.
pub(super) static BEFORE: Peer =
    Peer { name: "before", packages: &[], version: &[], sessions_max: None, is_relay_only: false, start: before };

pub(super) static PEERS: [Peer; 5] = [
    Peer {
        name: "haproxy",
        packages: &["haproxy"],
        version: &["/usr/sbin/haproxy", "-v"],
        sessions_max: None,
        is_relay_only: false,
        start: haproxy,
    },
    Peer {
        name: "nginx",
        packages: &["nginx-light", "libnginx-mod-mail"],
        version: &["/usr/sbin/nginx", "-v"],
        sessions_max: None,
        is_relay_only: false,
        start: |setting, peer, ports| nginx(setting, peer, ports, ""),
    },
    Peer {
        name: "nginx-64k",
        packages: &["nginx-light", "libnginx-mod-mail"],
        version: &[],
        sessions_max: None,
        is_relay_only: true,
        start: |setting, peer, ports| nginx(setting, peer, ports, "proxy_buffer 64k;"),
    },
    Peer {
        name: "dovecot",
        packages: &["dovecot-core", "dovecot-imapd"],
        version: &["/usr/sbin/dovecot", "--version"],
        sessions_max: None,
        is_relay_only: false,
        start: dovecot,
    },
    Peer {
        name: "perdition",
        packages: &["perdition"],
        version: &[],
        // A process for each.
        sessions_max: Some(1500),
        is_relay_only: false,
        start: perdition,
    },
];

/// Where the proxy listens in clear and with TLS; the first pair is before the back end in clear, the
/// second before that with TLS.
type Endpoints = [u16; 2];

/// How a proxy is started.
struct Launch {
    program: PathBuf,
    /// The arguments of each of its processes.
    processes: Vec<Vec<String>>,
    /// Which of them serves each leg, if any.
    legs: [Option<usize>; 3],
    as_nobody: bool,
}

/// A running proxy.
pub(super) struct Subject {
    _processes: Vec<Process>,
    endpoints: [Option<Endpoint>; 3],
    pub(super) greeted_ms: f64,
}

/// Where a leg of it is measured.
pub(super) struct Endpoint {
    pub(super) port: u16,
    pub(super) pid: u32,
}

impl Subject {
    pub(super) fn leg(&self, leg: Leg) -> Option<&Endpoint> {
        self.endpoints[leg as usize].as_ref()
    }
}

/// What all proxies stand in: certificates, back ends, a folder.
pub(super) struct Setting {
    pub(super) load: PathBuf,
    pub(super) authority: Authority,
    gatepost: PathBuf,
    /// Gatepost's program before a change.
    before: Option<PathBuf>,
    certificate: Certificate,
    /// In clear, and with TLS.
    backend: Endpoints,
    _backend: Process,
    folder: Folder,
}

impl Setting {
    pub(super) fn prepare(gatepost: PathBuf, load: PathBuf, before: Option<PathBuf>) -> Result<Self> {
        raise_file_limit();
        let folder = Folder::create("peers")?;
        let authority = Authority::create(&folder)?;
        let certificate = authority.issue("front", &["localhost", "127.0.0.1"])?;
        let backend = free_ports()?;
        let [clear, secure] = backend.map(|port| format!("127.0.0.1:{port}"));
        let (chain, key) = (certificate.chain.display().to_string(), certificate.key.display().to_string());
        let arguments = ["backend", "--listen", &clear, "--tls-listen", &secure, "--chain", &chain, "--key", &key]
            .map(String::from);
        let words: Vec<_> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(&load, &words, &folder.join("backend.out"), false)?;
        backend.iter().try_for_each(|&port| wait_for_port(port, START_PATIENCE))?;
        Ok(Self { load, authority, gatepost, before, certificate, folder, backend, _backend: process })
    }

    /// Starts a proxy and waits for all its listeners.
    pub(super) fn start(&self, peer: &Peer) -> Result<Subject> {
        let ports = [free_ports()?, free_ports()?];
        let launch = (peer.start)(self, peer, ports)?;
        self.launch(peer, &launch, ports)
    }

    /// Gatepost, with so many users in its map.
    pub(super) fn start_with_users(&self, count: u32) -> Result<Subject> {
        let ports = [free_ports()?, free_ports()?];
        let users: String = (0..count).map(|n| format!("user{n}@example.org:::::::host=store\n")).collect();
        self.write("users", &users)?;
        let directory = "[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n";
        let text = self.gatepost_configuration(ports[0], self.backend[0], "tls = \"none\"");
        let text = text.replace("[map]\n", "[map]\ndirectories = [\"people\"]\n");
        let path = self.write("gatepost-users.toml", &format!("{text}{directory}"))?;
        let processes = vec![vec!["serve".into(), "--config".into(), path]];
        let program = self.gatepost.clone();
        let launch = Launch { program, processes, legs: [Some(0), Some(0), None], as_nobody: false };
        self.launch(&GATEPOST, &launch, ports)
    }

    fn launch(&self, peer: &Peer, launch: &Launch, ports: [Endpoints; 2]) -> Result<Subject> {
        let [[plain, tls], [_, both]] = ports;
        let started = Instant::now();
        let mut processes = Vec::new();
        for (n, arguments) in launch.processes.iter().enumerate() {
            let output = self.folder.join(format!("{}-{n}.out", peer.name));
            let words: Vec<_> = arguments.iter().map(String::as_str).collect();
            processes.push(Process::start(&launch.program, &words, &output, launch.as_nobody)?);
        }
        let said = || std::fs::read_to_string(self.folder.join(format!("{}-0.out", peer.name))).unwrap_or_default();
        wait_for_greeting(plain).map_err(|error| format!("{}: {error}\n{}", peer.name, said()))?;
        let greeted_ms = started.elapsed().as_secs_f64() * 1e3;
        let mut endpoints = [None, None, None];
        for ((port, served_by), endpoint) in [plain, tls, both].into_iter().zip(launch.legs).zip(&mut endpoints) {
            let Some(process) = served_by else { continue };
            wait_for_port(port, START_PATIENCE).map_err(|error| format!("{}: {error}\n{}", peer.name, said()))?;
            *endpoint = Some(Endpoint { port, pid: processes[process].pid() });
        }
        Ok(Subject { _processes: processes, endpoints, greeted_ms })
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }

    /// A peer's configuration as it was used, without this machine's paths; empty: it has none but its arguments.
    pub(super) fn configuration(&self, peer: &Peer) -> Result<String> {
        let ports = [[10143, 10993], [11143, 11993]];
        let launch = (peer.start)(self, peer, ports)?;
        let mut text = format!("$ {}", launch.program.file_name().unwrap_or_default().display());
        for words in &launch.processes {
            text = format!("{text} {}\n", words.join(" "));
            let configured = words.iter().find_map(|word| std::fs::read_to_string(word).ok());
            text.extend(configured);
        }
        let folder = self.folder.display().to_string();
        Ok(text.replace(&folder, "/bench").replace(&cargo::target().display().to_string(), "/target"))
    }

    /// Before the back end on `port`; `backend`: how it is spoken to.
    fn gatepost_configuration(&self, [plain, tls]: Endpoints, port: u16, backend: &str) -> String {
        let Certificate { chain, key } = &self.certificate;
        format!(
            "name = \"bench\"\n[[tls.certificate]]\nchain = {chain:?}\nkey = {key:?}\n[log]\nlevel = \"warning\"\n[threads]\nmin = 1\nmax = 1\n\
             [imap]\nplaintext = \"always\"\n[imap.backend]\n{backend}\n[[imap.listener]]\naddress = \"127.0.0.1:{plain}\"\ntls = \"none\"\n\
             [[imap.listener]]\naddress = \"127.0.0.1:{tls}\"\ntls = \"implicit\"\n[map]\ndefault = \"store\"\n\
             [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {port} }}\n",
        )
    }
}

/// A session takes two files.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // What can't be raised shows soon enough: 9,000 sessions need 18,000 files.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

fn wait_for_greeting(port: u16) -> Result<()> {
    let deadline = Instant::now() + START_PATIENCE;
    loop {
        let mut line = String::new();
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            let _ = stream.set_read_timeout(Some(START_PATIENCE));
            let _ = BufReader::new(stream).read_line(&mut line);
        }
        if line.starts_with("* OK") {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("no greeting on port {port}"));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
}

/// What a peer says of its version.
pub(super) fn version(peer: &Peer) -> Option<String> {
    let (program, arguments) = peer.version.split_first()?;
    let output = Command::new(program).args(arguments).output().ok()?;
    let said = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&said).lines().next().map(str::to_owned)
}

fn gatepost(setting: &Setting, _: &Peer, ports: [Endpoints; 2]) -> Result<Launch> {
    gatepost_by(&setting.gatepost, setting, ports)
}

fn before(setting: &Setting, _: &Peer, ports: [Endpoints; 2]) -> Result<Launch> {
    gatepost_by(setting.before.as_ref().ok_or("--before names no program")?, setting, ports)
}

/// A service has one way to its back ends, so that TLS on both legs is a Gatepost of its own.
fn gatepost_by(program: &Path, setting: &Setting, [first, second]: [Endpoints; 2]) -> Result<Launch> {
    let Setting { backend: [clear, secure], authority, .. } = setting;
    let in_clear = setting.gatepost_configuration(first, *clear, "tls = \"none\"");
    let authority = format!("tls = \"implicit\"\nca = {:?}", authority.certificate);
    let over_tls = setting.gatepost_configuration(second, *secure, &authority);
    let paths = [setting.write("gatepost.toml", &in_clear)?, setting.write("gatepost-tls.toml", &over_tls)?];
    let processes = paths.map(|path| vec!["serve".into(), "--config".into(), path]).into();
    Ok(Launch { program: program.to_owned(), processes, legs: [Some(0), Some(0), Some(1)], as_nobody: false })
}

fn haproxy(setting: &Setting, _: &Peer, [[plain, tls], [_, both]]: [Endpoints; 2]) -> Result<Launch> {
    let Setting { certificate, backend: [clear, secure], .. } = setting;
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()));
    let pem = setting.write("haproxy.pem", &[read(&certificate.chain)?, read(&certificate.key)?].concat())?;
    let configuration = format!(
        "global\n  maxconn 9500\n  nbthread 1\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         frontend plain\n  bind 127.0.0.1:{plain} backlog 16384\n  default_backend store\n\
         frontend tls\n  bind 127.0.0.1:{tls} ssl crt {pem} backlog 16384\n  default_backend store\n\
         frontend both\n  bind 127.0.0.1:{both} ssl crt {pem} backlog 16384\n  default_backend store-tls\n\
         backend store\n  server store 127.0.0.1:{clear}\n\
         backend store-tls\n  server store 127.0.0.1:{secure} ssl verify none\n",
    );
    let path = setting.write("haproxy.cfg", &configuration)?;
    let processes = vec![vec!["-db".into(), "-f".into(), path]];
    Ok(Launch { program: "/usr/sbin/haproxy".into(), processes, legs: [Some(0), Some(0), Some(0)], as_nobody: false })
}

/// nginx asks an HTTP responder where each user belongs; another server block of it answers. Its mail
/// module speaks no TLS to back ends.
fn nginx(setting: &Setting, peer: &Peer, [[plain, tls], [auth, _]]: [Endpoints; 2], buffer: &str) -> Result<Launch> {
    let Setting { certificate, backend: [clear, _], folder, .. } = setting;
    let folder = folder.display();
    let configuration = format!(
        "load_module modules/ngx_mail_module.so;\ndaemon off;\nmaster_process off;\n\n\
         pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log error;\nevents {{ worker_connections 19900; }}\n\
         http {{\n access_log off;\n client_body_temp_path {folder}/t1;\n proxy_temp_path {folder}/t2;\n fastcgi_temp_path {folder}/t3;\n\
         \x20uwsgi_temp_path {folder}/t4;\n scgi_temp_path {folder}/t5;\n server {{ listen 127.0.0.1:{auth}; location / {{ add_header Auth-Status OK;\n\
         \x20add_header Auth-Server 127.0.0.1; add_header Auth-Port {clear}; return 200; }} }}\n}}\n\
         mail {{\n auth_http 127.0.0.1:{auth}/;\n {buffer}\n imap_auth login plain;\n ssl_session_cache builtin:20000;\n\
         \x20server {{ listen 127.0.0.1:{plain} backlog=16384; protocol imap; }}\n\
         \x20server {{ listen 127.0.0.1:{tls} ssl backlog=16384; protocol imap; ssl_certificate {}; ssl_certificate_key {}; ssl_protocols TLSv1.2 TLSv1.3; }}\n}}\n",
        certificate.chain.display(),
        certificate.key.display(),
    );
    let path = setting.write(&format!("{}.conf", peer.name), &configuration)?;
    let processes = vec![vec!["-c".into(), path, "-p".into(), "/usr/share/nginx".into()]];
    Ok(Launch { program: "/usr/sbin/nginx".into(), processes, legs: [Some(0), Some(0), None], as_nobody: false })
}

/// Dovecot's login processes in what its manual calls the high-performance mode: one serves all.
fn dovecot(setting: &Setting, _: &Peer, [[plain, tls], _]: [Endpoints; 2]) -> Result<Launch> {
    let Setting { certificate, backend: [clear, _], .. } = setting;
    let (user, group) = gatepost_lab::identity()?;
    let base = setting.folder.join("dovecot");
    std::fs::create_dir_all(&base).map_err(|error| format!("{}: {error}", base.display()))?;
    for (from, to) in [(&certificate.chain, "cert.pem"), (&certificate.key, "key.pem")] {
        std::fs::copy(from, base.join(to)).map_err(|error| format!("{to}: {error}"))?;
    }
    let configuration = format!(
        "base_dir = {base}/run\nstate_dir = {base}/run\nlog_path = /dev/null\nprotocols = imap\nlisten = 127.0.0.1\n\
         default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\nfirst_valid_uid = 1\n\
         ssl = yes\nssl_cert = <{base}/cert.pem\nssl_key = <{base}/key.pem\nssl_min_protocol = TLSv1.2\n\
         disable_plaintext_auth = no\nauth_mechanisms = plain login\n\
         passdb {{\n driver = static\n args = proxy=y nopassword=y host=127.0.0.1 port={clear}\n}}\n\
         default_client_limit = 19000\ndefault_vsz_limit = 0\n\
         service imap-login {{\n chroot =\n service_count = 0\n process_min_avail = 1\n process_limit = 1\n client_limit = 19000\n\
         \x20inet_listener imap {{\n  address = 127.0.0.1\n  port = {plain}\n }}\n inet_listener imaps {{\n  address = 127.0.0.1\n  port = {tls}\n  ssl = yes\n }}\n}}\n\
         service anvil {{\n chroot =\n unix_listener anvil-auth-penalty {{\n  mode = 0\n }}\n}}\nservice stats {{\n chroot =\n}}\n\
         service imap-hibernate {{\n chroot =\n}}\n",
        base = base.display(),
    );
    std::fs::write(base.join("dovecot.conf"), configuration).map_err(|error| format!("dovecot.conf: {error}"))?;
    gatepost_lab::give_away(&base)?;
    let path = base.join("dovecot.conf").display().to_string();
    let processes = vec![vec!["-F".into(), "-c".into(), path]];
    Ok(Launch { program: "/usr/sbin/dovecot".into(), processes, legs: [Some(0), Some(0), None], as_nobody: true })
}

/// A process for each session, and one program for each listener.
fn perdition(setting: &Setting, _: &Peer, [[plain, tls], [_, both]]: [Endpoints; 2]) -> Result<Launch> {
    let Setting { certificate, backend: [clear, secure], folder, .. } = setting;
    // Left empty, so that a file of the machine's doesn't count.
    let file = setting.write("perdition.conf", "")?;
    let one = |listen: u16, backend: &u16, more: &[&str]| {
        let text = format!(
            "--config_file {file} --protocol IMAP4 --no_daemon --bind_address 127.0.0.1 --listen_port {listen} \
             --outgoing_server 127.0.0.1 --outgoing_port {backend} --pid_file {}/perdition-{listen}.pid --quiet {}",
            folder.display(),
            more.join(" ")
        );
        text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let files = format!("--ssl_cert_file {} --ssl_key_file {}", certificate.chain.display(), certificate.key.display());
    let processes = vec![
        one(plain, clear, &[]),
        one(tls, clear, &["--ssl_mode ssl_listen", &files]),
        one(both, secure, &["--ssl_mode ssl_all --ssl_no_cert_verify --ssl_no_cn_verify", &files]),
    ];
    Ok(Launch {
        program: "/usr/sbin/perdition.imap4".into(),
        processes,
        legs: [Some(0), Some(1), Some(2)],
        as_nobody: false,
    })
}
