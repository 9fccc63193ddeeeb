//! Every metric by name: the one place where a metric is begun. The table in docs/monitoring.md is written from it.

/// What kind of number a family has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It only grows; the name ends in `_total`.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Seconds, in buckets.
    Histogram,
}

/// Numbers of one name, told apart by so many labels.
pub(crate) struct Family<const LABELS: usize> {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) labels: [&'static str; LABELS],
    pub(super) help: &'static str,
}

macro_rules! families {
    ($($id:ident: $kind:ident $name:literal [$($label:literal),*] = $help:literal;)*) => {
        $(pub(crate) static $id: Family<{ let labels: &[&str] = &[$($label),*]; labels.len() }> =
            Family { name: $name, kind: Kind::$kind, labels: [$($label),*], help: $help };)*

        /// Each family's name, labels and help, in the order in which they are written.
        #[cfg(test)]
        static ALL: &[(&str, &[&str], &str)] = &[$(($name, &[$($label),*], $help)),*];
    };
}

families! {
    SESSIONS: Gauge "gatepost_sessions" ["service", "backend"] =
        "Sessions that are open, of mail at the back end that it was connected to last; without one: before the log-in, or without a connection for mail.";
    GENERATION_SESSIONS: Gauge "gatepost_generation_sessions" ["generation"] =
        "Sessions of this process, and of those before it that it took over from.";
    CONNECTIONS: Counter "gatepost_connections_total" ["service", "listener"] =
        "Connections that were accepted.";
    REJECTED: Counter "gatepost_rejected_total" ["service", "reason"] =
        "Connections that were turned away before a log-in.";
    LOG_INS: Counter "gatepost_logins_total" ["service", "mechanism", "result"] =
        "Log-ins that came to an end; the mechanism `command` is LOGIN, or USER and PASS, and the result `guessing` one that was refused unseen.";
    LOG_IN_SECONDS: Histogram "gatepost_login_seconds" ["service", "stage"] =
        "How long the parts of a log-in took, in seconds: a histogram.";
    BYTES: Counter "gatepost_bytes_total" ["service", "direction"] =
        "Bytes that were passed on: up, from clients to back ends (of mail, its content), and down.";
    BACKEND_UP: Gauge "gatepost_backend_up" ["backend", "service"] =
        "1: a back end takes log-ins; 0: it is out of order, or out of service.";
    BACKEND_CONNECTIONS: Gauge "gatepost_backend_connections" ["backend", "service"] =
        "Connections to a back end that are open.";
    DIRECTORY_SECONDS: Histogram "gatepost_directory_seconds" ["directory", "result"] =
        "How long directories took to answer, in seconds, a histogram: found (a wrong password too), unknown, fault.";
    CACHE: Counter "gatepost_cache_total" ["cache", "result"] =
        "Questions to what is remembered, places of users and right passwords: hit, miss.";
    BANS: Gauge "gatepost_bans" [] =
        "Networks and addresses that are banned, by administrators and for guessing.";
    CERTIFICATE_EXPIRY: Gauge "gatepost_certificate_expiry_seconds" ["name"] =
        "How long a certificate is good yet; below 0 it has expired.";
    WORKER_BUSY: Gauge "gatepost_worker_busy_ratio" ["worker"] =
        "The part of the last second that a worker was at work.";
    WORKERS: Gauge "gatepost_workers" [] = "Threads that serve sessions.";
    RELOADS: Counter "gatepost_config_reloads_total" ["result"] =
        "Times that the configuration was read anew: ok, failed.";
    BUILD: Gauge "gatepost_build_info" ["version"] = "The version that is running; always 1.";
    START_TIME: Gauge "process_start_time_seconds" [] = "When the process began, in seconds since 1970.";
    CPU: Counter "process_cpu_seconds_total" [] = "Time at work, of all threads.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] = "Memory that the process has.";
    VIRTUAL: Gauge "process_virtual_memory_bytes" [] = "Addresses that the process has taken.";
    OPEN_FILES: Gauge "process_open_fds" [] = "Files that are open.";
    FILES_MAX: Gauge "process_max_fds" [] = "Files that may be open.";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{LogIn, Rejection, Stage};

    const BEGIN: &str = "| metric | what |\n| --- | --- |\n";

    fn table() -> String {
        let words = |values: &[&str]| values.iter().map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
        let row = |(name, labels, help): &(&str, &[&str], &str)| {
            let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
            let values = match *name {
                "gatepost_rejected_total" => words(&Rejection::ALL.map(Rejection::name)),
                "gatepost_logins_total" => words(&LogIn::ALL.map(LogIn::name)),
                "gatepost_login_seconds" => words(&Stage::ALL.map(Stage::name)),
                _ => String::new(),
            };
            let values = if values.is_empty() { values } else { format!(" {values}.") };
            format!("| `{name}{labels}` | {help}{values} |\n")
        };
        ALL.iter().map(row).collect()
    }

    #[test]
    fn the_document_has_every_metric() {
        crate::documents::keep("monitoring.md", |text| {
            let (before, rest) = text.split_once(BEGIN).expect("a table of metrics");
            let end = rest.find("\n\n").expect("an end of the table") + 1;
            format!("{before}{BEGIN}{}{}", table(), &rest[end..])
        });
    }

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for (n, (name, labels, help)) in ALL.iter().enumerate() {
            assert!(name.starts_with("gatepost_") || name.starts_with("process_"), "{name}");
            assert!(
                help.ends_with('.') && !labels.iter().any(|label| ["user", "client", "rip"].contains(label)),
                "{name}"
            );
            assert!(!ALL[..n].iter().any(|(other, ..)| other == name), "{name} stands twice");
        }
    }
}
