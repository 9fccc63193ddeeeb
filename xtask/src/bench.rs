//! `cargo xtask bench`: Gatepost beside its peers, measured the same way in one run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatepost_lab::{Authority, Certificate, Process, Result, ensure_packages, free_port, free_ports, wait_for_port};
use serde_json::{Value, json};

use crate::cargo;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peers to measure beside Gatepost [default: all]
    #[arg(value_parser = ["haproxy", "nginx"])]
    peers: Vec<String>,
    /// How many times everything is measured; the medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Small numbers, to see that it works
    #[arg(long)]
    quick: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// Write the report as JSON too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// A proxy with its listeners.
struct Subject {
    name: &'static str,
    process: Process,
    plain: u16,
    tls: u16,
    configuration: String,
}

struct Bench {
    load: PathBuf,
    folder: PathBuf,
    authority: Authority,
    certificate: Certificate,
    backend: u16,
    _backend: Process,
}

/// One thing that is measured: its name, unit, the load generator's arguments, and the key of the result.
struct Measure {
    name: &'static str,
    unit: &'static str,
    tls: bool,
    arguments: Vec<String>,
    key: &'static str,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    let wanted = |name: &str| options.peers.is_empty() || options.peers.iter().any(|peer| peer == name);
    for (peer, packages) in [("haproxy", &["haproxy"][..]), ("nginx", &["nginx-light", "libnginx-mod-mail"])] {
        if wanted(peer) {
            ensure_packages(packages, !options.no_install)?;
        }
    }
    let gatepost = cargo::build_gatepost(true)?;
    cargo::cargo(&["build", "--quiet", "--release", "--package", "gatepost-load"])?;
    let bench = Bench::start(cargo::target().join("release/gatepost-load"))?;
    let mut results: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    let measures = measures(options.quick);
    let mut subjects = Vec::new();
    for round in 0..options.rounds.max(1) {
        // Fresh processes each time: memory that an earlier round left behind would hide what sessions take.
        subjects.clear();
        subjects.push(bench.gatepost(&gatepost)?);
        if wanted("haproxy") {
            subjects.push(bench.haproxy()?);
        }
        if wanted("nginx") {
            subjects.push(bench.nginx()?);
        }
        for (m, measure) in measures.iter().enumerate() {
            for (s, subject) in subjects.iter().enumerate() {
                let value = bench.measure(subject, measure)?;
                println!("round {} {:<28} {:<9} {value:.2} {}", round + 1, measure.name, subject.name, measure.unit);
                results.entry((m, s)).or_default().push(value);
            }
        }
    }
    report(options, &measures, &subjects, &results)
}

fn measures(quick: bool) -> Vec<Measure> {
    let count = |full: u32| (if quick { full / 10 } else { full }).to_string();
    let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let mut list = Vec::new();
    for tls in [false, true] {
        let name = |plain: &'static str, secure: &'static str| if tls { secure } else { plain };
        let logins = count(if tls { 3000 } else { 8000 });
        list.push(Measure {
            name: name("log-ins, plain", "log-ins, TLS 1.3 full"),
            unit: "per CPU-second",
            tls,
            arguments: words(&["logins", "--count", &logins, "--concurrency", "8"]),
            key: "per_cpu_second",
        });
        let fetches = count(2000);
        list.push(Measure {
            name: name("relay 1 MiB, plain", "relay 1 MiB, TLS"),
            unit: "CPU-s per GB",
            tls,
            arguments: words(&["relay", "--size", "1048576", "--count", &fetches]),
            key: "cpu_seconds_per_gb",
        });
        list.push(Measure {
            name: name("idle session, plain", "idle session, TLS"),
            unit: "KiB",
            tls,
            arguments: words(&["idle", "--from", &count(1000), "--to-sessions", &count(5000)]),
            key: "kib_per_session",
        });
    }
    list
}

impl Bench {
    fn start(load: PathBuf) -> Result<Self> {
        let folder = cargo::target().join("bench");
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        let authority = Authority::create(&folder)?;
        let certificate = authority.issue("front", &["localhost", "127.0.0.1"])?;
        let backend = free_port()?;
        let listen = format!("127.0.0.1:{backend}");
        let process = Process::start(&load, &["backend", "--listen", &listen], &folder.join("backend.out"), false)?;
        wait_for_port(backend, Duration::from_secs(10))?;
        Ok(Self { load, folder, authority, certificate, backend, _backend: process })
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(path)
    }

    /// Starts a proxy and waits for both of its listeners.
    fn subject(
        &self,
        name: &'static str,
        program: &Path,
        arguments: &[&str],
        ports: [u16; 2],
        configuration: String,
    ) -> Result<Subject> {
        let output = self.folder.join(format!("{name}.out"));
        let process = Process::start(program, arguments, &output, false)?;
        for port in ports {
            wait_for_port(port, Duration::from_secs(10)).map_err(|error| {
                format!("{name}: {error}\n{}", std::fs::read_to_string(&output).unwrap_or_default())
            })?;
        }
        Ok(Subject { name, process, plain: ports[0], tls: ports[1], configuration })
    }

    fn gatepost(&self, binary: &Path) -> Result<Subject> {
        let [plain, tls] = free_ports()?;
        let configuration = format!(
            "[[tls.certificate]]\nchain = {:?}\nkey = {:?}\n[log]\nlevel = \"warning\"\n[threads]\nmin = 1\nmax = 1\n\
             [imap]\nplaintext = \"always\"\n[[imap.listener]]\naddress = \"127.0.0.1:{plain}\"\ntls = \"none\"\n\
             [[imap.listener]]\naddress = \"127.0.0.1:{tls}\"\ntls = \"implicit\"\n[imap.backend]\ntls = \"none\"\n\
             [map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
            self.certificate.chain, self.certificate.key, self.backend
        );
        let path = self.write("gatepost.toml", &configuration)?;
        let arguments = ["serve", "--config", &path.display().to_string()];
        self.subject("gatepost", binary, &arguments, [plain, tls], configuration)
    }

