//! `cargo xtask bench directories`: what a log-in costs with each directory, with many users in it.
//!
//! Gatepost stands before the stand-in back end and is asked for one user after another. Each line is that of a
//! Gatepost of its own; the first knows no directory, so that the others' difference to it is the directory's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use gatepost_lab::{
    Authority, Certificate, DATABASE_PASSWORD, Database, DatabaseKind, LDAP_PEOPLE, LDAP_SEARCHER,
    LDAP_SEARCHER_PASSWORD, Person, Process, Result, Slapd, ensure_packages, free_port, free_ports, wait_for_port,
};

use super::load::{self, Figures, number};
use super::report::Table;
use super::{DIRECTORIES, Folder, Options};
use crate::cargo;

const PACKAGES: [&str; 6] =
    ["slapd", "postgresql", "postgresql-client", "mariadb-server", "mariadb-client", "dovecot-core"];
/// Users in each database.
const USERS: u32 = 1_000_000;
/// Users in the passwd-file, which is kept in memory whole.
const USERS_IN_FILE: u32 = 20_000;
/// The hash of "secret" that databases keep: one that costs little, since it is not what is measured.
const HASH: &str = "{SSHA}O9TyzEN9oWiQ/ZGknVFdVHGPf1Y4twRb";

/// One way to ask.
struct Way {
    name: &'static str,
    /// In [imap], in [map], and the directory.
    imap: &'static str,
    map: &'static str,
    directory: String,
    users: u32,
}

/// Everything that is asked.
struct Site {
    load: PathBuf,
    gatepost: PathBuf,
    store: u16,
    _servers: (Process, Slapd, Database, Database),
    ways: Vec<Way>,
    folder: Folder,
}

pub(super) fn run(options: &Options) -> Result<()> {
    ensure_packages(&PACKAGES, !options.no_install)?;
    let gatepost = cargo::build("gatepost", !options.quick)?;
    let load = cargo::build("gatepost-load", !options.quick)?;
    let site = Site::prepare(gatepost, load, options.quick)?;
    let head = "directory | users | log-ins per second | per CPU-second of Gatepost | p50 ms | p99 ms | Gatepost's memory, MiB";
    let mut table = Table::begin(head);
    for way in site.ways.iter().filter(|way| options.wants(way.name)) {
        let (said, failures) = site.measure(way, options)?;
        if failures > 0 {
            return Err(format!("{}: {failures} log-ins failed", way.name));
        }
        table.row(&format!("{} | {} | {said}", way.name, way.users));
    }
    table.keep(options.out.as_deref(), DIRECTORIES)
}

impl Site {
    fn prepare(gatepost: PathBuf, load: PathBuf, quick: bool) -> Result<Self> {
        let folder = Folder::create(DIRECTORIES)?;
        let authority = Authority::create(&folder)?;
        let certificate = authority.issue("server", &["localhost", "127.0.0.1"])?;
        let [store] = free_ports()?;
        let words = ["backend", "--listen", &format!("127.0.0.1:{store}")];
        let backend = Process::start(&load, &words, &folder.join("backend.out"), false)?;
        wait_for_port(store, Duration::from_secs(10))?;
        let (users, users_in_file) = if quick { (200, 200) } else { (USERS, USERS_IN_FILE) };

        let started = Instant::now();
        let person = |n| Person { uid: &format!("user{n}"), password: "secret", more: "mailHost: store" }.ldif();
        let slapd = Slapd::start(&folder.join("ldap"), None, (0..users).map(person))?;
        println!("{users} users in slapd after {} s", started.elapsed().as_secs());
        let [postgres, mariadb] = databases(&folder, &certificate, users)?;
        println!("and in PostgreSQL and MariaDB after {} s", started.elapsed().as_secs());
        let write = |name: &str, text: &str| {
            std::fs::write(folder.join(name), text).map_err(|error| format!("{name}: {error}"))
        };
        write("ldap.secret", LDAP_SEARCHER_PASSWORD)?;
        write("db.secret", DATABASE_PASSWORD)?;
        let line = |n| format!("user{n}:{HASH}::::::host=store\n");
        write("users", &(0..users_in_file).map(line).collect::<String>())?;
        write("all-users", &(0..users).map(line).collect::<String>())?;
        let ways = ways(&slapd, &postgres, &mariadb, users, users_in_file);
        let site = Self { folder, load, gatepost, store, _servers: (backend, slapd, postgres, mariadb), ways };
        site.import()?;
        println!("and in SQLite after {} s\n", started.elapsed().as_secs());
        Ok(site)
    }

