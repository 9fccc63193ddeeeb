//! Every metric of docs/monitoring.md, with what can only be looked up at the moment of asking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Server;
use super::sessions::at_backend;
use crate::admin::Command;
use crate::metrics::text::{Format, Text};
use crate::metrics::{Counter, Rejection, Stage};
use crate::net::health::Standing;
use crate::service::idle::Present;

impl Server {
    /// Everything, in the words of Prometheus.
    pub(super) async fn metrics(self: &Arc<Self>, is_open: bool) -> Result<String, String> {
        let mut text = Text::new(if is_open { Format::OpenMetrics } else { Format::Prometheus });
        let count = |present: Vec<Present>| {
            let mut sessions: BTreeMap<(&'static str, String), u64> = BTreeMap::new();
            for present in present {
                let story = present.story();
                let backend = at_backend(&story).unwrap_or_default().to_owned();
                *sessions.entry((story.service, backend)).or_default() += 1;
            }
            sessions
        };
        let mut sessions = self.look_at_all(count).await?;
        let world = self.entrance.world.load_full();
        let reports = world.map.backends().report();
        for service in &world.config.services {
            for report in &reports {
                sessions.entry((service.protocol.name, report.name.to_string())).or_default();
            }
        }
        text.gauge("gatepost_sessions", "Sessions that are open, by service and back end (none: before the log-in).");
        for ((service, backend), count) in sessions {
            text.value(&[("service", service), ("backend", &backend)], count);
        }
        text.gauge("gatepost_generation_sessions", "Sessions by the generation of the program that serves them.");
        text.value(&[("generation", &self.generation.to_string())], self.entrance.workers.sessions());
        for (generation, status) in self.ask_elders(&Command::Status).await {
            text.value(&[("generation", &generation.to_string())], &status["status"][0]["sessions"]);
        }
        self.write_services(&mut text);
        text.gauge("gatepost_backend_up", "Whether a back end takes log-ins: 1 or 0.");
        for report in &reports {
            for (service, _) in &report.by_service {
                let mut hosts = report.hosts.iter().filter(|host| host.service == *service);
                let is_up = report.duty.is_none() && hosts.any(|host| host.standing == Standing::Up);
                text.value(&[("backend", &report.name), ("service", service)], u8::from(is_up));
            }
        }
        text.gauge("gatepost_backend_connections", "Connections to a back end.");
        for report in &reports {
            for (service, count) in &report.by_service {
                text.value(&[("backend", &report.name), ("service", service)], count);
            }
        }
        self.write_directories(&mut text);
        text.gauge("gatepost_bans", "Networks and addresses that are banned.");
        let guessing = self.shared.defence.banned(Instant::now()).len();
        text.value(&[], self.lasting.overrides.bans().len() + guessing);
        text.gauge(
            "gatepost_certificate_expiry_seconds",
            "How long a certificate is good yet; below 0 it has expired.",
        );
        let mut ends: BTreeMap<&str, i64> = BTreeMap::new();
        for (files, certificate) in world.certificates() {
            let left = seconds_left(certificate.expires());
            let name = certificate.names().first().map(String::as_str).or(files.chain.to_str()).unwrap_or_default();
            ends.entry(name).and_modify(|known| *known = left.min(*known)).or_insert(left);
        }
        ends.iter().for_each(|(name, left)| text.value(&[("name", name)], left));
        self.write_process(&mut text);
        Ok(text.finish())
    }

    fn write_services(&self, text: &mut Text) {
        let world = self.entrance.world.load();
        let metrics = &self.lasting.metrics;
        let services: Vec<_> = world.config.services.iter().map(|service| service.protocol.name).collect();
        let of: Vec<_> = services.iter().map(|name| (*name, metrics.service(name))).collect();
        text.counter("gatepost_connections_total", "Connections that were accepted.");
        for (service, listener, count) in metrics.connections() {
            text.value(&[("service", service), ("listener", &listener)], count);
        }
        text.counter(
            "gatepost_rejected_total",
            "Connections that were turned away before anybody spoke, or had no TLS.",
        );
        for (service, numbers) in &of {
            for why in Rejection::ALL {
                text.value(&[("service", service), ("reason", why.name())], numbers.rejected[why as usize].get());
            }
        }
        text.counter("gatepost_logins_total", "Log-ins, and what became of them.");
        for (service, numbers) in &of {
            for (mechanism, result, count) in numbers.log_ins() {
                text.value(&[("service", service), ("mechanism", mechanism), ("result", result)], count);
            }
        }
        text.histogram("gatepost_login_seconds", "How long the parts of a log-in took.");
        for (service, numbers) in &of {
            for stage in Stage::ALL {
                text.buckets(&[("service", service), ("stage", stage.name())], &numbers.stages[stage as usize]);
            }
        }
        text.counter("gatepost_bytes_total", "Bytes that were relayed: up, from clients to back ends, and down.");
        for (service, numbers) in &of {
            text.value(&[("service", service), ("direction", "up")], numbers.bytes_up.get());
            text.value(&[("service", service), ("direction", "down")], numbers.bytes_down.get());
        }
    }

    fn write_directories(&self, text: &mut Text) {
        let metrics = &self.lasting.metrics;
        text.histogram("gatepost_directory_seconds", "How long directories took to answer.");
        for (name, numbers) in metrics.directories() {
            for (result, histogram) in
                [("found", &numbers.found), ("unknown", &numbers.unknown), ("fault", &numbers.fault)]
            {
                text.buckets(&[("directory", &name), ("result", result)], histogram);
            }
        }
        text.counter("gatepost_cache_total", "Questions to what is remembered: places of users, and right passwords.");
        for (cache, numbers) in [("places", &metrics.places), ("passwords", &metrics.passwords)] {
            text.value(&[("cache", cache), ("result", "hit")], numbers.hits.get());
            text.value(&[("cache", cache), ("result", "miss")], numbers.misses.get());
        }
    }

    fn write_process(&self, text: &mut Text) {
        let workers = &self.entrance.workers;
        text.gauge("gatepost_worker_busy_ratio", "The part of the last second that a worker was at work.");
        for (id, ratio) in workers.busy_ratios() {
            text.value(&[("worker", &id.to_string())], ratio);
        }
        text.gauge("gatepost_workers", "Threads that serve sessions.");
        text.value(&[], workers.count());
        text.counter("gatepost_config_reloads_total", "Times that the configuration was read anew.");
        let metrics = &self.lasting.metrics;
        let count = |text: &mut Text, result, counter: &Counter| text.value(&[("result", result)], counter.get());
        count(text, "ok", &metrics.reloads);
        count(text, "failed", &metrics.failed_reloads);
        text.gauge("gatepost_build_info", "The version that is running; always 1.");
        text.value(&[("version", env!("CARGO_PKG_VERSION"))], 1);
        text.gauge("process_start_time_seconds", "When the process began, in seconds since 1970.");
        let began = SystemTime::now() - self.started.elapsed();
        text.value(&[], began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let usage = Usage::now();
        text.counter("process_cpu_seconds_total", "Time at work, of all threads.");
        text.value(&[], usage.cpu_seconds);
        text.gauge("process_resident_memory_bytes", "Memory that the process has.");
        text.value(&[], usage.resident_bytes);
        text.gauge("process_virtual_memory_bytes", "Addresses that the process has taken.");
        text.value(&[], usage.virtual_bytes);
        text.gauge("process_open_fds", "Files that are open.");
        text.value(&[], usage.open_files);
        text.gauge("process_max_fds", "Files that may be open.");
        text.value(&[], usage.files_max);
    }
}

/// Until then, less than nothing if it has passed.
pub(super) fn seconds_left(end: SystemTime) -> i64 {
    match end.duration_since(SystemTime::now()) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(past) => -i64::try_from(past.duration().as_secs()).unwrap_or(i64::MAX),
    }
}

/// What the process uses of the machine. What the system doesn't say is 0.
#[derive(Default)]
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: usize,
    files_max: u64,
}

impl Usage {
    fn now() -> Self {
        let cpu = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let mut pages = pages.split(' ').map(|count| count.trim().parse::<u64>().unwrap_or(0));
        let page_bytes = rustix::param::page_size() as u64;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let seconds = u64::try_from(cpu.tv_sec).unwrap_or(0);
        let worked = Duration::new(seconds, u32::try_from(cpu.tv_nsec).unwrap_or(0));
        Self {
            cpu_seconds: worked.as_secs_f64(),
            virtual_bytes: pages.next().unwrap_or(0) * page_bytes,
            resident_bytes: pages.next().unwrap_or(0) * page_bytes,
            open_files: std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count),
            files_max: limit.current.unwrap_or(0),
        }
    }
}
