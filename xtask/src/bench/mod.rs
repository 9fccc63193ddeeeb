//! `cargo xtask bench`: Gatepost beside its peers, measured the same way in one run.
//!
//! Here is the order of things; `measures` says what is measured, `peers` how each proxy is set up, `load` how it is put to
//! work, `report` what becomes of the figures. `directories` and `protocols` measure what the others don't.

mod directories;
mod folder;
mod load;
mod measures;
mod peers;
mod protocols;
mod report;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Instant;

use gatepost_lab::{Result, ensure_packages};
use serde_json::Value;

use crate::cargo;
use folder::Folder;
use measures::{Leg, Run};
use peers::{PEERS, Peer, Setting, Subject};
use report::Results;

/// Ask for something else in the stead of peers.
const DIRECTORIES: &str = "directories";
const PROTOCOLS: &str = "protocols";

#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The peers to measure beside Gatepost [default: all]; or `directories`, what a log-in costs with each; or `protocols`,
    /// what POP3, submission and SMTP cost
    #[arg(value_parser = PEERS.iter().map(|peer| peer.name).chain([DIRECTORIES, PROTOCOLS]).collect::<Vec<_>>())]
    peers: Vec<String>,
    /// How many times everything is measured; the medians are reported
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only measures whose name has this in it
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Small numbers, and the build that the tests use: shows that it works, and measures nothing
    #[arg(long)]
    quick: bool,
    /// Say what is missing instead of installing it
    #[arg(long)]
    no_install: bool,
    /// Where the report goes: Markdown, JSON and SVG [default: target/bench/report]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Take what is not measured now from this earlier report (its JSON)
    #[arg(long, value_name = "FILE")]
    onto: Option<PathBuf>,
    /// Measure this program too, a Gatepost built before a change
    #[arg(long, value_name = "FILE")]
    before: Option<PathBuf>,
}

impl Options {
    /// What `cargo xtask test` runs, so that the bench doesn't rot.
    pub(crate) fn for_check(no_install: bool) -> [Self; 3] {
        [Vec::new(), vec![DIRECTORIES.to_owned()], vec![PROTOCOLS.to_owned()]].map(|peers| Self {
            peers,
            rounds: 1,
            only: None,
            quick: true,
            no_install,
            out: None,
            onto: None,
            before: None,
        })
    }

    /// Whether what is called so is to be measured.
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|text| name.contains(text))
    }
}

pub(crate) fn run(options: &Options) -> Result<()> {
    if options.peers.iter().any(|name| name == DIRECTORIES) {
        return directories::run(options);
    }
    if options.peers.iter().any(|name| name == PROTOCOLS) {
        return protocols::run(options);
    }
    let is_wanted = |peer: &&Peer| options.peers.is_empty() || options.peers.iter().any(|name| name == peer.name);
    let before = options.before.iter().map(|_| &peers::BEFORE);
    let wanted: Vec<_> = before.chain(PEERS.iter().filter(is_wanted)).collect();
    for peer in &wanted {
        ensure_packages(peer.packages, !options.no_install)?;
    }
    let gatepost = cargo::build("gatepost", !options.quick)?;
    let load = cargo::build("gatepost-load", !options.quick)?;
    let setting = Setting::prepare(gatepost, load, options.before.clone())?;
    let runs: Vec<_> = measures::runs(options.quick)
        .into_iter()
        .filter(|run| run.measures.iter().any(|measure| options.wants(measure.name)))
        .collect();
    let machine = report::machine();
    let started = Instant::now();
    let mut results = Results::default();
    for round in 1..=options.rounds.max(1) {
        measure_starts(&setting, &wanted, &mut results)?;
        for run in &runs {
            // Fresh processes for each run: what an earlier one left in memory would hide what sessions take.
            let mut subjects: Vec<_> = std::iter::once(&peers::GATEPOST).chain(wanted.iter().copied()).collect();
            if round % 2 == 0 {
                // Whoever comes first finds the machine as the run before left it.
                subjects.reverse();
            }
            for peer in subjects {
                if !run.fits(peer) {
                    continue;
                }
                let subject = setting.start(peer)?;
                let Some(leg) = subject.leg(run.leg) else { continue };
                let said = measure(&setting, leg, run, peer)?;
                if said["stalls"] == true {
                    println!("round {round} {:<44} {:<10} stalls", run.measures[0].name, peer.name);
                    continue;
                }
                for measure in run.measures {
                    let value = measure.read(&said).ok_or_else(|| format!("{}: {said}", measure.name))?;
                    println!("round {round} {:<44} {:<10} {value:.2} {}", measure.name, peer.name, measure.unit);
                    results.add(measure, peer.name, value);
                }
            }
        }
    }
    let minutes = started.elapsed().as_secs() / 60;
    let mut extent = format!("{} rounds in {minutes} minutes", options.rounds);
    if let Some(path) = &options.onto {
        let names = results.names();
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
        let earlier = serde_json::from_str(&text).map_err(|error| failed(&error))?;
        let all: Vec<_> = measures::runs(false).iter().flat_map(|run| run.measures).collect();
        let all = [&[&measures::START, &measures::START_WITH_USERS], &all[..]].concat();
        let peers: Vec<_> = std::iter::once(peers::GATEPOST.name).chain(PEERS.iter().map(|peer| peer.name)).collect();
        if let Some(rest) = results.complete(&earlier, &all, &peers) {
            extent = format!("{extent} for these rows: {names}; {rest}");
        }
    }
    let folder = options.out.clone().unwrap_or_else(|| cargo::target().join("bench/report"));
    report::write(&folder, &machine, &setting, &wanted, &results, &extent)
}

/// How long each takes from nothing to its first greeting.
fn measure_starts(setting: &Setting, peers: &[&Peer], results: &mut Results) -> Result<()> {
    for peer in std::iter::once(&peers::GATEPOST).chain(peers.iter().copied()).filter(|peer| !peer.is_relay_only) {
        let Subject { greeted_ms, .. } = setting.start(peer)?;
        results.add(&measures::START, peer.name, greeted_ms);
    }
    let Subject { greeted_ms, .. } = setting.start_with_users(20_000)?;
    results.add(&measures::START_WITH_USERS, peers::GATEPOST.name, greeted_ms);
    Ok(())
}

/// Runs the load generator; what it said.
fn measure(setting: &Setting, leg: &peers::Endpoint, run: &Run, peer: &Peer) -> Result<Value> {
    let mut words: Vec<OsString> = run.arguments(peer).into_iter().map(Into::into).collect();
    if run.leg != Leg::Plain {
        words.extend(["--ca".into(), setting.authority.certificate.clone().into()]);
    }
    load::ask(&setting.load, words, (leg.port, leg.pid), &format!("{} of {}", run.measures[0].name, peer.name))
}
