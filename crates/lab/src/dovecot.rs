//! Dovecot as a back end: one server of all that is installed of it, in one folder, run by an ordinary user.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certificates::Certificate;
use crate::process::{NOBODY, Process, Server, wait_for, wait_for_port};
use crate::{Result, context, free_ports};

/// The master log-in of every Dovecot here.
pub const MASTER: &str = "gatepost";
/// Its password.
pub const MASTER_PASSWORD: &str = "master of all";

/// The folder of the keys by which tokens are checked, where they are.
const TOKEN_KEYS: &str = "keys";
/// The programs of its packages, beside IMAP's and POP3's, which are always there.
const PROGRAMS: &str = "/usr/lib/dovecot";

/// A user of a Dovecot.
#[derive(Debug, Clone, Copy)]
pub struct Mailbox<'a> {
    /// The log-in name.
    pub user: &'a str,
    /// The password.
    pub password: &'a str,
}

/// A running Dovecot. Dropped, it ends.
#[derive(Debug)]
pub struct Dovecot {
    folder: PathBuf,
    /// To be ended, frozen and thawed.
    pub server: Server,
    /// IMAP with STARTTLS.
    pub imap: u16,
    /// IMAP with implicit TLS.
    pub imaps: u16,
    /// IMAP behind the PROXY protocol.
    pub haproxy: u16,
    /// POP3 with STLS.
    pub pop3: u16,
    /// POP3 with implicit TLS.
    pub pop3s: u16,
    /// `ManageSieve` with STARTTLS, where Pigeonhole is installed.
    pub sieve: u16,
    /// Submission with STARTTLS, where it is installed.
    pub submission: u16,
    /// Where it passes on what is submitted: whoever wants it sees to it that somebody listens there.
    pub relay: u16,
    /// LMTP, where it is installed.
    pub lmtp: u16,
}

