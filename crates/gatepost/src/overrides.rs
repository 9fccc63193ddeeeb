//! What administrators have decided beside the configuration: back ends out of service, users moved, networks banned.
//!
//! Kept in the state folder, so that a restart forgets nothing; whom log-ins wait for is kept in memory alone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use crate::config::Network;

/// The file's name in the state folder.
const FILE_NAME: &str = "overrides.json";
/// Bans at most, and of whole networks, which every connection is compared with.
const BANS_MAX: usize = 100_000;
const NETWORK_BANS_MAX: usize = 1000;
/// A log-in that began so long before a move was found out is one that can't have known of it; and for so long no
/// remembered answer is believed.
const MOVE_MEMORY: Duration = Duration::from_mins(5);
/// Users moved at most.
const MOVED_MAX: usize = 1_000_000;

/// Why a back end takes no log-ins though nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Duty {
    /// It is being emptied.
    Draining,
    /// It is worked on.
    Maint,
}

impl Duty {
    /// As it is shown.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::Maint => "maint",
        }
    }
}

/// A network that may not connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ban {
    pub(crate) network: Network,
    /// `None`: until it is lifted.
    pub(crate) until: Option<SystemTime>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Overrides {
    place: Place,
    current: ArcSwap<Current>,
    /// Held by whoever changes something.
    changing: Mutex<()>,
    moves: Mutex<Moves>,
    /// Whether there is anybody in `moves`.
    has_moves: AtomicBool,
    /// Nothing is changed while another process takes over.
    is_closed: AtomicBool,
}

/// Where it is written down.
#[derive(Debug, Default)]
enum Place {
    #[default]
    Nowhere,
    File(PathBuf),
    /// Why nothing is changed: what is kept can't be read, and would be lost.
    Broken(String),
}

/// Users who are being moved, and those who were a short time ago.
#[derive(Debug, Default)]
struct Moves {
    /// How many moves of each are under way.
    held: HashMap<String, u32>,
    /// When the latest one began.
    since: HashMap<String, Instant>,
}

/// Everything in force, as it is looked up.
#[derive(Debug, Clone, Default)]
struct Current {
    backends: BTreeMap<String, Duty>,
    moved: HashMap<String, String>,
    /// Bans of one address, with their ends in seconds since 1970.
    addresses: HashMap<IpAddr, Option<u64>>,
    networks: Vec<(Network, Option<u64>)>,
}

/// Everything in force, as it is written.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Written {
    backends: BTreeMap<String, Duty>,
    moved: BTreeMap<String, String>,
    /// Networks, with their ends in seconds since 1970.
    bans: BTreeMap<String, Option<u64>>,
}

