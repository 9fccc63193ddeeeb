//! `cargo xtask demo`: Gatepost at work before two real Dovecot servers, on loopback.

use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost_lab::{
    Authority, Dovecot, Gatepost, MASTER, MASTER_PASSWORD, Mailbox, Result, ensure_packages, free_ports,
};
use serde_json::json;

use crate::cargo;

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Read a message of every user, under TLS of both kinds, and end
    #[arg(long)]
    check: bool,
    /// Write addresses and log-ins to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Use the ports from this one on instead of free ones
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1024..=65_513))]
    port_base: Option<u16>,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

impl Options {
    /// As `--check` alone.
    pub(crate) const fn for_check(no_install: bool) -> Self {
        Self { check: true, json: None, port_base: None, no_install }
    }
}

/// Who may log in at the console.
const ADMINISTRATOR: (&str, &str) = ("admin", "admin's secret");

/// Who has mail, and where.
const USERS: [(&str, &str, &str); 4] = [
    ("anna", "anna's secret", "store-a"),
    ("ben", "ben's secret", "store-a"),
    ("carla", "carla's secret", "store-b"),
    ("dmitri", "dmitri's secret", "store-b"),
];

/// Where Gatepost listens.
#[derive(Clone, Copy)]
struct Ports {
    imap: u16,
    imaps: u16,
    pop3: u16,
    pop3s: u16,
    console: u16,
}

struct Demo {
    folder: PathBuf,
    ports: Ports,
    authority: Authority,
    stores: [Dovecot; 2],
    gatepost: Gatepost,
}

