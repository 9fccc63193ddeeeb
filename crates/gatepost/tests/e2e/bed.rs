//! What tests lie on: folders, certificates, back ends and Gatepost before them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use gatepost_lab::{Authority, Certificate, Dovecot, Gatepost, Mailbox, free_ports, wait_for};
use serde_json::Value;
use tempfile::TempDir;

use crate::talk::Talk;

/// Gatepost as this test run built it.
pub(crate) fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_gatepost"))
}

/// Users of the first back end and of the second.
pub(crate) const KIM: Mailbox<'_> = Mailbox { user: "kim", password: "kim's secret" };
pub(crate) const LEE: Mailbox<'_> = Mailbox { user: "lee", password: "lee's secret" };

/// A port at which nobody is.
pub(crate) const NOWHERE: u16 = 9;

/// A folder with an authority and Gatepost's listening ports. The folder goes with it: what runs in it must have ended, so that
/// in a struct it comes last.
pub(crate) struct Bed {
    folder: TempDir,
    pub authority: Authority,
    pub front: Certificate,
    pub store: Certificate,
    /// Clear and STARTTLS.
    pub imap: u16,
    /// Implicit TLS.
    pub imaps: u16,
}

impl Bed {
    pub(crate) fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("gatepost-test-").tempdir().expect("a folder");
        // Servers that run as nobody must get in.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let authority = Authority::create(folder.path()).expect("an authority");
        let front = authority.issue("front", &["localhost", "127.0.0.1"]).expect("a certificate");
        let store = authority.issue("store", &["localhost", "127.0.0.1"]).expect("a certificate");
        let [imap, imaps] = free_ports().expect("free ports");
        Self { folder, authority, front, store, imap, imaps }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).expect("a file");
        path
    }

    /// A Dovecot in a folder of this name.
    pub(crate) fn dovecot(&self, name: &str, users: &[Mailbox<'_>]) -> Dovecot {
        Dovecot::start(&self.path(name), &self.store, users).expect("a Dovecot")
    }

    /// The certificate, the [imap] section with both listeners, and then `rest`, which begins within [imap].
    pub(crate) fn configuration(&self, rest: &str) -> String {
        self.service("imap", rest)
    }

    /// As [`Bed::configuration`], of another service.
    pub(crate) fn service(&self, name: &str, rest: &str) -> String {
        let Self { imap, imaps, .. } = self;
        format!(
            "{}[[{name}.listener]]\naddress = \"127.0.0.1:{imap}\"\n[[{name}.listener]]\naddress = \"127.0.0.1:{imaps}\"\ntls = \"implicit\"\n\
             [{name}]\n{rest}",
            self.head()
        )
    }

    /// What every configuration begins with: a name, a short stop, and the certificate.
    pub(crate) fn head(&self) -> String {
        let Certificate { chain, key, .. } = &self.front;
        format!("name = \"mail.example.org\"\ndrain = \"3s\"\n[[tls.certificate]]\nchain = {chain:?}\nkey = {key:?}\n")
    }

    /// Makes an `SQLite` database by these statements, with programs that are not Gatepost's.
    pub(crate) fn sqlite(&self, name: &str, statements: &str) -> PathBuf {
        let path = self.path(name);
        let script = "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.executescript(sys.argv[2]); d.commit()";
        run(Command::new("python3").args(["-c", script]).arg(&path).arg(statements));
        path
    }

    /// As [`Bed::configuration`], with one back end for everybody, in clear, on this port.
    pub(crate) fn one_backend(&self, imap: &str, port: u16) -> String {
        self.configuration(&format!(
            "{imap}\n[imap.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {port} }}\n"
        ))
    }

    /// Starts Gatepost.
    pub(crate) fn gatepost(&self, configuration: &str) -> Gatepost {
        Gatepost::start(binary(), self.folder.path(), configuration).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Runs a command of Gatepost's with the configuration of [`Bed::gatepost`].
    pub(crate) fn command(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.path("gatepost.toml")).args(arguments).output().expect("gatepost")
    }

    /// What a command that succeeds says.
    pub(crate) fn said(&self, arguments: &[&str]) -> String {
        let output = self.command(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The list in the answer of a command that succeeds.
    pub(crate) fn list(&self, arguments: &[&str]) -> Vec<Value> {
        let answer: Value = serde_json::from_str(&self.said(&[arguments, &["--json"]].concat())).expect("JSON");
        answer[arguments[0]].as_array().expect("a list named as the command").clone()
    }

    /// Does something with users by the command line, with a password where one is given; what it says.
    pub(crate) fn user(&self, arguments: &[&str], password: Option<&str>) -> String {
        let mut command = Command::new(binary());
        command.arg("--config").arg(self.path("gatepost.toml")).arg("user").args(arguments);
        if let Some(password) = password {
            command.arg("--password-file").arg(self.write("password", &format!("{password}\n")));
        }
        let output = command.output().expect("gatepost");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Why Gatepost refuses to start with this configuration.
    pub(crate) fn refusal(&self, configuration: &str) -> String {
        Gatepost::start(binary(), self.folder.path(), configuration).expect_err("a refusal")
    }

    /// A client in clear, greeted.
    pub(crate) fn clear(&self) -> Talk {
        Talk::clear(self.imap).greeted()
    }

    /// A client under implicit TLS, greeted.
    pub(crate) fn secure(&self) -> Talk {
        Talk::secure(self.imaps, &self.authority.certificate).greeted()
    }

    /// A logged-in client under TLS.
    pub(crate) fn logged_in(&self, user: Mailbox<'_>) -> Talk {
        let mut talk = self.secure();
        talk.log_in(user);
        talk
    }

    /// The host that a log-in comes to, by its session's record.
    pub(crate) fn host_of(&self, gatepost: &Gatepost, user: Mailbox<'_>) -> String {
        let records = || gatepost.log().lines().filter(|line| line.contains("result=logged-in")).count();
        let before = records();
        self.logged_in(user).command("LOGOUT");
        wait_for(|| records() > before).unwrap_or_else(|_| panic!("no record: {}", gatepost.log()));
        let log = gatepost.log();
        let record = log.lines().filter(|line| line.contains("result=logged-in")).nth(before).unwrap_or_default();
        let host = record.split("host=").nth(1).and_then(|rest| rest.split(':').next());
        host.unwrap_or_default().to_owned()
    }
}

/// Runs a program that must succeed; what it said.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
    said
}

/// A back end that says what the test wants: each connection gets `script`, in a thread of its own.
pub(crate) fn back_end(script: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener");
    let port = listener.local_addr().expect("an address").port();
    let script = Arc::new(script);
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a time-out");
            let script = Arc::clone(&script);
            std::thread::spawn(move || script(stream));
        }
    });
    port
}

