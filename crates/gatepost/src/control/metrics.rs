//! Where each metric's numbers come from: counted, or looked up at the moment of asking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::Server;
use crate::admin::answers::Status;
use crate::admin::{Command, items};
use crate::backend::Report;
use crate::metrics::families;
use crate::metrics::text::{Format, Text};
use crate::net::health::Standing;
use crate::service::wheel::SessionRef;
use crate::world::World;

impl Server {
    /// Everything, in the words of Prometheus.
    pub(super) async fn metrics(self: &Arc<Self>, is_open: bool) -> Result<String, String> {
        let mut text = Text::new(if is_open { Format::OpenMetrics } else { Format::Prometheus });
        let count = |sessions_here: Vec<SessionRef>| {
            let mut sessions: BTreeMap<(&'static str, String), u64> = BTreeMap::new();
            for session in sessions_here {
                let story = session.story();
                let backend = story.backends().next_back().unwrap_or_default().to_owned();
                *sessions.entry((story.protocol.name, backend)).or_default() += 1;
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
        let mut open = text.family(&families::SESSIONS);
        for ((service, backend), count) in sessions {
            open.value([service, &backend], count);
        }
        let mut by_generation = text.family(&families::GENERATION_SESSIONS);
        by_generation.value([&self.generation.to_string()], self.entrance.workers.sessions());
        for (generation, answer) in self.ask_elders(&Command::Status).await {
            let status = items::<Status>("status", answer).ok().and_then(|mut list| list.pop());
            by_generation.value([&generation.to_string()], status.map_or(0, |status| status.sessions));
        }
        self.write_services(&world, &mut text);
        write_backends(&reports, &mut text);
        self.write_directories(&mut text);
        let guessing = self.shared.defence.banned(Instant::now()).len();
        text.family(&families::BANS).value([], self.lasting.overrides.bans().len() + guessing);
        write_certificates(&world, &mut text);
        self.write_process(&mut text);
        Ok(text.finish())
    }

    fn write_services(&self, world: &World, text: &mut Text) {
        let metrics = &self.lasting.metrics;
        let services = world.config.services.iter().map(|service| service.protocol.name);
        let services: Vec<_> = services.map(|name| (name, metrics.service(name))).collect();
        let mut family = text.family(&families::CONNECTIONS);
        for (service, listener, count) in metrics.connections() {
            family.value([service, &listener], count);
        }
        let mut family = text.family(&families::REJECTED);
        for (service, numbers) in &services {
            numbers.rejected.iter().for_each(|(why, count)| family.value([service, why.name()], count.get()));
        }
        let mut family = text.family(&families::LOG_INS);
        for (service, numbers) in &services {
            for (mechanism, result, count) in numbers.log_ins() {
                family.value([service, mechanism, result.name()], count);
            }
        }
        let mut family = text.family(&families::LOG_IN_SECONDS);
        for (service, numbers) in &services {
            numbers.stages.iter().for_each(|(stage, times)| family.buckets([service, stage.name()], times));
        }
        let mut family = text.family(&families::BYTES);
        for (service, numbers) in &services {
            family.value([service, "up"], numbers.bytes_up.get());
            family.value([service, "down"], numbers.bytes_down.get());
        }
    }

    fn write_directories(&self, text: &mut Text) {
        let metrics = &self.lasting.metrics;
        let mut family = text.family(&families::DIRECTORY_SECONDS);
        for (name, numbers) in metrics.directories() {
            numbers.answers.iter().for_each(|(answer, times)| family.buckets([&name, answer.name()], times));
        }
        let mut family = text.family(&families::CACHE);
        for (cache, numbers) in [("places", &metrics.places), ("passwords", &metrics.passwords)] {
            family.value([cache, "hit"], numbers.hits.get());
            family.value([cache, "miss"], numbers.misses.get());
        }
    }

    fn write_process(&self, text: &mut Text) {
        let workers = &self.entrance.workers;
        let mut family = text.family(&families::WORKER_BUSY);
        for (id, ratio) in workers.busy_ratios() {
            family.value([&id.to_string()], ratio);
        }
        text.family(&families::WORKERS).value([], workers.count());
        let metrics = &self.lasting.metrics;
        let mut family = text.family(&families::RELOADS);
        family.value(["ok"], metrics.reloads.get());
        family.value(["failed"], metrics.failed_reloads.get());
        text.family(&families::BUILD).value([env!("CARGO_PKG_VERSION")], 1);
        let began = self.began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        text.family(&families::START_TIME).value([], began);
        let usage = Usage::now();
        text.family(&families::CPU).value([], usage.cpu_seconds);
        text.family(&families::RESIDENT).value([], usage.resident_bytes);
        text.family(&families::VIRTUAL).value([], usage.virtual_bytes);
        text.family(&families::OPEN_FILES).value([], usage.open_files);
        text.family(&families::FILES_MAX).value([], usage.files_max);
    }
}

fn write_backends(reports: &[Report], text: &mut Text) {
    let mut family = text.family(&families::BACKEND_UP);
    for report in reports {
        for (service, _) in &report.by_service {
            let mut hosts = report.hosts.iter().filter(|host| host.service == *service);
            let is_up = report.duty.is_none() && hosts.any(|host| host.standing == Standing::Up);
            family.value([&report.name, service], u8::from(is_up));
        }
    }
    let mut family = text.family(&families::BACKEND_CONNECTIONS);
    for report in reports {
        report.by_service.iter().for_each(|(service, count)| family.value([&report.name, service], count));
    }
}

fn write_certificates(world: &World, text: &mut Text) {
    let mut ends: BTreeMap<&str, i64> = BTreeMap::new();
    for (files, certificate) in world.certificates() {
        let left = seconds_left(certificate.expires());
        let name = certificate.names().first().map(String::as_str).or(files.chain.to_str()).unwrap_or_default();
        ends.entry(name).and_modify(|known| *known = left.min(*known)).or_insert(left);
    }
    let mut family = text.family(&families::CERTIFICATE_EXPIRY);
    ends.iter().for_each(|(name, left)| family.value([name], left));
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
