//! `cargo xtask bench protocols`: log-ins over POP3 and submission, and mail over SMTP, beside the peers that have them.
//!
//! All stand before the same stand-in back end, in clear, and each is measured alone. Postfix keeps every message on disk
//! before it passes it on; the others never do, and Gatepost alone looks up each recipient.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gatepost_lab::{
    Authority, Certificate, Postfix, PostfixSetup, Process, Result, ensure_packages, free_port, free_ports,
    wait_for_port,
};

use super::load::{self, Figures};
use super::report::Table;
use super::{Folder, Options, PROTOCOLS};
use crate::cargo;

const PACKAGES: [&str; 7] =
    ["haproxy", "nginx-light", "libnginx-mod-mail", "dovecot-core", "dovecot-pop3d", "dovecot-submissiond", "postfix"];
const START_PATIENCE: Duration = Duration::from_secs(15);

/// What is measured.
struct Task {
    name: &'static str,
    service: &'static str,
    /// The load generator's arguments.
    words: &'static [&'static str],
    peers: &'static [&'static str],
}

static TASKS: [Task; 5] = [
    Task::log_ins("POP3 log-ins", "pop3", &["logins", "--protocol", "pop3", "--concurrency", "8"]),
    Task::log_ins("submission log-ins", "submission", &["logins", "--protocol", "submission", "--concurrency", "8"]),
    Task::mail("messages of 4 KiB, one a connection", &["deliver", "--size", "4096", "--each", "1"]),
    Task::mail("messages of 4 KiB, 20 a connection", &["deliver", "--size", "4096", "--each", "20"]),
    Task::mail("messages of 1 MiB, 20 a connection", &["deliver", "--size", "1048576", "--each", "20"]),
];

impl Task {
    const fn log_ins(name: &'static str, service: &'static str, words: &'static [&'static str]) -> Self {
        Self { name, service, words, peers: &["gatepost", "haproxy", "nginx", "dovecot"] }
    }

    const fn mail(name: &'static str, words: &'static [&'static str]) -> Self {
        Self { name, service: "smtp", words, peers: &["gatepost", "haproxy", "nginx", "postfix"] }
    }
}

/// A running proxy.
struct Subject {
    port: u16,
    pid: u32,
    _process: Running,
}

#[expect(dead_code, reason = "held, so that it runs")]
enum Running {
    Process(Process),
    Postfix(Postfix),
}

/// What all stand in.
struct Site {
    load: PathBuf,
    gatepost: PathBuf,
    certificate: Certificate,
    pop3: u16,
    smtp: u16,
    _backend: Process,
    folder: Folder,
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure_packages(&PACKAGES, !options.no_install)?;
    let gatepost = cargo::build("gatepost", !options.quick)?;
    let load = cargo::build("gatepost-load", !options.quick)?;
    let site = Site::prepare(gatepost, load)?;
    let mut table = Table::begin("what | proxy | per second | per CPU-second | of HAProxy's | p50 ms | p99 ms");
    for task in TASKS.iter().filter(|task| options.wants(task.name)) {
        let mut measured = Vec::new();
        for peer in task.peers {
            let rounds = (0..options.rounds.max(1)).map(|_| site.measure(task, peer, options.quick));
            measured.push((*peer, median(rounds.collect::<Result<Vec<_>>>()?)));
        }
        let bound =
            measured.iter().find(|(peer, _)| *peer == "haproxy").map_or(f64::NAN, |(_, said)| said.per_cpu_second);
        for (peer, said) in measured {
            let Figures { per_second, per_cpu_second, p50, p99 } = said;
            table.row(&format!(
                "{} | {peer} | {per_second:.0} | {per_cpu_second:.0} | {:.2} | {p50:.2} | {p99:.2}",
                task.name,
                per_cpu_second / bound
            ));
        }
    }
    table.keep(options.out.as_deref(), PROTOCOLS)
}

/// The round in the middle by what it cost.
fn median(mut rounds: Vec<Figures>) -> Figures {
    rounds.sort_by(|a, b| a.per_cpu_second.total_cmp(&b.per_cpu_second));
    rounds[rounds.len() / 2]
}

