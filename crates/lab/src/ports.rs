//! Free ports that no other test is given at the same time.

use std::fs::OpenOptions;
use std::io::{Read as _, Seek as _, Write as _};
use std::net::TcpListener;

use crate::{Result, context};

/// Below the range from which the kernel takes the ports of outgoing connections.
const RANGE: std::ops::Range<u16> = 20_000..32_000;

/// A port of 127.0.0.1 on which nothing listens.
pub fn free_port() -> Result<u16> {
    free_ports::<1>().map(|[port]| port)
}

/// Several such ports. A counter in a locked file sees to it that programs running side by side get
/// different ones.
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let path = std::env::temp_dir().join(format!("gatepost-lab-ports-{}", rustix::process::getuid().as_raw()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = context(file, path.display())?;
    context(rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive), path.display())?;
    let mut text = String::new();
    context(file.read_to_string(&mut text), path.display())?;
    let mut next = text.trim().parse().ok().filter(|port| RANGE.contains(port)).unwrap_or(RANGE.start);
    let mut ports = [0; N];
    for port in &mut ports {
        let mut tries = 0;
        while TcpListener::bind(("127.0.0.1", next)).is_err() {
            tries += 1;
            if tries > RANGE.len() {
                return Err("no port of 127.0.0.1 is free".into());
            }
            next = following(next);
        }
        *port = next;
        next = following(next);
    }
    context(file.rewind().and_then(|()| file.set_len(0)).and_then(|()| write!(file, "{next}")), path.display())?;
    Ok(ports)
}

fn following(port: u16) -> u16 {
    if port + 1 < RANGE.end { port + 1 } else { RANGE.start }
}