impl Dovecot {
    /// Starts one in `folder` for these users.
    pub fn start(folder: &Path, certificate: &Certificate, users: &[Mailbox<'_>]) -> Result<Self> {
        Self::start_on(folder, certificate, users, free_ports()?)
    }

    /// Starts one that also takes tokens (OAUTHBEARER, XOAUTH2) that are signed by this key, an ES256 one in PEM, under the
    /// name `one`, and name the user in `email`.
    pub fn start_taking_tokens(
        folder: &Path,
        certificate: &Certificate,
        users: &[Mailbox<'_>],
        public_key: &str,
    ) -> Result<Self> {
        let keys = folder.join(TOKEN_KEYS).join("default/ES256");
        context(std::fs::create_dir_all(&keys), keys.display())?;
        write(&keys, "one", public_key)?;
        Self::start(folder, certificate, users)
    }

    /// As [`Dovecot::start`], on these ports.
    pub fn start_on(folder: &Path, certificate: &Certificate, users: &[Mailbox<'_>], ports: [u16; 9]) -> Result<Self> {
        let [imap, imaps, haproxy, pop3, pop3s, sieve, submission, relay, lmtp] = ports;
        context(std::fs::create_dir_all(folder.join("mail")), folder.display())?;
        context(std::fs::copy(&certificate.chain, folder.join("cert.pem")), "certificate")?;
        context(std::fs::copy(&certificate.key, folder.join("key.pem")), "key")?;
        let lines = |users: &[Mailbox<'_>]| {
            users.iter().map(|u| format!("{}:{{PLAIN}}{}::::::\n", u.user, u.password)).collect::<String>()
        };
        write(folder, "users", &lines(users))?;
        write(folder, "masters", &lines(&[Mailbox { user: MASTER, password: MASTER_PASSWORD }]))?;
        let server = Server::default();
        let folder_of_its_own = folder.to_owned();
        let mut dovecot = Self {
            folder: folder_of_its_own,
            server,
            imap,
            imaps,
            haproxy,
            pop3,
            pop3s,
            sieve,
            submission,
            relay,
            lmtp,
        };
        write(folder, "dovecot.conf", &dovecot.configuration()?)?;
        give_away(folder)?;
        dovecot.resume()?;
        Ok(dovecot)
    }

    /// Starts it again after [`Server::kill`].
    pub fn resume(&mut self) -> Result<()> {
        // A fresh folder each time: Dovecot waits for what an earlier one left behind.
        let run = self.folder.join("run");
        let _ = std::fs::remove_dir_all(&run);
        context(std::fs::create_dir_all(&run), run.display())?;
        give_away(&run)?;
        let configuration = self.folder.join("dovecot.conf");
        let arguments = ["-F", "-c", &configuration.display().to_string()];
        let output = self.folder.join("output");
        self.server.run(Process::start(Path::new("/usr/sbin/dovecot"), &arguments, &output, true)?);
        let log = self.folder.join("dovecot.log");
        wait_for_port(self.imap, Duration::from_secs(15))
            .map_err(|error| format!("{error}; {}", std::fs::read_to_string(&log).unwrap_or_default()))
    }

    /// Puts messages into a user's INBOX, straight into the folder.
    pub fn seed(&self, user: &str, messages: impl IntoIterator<Item = String>) -> Result<()> {
        let home = self.folder.join("mail").join(user);
        let maildir = home.join("Maildir");
        for name in ["cur", "new", "tmp"] {
            context(std::fs::create_dir_all(maildir.join(name)), maildir.display())?;
        }
        for (n, message) in messages.into_iter().enumerate() {
            let path = maildir.join("cur").join(format!("{}.M{n}P1.lab:2,", 1_700_000_000 + n));
            context(std::fs::write(&path, message), path.display())?;
        }
        give_away(&home)
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("dovecot.log")).unwrap_or_default()
    }

    /// Waits until its log holds `text`.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_for(|| self.log().contains(text))
            .map_err(|_| format!("Dovecot's log never said {text:?}:\n{}", self.log()))
    }

    /// The socket by which another server can have clients authenticated.
    pub fn auth_socket(&self) -> PathBuf {
        self.folder.join("run/auth-clients")
    }

    /// The messages of a user that were delivered, as they lie there.
    pub fn delivered(&self, user: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("mail").join(user).join("Maildir/new")).into_iter().flatten();
        entries.flatten().map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).collect()
    }

    /// Waits until so many messages were delivered to a user, and gives them.
    pub fn wait_for_delivered(&self, user: &str, count: usize) -> Result<Vec<String>> {
        wait_for(|| self.delivered(user).len() >= count)
            .map_err(|_| format!("{user} never had {count} messages:\n{}", self.log()))?;
        Ok(self.delivered(user))
    }

    /// What is installed of protocols that not every test needs: their names and services.
    fn installed(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { sieve, submission, relay, lmtp, .. } = self;
        let listener =
            |name: &str, port: &u16| format!("inet_listener {name} {{\n address = 127.0.0.1\n port = {port}\n }}\n");
        let all = [
            (
                "sieve",
                "managesieve",
                format!("service managesieve-login {{\n chroot =\n{}}}\n", listener("sieve", sieve)),
            ),
            (
                "submission",
                "submission",
                format!(
                    "submission_relay_host = 127.0.0.1\nsubmission_relay_port = {relay}\nsubmission_relay_trusted = yes\nhostname = store.example.org\n\
                     service submission-login {{\n chroot =\n{}}}\n",
                    listener("submission", submission)
                ),
            ),
            (
                "lmtp",
                "lmtp",
                format!(
                    "postmaster_address = postmaster@example.org\nservice lmtp {{\n process_limit = 100\n{}}}\n",
                    listener("lmtp", lmtp)
                ),
            ),
        ];
        let is_installed = |program: &str| Path::new(PROGRAMS).join(program).exists();
        all.into_iter().filter(move |(_, program, _)| is_installed(program)).map(|(name, _, service)| (name, service))
    }

    fn configuration(&self) -> Result<String> {
        let (user, group) = identity()?;
        let folder = self.folder.display();
        let Self { imap, imaps, haproxy, pop3, pop3s, .. } = self;
        let more: String = self.installed().map(|(name, _)| format!(" {name}")).collect();
        let (token_mechanisms, token_passdb) = if self.folder.join(TOKEN_KEYS).exists() {
            let dict = format!("local_validation_key_dict = fs:posix:prefix={folder}/{TOKEN_KEYS}/\n");
            let settings = format!("introspection_mode = local\nusername_attribute = email\n{dict}");
            write(&self.folder, "tokens.conf", &settings)?;
            let args = format!("args = {folder}/tokens.conf");
            (
                " xoauth2 oauthbearer",
                format!("passdb {{\n driver = oauth2\n mechanisms = xoauth2 oauthbearer\n {args}\n}}\n"),
            )
        } else {
            ("", String::new())
        };
        let services: String = self.installed().map(|(_, service)| service).collect();
        Ok(format!(
            "base_dir = {folder}/run\nstate_dir = {folder}/run\nlog_path = {folder}/dovecot.log\n\
             login_log_format_elements = user=<%u> method=%m rip=%r rport=%b %c session=<%{{session}}>\n\
             default_internal_user = {user}\ndefault_internal_group = {group}\ndefault_login_user = {user}\nfirst_valid_uid = 1\n\
             protocols = imap pop3{more}\nlisten = 127.0.0.1\nshutdown_clients = yes\n\
             ssl = yes\nssl_cert = <{folder}/cert.pem\nssl_key = <{folder}/key.pem\nssl_min_protocol = TLSv1.2\n\
             disable_plaintext_auth = no\nauth_mechanisms = plain login{token_mechanisms}\nauth_failure_delay = 0\nauth_master_user_separator = *\n\
             login_trusted_networks = 127.0.0.0/8\nhaproxy_trusted_networks = 127.0.0.0/8\n\
             {token_passdb}passdb {{\n driver = passwd-file\n args = scheme=PLAIN username_format=%u {folder}/masters\n master = yes\n result_success = continue\n}}\n\
             passdb {{\n driver = passwd-file\n args = scheme=PLAIN username_format=%u {folder}/users\n}}\n\
             userdb {{\n driver = static\n args = uid={user} gid={group} home={folder}/mail/%u\n}}\n\
             mail_location = maildir:~/Maildir\nmail_fsync = never\nmail_max_userip_connections = 100000\nmail_plugins = zlib\n\
             protocol imap {{\n mail_plugins = zlib imap_zlib\n}}\n\
             namespace inbox {{\n inbox = yes\n separator = /\n}}\n\
             default_process_limit = 4000\ndefault_client_limit = 20000\ndefault_vsz_limit = 0\n\
             service imap-login {{\n chroot =\n service_count = 0\n process_min_avail = 1\n process_limit = 2\n client_limit = 8000\n\
             inet_listener imap {{\n address = 127.0.0.1\n port = {imap}\n }}\n\
             inet_listener imaps {{\n address = 127.0.0.1\n port = {imaps}\n ssl = yes\n }}\n\
             inet_listener imap_haproxy {{\n address = 127.0.0.1\n port = {haproxy}\n haproxy = yes\n }}\n}}\n\
             service imap {{\n process_limit = 4000\n client_limit = 100\n service_count = 0\n}}\n\
             service pop3-login {{\n chroot =\n\
             inet_listener pop3 {{\n address = 127.0.0.1\n port = {pop3}\n }}\n\
             inet_listener pop3s {{\n address = 127.0.0.1\n port = {pop3s}\n ssl = yes\n }}\n}}\n\
             {services}\
             service anvil {{\n unix_listener anvil-auth-penalty {{\n mode = 0\n }}\n chroot =\n client_limit = 20000\n}}\n\
             service auth {{\n client_limit = 20000\n unix_listener auth-clients {{\n mode = 0666\n }}\n}}\n\
             service stats {{\n chroot =\n client_limit = 20000\n}}\n\
             service imap-hibernate {{\n chroot =\n}}\n"
        ))
    }
}

/// The user and group that Dovecot runs as: ourselves, or nobody.
pub fn identity() -> Result<(String, String)> {
    if rustix::process::geteuid().is_root() {
        return Ok(("nobody".into(), "nogroup".into()));
    }
    let ask = |flag| {
        let output = context(std::process::Command::new("id").arg(flag).output(), "id")?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    Ok((ask("-un")?, ask("-gn")?))
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    context(std::fs::write(&path, text), path.display())
}

/// Gives a folder and all in it to the user that servers run as.
pub fn give_away(path: &Path) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    context(chown(path, Some(NOBODY), Some(NOBODY)), path.display())?;
    if path.is_dir() {
        for entry in context(std::fs::read_dir(path), path.display())? {
            give_away(&context(entry, path.display())?.path())?;
        }
    }
    Ok(())
}