impl Overrides {
    /// Reads what is kept in this folder. An error says what is wrong with the file; nothing is in force then.
    pub(crate) fn load(state: &Path) -> (Self, Result<(), String>) {
        let path = state.join(FILE_NAME);
        let read = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Written>(&bytes).map_err(|error| error.to_string()).and_then(parse),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Current::default()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(current) => {
                let current = ArcSwap::from_pointee(current);
                (Self { place: Place::File(path), current, ..Self::default() }, Ok(()))
            }
            Err(error) => {
                let broken = format!("{}: can't be read: {error}", path.display());
                (Self { place: Place::Broken(broken.clone()), ..Self::default() }, Err(broken))
            }
        }
    }

    /// Whether a back end takes no log-ins, and why.
    pub(crate) fn duty(&self, backend: &str) -> Option<Duty> {
        self.current.load().backends.get(backend).copied()
    }

    /// Takes a back end out of service, or back into it.
    pub(crate) fn set_duty(&self, backend: &str, duty: Option<Duty>) -> Result<(), String> {
        self.change(|current| {
            match duty {
                Some(duty) => drop(current.backends.insert(backend.to_owned(), duty)),
                None => drop(current.backends.remove(backend)),
            }
            Ok(())
        })
    }

    /// Where a user has been moved to.
    pub(crate) fn place(&self, user: &str) -> Option<String> {
        self.current.load().moved.get(user).cloned()
    }

    /// Moves a user whatever the map says, or no more.
    pub(crate) fn set_place(&self, user: &str, backend: Option<&str>) -> Result<(), String> {
        self.change(|current| {
            match backend {
                Some(_) if current.moved.len() >= MOVED_MAX && !current.moved.contains_key(user) => {
                    return Err(format!("{MOVED_MAX} users are moved already: change the directory"));
                }
                Some(backend) => drop(current.moved.insert(user.to_owned(), backend.to_owned())),
                None => drop(current.moved.remove(user)),
            }
            Ok(())
        })
    }

    /// Whether log-ins of a user must wait.
    pub(crate) fn is_held(&self, user: &str) -> bool {
        self.has_moves.load(Ordering::Acquire) && self.moves().held.contains_key(user)
    }

    /// Whether a user has been moved since `began`, or is being moved: what was found out before may be wrong.
    pub(crate) fn was_moved_since(&self, user: &str, began: Instant) -> bool {
        if !self.has_moves.load(Ordering::Acquire) {
            return false;
        }
        let moves = self.moves();
        moves.held.contains_key(user) || moves.since.get(user).is_some_and(|since| *since >= began)
    }

    /// Whether a user was moved so lately that what is remembered may be older.
    pub(crate) fn was_moved_lately(&self, user: &str) -> bool {
        let is_recent = |since: &Instant| since.elapsed() < MOVE_MEMORY;
        self.has_moves.load(Ordering::Acquire) && self.moves().since.get(user).is_some_and(is_recent)
    }

    /// Has a user's log-ins wait. Every hold is [released](Overrides::release).
    pub(crate) fn hold(&self, user: &str) {
        let mut moves = self.moves();
        let now = Instant::now();
        *moves.held.entry(user.to_owned()).or_default() += 1;
        moves.since.insert(user.to_owned(), now);
        self.has_moves.store(true, Ordering::Release);
    }

    /// Lets a user's log-ins go on, once nobody else holds them.
    pub(crate) fn release(&self, user: &str) {
        let mut moves = self.moves();
        // What was found out until now counts as old.
        moves.since.insert(user.to_owned(), Instant::now());
        if let Some(count) = moves.held.get_mut(user) {
            *count -= 1;
            if *count == 0 {
                moves.held.remove(user);
            }
        }
    }

    /// Forgets those who were moved long ago, so that log-ins need not look. Called now and then.
    pub(crate) fn forget_moves(&self) {
        if self.has_moves.load(Ordering::Acquire) {
            let mut moves = self.moves();
            moves.since.retain(|_, since| since.elapsed() < MOVE_MEMORY);
            self.has_moves.store(!(moves.held.is_empty() && moves.since.is_empty()), Ordering::Release);
        }
    }

    /// From now on nothing is changed: another process is taking over, and would not know of it; or it is again.
    pub(crate) fn set_closed(&self, is_closed: bool) {
        // After this, nobody is changing anything any more.
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_closed.store(is_closed, Ordering::Release);
    }

    /// The ban that keeps an address out, if there is one.
    pub(crate) fn ban_of(&self, address: IpAddr) -> Option<Network> {
        let current = self.current.load();
        if current.addresses.is_empty() && current.networks.is_empty() {
            return None;
        }
        let (address, now) = (address.to_canonical(), seconds(SystemTime::now()));
        if current.addresses.get(&address).is_some_and(|until| is_on(*until, now)) {
            return Some(Network { first: address, last: address });
        }
        let networks = current.networks.iter();
        networks.filter(|(_, until)| is_on(*until, now)).map(|(network, _)| *network).find(|net| net.contains(address))
    }

    /// Every ban in force.
    pub(crate) fn bans(&self) -> Vec<Ban> {
        let (current, now) = (self.current.load(), seconds(SystemTime::now()));
        let ban = |(network, until): (Network, Option<u64>)| {
            let until = until.map(|until| UNIX_EPOCH + Duration::from_secs(until));
            Ban { network, until }
        };
        let mut bans: Vec<_> = current.bans().filter(|(_, until)| is_on(*until, now)).map(ban).collect();
        bans.sort_by_key(|ban| (ban.network.first, ban.network.last));
        bans
    }

    /// Keeps a network out.
    pub(crate) fn ban(&self, network: Network, until: Option<SystemTime>) -> Result<(), String> {
        let until = until.map(seconds);
        self.change(|current| {
            current.expire(seconds(SystemTime::now()));
            // A ban that is in force already gets another end.
            current.lift(network);
            if current.addresses.len() + current.networks.len() >= BANS_MAX {
                return Err(format!("{BANS_MAX} bans are in force already"));
            }
            if network.first == network.last {
                current.addresses.insert(network.first.to_canonical(), until);
                return Ok(());
            }
            if current.networks.len() >= NETWORK_BANS_MAX {
                return Err(format!("{NETWORK_BANS_MAX} networks are banned already: use access rules for more"));
            }
            current.networks.push((network, until));
            Ok(())
        })
    }

    /// Lifts the ban of exactly this network; false: there is none.
    pub(crate) fn lift(&self, network: Network) -> Result<bool, String> {
        let mut is_found = false;
        self.change(|current| {
            is_found = current.lift(network);
            Ok(())
        })?;
        Ok(is_found)
    }

    fn moves(&self) -> MutexGuard<'_, Moves> {
        self.moves.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something once it is written down; what can't be written is not done either.
    fn change(&self, work: impl FnOnce(&mut Current) -> Result<(), String>) -> Result<(), String> {
        let path = match &self.place {
            Place::Nowhere => None,
            Place::File(path) => Some(path),
            Place::Broken(broken) => {
                return Err(format!("{broken}: mend it or remove it, and start again, so that nothing is lost"));
            }
        };
        let _one_at_a_time = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_closed.load(Ordering::Acquire) {
            return Err("a newer process is taking over: ask that one".into());
        }
        let mut next = Current::clone(&self.current.load());
        work(&mut next)?;
        if let Some(path) = path {
            write(path, &next.written()).map_err(|error| format!("{}: can't be written: {error}", path.display()))?;
        }
        self.current.store(next.into());
        Ok(())
    }
}