pub(crate) fn run(options: &Options) -> Result<()> {
    ensure_packages(&["dovecot-core", "dovecot-imapd", "dovecot-pop3d", "curl"], !options.no_install)?;
    let binary = cargo::build("gatepost", false)?;
    let demo = start(&binary, options)?;
    if let Some(path) = &options.json {
        let text = format!("{:#}\n", demo.describe());
        std::fs::write(path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if options.check {
        return demo.check();
    }
    demo.introduce();
    wait_for_the_end()?;
    println!("\nStopping.");
    Ok(())
}

fn start(binary: &Path, options: &Options) -> Result<Demo> {
    let folder = cargo::target().join("demo");
    let _ = std::fs::remove_dir_all(&folder);
    let make = |name: &str| {
        let path = folder.join(name);
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok::<_, String>(path)
    };
    let certificates = make("certificates")?;
    let ports: [u16; 23] = match options.port_base {
        None => free_ports()?,
        Some(base) => std::array::from_fn(|n| base + n as u16),
    };
    let [imap, imaps, pop3, pop3s, stores @ .., console] = ports;
    let (a, b) = stores.split_at(stores.len() / 2);
    let of_store = |ports: &[u16]| <[u16; 9]>::try_from(ports).map_err(|_| "a Dovecot has other ports".to_owned());
    let authority = Authority::create(&certificates)?;
    let store = authority.issue("store", &["localhost", "127.0.0.1"])?;
    let front = authority.issue("front", &["localhost", "127.0.0.1"])?;
    let mailboxes = |name: &str| {
        let here = USERS.iter().filter(|(_, _, store)| *store == name);
        here.map(|&(user, password, _)| Mailbox { user, password }).collect::<Vec<_>>()
    };
    let stores = [
        Dovecot::start_on(&make("store-a")?, &store, &mailboxes("store-a"), of_store(a)?)?,
        Dovecot::start_on(&make("store-b")?, &store, &mailboxes("store-b"), of_store(b)?)?,
    ];
    for (user, _, store) in USERS {
        let dovecot = &stores[usize::from(store == "store-b")];
        dovecot.seed(user, [letter(user, store)])?;
    }

    let gate = make("gatepost")?;
    let secret = gate.join("store-b.secret");
    write_secret(&secret, MASTER_PASSWORD)?;
    let configuration = format!(
        "name = \"demo.example.org\"\n\n\
         [[tls.certificate]]\nchain = {chain:?}\nkey = {key:?}\n\n\
         [imap]\nauthenticate = \"proxy\"\ndirectory = \"people\"\n\n\
         [[imap.listener]]\naddress = \"127.0.0.1:{imap}\"\ntls = \"starttls\"\n\n\
         [[imap.listener]]\naddress = \"127.0.0.1:{imaps}\"\ntls = \"implicit\"\n\n\
         [imap.backend]\nca = {ca:?}\n\n\
         [pop3]\nauthenticate = \"proxy\"\ndirectory = \"people\"\n\n\
         [[pop3.listener]]\naddress = \"127.0.0.1:{pop3}\"\ntls = \"starttls\"\n\n\
         [[pop3.listener]]\naddress = \"127.0.0.1:{pop3s}\"\ntls = \"implicit\"\n\n\
         [pop3.backend]\nca = {ca:?}\n\n\
         [map]\ndirectories = [\"people\"]\n\n\
         [directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n\n\
         [backend.store-a]\nhost = \"127.0.0.1\"\nimap = {{ port = {a} }}\npop3 = {{ port = {a_pop3} }}\n\n\
         [backend.store-b]\nhost = \"127.0.0.1\"\nimap = {{ port = {b}, tls = \"implicit\" }}\n\
         pop3 = {{ port = {b_pop3}, tls = \"implicit\" }}\n\
         login = {{ master = \"{MASTER}\", password_file = {secret:?} }}\n\n\
         [admin]\nlisten = \"127.0.0.1:{console}\"\n",
        chain = front.chain,
        key = front.key,
        ca = authority.certificate,
        a = stores[0].imap,
        a_pop3 = stores[0].pop3,
        b = stores[1].imaps,
        b_pop3 = stores[1].pop3s,
    );
    let path = gate.join("gatepost.toml");
    std::fs::write(&path, &configuration).map_err(|error| format!("{}: {error}", path.display()))?;
    // Adds somebody who has this password.
    let add = |words: &[&str], password: &str| {
        let file = gate.join("password");
        write_secret(&file, password)?;
        let mut command = Command::new(binary);
        command.arg("--config").arg(&path).args(words).arg("--password-file").arg(&file);
        let output = command.output().map_err(|error| format!("{}: {error}", binary.display()))?;
        let _ = std::fs::remove_file(&file);
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    };
    for (user, password, store) in USERS {
        add(&["user", "add", user, "--backend", store], password)?;
    }
    let (name, password) = ADMINISTRATOR;
    add(&["admin", "add", name, "--role", "admin"], password)?;
    let gatepost = Gatepost::start(binary, &gate, &configuration)?;
    let ports = Ports { imap, imaps, pop3, pop3s, console };
    Ok(Demo { folder, ports, authority, stores, gatepost })
}

fn letter(user: &str, store: &str) -> String {
    format!(
        "From: Gatepost <gatepost@example.org>\r\nTo: {user}@example.org\r\nSubject: Hello {user}\r\n\
         Date: Mon, 23 Nov 2026 12:00:00 +0000\r\n\r\nThis mail lives on {store}.\r\n"
    )
}

fn write_secret(path: &Path, secret: &str) -> Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| writeln!(file, "{secret}")).map_err(|error| format!("{}: {error}", path.display()))
}

impl Demo {
    fn describe(&self) -> serde_json::Value {
        let users =
            USERS.map(|(user, password, store)| json!({ "name": user, "password": password, "backend": store }));
        let stores = ["store-a", "store-b"].iter().zip(&self.stores);
        let stores: Vec<_> =
            stores.map(|(name, store)| json!({ "name": name, "imap": format!("127.0.0.1:{}", store.imap) })).collect();
        json!({
            "imap": format!("127.0.0.1:{}", self.ports.imap),
            "imaps": format!("127.0.0.1:{}", self.ports.imaps),
            "pop3": format!("127.0.0.1:{}", self.ports.pop3),
            "pop3s": format!("127.0.0.1:{}", self.ports.pop3s),
            "console": format!("http://127.0.0.1:{}/", self.ports.console),
            "administrator": { "name": ADMINISTRATOR.0, "password": ADMINISTRATOR.1 },
            "ca": self.authority.certificate,
            "config": self.folder.join("gatepost/gatepost.toml"),
            "pid": self.gatepost.pid(),
            "users": users,
            "backends": stores,
        })
    }

