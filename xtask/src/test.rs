//! `cargo xtask test`: everything that must hold, in the order in which it fails fastest.

use gatepost_lab::{
    OTLP, Result, SCHEMATHESIS, ensure_browser_tools, ensure_packages, ensure_python_tool, ensure_unpacked,
};

use crate::cargo::cargo;

/// What the end-to-end tests run, beside what every Debian has.
const PACKAGES: &[&str] = &[
    // Mail servers behind Gatepost.
    "dovecot-core",
    "dovecot-imapd",
    "dovecot-pop3d",
    "dovecot-managesieved",
    "dovecot-sieve",
    "dovecot-submissiond",
    "dovecot-lmtpd",
    "postfix",
    // Directories, and what they need.
    "slapd",
    "postgresql",
    "postgresql-client",
    "mariadb-server",
    "mariadb-client",
    "libsqlite3-0",
    "nginx-light",
    "dnsmasq-base",
    // Clients.
    "curl",
    "isync",
    "mutt",
    "fetchmail",
    "mpop",
    "msmtp",
    "swaks",
    "libnet-ssleay-perl",
    "libauthen-sasl-perl",
    "sieve-connect",
    "gsasl",
    "openssl",
    // What watches Gatepost, and runs it.
    "fail2ban",
    "prometheus",
    "rsyslog",
    "rsyslog-openssl",
    "systemd",
    "iproute2",
    // Tools of the tests' own.
    "g++",
    "python3",
    "python3-venv",
    "chromium",
    "chromium-driver",
];

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(&Options { no_install }: &Options) -> Result<()> {
    ensure_packages(PACKAGES, !no_install)?;
    for (package, version, program) in [SCHEMATHESIS, OTLP] {
        ensure_python_tool(package, version, program, !no_install)?;
    }
    ensure_browser_tools(!no_install)?;
    ensure_unpacked("crowdsec", !no_install)?;
    step("format");
    cargo(&["fmt", "--all", "--check"])?;
    step("lints");
    cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "--deny", "warnings"])?;
    cargo(&["clippy", "--quiet", "--package", "gatepost", "--no-default-features", "--", "--deny", "warnings"])?;
    // Checked, not run: that needs cargo-fuzz.
    cargo(&["check", "--quiet", "--manifest-path", "fuzz/Cargo.toml"])?;
    step("demonstration");
    crate::demo::run(&crate::demo::Options::for_check(no_install))?;
    step("tests");
    // Most tests wait for a clock or a peer, so that more of them than cores run well side by side.
    cargo(&["test", "--workspace", "--", "--test-threads=6"])?;
    step("benchmark, in small");
    crate::bench::Options::for_check(no_install).iter().try_for_each(crate::bench::run)
}

fn step(name: &str) {
    println!("==> {name}");
}
