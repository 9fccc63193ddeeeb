//! The overview's numbers and drawings.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};

use crate::admin::answers::{Live, Sample};
use crate::admin::human::{bytes, rate};

/// A drawing's width and height.
const WIDTH: f64 = 600.0;
const HEIGHT: f64 = 120.0;
/// Bars across its width, at least: fewer stand at its right.
const BARS_MIN: f64 = 24.0;
/// Samples across its width.
const SAMPLES: u32 = 300;

/// A number with its name.
pub(super) struct Tile {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) value: String,
}

/// A drawing of the last minutes.
pub(super) struct Chart {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    /// What its upper edge stands for.
    pub(super) top: String,
    pub(super) line: String,
    pub(super) area: String,
    pub(super) second: Option<String>,
}

pub(super) fn tiles(live: &Live) -> Vec<Tile> {
    let tile = |id, name, value| Tile { id, name, value };
    vec![
        tile("sessions", "Sessions", live.sessions.to_string()),
        tile("logins", "Log-ins a second", rate(live.logins_per_second)),
        tile("failures", "Failed a second", rate(live.failures_per_second)),
        tile("up", "Up a second", bytes(live.bytes_up_per_second)),
        tile("down", "Down a second", bytes(live.bytes_down_per_second)),
        tile("busy", "Threads at work", format!("{:.0} % of {}", live.busy * 100.0, live.workers)),
    ]
}

pub(super) fn charts(live: &Live) -> Vec<Chart> {
    let series = |of: fn(&Sample) -> f64| live.history.iter().map(of).collect::<Vec<_>>();
    let chart = |id, name, first: Vec<f64>, second: Option<Vec<f64>>, show: fn(f64) -> String| {
        let top = top_of(first.iter().chain(second.iter().flatten()));
        let line = path(&first, top);
        let area = if line.is_empty() { String::new() } else { format!("{line}V{HEIGHT}H{:.1}Z", left(first.len())) };
        let second = second.map(|second| path(&second, top));
        Chart { id, name, top: show(top), line, area, second }
    };
    vec![
        chart("sessions-chart", "Sessions", series(|s| s.sessions), None, rate),
        chart("logins-chart", "Log-ins, and failed ones", series(|s| s.logins), Some(series(|s| s.failures)), rate),
        chart("down-chart", "Bytes down, and up", series(|s| s.bytes_down), Some(series(|s| s.bytes_up)), bytes),
    ]
}

/// What stands at a drawing's upper edge.
fn top_of<'v>(values: impl Iterator<Item = &'v f64>) -> f64 {
    values.fold(1.0, |top, value| top.max(*value))
}

/// Bars of values, and in front of them those of others, one for each moment.
pub(super) fn bars(id: &'static str, name: &'static str, values: &[(f64, f64)], show: fn(f64) -> String) -> Chart {
    let top = top_of(values.iter().flat_map(|(first, second)| [first, second]));
    let count = f64::from(u32::try_from(values.len()).unwrap_or(u32::MAX));
    let width = WIDTH / count.max(BARS_MIN);
    let draw = |of: fn(&(f64, f64)) -> f64| {
        let mut path = String::new();
        // The latest at the right edge.
        let mut x = WIDTH - count * width;
        for value in values {
            let height = of(value) / top * (HEIGHT - 4.0);
            // Writing to a text can't fail.
            let _ = write!(path, "M{x:.1} {HEIGHT}v-{height:.1}h{:.1}v{height:.1}z", (width * 0.86).max(0.5));
            x += width;
        }
        path
    };
    let (line, second) = (draw(|value| value.0), draw(|value| value.1));
    Chart {
        id,
        name,
        top: show(top),
        line,
        area: String::new(),
        second: values.iter().any(|value| value.1 > 0.0).then_some(second),
    }
}

/// Where so many samples begin, when the last is at the right edge.
fn left(samples: usize) -> f64 {
    let samples = u32::try_from(samples).unwrap_or(SAMPLES).clamp(1, SAMPLES);
    WIDTH - f64::from(samples - 1) * WIDTH / f64::from(SAMPLES - 1)
}

/// A line through values, the latest at the right edge.
fn path(values: &[f64], top: f64) -> String {
    let (mut x, step) = (left(values.len()), WIDTH / f64::from(SAMPLES - 1));
    let mut path = String::new();
    for value in values {
        let y = HEIGHT - 2.0 - value / top * (HEIGHT - 8.0);
        let verb = if path.is_empty() { 'M' } else { 'L' };
        // Writing to a text can't fail.
        let _ = write!(path, "{verb}{x:.1} {y:.1}");
        x += step;
    }
    path
}

/// What a page needs to be up to date.
pub(super) fn update(live: &Live) -> Value {
    let mut values: Map<String, Value> =
        tiles(live).into_iter().map(|tile| (tile.id.to_owned(), tile.value.into())).collect();
    let mut paths = Map::new();
    for chart in charts(live) {
        values.insert(format!("{}-top", chart.id), chart.top.into());
        paths.insert(chart.id.to_owned(), chart.line.into());
        paths.insert(format!("{}-area", chart.id), chart.area.into());
        paths.insert(format!("{}-second", chart.id), chart.second.into());
    }
    json!({ "values": values, "paths": paths })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawings_stay_in_their_frame() {
        let moment = |n: u32| Sample {
            sessions: f64::from(n),
            logins: f64::from(n % 7),
            failures: 1.0,
            bytes_down: 5e9,
            bytes_up: 0.0,
        };
        let live =
            Live { sessions: 299, workers: 2, busy: 0.5, history: (0..300).map(moment).collect(), ..Live::default() };
        for chart in charts(&live) {
            for point in chart.line.split(['M', 'L']).filter(|point| !point.is_empty()) {
                let (x, y) = point.split_once(' ').expect("a point");
                let (x, y): (f64, f64) = (x.parse().expect("a number"), y.parse().expect("a number"));
                assert!((-0.1..=WIDTH + 0.1).contains(&x) && (0.0..=HEIGHT).contains(&y), "{point}");
            }
        }
        assert_eq!((bytes(5e9).as_str(), bytes(12.0).as_str(), rate(0.25).as_str()), ("4.7 GiB", "12 B", "0.2"));
        assert!(charts(&Live::default())[0].line.is_empty());
    }
}
