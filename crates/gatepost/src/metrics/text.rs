//! Numbers as Prometheus reads them: its text format 0.0.4, or `OpenMetrics` 1.0.

use std::fmt::Write as _;

use super::families::{Family, Kind};
use super::{BOUNDS_MICROSECONDS, Counter, Histogram};

/// Which of the two is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Prometheus,
    OpenMetrics,
}

impl Format {
    /// The one that an HTTP `Accept` asks for.
    pub(crate) fn of(accept: &str) -> Self {
        if accept.contains("application/openmetrics-text") { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// The text as it grows, family by family.
pub(crate) struct Text {
    format: Format,
    written: String,
}

/// A family that is being written.
pub(crate) struct Values<'t, const LABELS: usize> {
    text: &'t mut String,
    name: &'static str,
    labels: [&'static str; LABELS],
}

impl<const LABELS: usize> Values<'_, LABELS> {
    /// One value, with those of the family's labels in their order.
    pub(crate) fn value(&mut self, labels: [&str; LABELS], value: impl std::fmt::Display) {
        self.line("", labels, None, value);
    }

    /// One histogram.
    pub(crate) fn buckets(&mut self, labels: [&str; LABELS], histogram: &Histogram) {
        let mut count = 0;
        let counts: Vec<_> = histogram.buckets.iter().map(Counter::get).collect();
        for (bound, in_bucket) in BOUNDS_MICROSECONDS.iter().zip(&counts) {
            count += in_bucket;
            self.line("_bucket", labels, Some(&seconds(*bound)), count);
        }
        count += counts.last().copied().unwrap_or(0);
        self.line("_bucket", labels, Some("+Inf"), count);
        self.line("_sum", labels, None, seconds(histogram.microseconds.get()));
        self.line("_count", labels, None, count);
    }

    fn line(&mut self, suffix: &str, labels: [&str; LABELS], bound: Option<&str>, value: impl std::fmt::Display) {
        let bound = bound.map(|bound| ("le", bound));
        let pairs = self.labels.into_iter().zip(labels).chain(bound);
        let pairs: Vec<_> = pairs.map(|(label, value)| format!("{label}=\"{}\"", escaped(value))).collect();
        let pairs = if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) };
        // Writing to a text can't fail.
        let _ = writeln!(self.text, "{}{suffix}{pairs} {value}", self.name);
    }
}

impl Text {
    pub(crate) fn new(format: Format) -> Self {
        Self { format, written: String::new() }
    }

    /// Begins a family.
    pub(crate) fn family<const LABELS: usize>(&mut self, family: &Family<LABELS>) -> Values<'_, LABELS> {
        let Family { name, kind, labels, help } = *family;
        let (kind, written) = match (kind, self.format) {
            (Kind::Counter, Format::OpenMetrics) => ("counter", name.trim_end_matches("_total")),
            (Kind::Counter, Format::Prometheus) => ("counter", name),
            (Kind::Gauge, _) => ("gauge", name),
            (Kind::Histogram, _) => ("histogram", name),
        };
        let _ = write!(self.written, "# HELP {written} {help}\n# TYPE {written} {kind}\n");
        Values { text: &mut self.written, name, labels }
    }

    /// The whole text.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.written.push_str("# EOF\n");
        }
        self.written
    }
}

/// Microseconds as a decimal number of seconds.
fn seconds(microseconds: u64) -> String {
    let text = format!("{}.{:06}", microseconds / 1_000_000, microseconds % 1_000_000);
    let text = text.trim_end_matches('0');
    // OpenMetrics wants a fraction in bounds.
    if text.ends_with('.') { format!("{text}0") } else { text.to_owned() }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn both_formats_are_as_their_documents_say() {
        let write = |format| {
            let mut text = Text::new(format);
            let counter = Family { name: "a_total", kind: Kind::Counter, labels: ["of"], help: "Things." };
            text.family(&counter).value(["a\"b\\c\nd"], 3);
            text.family(&Family { name: "b", kind: Kind::Gauge, labels: [], help: "Others." }).value([], 0.5);
            text.finish()
        };
        assert_eq!(
            write(Format::Prometheus),
            "# HELP a_total Things.\n# TYPE a_total counter\na_total{of=\"a\\\"b\\\\c\\nd\"} 3\n# HELP b Others.\n# TYPE b gauge\nb 0.5\n"
        );
        let open = write(Format::OpenMetrics);
        assert!(
            open.starts_with("# HELP a Things.\n# TYPE a counter\na_total{") && open.ends_with("\n# EOF\n"),
            "{open}"
        );
    }

    #[test]
    fn buckets_are_summed_up() {
        let histogram = Histogram::default();
        [100, 500, 501, 30_000, 60_000_000].map(Duration::from_micros).iter().for_each(|time| histogram.record(*time));
        let mut text = Text::new(Format::Prometheus);
        let family = Family { name: "h", kind: Kind::Histogram, labels: ["stage"], help: "Times." };
        text.family(&family).buckets(["tls"], &histogram);
        let text = text.finish();
        for line in [
            "h_bucket{stage=\"tls\",le=\"0.0005\"} 2",
            "h_bucket{stage=\"tls\",le=\"0.001\"} 3",
            "h_bucket{stage=\"tls\",le=\"0.05\"} 4",
            "h_bucket{stage=\"tls\",le=\"10.0\"} 4",
            "h_bucket{stage=\"tls\",le=\"+Inf\"} 5",
            "h_sum{stage=\"tls\"} 60.031101",
            "h_count{stage=\"tls\"} 5",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