impl Site {
    fn prepare(gatepost: PathBuf, load: PathBuf) -> Result<Self> {
        let folder = Folder::create(PROTOCOLS)?;
        let authority = Authority::create(&folder)?;
        let certificate = authority.issue("front", &["localhost", "127.0.0.1"])?;
        let [imap, pop3, smtp] = free_ports()?;
        let [listen, pop3_listen, smtp_listen] = [imap, pop3, smtp].map(|port| format!("127.0.0.1:{port}"));
        let words = ["backend", "--listen", &listen, "--pop3-listen", &pop3_listen, "--smtp-listen", &smtp_listen];
        let backend = Process::start(&load, &words, &folder.join("backend.out"), false)?;
        [pop3, smtp].iter().try_for_each(|&port| wait_for_port(port, START_PATIENCE))?;
        Ok(Self { folder, load, gatepost, certificate, pop3, smtp, _backend: backend })
    }

    fn measure(&self, task: &Task, peer: &str, quick: bool) -> Result<Figures> {
        let subject = self.start(task, peer)?;
        let (count, seconds) = if quick { ("40", "2") } else { ("30000", "5") };
        let what = format!("{} of {peer}", task.name);
        let words = task.words.iter().copied().chain(["--count", count, "--seconds", seconds]);
        let said = load::ask(&self.load, words, (subject.port, subject.pid), &what)?;
        if said["failures"] != 0 {
            return Err(format!("{what}: {said}"));
        }
        Ok(Figures::of(&said))
    }

    fn start(&self, task: &Task, peer: &str) -> Result<Subject> {
        let port = free_port()?;
        let backend = if task.service == "pop3" { self.pop3 } else { self.smtp };
        let (program, arguments, as_nobody) = match peer {
            "gatepost" => (self.gatepost.clone(), self.gatepost(task.service, port, backend)?, false),
            "haproxy" => ("/usr/sbin/haproxy".into(), self.haproxy(port, backend)?, false),
            "nginx" => ("/usr/sbin/nginx".into(), self.nginx(task.service, port, backend)?, false),
            "dovecot" => ("/usr/sbin/dovecot".into(), self.dovecot(task.service, port, backend)?, true),
            _ => return self.postfix(port, backend),
        };
        let output = self.folder.join(format!("{peer}.out"));
        let words: Vec<_> = arguments.iter().map(String::as_str).collect();
        let process = Process::start(&program, &words, &output, as_nobody)?;
        wait_for_port(port, START_PATIENCE)
            .map_err(|error| format!("{peer}: {error}\n{}", std::fs::read_to_string(&output).unwrap_or_default()))?;
        Ok(Subject { port, pid: process.pid(), _process: Running::Process(process) })
    }

