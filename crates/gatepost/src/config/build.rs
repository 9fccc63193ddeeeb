//! From the file as written to the settings as meant.

use std::path::Path;

use gatepost_wire::PROTOCOLS;

use super::backend::{read_backend, read_link};
use super::directory::Directories;
use super::log::read_log;
use super::reader::{Context, Key, Problems, Table, parse_syntax};
use super::service::{check_addresses, read_access, read_service};
use super::settings as at;
use super::{Admin, CertificateFiles, Config, Defence, Dns, Draft, Threads, Tls, Traces, Trust, is_exposed, map};

pub(super) fn build(path: &Path, text: &str) -> Result<Draft, Problems> {
    let context = Context::new(path, text);
    let syntax = parse_syntax(&context, text);
    // What a broken line took away would only be missed again, and misleadingly.
    let config = if context.has_problems() {
        None
    } else {
        read_config(&Table::root(&context, syntax.get_ref(), &at::root::SECTION))
    };
    let (problems, warnings, effective) = context.finish();
    match config {
        Some(config) => Ok(Draft { config, warnings, problems, effective }),
        None => {
            Problems::check(problems, ())?;
            Err(Problems::one(super::Problem::file(path, "is incomplete")))
        }
    }
}

/// `None` only where a problem was recorded.
fn read_config(root: &Table<'_>) -> Option<Config> {
    let name = root.get_or(&at::root::NAME, host_name());
    let state = root.file(&at::root::STATE);
    let drain = root.get(&at::root::DRAIN);
    let threads = read_threads(&root.table(&at::threads::SECTION));
    let log = read_log(&root.table(&at::log::SECTION));
    let tls = read_tls(&root.table(&at::tls::SECTION));
    let access = read_access(root, "all");
    let directories = Directories::read(root);

    let map_table = root.table(&at::map::SECTION);
    let mut services = Vec::new();
    let mut links = Vec::new();
    for protocol in PROTOCOLS {
        let Some(table) = root.has(protocol.name).then(|| root.of_service(protocol, at::service_section(protocol)))
        else {
            continue;
        };
        let link_table = table.table(&at::link::SECTION);
        let link = read_link(&link_table, &link_table, None, protocol);
        services.extend(read_service(&table, protocol, tls.as_ref(), &directories, &map_table, link));
        links.push((protocol, link_table));
    }
    if services.is_empty() && links.is_empty() {
        root.context.problem(&(0..0), "no service: add a section such as [imap]");
    }
    check_addresses(root, &services);

    let backends: Vec<_> = root
        .named_tables("backend", |_| &at::backend::SECTION)
        .iter()
        .filter_map(|(name, table)| read_backend(name, table, &links))
        .collect();
    let named: Vec<_> = root.names_of("backend");
    let map = map::read(&map_table, &named, &directories);
    let defence = root.optional_table(&at::defence::SECTION).and_then(|table| read_defence(&table));
    let dns = root.table(&at::dns::SECTION);
    let dns = Dns {
        servers: dns.get(&at::dns::SERVERS)?,
        timeout: dns.get(&at::dns::TIMEOUT)?,
        stale: dns.get(&at::dns::STALE)?,
    };
    let state = state?.to_path_buf();
    let admin = read_admin(&root.table(&at::admin::SECTION), &state, tls.as_ref());
    let traces = root.optional_table(&at::traces::SECTION).and_then(|table| read_traces(&table));
    Some(Config {
        name,
        state,
        admin: admin?,
        traces,
        drain: drain?,
        threads: threads?,
        log: log?,
        tls: tls?,
        access,
        services,
        map: map?,
        backends,
        directories: directories.sound,
        dns,
        defence,
    })
}

