//! What a process and its descendants have used, from /proc.

use std::io;
use std::time::Duration;

/// The kernel counts processor time in these (`getconf CLK_TCK`, 100 on every Linux in use).
const TICK: Duration = Duration::from_millis(10);

/// The process and all below it.
fn tree(root: u32) -> io::Result<Vec<u32>> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
            parents.push((pid, parent));
        }
    }
    let mut members = vec![root];
    let mut next = 0;
    while let Some(&parent) = members.get(next) {
        members.extend(parents.iter().filter(|(_, known)| *known == parent).map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(members)
}

/// The fields of /proc/PID/stat behind the command's name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(text.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}

/// Processor time of the whole tree, user and system.
pub(crate) fn cpu(root: u32) -> io::Result<Duration> {
    let ticks = |pid: u32| {
        let fields = stat(pid)?;
        // Its own, user and system, and that of children which have ended.
        fields.get(11..15)?.iter().map(|ticks| ticks.parse::<u32>().ok()).sum::<Option<u32>>()
    };
    Ok(TICK * tree(root)?.into_iter().filter_map(ticks).sum::<u32>())
}

/// Memory of the whole tree, shared pages divided among those who share them.
pub(crate) fn pss_kib(root: u32) -> io::Result<u64> {
    let pss = |pid: u32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Ok(tree(root)?.into_iter().filter_map(pss).sum())
}