    fn introduce(&self) {
        let ca = self.authority.certificate.display();
        println!("Gatepost is running before two Dovecot servers.\n");
        println!("  IMAP with STARTTLS    localhost:{}", self.ports.imap);
        println!("  IMAP with TLS         localhost:{}", self.ports.imaps);
        println!("  POP3 with STLS        localhost:{}", self.ports.pop3);
        println!("  POP3 with TLS         localhost:{}", self.ports.pop3s);
        println!("  console and API       http://127.0.0.1:{}/", self.ports.console);
        println!("  certificate authority {ca}");
        println!("  configuration         {}\n", self.folder.join("gatepost/gatepost.toml").display());
        for (user, password, store) in USERS {
            println!("  {user:<8} password {password:?}, mail on {store}");
        }
        println!("  {:<8} password {:?}, in the console", ADMINISTRATOR.0, ADMINISTRATOR.1);
        let (user, password, _) = USERS[0];
        println!(
            "\nTry:  curl --cacert {ca} -u \"{user}:{password}\" 'imaps://localhost:{}/INBOX;MAILINDEX=1'",
            self.ports.imaps
        );
        println!("Ctrl-C ends it and leaves nothing running.");
    }

    /// Reads every user's mail over all listeners, and looks that it is the right mail.
    fn check(&self) -> Result<()> {
        let mut failures = 0;
        let Ports { imap, imaps, pop3, pop3s, .. } = self.ports;
        for (user, password, store) in USERS {
            for (how, url) in [
                ("IMAP, STARTTLS", format!("imap://localhost:{imap}/INBOX;MAILINDEX=1")),
                ("IMAP, TLS", format!("imaps://localhost:{imaps}/INBOX;MAILINDEX=1")),
                ("POP3, STLS", format!("pop3://localhost:{pop3}/1")),
                ("POP3, TLS", format!("pop3s://localhost:{pop3s}/1")),
            ] {
                let read = self.read_mail(user, password, &url);
                let wanted = format!("This mail lives on {store}.");
                match read {
                    Ok(mail) if mail.contains(&wanted) => println!("ok      {user} over {how}: {wanted}"),
                    Ok(mail) => {
                        failures += 1;
                        println!("FAILED  {user} over {how}: expected {wanted:?}, read {mail:?}");
                    }
                    Err(error) => {
                        failures += 1;
                        println!("FAILED  {user} over {how}: {error}");
                    }
                }
            }
        }
        let url = format!("http://127.0.0.1:{}/readyz", self.ports.console);
        match Command::new("curl").args(["-sS", "-m", "20", &url]).output() {
            Ok(output) if output.stdout == b"ready\n" => println!("ok      the console's server is ready"),
            answer => {
                failures += 1;
                println!("FAILED  {url}: {answer:?}");
            }
        }
        if failures > 0 {
            return Err(format!("{failures} checks failed; Gatepost's log:\n{}", self.gatepost.log()));
        }
        println!("All {} log-ins read the right mail.", USERS.len() * 4);
        Ok(())
    }

    fn read_mail(&self, user: &str, password: &str, url: &str) -> Result<String> {
        let mut command = Command::new("curl");
        command.args(["-sS", "-m", "20", "--ssl-reqd", "--cacert"]).arg(&self.authority.certificate);
        command.args(["-u", &format!("{user}:{password}"), url]);
        let output = command.output().map_err(|error| format!("curl: {error}"))?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }
}

/// Waits for Ctrl-C, or for a polite request to end.
fn wait_for_the_end() -> Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("can't wait for Ctrl-C: {error}"))?;
    runtime.block_on(async {
        let failed = |error: std::io::Error| format!("can't wait for Ctrl-C: {error}");
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(())
    })
}