    /// Fills the embedded directory.
    fn import(&self) -> Result<()> {
        let way = self.ways.iter().find(|way| way.directory.contains("sqlite")).ok_or("no way by SQLite")?;
        let (configuration, _) = self.configure(way)?;
        let mut command = Command::new(&self.gatepost);
        command.arg("--config").arg(configuration).args(["user", "import"]).arg(self.folder.join("all-users"));
        let output = command.output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// Where the configuration is, and the port that it says.
    fn configure(&self, way: &Way) -> Result<(PathBuf, u16)> {
        let Way { imap, map, directory, .. } = way;
        let port = free_port()?;
        let text = format!(
            "name = \"bench\"\nstate = \"state\"\n[log]\nlevel = \"error\"\n[threads]\nmin = 1\nmax = 1\n\
             [imap]\nplaintext = \"always\"\n{imap}\n[[imap.listener]]\naddress = \"127.0.0.1:{port}\"\ntls = \"none\"\n\
             [imap.backend]\ntls = \"none\"\n[map]\n{map}\n[backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n{directory}\n",
            self.store
        );
        let path = self.folder.join("gatepost.toml");
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok((path, port))
    }

    /// The figures of one way as cells of the table, and how many log-ins failed.
    fn measure(&self, way: &Way, options: &Options) -> Result<(String, u64)> {
        let (configuration, port) = self.configure(way)?;
        let output = self.folder.join("gatepost.out");
        let words = ["serve", "--config", &configuration.display().to_string()];
        let process = Process::start(&self.gatepost, &words, &output, false)?;
        wait_for_port(port, Duration::from_secs(20))
            .map_err(|error| format!("{error}\n{}", std::fs::read_to_string(&output).unwrap_or_default()))?;
        let (count, seconds) = if options.quick { ("40", "2") } else { ("100000", "8") };
        let users = way.users.to_string();
        let words = ["logins", "--concurrency", "4", "--count", count, "--seconds", seconds, "--users", &users];
        let said = load::ask(&self.load, words, (port, process.pid()), way.name)?;
        let Figures { per_second, per_cpu_second, p50, p99 } = Figures::of(&said);
        let memory = number(&said["pss_kib"]) / 1024.0;
        let cells = format!("{per_second:.0} | {per_cpu_second:.0} | {p50:.2} | {p99:.2} | {memory:.1}");
        Ok((cells, said["failures"].as_u64().unwrap_or(u64::MAX)))
    }
}

/// `PostgreSQL` and `MariaDB` with the same users.
fn databases(folder: &Path, certificate: &Certificate, users: u32) -> Result<[Database; 2]> {
    let table = "CREATE TABLE people (name varchar(100) PRIMARY KEY, hash varchar(100), store varchar(50))";
    let last = users - 1;
    let postgres = format!(
        "{table}; INSERT INTO people SELECT 'user' || n, '{HASH}', 'store' FROM generate_series(0, {last}) AS n; ANALYZE people;"
    );
    let mariadb =
        format!("{table}; INSERT INTO people SELECT CONCAT('user', seq), '{HASH}', 'store' FROM seq_0_to_{last};");
    Ok([
        Database::start(DatabaseKind::Postgres, &folder.join("postgres"), certificate, &postgres)?,
        Database::start(DatabaseKind::MariaDb, &folder.join("mariadb"), certificate, &mariadb)?,
    ])
}

fn ways(slapd: &Slapd, postgres: &Database, mariadb: &Database, users: u32, users_in_file: u32) -> Vec<Way> {
    let in_map = "directories = [\"people\"]";
    let checked = "authenticate = \"proxy\"\ndirectory = \"people\"";
    let ldap = format!(
        "[directory.people]\ntype = \"ldap\"\nurls = [\"ldap://127.0.0.1:{}\"]\ntls = \"none\"\nbase = \"{LDAP_PEOPLE}\"\n\
         filter = \"(uid=%n)\"\nbind = {{ dn = \"{LDAP_SEARCHER}\", password_file = \"ldap.secret\" }}\nfields = {{ backend = \"mailHost\" }}\n",
        slapd.ldap
    );
    let sql = |scheme: &str, port: u16| {
        format!(
            "[directory.people]\ntype = \"sql\"\nurl = \"{scheme}://gatepost@127.0.0.1:{port}/gatepost\"\npassword_file = \"db.secret\"\n\
             query = \"SELECT hash AS password, store AS backend FROM people WHERE name = :user\"\n"
        )
    };
    let sqlite = "[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n".to_owned();
    let file = "[directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n".to_owned();
    let remembered = "directories = [\"people\"]\ncache = { found = \"1h\", verified = \"1h\", entries = 2000 }";
    let way = |name, imap, map, directory: &String, users| Way { name, imap, map, directory: directory.clone(), users };
    let few = users.min(1000);
    vec![
        way("none", "", "default = \"store\"", &String::new(), users),
        way("passwd-file", "", in_map, &file, users_in_file),
        way("SQLite, embedded", "", in_map, &sqlite, users),
        way("PostgreSQL", "", in_map, &sql("postgres", postgres.port), users),
        way("MariaDB", "", in_map, &sql("mysql", mariadb.port), users),
        way("LDAP, search", "", in_map, &ldap, users),
        way("LDAP, search, remembered", "", remembered, &ldap, few),
        way("SQLite, password checked", checked, in_map, &sqlite, users),
        way("PostgreSQL, password checked", checked, in_map, &sql("postgres", postgres.port), users),
        way("LDAP, search and bind", checked, in_map, &ldap, users),
        way("LDAP, search and bind, remembered", checked, remembered, &ldap, few),
    ]
}
