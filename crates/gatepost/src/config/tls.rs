//! TLS, as the configuration describes it: versions, modes, certificates of ours and of clients.

use super::problem::NamedFile;
use super::reader::Table;

section! {
    pub(crate) struct Tls: "tls", "[tls]", "TLS towards clients.";
    min_version: TlsVersion = "1.2", "The oldest version of TLS that is spoken, towards back ends too.";
    [certificates]: Vec<CertificateFiles>;
}

words! {
    pub(crate) enum TlsVersion, "\"1.2\" or \"1.3\"" {
        Tls12 = "1.2",
        Tls13 = "1.3",
    }
}

words! {
    /// How TLS begins on a connection.
    pub(crate) enum TlsMode {
        None = "none",
        StartTls = "starttls",
        Implicit = "implicit",
    }
}

section! {
    #[derive(PartialEq, Eq, Hash)]
    pub(crate) struct CertificateFiles: "certificate", "[[tls.certificate]]", "A certificate, chosen by the name that the client asks for; the first serves clients that ask for none. The same table may stand in a listener (`certificate = { chain = …, key = … }`), for that listener alone, and as [admin.certificate] for the console alone; without that, these serve there too.";
    chain: NamedFile, "The certificate and its intermediates, PEM.";
    key: NamedFile, "Its private key, PEM.";
}

section! {
    pub(crate) struct ClientCertificates: "client_certificate", "[imap.client_certificate]", "Asks clients under TLS for a certificate, by which the mechanism EXTERNAL lets them in. The same may stand in a listener, for that listener alone.";
    ca: NamedFile, "Authorities that issue them, PEM. A certificate of any other ends the handshake.";
    crl: Option<NamedFile>, "What the authorities have revoked, PEM; for each of them one. Read again at a reload.";
    names as "name": Vec<CertificateName> = ["email"], "Where the user's name stands: email, upn (both among the alternative names), cn or uid (of the subject); the first of the list that a certificate has.";
    required: bool = false, "Turn away clients without one. With one they must still log in.";
    => check_names;
}

words! {
    /// A field of a certificate that may hold a user's name.
    pub(crate) enum CertificateName {
        /// An e-mail address among the subject's alternative names.
        Email = "email",
        /// Microsoft's user principal name, among the alternative names.
        Upn = "upn",
        /// The subject's common name.
        CommonName = "cn",
        /// The subject's user id.
        UserId = "uid",
    }
}

fn check_names(read: &ClientCertificates, table: &Table<'_>) {
    if read.names.is_empty() {
        table.problem_with(&ClientCertificates::names, "names no field: nobody's name could be read");
    }
}