/// A back end that only counts who comes.
pub(crate) fn counting() -> (u16, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&count);
    let port = back_end(move |stream| {
        counter.fetch_add(1, Ordering::Relaxed);
        drop(say_and_listen(stream, b"never mind\r\n"));
    });
    (port, count)
}

/// How an IMAP server greets that takes passwords in clear.
pub(crate) const IMAP_GREETING: &[u8] = b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN] ready\r\n";

/// An IMAP server that takes any log-in, then does as it is told.
pub(crate) fn imap_server(after: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    back_end(move |mut stream| {
        let _ = stream.write_all(IMAP_GREETING);
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"L OK [CAPABILITY IMAP4rev1] in\r\n");
        after(stream);
    })
}

/// A back end that says these words to each connection, with what each has heard by its end.
pub(crate) fn hearing(words: &'static [u8]) -> (u16, Receiver<String>) {
    let (heard, all) = channel();
    let port = back_end(move |stream| {
        let said = String::from_utf8_lossy(&say_and_listen(stream, words)).into_owned();
        // Nobody may be left to tell.
        let _ = heard.send(said);
    });
    (port, all)
}

/// What a back end of [`hearing`]'s was told: the first is waited for, and who comes at the same time (a look) is heard too.
pub(crate) fn all_heard(heard: &Receiver<String>) -> String {
    let mut all = heard.recv_timeout(Duration::from_mins(1)).expect("the end of a connection");
    while let Ok(more) = heard.recv_timeout(Duration::from_millis(500)) {
        all.push_str(&more);
    }
    all
}

/// Says the words and reads for as long as the other side talks; gives what it said.
pub(crate) fn say_and_listen(mut stream: TcpStream, words: &[u8]) -> Vec<u8> {
    let _ = stream.write_all(words);
    let mut heard = Vec::new();
    let _ = stream.read_to_end(&mut heard);
    heard
}