impl Current {
    fn bans(&self) -> impl Iterator<Item = (Network, Option<u64>)> {
        let addresses = self.addresses.iter().map(|(address, until)| {
            let network = Network { first: *address, last: *address };
            (network, *until)
        });
        addresses.chain(self.networks.iter().copied())
    }

    /// Forgets the ban of exactly this network; false: there is none.
    fn lift(&mut self, network: Network) -> bool {
        let before = self.addresses.len() + self.networks.len();
        self.networks.retain(|(known, _)| *known != network);
        if network.first == network.last {
            self.addresses.remove(&network.first.to_canonical());
        }
        self.addresses.len() + self.networks.len() < before
    }

    fn expire(&mut self, now: u64) {
        self.addresses.retain(|_, until| is_on(*until, now));
        self.networks.retain(|(_, until)| is_on(*until, now));
    }

    fn written(&self) -> Written {
        Written {
            backends: self.backends.clone(),
            moved: self.moved.iter().map(|(user, place)| (user.clone(), place.clone())).collect(),
            bans: self.bans().map(|(network, until)| (network.to_string(), until)).collect(),
        }
    }
}

fn parse(written: Written) -> Result<Current, String> {
    let Written { backends, moved, bans } = written;
    let mut current = Current { backends, moved: moved.into_iter().collect(), ..Current::default() };
    for (network, until) in bans {
        let network = Network::parse(&network).ok_or_else(|| format!("{network:?} is no network"))?;
        if network.first == network.last {
            current.addresses.insert(network.first, until);
        } else {
            current.networks.push((network, until));
        }
    }
    Ok(current)
}

/// Writes the whole file anew.
fn write(path: &Path, written: &Written) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    crate::whole_file::write(path, &serde_json::to_vec_pretty(written)?, |_| Ok(()))
}

