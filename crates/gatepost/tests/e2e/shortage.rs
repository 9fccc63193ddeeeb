//! A disk that is full, and a clock that is a day off: whoever is there stays, whoever comes gets in, and nothing is lost.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gatepost_lab::{Dovecot, Process, free_port, wait_for, wait_for_port};
use serde_json::Value;

use crate::bed::{Bed, KIM, binary, run};

/// Asks the API of a Gatepost at this port.
struct Api {
    port: u16,
    token: String,
}

impl Api {
    fn post(&self, path: &str, body: &str) -> Value {
        let text = run(Command::new("curl").args(["--silent", "--max-time", "20", "--request", "POST"]).args([
            "--header",
            &format!("Authorization: Bearer {}", self.token),
            "--header",
            "Content-Type: application/json",
            "--data",
            body,
            &format!("http://127.0.0.1:{}/api/v1{path}", self.port),
        ]));
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    fn set_greeting(&self, text: &str) -> Value {
        let change = serde_json::json!({ "table": ["imap"], "key": "greeting", "value": format!("{text:?}") });
        self.post("/settings/apply", &serde_json::json!({ "changes": [change] }).to_string())
    }
}

/// One back end, an API, and the state in a folder of its own.
fn configuration(bed: &Bed, imap: u16, console: u16) -> String {
    let (state, socket) = (bed.path("state"), bed.path("admin.sock"));
    format!(
        "state = {state:?}\n{}[admin]\nlisten = \"127.0.0.1:{console}\"\nsocket = {socket:?}\n",
        bed.one_backend("", imap)
    )
}

/// A bed with a back end and a configuration, and the API that it will have.
fn begin() -> (Bed, Dovecot, Api) {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let port = free_port().expect("a port");
    bed.write("gatepost.toml", &configuration(&bed, store.imap, port));
    let token = bed.said(&["admin", "token", "test", "--role", "admin"]).trim().to_owned();
    (bed, store, Api { port, token })
}

fn file(bed: &Bed) -> String {
    std::fs::read_to_string(bed.path("gatepost.toml")).expect("a file")
}

#[test]
fn a_full_disk_keeps_nobody_out_and_what_cannot_be_kept_is_not_done() {
    let (bed, _store, api) = begin();
    // A small disk of its own, which is full as long as a file says so.
    let script = "set -e\nmount -t tmpfs -o size=512k,mode=0700 tmpfs \"$1/state\"\ncp \"$1/administrators.json\" \"$1/state/\"\n\
        (while [ -e \"$1/gatepost.toml\" ]; do\n\
           if [ -e \"$1/full\" ] && [ ! -e \"$1/is-full\" ]; then cat /dev/zero > \"$1/state/fill\" 2>/dev/null || : > \"$1/is-full\"; fi\n\
           if [ ! -e \"$1/full\" ] && [ -e \"$1/is-full\" ]; then rm \"$1/state/fill\" \"$1/is-full\"; fi\n\
           sleep 0.05\n\
         done) &\nexec \"$2\" serve --config \"$1/gatepost.toml\"\n";
    std::fs::rename(bed.path("state/administrators.json"), bed.path("administrators.json")).expect("a file");
    let [folder, program] = [&bed.path(""), binary()].map(|path| path.display().to_string());
    let arguments = ["--map-root-user", "--mount", "sh", "-c", script, "sh", folder.trim_end_matches('/'), &program];
    let mut gatepost =
        Process::start(Path::new("unshare"), &arguments, &bed.path("gatepost.log"), false).expect("gatepost");
    wait_for_port(api.port, Duration::from_secs(20)).expect("gatepost");
    let log = || std::fs::read_to_string(bed.path("gatepost.log")).unwrap_or_default();
    let mut kept = bed.logged_in(KIM);
    let set_full = |is_full: bool| {
        if is_full {
            bed.write("full", "");
        } else {
            std::fs::remove_file(bed.path("full")).expect("a file");
        }
        wait_for(|| bed.path("is-full").exists() == is_full).expect("a disk that is as it should be");
    };
    set_full(true);
    assert!(kept.verdict("NOOP").starts_with("OK"));
    drop(bed.logged_in(KIM));
    let before = file(&bed);
    for arguments in [&["maint", "store"][..], &["bans", "add", "192.0.2.0/24"], &["move", "kim", "store"]] {
        let output = bed.command(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains("No space left on device"), "{arguments:?}: {said}");
    }
    let answer = api.set_greeting("never said");
    assert!(answer["error"].as_str().is_some_and(|error| error.contains("No space left")), "{answer}");
    assert_eq!((file(&bed), &bed.list(&["backends"])[0]["state"]), (before.clone(), &"up".into()));
    assert_eq!(bed.list(&["bans"]).len(), 0);
    drop(bed.logged_in(KIM));
    set_full(false);
    bed.said(&["bans", "add", "192.0.2.0/24"]);
    bed.said(&["maint", "store"]);
    bed.said(&["ready", "store"]);
    assert!(api.set_greeting("Hello.")["apply"].is_array() && file(&bed) != before);
    api.post("/settings/undo", "{}");
    assert_eq!(file(&bed), before);
    assert!(kept.verdict("NOOP").starts_with("OK"));
    // At the end, what can't be written is said, and nobody waits for it.
    set_full(true);
    drop((kept, bed.logged_in(KIM)));
    bed.list(&["stop"]);
    assert!(gatepost.wait(Duration::from_secs(20)).expect("an end").success(), "{}", log());
    assert!(log().contains("the reports can't be written") && log().contains("Gatepost has stopped"), "{}", log());
    std::fs::remove_file(bed.path("full")).expect("a file");
}

/// A clock for one program, that can be set while it runs.
struct Clock {
    offset: PathBuf,
    library: PathBuf,
}

impl Clock {
    fn new(bed: &Bed) -> Self {
        let library = bed.path("clock.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/clock.c");
        run(Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source));
        let it = Self { offset: bed.path("clock"), library };
        it.set(0);
        it
    }

