//! What becomes of the figures: a table to read, numbers for programs, and a drawing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use gatepost_lab::Result;
use serde_json::{Value, json};

use super::measures::{Goal, Measure};
use super::peers::{self, GATEPOST, Peer, Setting};
use crate::cargo;

const HAPROXY: &str = "haproxy";

/// All figures, in the order in which they were first measured.
#[derive(Default)]
pub(super) struct Results(Vec<Row>);

/// One measure, of everybody.
struct Row {
    measure: &'static Measure,
    values: BTreeMap<&'static str, Vec<f64>>,
}

impl Results {
    pub(super) fn add(&mut self, measure: &'static Measure, peer: &'static str, value: f64) {
        let known = self.0.iter_mut().find(|row| std::ptr::eq(row.measure, measure));
        match known {
            Some(row) => row.values.entry(peer).or_default().push(value),
            None => self.0.push(Row { measure, values: BTreeMap::from([(peer, vec![value])]) }),
        }
    }
}

impl Results {
    /// Takes from an earlier report, in JSON, what was not measured now; the rows come in the order of `measures`. What
    /// was taken, in words.
    pub(super) fn complete(
        &mut self,
        earlier: &Value,
        measures: &[&'static Measure],
        peers: &[&'static str],
    ) -> Option<String> {
        let mut taken = false;
        for measure in measures {
            if self.0.iter().any(|row| std::ptr::eq(row.measure, *measure)) {
                continue;
            }
            let rows = earlier["results"].as_array().into_iter().flatten();
            for row in rows.filter(|row| row["measure"] == measure.name) {
                for peer in peers {
                    for value in row["figures"][peer]["values"].as_array().into_iter().flatten() {
                        self.add(measure, peer, value.as_f64().unwrap_or(f64::NAN));
                        taken = true;
                    }
                }
            }
        }
        let place = |row: &Row| measures.iter().position(|measure| std::ptr::eq(*measure, row.measure));
        self.0.sort_by_key(place);
        let text = |key: &str| earlier[key].as_str().unwrap_or("unknown").to_owned();
        taken.then(|| format!("the other rows as measured before: {}, {}", text("machine"), text("extent")))
    }

    /// The names of all that was measured.
    pub(super) fn names(&self) -> String {
        self.0.iter().map(|row| row.measure.name).collect::<Vec<_>>().join("; ")
    }
}

impl Row {
    fn median(&self, peer: &str) -> Option<f64> {
        let mut sorted = self.values.get(peer)?.clone();
        sorted.sort_by(f64::total_cmp);
        sorted.get(sorted.len() / 2).copied()
    }

    fn best_peer(&self) -> Option<f64> {
        let others = self.values.keys().filter(|name| **name != GATEPOST.name).filter_map(|name| self.median(name));
        if self.measure.is_more_better { others.reduce(f64::max) } else { others.reduce(f64::min) }
    }

    /// The goal in words, and whether it is reached.
    fn judged(&self) -> Option<(String, bool)> {
        let ours = self.median(GATEPOST.name)?;
        let (goal, limit) = match self.measure.goal {
            Goal::None => return None,
            Goal::OfHaproxy(times) => (format!("{times} of HAProxy's"), times * self.median(HAPROXY)?),
            Goal::OfBest(times) => (format!("{times} of the best peer's"), times * self.best_peer()?),
            Goal::Absolute(limit) => (format!("{limit}"), limit),
        };
        let bound = if self.measure.is_more_better { "at least" } else { "at most" };
        let is_reached = if self.measure.is_more_better { ours >= limit } else { ours <= limit };
        Some((format!("{bound} {goal}"), is_reached))
    }
}

/// Writes the report into `folder`; `machine` as it was when the measurements began.
pub(super) fn write(
    folder: &Path,
    machine: &str,
    setting: &Setting,
    peers: &[&Peer],
    results: &Results,
    extent: &str,
) -> Result<()> {
    let versions = peers.iter().filter_map(|peer| peers::version(peer)).collect::<Vec<_>>();
    let everybody: Vec<_> = std::iter::once(&GATEPOST).chain(peers.iter().copied()).collect();
    let configurations = everybody
        .iter()
        .map(|peer| Ok((peer.name, setting.configuration(peer)?)))
        .collect::<Result<BTreeMap<_, _>>>()?;

    let mut text = format!(
        "{machine}. {}. {extent}; medians, lowest and highest in brackets; nothing where a proxy can't or stalls.\n\n",
        versions.join("; ")
    );
    text.push_str(&table(&everybody, results));
    let json = json!({
        "machine": machine,
        "versions": versions,
        "extent": extent,
        "results": results.0.iter().map(describe).collect::<Vec<_>>(),
        "configurations": configurations,
    });
    let save = |name: &str, text: &str| {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    };
    std::fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    print!("\n{text}");
    text.push_str("\n## Configurations\n");
    for (name, configuration) in &configurations {
        let _ = write!(text, "\n### {name}\n\n```\n{}\n```\n", configuration.trim_end());
    }
    save("report.md", &text)?;
    save("report.json", &format!("{json:#}\n"))?;
    save("report.svg", &drawing(&everybody, results))?;
    println!("\nWritten to {}", folder.display());
    Ok(())
}

/// A table that is shown as it grows, and then kept.
pub(super) struct Table(String);

impl Table {
    /// The heads of the columns, divided by ` | `.
    pub(super) fn begin(head: &str) -> Self {
        Self(format!("| {head} |\n|{}\n", " --- |".repeat(head.split(" | ").count())))
    }

    /// A row, divided in the same way.
    pub(super) fn row(&mut self, cells: &str) {
        println!("| {cells} |");
        let _ = writeln!(self.0, "| {cells} |");
    }

    /// Writes it to the folder that is asked for, or to that of this `what` below `target/bench`.
    pub(super) fn keep(&self, folder: Option<&Path>, what: &str) -> Result<()> {
        let folder = folder.map_or_else(|| cargo::target().join("bench").join(what), Path::to_path_buf);
        let path = folder.join("report.md");
        std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
        std::fs::write(&path, format!("{}\n\n{}", machine(), self.0)).map_err(|error| error.to_string())?;
        println!("\nWritten to {}", path.display());
        Ok(())
    }
}

/// Processor, cores, system, and the commit that is measured.
pub(super) fn machine() -> String {
    let say = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).current_dir(cargo::root()).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let system = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let system = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("Linux").trim_matches('"');
    format!(
        "{}, Gatepost at {}, {} cores ({}), {system}, Linux {}",
        say("date", &["+%-d %B %Y"]).unwrap_or_default(),
        say("git", &["describe", "--always", "--dirty"]).unwrap_or_default(),
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        model.map_or("unknown", |(_, name)| name.trim()),
        say("uname", &["-r"]).unwrap_or_default(),
    )
}

fn table(peers: &[&Peer], results: &Results) -> String {
    let mut text = String::from("| measure | unit |");
    for peer in peers {
        let _ = write!(text, " {} |", peer.name);
    }
    text.push_str(" of HAProxy's | goal | reached |\n|");
    text.push_str(&" --- |".repeat(peers.len() + 5));
    text.push('\n');
    for row in &results.0 {
        let _ = write!(text, "| {} | {} |", row.measure.name, row.measure.unit);
        for peer in peers {
            let values = row.values.get(peer.name).map(Vec::as_slice).unwrap_or_default();
            let (low, high) =
                values.iter().fold((f64::MAX, f64::MIN), |(low, high), &value| (low.min(value), high.max(value)));
            let _ = match row.median(peer.name) {
                None => write!(text, " |"),
                Some(median) if values.len() == 1 => write!(text, " {} |", rounded(median)),
                Some(median) => write!(text, " {} ({} to {}) |", rounded(median), rounded(low), rounded(high)),
            };
        }
        let ratio = row.median(GATEPOST.name).zip(row.median(HAPROXY)).map(|(ours, theirs)| ours / theirs);
        let ratio = ratio.filter(|ratio| ratio.is_finite()).map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
        let (goal, verdict) = match row.judged() {
            Some((goal, true)) => (goal, "yes"),
            Some((goal, false)) => (goal, "**no**"),
            None => (String::new(), ""),
        };
        let _ = writeln!(text, " {ratio} | {goal} | {verdict} |");
    }
    text
}

/// With as many digits as say something.
fn rounded(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn describe(row: &Row) -> Value {
    let figures: BTreeMap<_, _> = row
        .values
        .iter()
        .map(|(peer, values)| (*peer, json!({ "median": row.median(peer), "values": values })))
        .collect();
    let (goal, is_reached) = row.judged().map_or((Value::Null, Value::Null), |(goal, is)| (json!(goal), json!(is)));
    json!({
        "measure": row.measure.name,
        "unit": row.measure.unit,
        "better": if row.measure.is_more_better { "more" } else { "less" },
        "goal": goal,
        "reached": is_reached,
        "figures": figures,
    })
}

/// A small picture for each measure that has a goal: a bar for everybody, on a scale of its own.
fn drawing(peers: &[&Peer], results: &Results) -> String {
    const COLUMNS: usize = 3;
    const WIDTH: usize = 320;
    const BAR: usize = 16;
    let rows: Vec<_> = results.0.iter().filter(|row| row.judged().is_some()).collect();
    let height = 44 + peers.len() * BAR;
    let (all_width, all_height) = (COLUMNS * WIDTH, rows.len().div_ceil(COLUMNS) * height + 12);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {all_width} {all_height}\" font-family=\"system-ui, sans-serif\" font-size=\"11\" role=\"img\">\n\
         <title>Gatepost beside its peers</title>\n\
         <style>text{{fill:#1f2933}} .peer{{fill:#9aa5b1}} .ours{{fill:#0b7285}} .unit{{fill:#616e7c}} \
         @media (prefers-color-scheme: dark){{text{{fill:#e4e7eb}} .peer{{fill:#616e7c}} .ours{{fill:#3bc9db}} .unit{{fill:#9aa5b1}}}}</style>\n"
    );
    for (n, row) in rows.iter().enumerate() {
        let (x, y) = ((n % COLUMNS) * WIDTH + 8, (n / COLUMNS) * height + 20);
        let better = if row.measure.is_more_better { "more is better" } else { "less is better" };
        let _ = writeln!(
            svg,
            "<text x=\"{x}\" y=\"{y}\" font-weight=\"600\">{}</text><text class=\"unit\" x=\"{x}\" y=\"{}\">{}, {better}</text>",
            row.measure.name,
            y + 13,
            row.measure.unit
        );
        let most = peers.iter().filter_map(|peer| row.median(peer.name)).fold(f64::MIN_POSITIVE, f64::max);
        let measured = peers.iter().filter_map(|peer| Some((peer.name, row.median(peer.name)?)));
        for (n, (name, value)) in measured.enumerate() {
            let top = y + 19 + n * BAR;
            let class = if name == GATEPOST.name { "ours" } else { "peer" };
            let _ = writeln!(
                svg,
                "<text x=\"{x}\" y=\"{}\">{name}</text><rect class=\"{class}\" x=\"{}\" y=\"{top}\" width=\"{:.1}\" height=\"12\" rx=\"2\"/>\
                 <text x=\"{:.1}\" y=\"{}\">{}</text>",
                top + 10,
                x + 62,
                (value / most * 180.0).max(1.0),
                f64::from(u32::try_from(x).unwrap_or(0)) + 66.0 + (value / most * 180.0).max(1.0),
                top + 10,
                rounded(value)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}
