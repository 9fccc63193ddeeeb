//! slapd, of `OpenLDAP`: a directory in one folder, run by an ordinary user.

use std::fmt::Write as _;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::certificates::{Authority, Certificate};
use crate::dovecot::give_away;
use crate::process::{Process, Server, wait_for_port};
use crate::{Result, context, free_ports};

/// The account that searches, in every directory here.
pub const LDAP_SEARCHER: &str = "cn=gatepost,dc=example,dc=org";
/// Its password.
pub const LDAP_SEARCHER_PASSWORD: &str = "searches all";
/// Below it are the people.
pub const LDAP_PEOPLE: &str = "ou=people,dc=example,dc=org";

/// What Active Directory has and others don't, as far as mail cares.
const ACTIVE_DIRECTORY: &str = "\
attributetype ( 1.3.6.1.4.1.99999.1.1 NAME 'sAMAccountName' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.99999.1.2 NAME 'userPrincipalName' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.99999.1.3 NAME 'userAccountControl' EQUALITY integerMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.27 SINGLE-VALUE )
attributetype ( 1.3.6.1.4.1.99999.1.4 NAME 'mailService' EQUALITY caseIgnoreMatch SYNTAX 1.3.6.1.4.1.1466.115.121.1.15 )
objectclass ( 1.3.6.1.4.1.99999.2.1 NAME 'adUser' SUP top AUXILIARY MAY ( sAMAccountName $ userPrincipalName $ userAccountControl $ mailService ) )
";

/// A running slapd. Dropped, it ends.
#[derive(Debug)]
pub struct Slapd {
    folder: PathBuf,
    /// To be ended, frozen and thawed.
    pub server: Server,
    /// With STARTTLS.
    pub ldap: u16,
    /// With implicit TLS.
    pub ldaps: u16,
}

/// A person in a directory: the attributes, a line of LDIF each, are added to those that everybody has.
#[derive(Debug, Clone, Copy)]
pub struct Person<'a> {
    /// The log-in name, and the local part of the address in example.org.
    pub uid: &'a str,
    /// In clear or `{SCHEME}hash`.
    pub password: &'a str,
    /// Further lines of LDIF.
    pub more: &'a str,
}

impl Slapd {
    /// Starts one in `folder`, with these people in it; without a certificate it has no TLS.
    pub fn start(
        folder: &Path,
        certificate: Option<(&Authority, &Certificate)>,
        people: impl IntoIterator<Item = String>,
    ) -> Result<Self> {
        let [ldap, ldaps] = free_ports()?;
        context(std::fs::create_dir_all(folder.join("db")), folder.display())?;
        let mut tls = String::new();
        if let Some((authority, certificate)) = certificate {
            for (from, name) in
                [(&authority.certificate, "ca.pem"), (&certificate.chain, "cert.pem"), (&certificate.key, "key.pem")]
            {
                context(std::fs::copy(from, folder.join(name)), name)?;
            }
            let folder = folder.display();
            let _ = write!(
                tls,
                "TLSCACertificateFile {folder}/ca.pem\nTLSCertificateFile {folder}/cert.pem\nTLSCertificateKeyFile {folder}/key.pem\n"
            );
        }
        let path = folder.display();
        let configuration = format!(
            "include /etc/ldap/schema/core.schema\ninclude /etc/ldap/schema/cosine.schema\n\
             include /etc/ldap/schema/inetorgperson.schema\ninclude /etc/ldap/schema/misc.schema\n{ACTIVE_DIRECTORY}\
             modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {path}/pid\nargsfile {path}/args\nsizelimit 100\n{tls}\
             database mdb\nsuffix dc=example,dc=org\nrootdn cn=root,dc=example,dc=org\ndirectory {path}/db\nmaxsize 4294967296\n\
             index objectClass,uid,mail,sAMAccountName eq\nenvflags nosync\n\
             access to attrs=userPassword by dn=\"{LDAP_SEARCHER}\" read by anonymous auth by * none\n\
             access to * by dn=\"{LDAP_SEARCHER}\" read by self read by anonymous auth by * none\n"
        );
        write(folder, "slapd.conf", &configuration)?;
        let head = format!(
            "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\ndc: example\no: Example\n\n\
             dn: {LDAP_PEOPLE}\nobjectClass: organizationalUnit\nou: people\n\n\
             dn: {LDAP_SEARCHER}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\ncn: gatepost\nuserPassword: {LDAP_SEARCHER_PASSWORD}\n\n"
        );
        let path = folder.join("people.ldif");
        let mut ldif = BufWriter::new(context(std::fs::File::create(&path), path.display())?);
        let written = std::iter::once(head).chain(people).try_for_each(|entry| ldif.write_all(entry.as_bytes()));
        context(written.and_then(|()| ldif.flush()), path.display())?;
        let mut add = Command::new("/usr/sbin/slapadd");
        add.arg("-q").arg("-f").arg(folder.join("slapd.conf")).arg("-l").arg(folder.join("people.ldif"));
        let output = context(add.output(), "slapadd")?;
        if !output.status.success() {
            return Err(format!("slapadd: {}", String::from_utf8_lossy(&output.stderr)));
        }
        give_away(folder)?;
        let mut slapd = Self { folder: folder.to_owned(), server: Server::default(), ldap, ldaps };
        slapd.resume()?;
        Ok(slapd)
    }

    /// Starts it again after [`Server::kill`].
    pub fn resume(&mut self) -> Result<()> {
        let urls = format!("ldap://127.0.0.1:{} ldaps://127.0.0.1:{}", self.ldap, self.ldaps);
        let configuration = self.folder.join("slapd.conf").display().to_string();
        // A level of debugging, though it be none, keeps it in the foreground.
        let arguments = ["-d", "0", "-h", &urls, "-f", &configuration];
        let output = self.folder.join("output");
        self.server.run(Process::start(Path::new("/usr/sbin/slapd"), &arguments, &output, true)?);
        wait_for_port(self.ldap, Duration::from_secs(15))
            .map_err(|error| format!("{error}; {}", std::fs::read_to_string(&output).unwrap_or_default()))
    }
}

impl Person<'_> {
    /// The entry, in LDIF.
    pub fn ldif(&self) -> String {
        let Self { uid, password, more } = self;
        let more = more.trim_end();
        let line_end = if more.is_empty() { "" } else { "\n" };
        format!(
            "dn: uid={uid},{LDAP_PEOPLE}\nobjectClass: inetOrgPerson\nobjectClass: inetLocalMailRecipient\nobjectClass: adUser\n\
             uid: {uid}\ncn: {uid}\nsn: {uid}\nmail: {uid}@example.org\nuserPassword: {password}\n{more}{line_end}\n"
        )
    }
}

fn write(folder: &Path, name: &str, text: &str) -> Result<()> {
    let path = folder.join(name);
    context(std::fs::write(&path, text), path.display())
}