fn is_on(until: Option<u64>, now: u64) -> bool {
    until.is_none_or(|until| until > now)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(text: &str) -> Network {
        Network::parse(text).expect("a network")
    }

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn decisions_outlive_a_restart() {
        let folder = tempfile::tempdir().expect("a folder");
        let load = || {
            let (overrides, result) = Overrides::load(&folder.path().join("state"));
            result.expect("a sound file");
            overrides
        };
        let overrides = load();
        overrides.set_duty("store-a", Some(Duty::Draining)).expect("written");
        overrides.set_place("kim", Some("store-b")).expect("written");
        overrides.ban(network("192.0.2.0/24"), None).expect("written");
        overrides.ban(network("2001:db8::1"), Some(SystemTime::now() + Duration::from_hours(1))).expect("written");
        let again = load();
        assert_eq!((again.duty("store-a"), again.duty("store-b")), (Some(Duty::Draining), None));
        assert_eq!(again.place("kim").as_deref(), Some("store-b"));
        assert_eq!(again.bans(), overrides.bans());
        assert_eq!(again.bans().len(), 2);
        again.set_duty("store-a", None).expect("written");
        again.set_place("kim", None).expect("written");
        assert_eq!((load().duty("store-a"), load().place("kim")), (None, None));
    }

    #[test]
    fn bans_hold_for_their_time_and_can_be_lifted() {
        let overrides = Overrides::default();
        let (past, soon) = (SystemTime::now() - Duration::from_secs(2), SystemTime::now() + Duration::from_mins(1));
        overrides.ban(network("192.0.2.7"), Some(soon)).expect("done");
        overrides.ban(network("198.51.100.0/24"), Some(past)).expect("done");
        overrides.ban(network("10.0.0.5-10.0.0.9"), None).expect("done");
        assert_eq!(overrides.ban_of(address("::ffff:192.0.2.7")), Some(network("192.0.2.7")));
        assert_eq!(overrides.ban_of(address("198.51.100.1")), None, "its time is over");
        assert_eq!(overrides.ban_of(address("10.0.0.6")), Some(network("10.0.0.5-10.0.0.9")));
        assert_eq!(overrides.ban_of(address("10.0.0.10")), None);
        assert_eq!(overrides.lift(network("10.0.0.6")), Ok(false));
        assert_eq!(overrides.lift(network("10.0.0.5-10.0.0.9")), Ok(true));
        assert_eq!(overrides.lift(network("192.0.2.7")), Ok(true));
        assert_eq!(overrides.ban_of(address("10.0.0.6")), None);
    }

    #[test]
    fn what_cannot_be_written_is_not_done() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("state"), "a file in its place").expect("a file");
        let (overrides, result) = Overrides::load(&folder.path().join("state"));
        assert!(result.is_err());
        assert!(overrides.set_duty("store-a", Some(Duty::Maint)).is_err());
        assert_eq!(overrides.duty("store-a"), None);
    }

    #[test]
    fn a_file_with_a_mistake_is_not_written_over() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, "{ \"moved\": { \"kim\": \"b\", } }").expect("a file");
        let (overrides, result) = Overrides::load(folder.path());
        assert!(result.is_err());
        let refusal = overrides.ban(network("192.0.2.1"), None).expect_err("a refusal");
        assert!(refusal.contains("mend it"), "{refusal}");
        assert!(std::fs::read_to_string(&path).expect("a file").contains("kim"));
    }

    #[test]
    fn a_moved_users_old_answers_are_known() {
        let overrides = Overrides::default();
        let before = Instant::now();
        assert!(!overrides.was_moved_since("kim", before));
        overrides.hold("kim");
        overrides.hold("kim");
        overrides.release("kim");
        assert!(
            overrides.is_held("kim") && overrides.was_moved_since("kim", Instant::now()),
            "another one is under way"
        );
        overrides.release("kim");
        assert!(
            !overrides.is_held("kim") && overrides.was_moved_since("kim", before) && overrides.was_moved_lately("kim")
        );
        assert!(!overrides.was_moved_since("kim", Instant::now() + Duration::from_millis(1)));
        assert!(!overrides.was_moved_since("lee", before));
    }
}
