//! Postfix, as the server behind or before Gatepost where mail is sent: one instance in one folder. It insists on being
//! started by root.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::certificates::Certificate;
use crate::dovecot::give_away;
use crate::process::{NOBODY, Process, Server, wait_for, wait_for_port};
use crate::{Result, context};

/// How a Postfix is to be.
#[derive(Debug)]
pub struct PostfixSetup<'a> {
    /// Where it listens.
    pub port: u16,
    /// Addresses whose mail it keeps.
    pub users: &'a [&'a str],
    /// For STARTTLS.
    pub certificate: Option<&'a Certificate>,
    /// A Dovecot's socket, by which clients are authenticated; without one, all clients here are trusted.
    pub sasl: Option<&'a Path>,
    /// More lines of `main.cf`.
    pub more: &'a str,
}

/// A running Postfix, which keeps mail as files. Dropped, it ends.
#[derive(Debug)]
pub struct Postfix {
    folder: PathBuf,
    /// To be ended, frozen and thawed.
    pub server: Server,
    /// Where it listens.
    pub port: u16,
}

impl Postfix {
    /// Starts one in `folder`.
    pub fn start(folder: &Path, setup: &PostfixSetup<'_>) -> Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Err("Postfix can only be started by root".into());
        }
        for name in ["config", "queue", "data", "mail"] {
            let path = folder.join(name);
            context(std::fs::create_dir_all(&path), path.display())?;
        }
        let write = |name: &str, text: &str| context(std::fs::write(folder.join("config").join(name), text), name);
        write("users", &setup.users.iter().map(|user| format!("{user} {user}/\n")).collect::<String>())?;
        write("main.cf", &configuration(folder, setup))?;
        write("master.cf", &services(setup.port))?;
        give_away(&folder.join("mail"))?;
        let owner = context(std::fs::metadata("/var/lib/postfix"), "the folder of Debian's Postfix")?;
        context(chown(folder.join("data"), Some(std::os::unix::fs::MetadataExt::uid(&owner)), None), "data")?;
        let mut postfix = Self { folder: folder.to_owned(), server: Server::default(), port: setup.port };
        postfix.resume()?;
        Ok(postfix)
    }

    /// Starts it again after [`Server::kill`].
    pub fn resume(&mut self) -> Result<()> {
        let config = self.folder.join("config").display().to_string();
        // Makes the folders of the queue; the lock of a killed one is the kernel's to free.
        let check = std::process::Command::new("postfix").args(["-c", &config, "check"]).output();
        let check = context(check, "postfix check")?;
        if !check.status.success() {
            return Err(format!("postfix check: {}", String::from_utf8_lossy(&check.stderr)));
        }
        let output = self.folder.join("output");
        let program = Path::new("/usr/lib/postfix/sbin/master");
        self.server.run(Process::start(program, &["-c", &config, "-d"], &output, false)?);
        wait_for_port(self.port, Duration::from_secs(15)).map_err(|error| format!("{error}; {}", self.log()))
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("postfix.log")).unwrap_or_default()
    }

    /// Waits until its log holds `text`.
    pub fn wait_for_log(&self, text: &str) -> Result<()> {
        wait_for(|| self.log().contains(text)).map_err(|_| format!("Postfix' log never said {text:?}:\n{}", self.log()))
    }

    /// The messages of a user, as they lie there.
    pub fn messages(&self, user: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.folder.join("mail").join(user).join("new")).into_iter().flatten();
        entries.flatten().map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).collect()
    }

    /// Waits until a user has so many messages, and gives them.
    pub fn wait_for_messages(&self, user: &str, count: usize) -> Result<Vec<String>> {
        wait_for(|| self.messages(user).len() >= count)
            .map_err(|_| format!("{user} never had {count} messages:\n{}", self.log()))?;
        Ok(self.messages(user))
    }
}

fn configuration(folder: &Path, setup: &PostfixSetup<'_>) -> String {
    let domains: Vec<_> = setup.users.iter().filter_map(|user| user.split('@').nth(1)).collect();
    let tls = setup.certificate.map_or_else(String::new, |certificate| {
        format!(
            "smtpd_tls_security_level = may\nsmtpd_tls_cert_file = {}\nsmtpd_tls_key_file = {}\n",
            certificate.chain.display(),
            certificate.key.display()
        )
    });
    let sasl = setup.sasl.map_or_else(String::new, |socket| {
        let socket = socket.display();
        format!("smtpd_sasl_auth_enable = yes\nsmtpd_sasl_type = dovecot\nsmtpd_sasl_path = {socket}\n")
    });
    let trusted = if setup.sasl.is_some() { "" } else { "127.0.0.0/8" };
    let (folder, domains, more) = (folder.display(), domains.join(" "), setup.more);
    format!(
        "compatibility_level = 3.6\nqueue_directory = {folder}/queue\ndata_directory = {folder}/data\n\
         command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\nmail_owner = postfix\nsetgid_group = postdrop\n\
         maillog_file = {folder}/postfix.log\nmaillog_file_prefixes = {folder}\n\
         myhostname = postfix.example.org\nmydestination =\nlocal_recipient_maps =\nalias_maps =\n\
         inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nsmtp_bind_address = 127.0.0.1\ndisable_dns_lookups = yes\n\
         mynetworks = {trusted}\nsmtpd_authorized_xclient_hosts = 127.0.0.0/8\n\
         smtpd_client_connection_count_limit = 0\ndefault_process_limit = 200\nin_flow_delay = 0\nsmtpd_peername_lookup = no\n\
         virtual_mailbox_domains = {domains}\nvirtual_mailbox_base = {folder}/mail\nvirtual_mailbox_maps = texthash:{folder}/config/users\n\
         virtual_uid_maps = static:{NOBODY}\nvirtual_gid_maps = static:{NOBODY}\n{tls}{sasl}{more}\n"
    )
}

fn services(port: u16) -> String {
    let mut lines = format!("127.0.0.1:{port} inet n - n - - smtpd\npostlog unix-dgram n - n - 1 postlogd\n");
    for (name, program, wakeup, limit) in [
        ("pickup", "pickup", "60", "1"),
        ("qmgr", "qmgr", "300", "1"),
        ("cleanup", "cleanup", "-", "0"),
        ("tlsmgr", "tlsmgr", "1000?", "1"),
        ("rewrite", "trivial-rewrite", "-", "-"),
        ("bounce", "bounce", "-", "0"),
        ("defer", "bounce", "-", "0"),
        ("trace", "bounce", "-", "0"),
        ("verify", "verify", "-", "1"),
        ("flush", "flush", "1000?", "0"),
        ("proxymap", "proxymap", "-", "-"),
        ("smtp", "smtp", "-", "-"),
        ("lmtp", "lmtp", "-", "-"),
        ("relay", "smtp", "-", "-"),
        ("error", "error", "-", "-"),
        ("retry", "error", "-", "-"),
        ("discard", "discard", "-", "-"),
        ("virtual", "virtual", "-", "-"),
        ("anvil", "anvil", "-", "1"),
        ("scache", "scache", "-", "1"),
    ] {
        let is_private = if ["pickup", "qmgr", "cleanup", "flush"].contains(&name) { "n" } else { "-" };
        let is_ordinary = if name == "virtual" { "n" } else { "-" };
        lines.extend([name, " unix ", is_private, " ", is_ordinary, " n ", wakeup, " ", limit, " ", program, "\n"]);
    }
    lines
}
