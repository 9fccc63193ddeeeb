//! `PostgreSQL` and `MariaDB`, each in one folder, run by an ordinary user.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificates::Certificate;
use crate::dovecot::give_away;
use crate::process::{NOBODY, Process, Server, wait_for, wait_for_port};
use crate::{Result, context, free_port};

/// The user of every database here, and the name of the database.
pub const DATABASE_USER: &str = "gatepost";
/// The user's password.
pub const DATABASE_PASSWORD: &str = "reads accounts";

const START_PATIENCE: Duration = Duration::from_mins(1);

/// A kind of database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseKind {
    /// `PostgreSQL`.
    Postgres,
    /// `MariaDB`.
    MariaDb,
}

/// A running database. Dropped, it ends.
#[derive(Debug)]
pub struct Database {
    kind: DatabaseKind,
    folder: PathBuf,
    /// To be ended, frozen and thawed.
    pub server: Server,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Database {
    /// Starts one in `folder`, with TLS, and runs `statements` in it.
    pub fn start(kind: DatabaseKind, folder: &Path, certificate: &Certificate, statements: &str) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        context(std::fs::create_dir_all(folder), folder.display())?;
        for (from, name) in [(&certificate.chain, "cert.pem"), (&certificate.key, "key.pem")] {
            context(std::fs::copy(from, folder.join(name)), name)?;
            context(std::fs::set_permissions(folder.join(name), std::fs::Permissions::from_mode(0o600)), name)?;
        }
        context(std::fs::write(folder.join("password"), DATABASE_PASSWORD), folder.display())?;
        give_away(folder)?;
        let mut database = Self { kind, folder: folder.to_owned(), server: Server::default(), port: free_port()? };
        let data = folder.join("data").display().to_string();
        match kind {
            DatabaseKind::Postgres => {
                let password = format!("--pwfile={}", folder.join("password").display());
                let mut words = vec!["--no-sync", "--auth-local=trust", "--auth-host=scram-sha-256"];
                words.extend(["-U", DATABASE_USER, &password, "-D", &data]);
                database.run(&postgres("initdb")?, &words)?;
            }
            DatabaseKind::MariaDb => {
                let data = format!("--datadir={data}");
                let words = ["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db", &data];
                database.run(Path::new("/usr/bin/mariadb-install-db"), &words)?;
            }
        }
        database.resume()?;
        match kind {
            DatabaseKind::Postgres => database.execute("postgres", &format!("CREATE DATABASE {DATABASE_USER}"))?,
            DatabaseKind::MariaDb => database.execute(
                "mysql",
                &format!(
                    "CREATE DATABASE {DATABASE_USER}; CREATE USER {DATABASE_USER}@'%' IDENTIFIED BY '{DATABASE_PASSWORD}'; \
                     GRANT SELECT ON {DATABASE_USER}.* TO {DATABASE_USER}@'%'"
                ),
            )?,
        }
        database.execute(DATABASE_USER, statements)?;
        Ok(database)
    }

    /// Starts it again after [`Server::kill`].
    pub fn resume(&mut self) -> Result<()> {
        let (folder, port) = (self.folder.display(), self.port.to_string());
        let data = format!("{folder}/data");
        let (program, words) = match self.kind {
            DatabaseKind::Postgres => {
                let settings = [
                    "listen_addresses=127.0.0.1".to_owned(),
                    format!("unix_socket_directories={folder}"),
                    "fsync=off".to_owned(),
                    "ssl=on".to_owned(),
                    format!("ssl_cert_file={folder}/cert.pem"),
                    format!("ssl_key_file={folder}/key.pem"),
                ];
                let mut words = vec!["-D".to_owned(), data, "-p".to_owned(), port];
                words.extend(settings.into_iter().flat_map(|setting| ["-c".to_owned(), setting]));
                (postgres("postgres")?, words)
            }
            DatabaseKind::MariaDb => {
                let words = [
                    "--no-defaults".to_owned(),
                    format!("--datadir={data}"),
                    format!("--socket={folder}/socket"),
                    format!("--pid-file={folder}/pid"),
                    format!("--port={port}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    format!("--ssl-cert={folder}/cert.pem"),
                    format!("--ssl-key={folder}/key.pem"),
                ];
                (PathBuf::from("/usr/sbin/mariadbd"), words.into())
            }
        };
        let output = self.folder.join("output");
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        // What a server that was killed would have removed itself.
        let _ = std::fs::remove_file(self.folder.join("data/postmaster.pid"));
        self.server.run(Process::start(&program, &words, &output, true)?);
        wait_for_port(self.port, START_PATIENCE)
            .map_err(|error| format!("{error}; {}", std::fs::read_to_string(&output).unwrap_or_default()))?;
        let answers = || match self.kind {
            DatabaseKind::Postgres => self.execute("postgres", "SELECT 1").is_ok(),
            DatabaseKind::MariaDb => self.execute("mysql", "SELECT 1").is_ok(),
        };
        wait_for(answers).map_err(|_| format!("{} does not answer", program.display()))
    }

    /// Runs statements as its administrator.
    pub fn execute(&self, database: &str, statements: &str) -> Result<()> {
        let folder = self.folder.display();
        let mut command = match self.kind {
            DatabaseKind::Postgres => {
                let mut command = Command::new("psql");
                command.args(["-q", "-v", "ON_ERROR_STOP=1", "-U", DATABASE_USER, "-d", database]);
                command.args(["-h", &folder.to_string(), "-p", &self.port.to_string(), "-c", statements]);
                command
            }
            DatabaseKind::MariaDb => {
                let mut command = Command::new("mariadb");
                command.args(["--no-defaults", "-u", "root", &format!("--socket={folder}/socket"), database]);
                command.args(["-e", statements]);
                command
            }
        };
        let output = context(command.output(), "a database's client")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() { Ok(()) } else { Err(errors) }
    }

    /// Runs a program to its end, as the user that the database runs as.
    fn run(&self, program: &Path, words: &[&str]) -> Result<()> {
        let mut command = Command::new("setpriv");
        if rustix::process::geteuid().is_root() {
            command.args([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"), "--clear-groups".to_owned()]);
        }
        // mariadb-install-db looks for its programs from where it stands.
        command.arg(program).args(words).env("HOME", &self.folder).current_dir(&self.folder);
        let output = context(command.output(), program.display())?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        Err(format!("{}: {}", program.display(), String::from_utf8_lossy(&said)))
    }
}

/// A program of `PostgreSQL`'s, which Debian keeps in a folder for each version.
fn postgres(name: &str) -> Result<PathBuf> {
    let versions = context(std::fs::read_dir("/usr/lib/postgresql"), "/usr/lib/postgresql")?;
    let found = versions.flatten().map(|version| version.path().join("bin").join(name)).find(|path| path.exists());
    found.ok_or_else(|| format!("PostgreSQL's {name} is not installed"))
}