    /// What the program must have in its environment.
    fn variables(&self) -> [String; 2] {
        [format!("CLOCK_OFFSET={}", self.offset.display()), format!("LD_PRELOAD={}", self.library.display())]
    }

    fn set(&self, days: i64) {
        let file = std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(&self.offset);
        let bytes = (days * 24 * 3600).to_ne_bytes();
        std::os::unix::fs::FileExt::write_all_at(&file.expect("a file"), &bytes, 0).expect("a file");
    }
}

#[test]
fn a_clock_that_is_a_day_off_harms_neither_sessions_nor_settings() {
    let (bed, _store, api) = begin();
    let clock = Clock::new(&bed);
    let [program, config] = [binary(), &bed.path("gatepost.toml")].map(|path| path.display().to_string());
    let [offset, library] = clock.variables();
    let arguments = [&offset, &library, &program, "serve", "--config", &config];
    let _gatepost = Process::start(Path::new("env"), &arguments, &bed.path("gatepost.log"), false).expect("gatepost");
    wait_for_port(api.port, Duration::from_secs(20)).expect("gatepost");
    let log = || std::fs::read_to_string(bed.path("gatepost.log")).unwrap_or_default();
    let today = || log().lines().last().and_then(|line| line.get(..10).map(str::to_owned)).unwrap_or_default();
    let mut kept = bed.logged_in(KIM);
    bed.said(&["bans", "add", "192.0.2.0/24", "--for", "1h"]);
    let original = file(&bed);
    assert!(api.set_greeting("One.")["apply"].is_array());
    let first = file(&bed);
    let set_clock = |days: i64| {
        let before = today();
        clock.set(days);
        drop(bed.logged_in(KIM));
        wait_for(|| today() != before).unwrap_or_else(|_| panic!("the clock is not {days} days off: {}", log()));
    };
    set_clock(-1);
    assert!(kept.verdict("NOOP").starts_with("OK"));
    drop(bed.logged_in(KIM));
    assert_eq!(bed.list(&["bans"]).len(), 1);
    // What was changed last is what is taken back first, whatever the clock said.
    assert!(api.set_greeting("Two.")["apply"].is_array());
    assert!(api.post("/settings/undo", "{}")["undo"].is_array());
    assert_eq!(file(&bed), first);
    assert!(api.post("/settings/undo", "{}")["undo"].is_array());
    assert_eq!(file(&bed), original);
    set_clock(1);
    assert!(kept.verdict("NOOP").starts_with("OK"));
    drop(bed.logged_in(KIM));
    assert_eq!(bed.list(&["bans"]).len(), 0, "its hour is over");
    let session = &bed.list(&["sessions"])[0];
    assert_eq!(session["user"], "kim");
    clock.set(0);
    drop(bed.logged_in(KIM));
    assert!(kept.verdict("NOOP").starts_with("OK"));
    assert!(!log().contains("panicked"), "{}", log());
}
