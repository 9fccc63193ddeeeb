//! From the file as written to the settings as meant.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gatepost_wire::PROTOCOLS;

use super::access::{AccessSettings, read_access};
use super::admin::{AdminSettings, read_admin};
use super::backend::{BackendSettings, read_backend};
use super::defence::Defence;
use super::directory::{self, Directories};
use super::link::{LinkSettings, link_of};
use super::listener::check_addresses;
use super::log::{LogSettings, read_log};
use super::map::{Map, Names, check_map};
use super::problem::{NamedFile, Problem, Problems};
use super::reader::{Context, Table, parse_syntax};
use super::section::Child::{List, Named, Services, Table as One};
use super::section::{Variant, Written};
use super::service::{read_service, service_section};
use super::tls::Tls;
use super::traces::Traces;
use super::{Config, Draft};

section! {
    pub(super) struct Root: "", "", "Settings of the whole program.", {
        read_apart: &[One(Threads::SECTION), One(LogSettings::SECTION), One(Tls::SECTION), Services(service_section), List(AccessSettings::SECTION), One(Map::SECTION), Named(&[Variant { word: None, section: BackendSettings::SECTION }]), Named(directory::VARIANTS), One(Dns::SECTION), One(Defence::SECTION), One(AdminSettings::SECTION), One(Traces::SECTION)],
        reserved: &["webmail", "cluster"],
    };
    name: Option<String>, "This node's name, in the greeting and for the loop check. Default: the host's name. No two nodes should share it.";
    state: NamedFile = "gatepost-state", "The folder for what Gatepost keeps: admin.sock, administrators.json, overrides.json (what was decided on the command line or the console), reports.db, history, and unknown-users.key, which SCRAM needs and each node should have a copy of. Each Gatepost needs a folder of its own. A relative path, here and in every other setting, is relative to this file's folder.";
    drain: Duration = "30s", "How long a stop waits for sessions to end.";
}

section! {
    #[derive(Copy)]
    pub(crate) struct Threads: "threads", "[threads]", "Connection-handling threads, adapted to the load.";
    min: usize = 1, "Fewest threads.";
    max: usize = 0, "Most threads; 0: one for each core.";
}

section! {
    pub(crate) struct Dns: "dns", "[dns]", "How the host names of back ends are looked up. Answers are remembered for their time to live (a second to an hour).";
    servers: Vec<SocketAddr> = [], "DNS servers, such as \"10.0.0.53:53\". Left out: those of /etc/resolv.conf. /etc/hosts is always read.";
    timeout: Duration = "2s", "For one try; there are two.";
    stale: Duration = "1h", "How long an answer goes on serving while no server gives a newer one.";
}

pub(super) fn build(path: &Path, text: &str) -> Result<Draft, Problems> {
    let context = Context::new(path, text);
    let syntax = parse_syntax(&context, text);
    // What a broken line took away would only be missed again, and misleadingly.
    let config = if context.has_problems() {
        None
    } else {
        read_config(&Table::root(&context, syntax.get_ref(), Root::SECTION))
    };
    let (problems, warnings, effective) = context.finish();
    match config {
        Some(config) => Ok(Draft { config, warnings, problems, effective }),
        None => {
            Problems::check(problems, ())?;
            Err(Problems::one(Problem::file(path, "is incomplete")))
        }
    }
}

/// `None` only where a problem was recorded. Each part is read whatever is wrong with those before it, so that all is said
/// at once.
fn read_config(root: &Table<'_>) -> Option<Config> {
    let program = Root::read(root);
    let threads = read_threads(&root.table(Threads::SECTION));
    let log = read_log(&root.table(LogSettings::SECTION));
    let tls = Tls::read(&root.table(Tls::SECTION));
    let has_certificate = tls.as_ref().is_some_and(|tls| !tls.certificates.is_empty());
    let access = read_access(root, "all");
    let directories = Directories::read(root);
    let map_table = root.table(Map::SECTION);
    let map = Map::read(&map_table);
    let names = map.as_ref().map(Names::of);

    let (mut services, mut links) = (Vec::new(), Vec::new());
    for protocol in PROTOCOLS.iter().filter(|protocol| root.has(protocol.name)) {
        let table = root.of_service(protocol, service_section(protocol));
        let link_table = table.table(LinkSettings::SECTION);
        let link =
            LinkSettings::read(&link_table).and_then(|link| link_of(link, (&link_table, &link_table), None, protocol));
        let service = map
            .as_ref()
            .and_then(|map| read_service(&table, protocol, has_certificate, &directories, (map, &map_table), link));
        services.extend(service);
        links.push((protocol, link_table));
    }
    if links.is_empty() {
        root.context.problem(&(0..0), "no service: add a section such as [imap]");
    }
    check_addresses(root, &services);

    let backends = root.named_tables("backend", |_| BackendSettings::SECTION);
    let backends = backends.iter().filter_map(|(name, table)| read_backend(name, table, &links)).collect();
    if let Some(map) = &map {
        check_map(map, &map_table, &directories);
    }
    let defence = root.optional_table(Defence::SECTION).and_then(|table| Defence::read(&table));
    let dns = Dns::read(&root.table(Dns::SECTION));
    let Root { name, state, drain } = program?;
    let name = root.or(&Root::name, name, host_name());
    let admin = read_admin(&root.table(AdminSettings::SECTION), &state, has_certificate);
    let traces = root.optional_table(Traces::SECTION).and_then(|table| Traces::read(&table));
    Some(Config {
        name,
        state: state.to_path_buf(),
        admin: admin?,
        traces,
        drain,
        threads: threads?,
        log: log?,
        tls: tls?,
        access,
        services,
        names: names?,
        map: map?,
        backends,
        directories: directories.sound,
        dns: dns?,
        defence,
    })
}

/// The host's name, as the kernel knows it.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn read_threads(table: &Table<'_>) -> Option<Threads> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let Threads { min, max } = Threads::read(table)?;
    let max = if max == 0 { cores.max(min) } else { max };
    if min == 0 {
        table.problem_with(&Threads::min, "at least one thread is needed");
    }
    if max < min {
        table.problem_with(&Threads::max, format_args!("is below threads.min, {min}"));
    }
    if max > 1024 {
        table.problem_with(&Threads::max, "more than 1024 threads serve nobody");
    }
    Some(Threads { min, max })
}