    fn write(&self, name: &str, text: &str) -> Result<String> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path.display().to_string())
    }

    fn gatepost(&self, service: &str, port: u16, backend: u16) -> Result<Vec<String>> {
        self.write("users", "user@example.org:::::::host=store\nuser:::::::host=store\n")?;
        let path = self.write(
            "gatepost.toml",
            &format!(
                "name = \"bench\"\n[log]\nlevel = \"warning\"\n[threads]\nmin = 1\nmax = 1\n\
                 [[{service}.listener]]\naddress = \"127.0.0.1:{port}\"\ntls = \"none\"\n[{service}]\nplaintext = \"always\"\n\
                 [{service}.backend]\ntls = \"none\"\nannounce = \"none\"\n[map]\ndirectories = [\"people\"]\n\
                 [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n\
                 [backend.store]\nhost = \"127.0.0.1\"\n{service} = {{ port = {backend} }}\n"
            ),
        )?;
        Ok(["serve", "--config", &path].map(str::to_owned).into())
    }

    fn haproxy(&self, port: u16, backend: u16) -> Result<Vec<String>> {
        let path = self.write(
            "haproxy.cfg",
            &format!(
                "global\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
                 frontend mail\n  bind 127.0.0.1:{port}\n  default_backend store\nbackend store\n  server store 127.0.0.1:{backend}\n"
            ),
        )?;
        Ok(["-db", "-f", &path].map(str::to_owned).into())
    }

    fn nginx(&self, service: &str, port: u16, backend: u16) -> Result<Vec<String>> {
        let auth = free_port()?;
        let folder = self.folder.display();
        let server = match service {
            "pop3" => "protocol pop3; pop3_auth plain;",
            "submission" => "protocol smtp; smtp_auth plain; proxy_smtp_auth on; xclient off;",
            _ => "protocol smtp; smtp_auth none; xclient off;",
        };
        let path = self.write(
            "nginx.conf",
            &format!(
                "load_module modules/ngx_mail_module.so;\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n\
                 error_log {folder}/nginx.log error;\nevents {{ worker_connections 9900; }}\n\
                 http {{\n access_log off;\n client_body_temp_path {folder}/t1;\n proxy_temp_path {folder}/t2;\n fastcgi_temp_path {folder}/t3;\n\
                 \x20uwsgi_temp_path {folder}/t4;\n scgi_temp_path {folder}/t5;\n server {{ listen 127.0.0.1:{auth}; location / {{ add_header Auth-Status OK;\n\
                 \x20add_header Auth-Server 127.0.0.1; add_header Auth-Port {backend}; return 200; }} }}\n}}\n\
                 mail {{\n server_name bench;\n auth_http 127.0.0.1:{auth}/;\n proxy_pass_error_message on;\n proxy_buffer 64k;\n\
                 \x20server {{ listen 127.0.0.1:{port}; {server} }}\n}}\n"
            ),
        )?;
        Ok(["-c", &path, "-p", "/usr/share/nginx"].map(str::to_owned).into())
    }

    fn dovecot(&self, service: &str, port: u16, backend: u16) -> Result<Vec<String>> {
        let (user, group) = gatepost_lab::identity()?;
        let base = self.folder.join(format!("dovecot-{port}"));
        std::fs::create_dir_all(&base).map_err(|error| format!("{}: {error}", base.display()))?;
        copy(&self.certificate, &base)?;
        let configuration = format!(
            "base_dir = {base}/run\nstate_dir = {base}/run\nlog_path = /dev/null\nprotocols = {service}\nlisten = 127.0.0.1\n\
             default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\nfirst_valid_uid = 1\n\
             ssl = no\nssl_cert = <{base}/cert.pem\nssl_key = <{base}/key.pem\ndisable_plaintext_auth = no\nauth_mechanisms = plain login\n\
             passdb {{\n driver = static\n args = proxy=y nopassword=y host=127.0.0.1 port={backend}\n}}\n\
             default_client_limit = 9000\ndefault_vsz_limit = 0\nsubmission_relay_host = 127.0.0.1\n\
             service {service}-login {{\n chroot =\n service_count = 0\n process_min_avail = 1\n process_limit = 1\n client_limit = 9000\n\
             \x20inet_listener {service} {{\n  address = 127.0.0.1\n  port = {port}\n }}\n}}\n\
             service anvil {{\n chroot =\n unix_listener anvil-auth-penalty {{\n  mode = 0\n }}\n}}\nservice stats {{\n chroot =\n}}\n",
            base = base.display(),
        );
        let path = base.join("dovecot.conf");
        std::fs::write(&path, configuration).map_err(|error| format!("dovecot.conf: {error}"))?;
        gatepost_lab::give_away(&base)?;
        Ok(["-F", "-c", &path.display().to_string()].map(str::to_owned).into())
    }

    /// Takes mail, keeps it, and passes it on to the back end.
    fn postfix(&self, port: u16, backend: u16) -> Result<Subject> {
        let more = format!(
            "relay_domains = example.org\nrelayhost = [127.0.0.1]:{backend}\nmessage_size_limit = 100000000\n\
             relay_transport = relay:[127.0.0.1]:{backend}\ndebug_peer_level = 1\nsmtpd_client_port_logging = no\n"
        );
        let setup =
            PostfixSetup { port, users: &["nobody@nowhere.example"], certificate: None, sasl: None, more: &more };
        let postfix = Postfix::start(&self.folder.join(format!("postfix-{port}")), &setup)?;
        let pid = postfix.server.pid().ok_or("Postfix does not run")?;
        Ok(Subject { port, pid, _process: Running::Postfix(postfix) })
    }
}

fn copy(certificate: &Certificate, to: &Path) -> Result<()> {
    for (from, name) in [(&certificate.chain, "cert.pem"), (&certificate.key, "key.pem")] {
        std::fs::copy(from, to.join(name)).map_err(|error| format!("{name}: {error}"))?;
    }
    Ok(())
}