    fn haproxy(&self) -> Result<Subject> {
        let [plain, tls] = free_ports()?;
        let both = [&self.certificate.chain, &self.certificate.key]
            .map(|path| std::fs::read_to_string(path).unwrap_or_default());
        let pem = self.write("haproxy.pem", &both.concat())?;
        let configuration = format!(
            "global\n  maxconn 9000\n  nbthread 1\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
             frontend plain\n  bind 127.0.0.1:{plain}\n  default_backend store\nfrontend tls\n  bind 127.0.0.1:{tls} ssl crt {}\n  default_backend store\n\
             backend store\n  server store 127.0.0.1:{}\n",
            pem.display(),
            self.backend
        );
        let path = self.write("haproxy.cfg", &configuration)?;
        self.subject(
            "haproxy",
            Path::new("/usr/sbin/haproxy"),
            &["-db", "-f", &path.display().to_string()],
            [plain, tls],
            configuration,
        )
    }

    /// nginx asks an HTTP responder where each user belongs; another nginx server block answers.
    fn nginx(&self) -> Result<Subject> {
        let [plain, tls, auth] = free_ports()?;
        let configuration = format!(
            "load_module modules/ngx_mail_module.so;\ndaemon off;\nmaster_process off;\nworker_rlimit_nofile 20000;\n\
             pid {folder}/nginx.pid;\nerror_log {folder}/nginx.log error;\nevents {{ worker_connections 20000; }}\n\
             http {{\n access_log off;\n client_body_temp_path {folder}/t1;\n proxy_temp_path {folder}/t2;\n fastcgi_temp_path {folder}/t3;\n\
             uwsgi_temp_path {folder}/t4;\n scgi_temp_path {folder}/t5;\n server {{ listen 127.0.0.1:{auth}; location / {{ add_header Auth-Status OK;\n\
             add_header Auth-Server 127.0.0.1; add_header Auth-Port {backend}; return 200; }} }}\n}}\n\
             mail {{\n auth_http 127.0.0.1:{auth}/;\n proxy_buffer 64k;\n imap_auth login plain;\n\
             server {{ listen 127.0.0.1:{plain}; protocol imap; }}\n\
             server {{ listen 127.0.0.1:{tls} ssl; protocol imap; ssl_certificate {chain}; ssl_certificate_key {key}; }}\n}}\n",
            folder = self.folder.display(),
            backend = self.backend,
            chain = self.certificate.chain.display(),
            key = self.certificate.key.display(),
        );
        let path = self.write("nginx.conf", &configuration)?;
        let arguments = ["-c", &path.display().to_string(), "-p", "/usr/share/nginx"];
        self.subject("nginx", Path::new("/usr/sbin/nginx"), &arguments, [plain, tls], configuration)
    }

    fn measure(&self, subject: &Subject, measure: &Measure) -> Result<f64> {
        let port = if measure.tls { subject.tls } else { subject.plain };
        let mut command = Command::new(&self.load);
        command.args(&measure.arguments);
        command.args(["--to", &format!("127.0.0.1:{port}"), "--pid", &subject.process.pid().to_string()]);
        if measure.tls {
            command.arg("--ca").arg(&self.authority.certificate);
        }
        let output = command.output().map_err(|error| format!("{}: {error}", self.load.display()))?;
        let said: Value = serde_json::from_slice(&output.stdout).map_err(|_| {
            format!("{} of {}: {}", measure.name, subject.name, String::from_utf8_lossy(&output.stderr))
        })?;
        said[measure.key].as_f64().ok_or_else(|| format!("{} of {}: {said}", measure.name, subject.name))
    }
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

fn report(
    options: &Options,
    measures: &[Measure],
    subjects: &[Subject],
    results: &BTreeMap<(usize, usize), Vec<f64>>,
) -> Result<()> {
    let mut table = String::from("\n| measure (median, lowest to highest) |");
    for subject in subjects {
        let _ = write!(table, " {} |", subject.name);
    }
    table.push_str(" Gatepost's ratio to each peer |\n| --- |");
    (0..=subjects.len()).for_each(|_| table.push_str(" --- |"));
    table.push('\n');
    let mut list = Vec::new();
    for (m, measure) in measures.iter().enumerate() {
        let _ = write!(table, "| {}, {} |", measure.name, measure.unit);
        let medians: Vec<_> = (0..subjects.len()).map(|s| median(&results[&(m, s)])).collect();
        for (s, subject) in subjects.iter().enumerate() {
            let values = &results[&(m, s)];
            let (low, high) =
                values.iter().fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
            let _ = write!(table, " {:.2} ({low:.2} to {high:.2}) |", medians[s]);
            list.push(json!({ "measure": measure.name, "unit": measure.unit, "subject": subject.name, "median": medians[s], "values": values }));
        }
        let ratios = subjects
            .iter()
            .zip(&medians)
            .skip(1)
            .map(|(subject, peer)| format!("{:.2} of {}", medians[0] / peer, subject.name));
        let _ = writeln!(table, " {} |", ratios.collect::<Vec<_>>().join(", "));
    }
    println!("{table}");
    if let Some(path) = &options.json {
        let configurations: BTreeMap<_, _> =
            subjects.iter().map(|subject| (subject.name, subject.configuration.as_str())).collect();
        let text = format!("{:#}\n", json!({ "results": list, "configurations": configurations }));
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