/// The host's name, as the kernel knows it.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn read_admin(table: &Table<'_>, state: &Path, tls: Option<&Tls>) -> Option<Admin> {
    let listen: Vec<std::net::SocketAddr> = table.get(&at::admin::LISTEN)?;
    let certificate = table.optional_table(&at::certificate::SECTION);
    let certificate = certificate.and_then(|table| read_certificate(&table));
    let has_certificate = certificate.is_some() || tls.is_some_and(|tls| !tls.certificates.is_empty());
    if let Some(open) = listen.iter().find(|address| !address.ip().is_loopback())
        && !has_certificate
    {
        let what = "is reached from other machines: add [admin.certificate], so that passwords don't cross the network";
        table.problem_with(&at::admin::LISTEN, format_args!("{open} {what} in clear"));
    }
    let socket = table.file(&at::admin::SOCKET);
    let is_set = socket.is_some();
    Some(Admin {
        socket: socket.map_or_else(|| state.join(super::SOCKET_NAME), |socket| socket.to_path_buf()),
        is_set,
        listen,
        certificate,
        hosts: table.get(&at::admin::HOSTS)?,
        metrics_token_file: table.file(&at::admin::METRICS_TOKEN_FILE),
    })
}

fn read_traces(table: &Table<'_>) -> Option<Traces> {
    use at::traces as key;

    if !cfg!(feature = "traces") {
        table.problem("this Gatepost was built without traces (the feature `traces`)");
        return None;
    }
    let (url, token_file) = (table.require(&key::URL)?.0, table.file(&key::TOKEN_FILE));
    if token_file.is_some() && is_exposed(&url) {
        table.problem_with(&key::URL, "http: whoever is on the path could read the token; use https");
    }
    let one_in = table.get(&key::ONE_IN)?;
    if one_in == 0 {
        table.problem_with(&key::ONE_IN, "is at least 1: leave the section out where no traces are wanted");
    }
    let trust = Trust::by(table.file(&key::CA));
    Some(Traces { url, one_in, token_file, trust })
}

fn read_defence(table: &Table<'_>) -> Option<Defence> {
    use at::defence as key;

    let read = |key: &Key<u32>| {
        let max = table.get(key)?;
        if max == 0 {
            table.problem_with(key, "is at least 1: the first failure would lock everybody out");
        }
        Some(max)
    };
    let window = table.get(&key::WINDOW)?;
    if window.is_zero() {
        table.problem_with(&key::WINDOW, "is more than nothing");
    }
    Some(Defence {
        failures_per_ip: read(&key::FAILURES_PER_IP)?,
        failures_per_user: read(&key::FAILURES_PER_USER)?,
        window,
        delay: table.get(&key::DELAY)?,
        ban: table.get(&key::BAN)?,
        exempt: table.get(&key::EXEMPT)?,
    })
}

fn read_threads(table: &Table<'_>) -> Option<Threads> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let min = table.get(&at::threads::MIN)? as usize;
    let max = match table.get(&at::threads::MAX)? as usize {
        0 => cores.max(min),
        max => max,
    };
    if min == 0 {
        table.problem_with(&at::threads::MIN, "at least one thread is needed");
    }
    if max < min {
        table.problem_with(&at::threads::MAX, format_args!("is below threads.min, {min}"));
    }
    if max > 1024 {
        table.problem_with(&at::threads::MAX, "more than 1024 threads serve nobody");
    }
    Some(Threads { min, max })
}

fn read_tls(table: &Table<'_>) -> Option<Tls> {
    let certificates = table.tables(&at::certificate::SECTION);
    Some(Tls {
        min_version: table.get(&at::tls::MIN_VERSION)?,
        certificates: certificates
            .iter()
            .filter_map(|certificate| {
                certificate.head("[[", "]]");
                read_certificate(certificate)
            })
            .collect(),
    })
}

pub(super) fn read_certificate(table: &Table<'_>) -> Option<CertificateFiles> {
    let chain = table.require_file(&at::certificate::CHAIN);
    let key = table.require_file(&at::certificate::KEY);
    Some(CertificateFiles { chain: chain?, key: key? })
}
