//! Numbers of answers as people read them, in the console and on the command line alike.

use std::time::SystemTime;

/// So many bytes.
pub(crate) fn bytes(count: f64) -> String {
    let mut scaled = count;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if scaled < 1024.0 {
            let places = usize::from(scaled < 10.0 && unit != "B");
            return format!("{scaled:.places$} {unit}");
        }
        scaled /= 1024.0;
    }
    format!("{scaled:.1} TiB")
}

/// A whole number, as a figure.
pub(crate) fn figure(whole: u64) -> f64 {
    f64::from((whole >> 32) as u32) * 4_294_967_296.0 + f64::from(whole as u32)
}

/// A rate.
pub(crate) fn rate(value: f64) -> String {
    if value >= 100.0 || value == 0.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// A count of things, which are whole.
pub(crate) fn count(value: f64) -> String {
    format!("{value:.0}")
}

/// So long, in its two largest units.
pub(crate) fn time(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// How long ago a moment was; `None`: it is none.
pub(crate) fn age(moment: &str) -> Option<String> {
    let at = humantime::parse_rfc3339(moment).ok()?;
    Some(time(SystemTime::now().duration_since(at).unwrap_or_default().as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_are_short() {
        let shown = [0.0, 1023.0, 1024.0, 1536.0, 12_000.0, f64::from(5 << 20) * 1024.0, 1e15].map(bytes);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "12 KiB", "5.0 GiB", "909.5 TiB"]);
        assert_eq!([5, 65, 3700, 90_000].map(time), ["5s", "1m 05s", "1h 01m", "1d 01h"]);
        assert_eq!((rate(0.25), rate(1234.5), count(12.0)), ("0.2".into(), "1234".into(), "12".into()));
        assert_eq!((age(""), age("1970-01-01T00:00:00Z").is_some()), (None, true));
    }
}
