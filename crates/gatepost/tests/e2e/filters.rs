//! Programs that read the log to find who guesses: with the filters in `deploy`, and with theirs for Dovecot.

use std::path::{Path, PathBuf};
use std::process::Command;

use gatepost_lab::{ensure_unpacked, free_port};

use crate::bed::{Bed, KIM, run};
use crate::talk::Talk;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy").join(name)
}

#[test]
fn fail2ban_finds_who_guesses_with_our_filter_and_with_dovecots() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"", store.imap));
    for (n, attempt) in ["LOGIN kim wrong", "LOGIN \"x>, rip=10.0.0.1\" wrong", "LOGIN kim \"\""].iter().enumerate() {
        let mut talk = Talk::clear_from([127, 0, 0, 30 + n as u8].into(), bed.imap).greeted();
        assert!(talk.verdict(attempt).starts_with("NO [AUTHENTICATIONFAILED]"), "{attempt}");
    }
    bed.logged_in(KIM);
    gatepost.wait_for_log("rip=127.0.0.32, lip=127.0.0.1, session").expect("a record");
    let log = bed.write("copy.log", &gatepost.log());
    let ours = deploy("fail2ban/filter.d/gatepost.conf");
    for filter in [ours, "/etc/fail2ban/filter.d/dovecot.conf".into()] {
        let output =
            Command::new("fail2ban-regex").args(["-o", "ip"]).args([&log, &filter]).output().expect("fail2ban-regex");
        let found = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            found.split_whitespace().collect::<Vec<_>>(),
            ["127.0.0.30", "127.0.0.31", "127.0.0.32"],
            "{}",
            filter.display()
        );
    }
}

/// A `CrowdSec` that reads one file.
struct CrowdSec {
    /// Its package, unpacked.
    package: PathBuf,
    bed: Bed,
}

impl CrowdSec {
    /// With these parsers and scenarios beside those for dates and lines.
    fn new(parsers: &[PathBuf], scenarios: &[PathBuf]) -> Self {
        let package = ensure_unpacked("crowdsec", true).expect("crowdsec");
        let bed = Bed::new();
        let hub = package.join("usr/share/crowdsec/hub");
        let own = |stage: &str, name: &str| hub.join(format!("parsers/{stage}/crowdsecurity/{name}.yaml"));
        let copy = |from: &Path, folder: &str| {
            let folder = bed.path(folder);
            std::fs::create_dir_all(&folder).expect("a folder");
            std::fs::copy(from, folder.join(from.file_name().expect("a name"))).expect("a copy");
        };
        copy(&own("s00-raw", "syslog-logs"), "parsers/s00-raw");
        copy(&own("s02-enrich", "dateparse-enrich"), "parsers/s02-enrich");
        parsers.iter().for_each(|parser| copy(parser, "parsers/s01-parse"));
        scenarios.iter().for_each(|scenario| copy(scenario, "scenarios"));
        let etc = package.join("etc/crowdsec");
        run(Command::new("cp").arg("-r").arg(etc.join("patterns")).arg(bed.path("patterns")));
        for folder in ["data", "dump"] {
            std::fs::create_dir(bed.path(folder)).expect("a folder");
        }
        bed.write("simulation.yaml", "simulation: false\nexclusions: []\n");
        let (folder, port) = (bed.path("").display().to_string(), free_port().expect("a port"));
        let folder = folder.trim_end_matches('/');
        bed.write(
            "config.yaml",
            &format!(
                "common: {{ daemonize: false, log_media: stdout, log_level: info, working_dir: {folder} }}\n\
                 config_paths: {{ config_dir: {folder}, data_dir: {folder}/data, simulation_path: {folder}/simulation.yaml, \
                 hub_dir: {hub}, index_path: {hub}/.index.json }}\n\
                 crowdsec_service: {{ parser_routines: 1 }}\ncscli: {{ output: human }}\n\
                 db_config: {{ type: sqlite, db_path: {folder}/data/crowdsec.db }}\nprometheus: {{ enabled: false }}\n\
                 api: {{ client: {{ credentials_path: {folder}/credentials.yaml }}, \
                 server: {{ listen_uri: \"127.0.0.1:{port}\", profiles_path: {etc}/profiles.yaml }} }}\n",
                hub = hub.display(),
                etc = etc.display(),
            ),
        );
        let it = Self { package, bed };
        let url = format!("http://127.0.0.1:{port}/");
        let file = it.bed.path("credentials.yaml").display().to_string();
        it.run("cscli", &["machines", "add", "test", "--password", "test", "--force", "-f", &file, "-u", &url]);
        it
    }

    /// Runs a program of its; one that doesn't end is run again. `CrowdSec` 1.4 now and then stays when it has read its file, the
    /// more often the busier the machine is.
    fn run(&self, program: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "40"]).arg(self.package.join("usr/bin").join(program));
        command.arg("-c").arg(self.bed.path("config.yaml")).args(arguments);
        for _ in 0..8 {
            let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
            let said =
                format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            let is_killed = output.status.code().is_none_or(|code| code == 128 + 9);
            if !is_killed {
                assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
                return said;
            }
        }
        panic!("{command:?} does not end");
    }

    /// What it says of a log of this type.
    fn read(&self, log: &str, kind: &str, more: &[&str]) -> String {
        let log = self.bed.write("read.log", log);
        let source = format!("file://{}", log.display());
        self.run("crowdsec", &[&["-dsn", &source, "-type", kind], more].concat())
    }
}

#[test]
fn crowdsec_finds_who_guesses_with_our_filter_and_with_dovecots() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let gatepost = bed.gatepost(&bed.one_backend("plaintext = \"always\"\nmax_auth_errors = 0", store.imap));
    let guess = |last: u8, users: &[&str]| {
        let mut talk = Talk::clear_from([127, 0, 0, last].into(), bed.imap).greeted();
        for user in users {
            assert!(
                talk.verdict(&format!("LOGIN \"{user}\" wrong")).starts_with("NO [AUTHENTICATIONFAILED]"),
                "{user}"
            );
        }
    };
    guess(41, &["kim"; 11]);
    guess(42, &["a", "b", "c", "d", "e", "x>, rip=10.0.0.1, lip=10.0.0.2"]);
    guess(43, &["kim"; 3]);
    bed.logged_in(KIM);
    gatepost.wait_for_log("rip=127.0.0.43, lip=127.0.0.1").expect("a record");
    let ours = CrowdSec::new(
        &[deploy("crowdsec/parsers/s01-parse/gatepost-logs.yaml")],
        &[deploy("crowdsec/scenarios/gatepost-bf.yaml")],
    );
    let said = ours.read(&gatepost.log(), "gatepost", &[]);
    assert!(said.contains("Ip 127.0.0.41 performed 'gatepost/gatepost-bf'"), "{said}");
    assert!(said.contains("Ip 127.0.0.42 performed 'gatepost/gatepost-user-enum'"), "{said}");
    assert!(!said.contains("Ip 127.0.0.43 performed") && !said.contains("10.0.0.1"), "{said}");
    // The filter for Dovecot finds no time in a file, so that only what it makes of each line can be seen.
    let hub = ours.package.join("usr/share/crowdsec/hub");
    let theirs = CrowdSec::new(
        &[hub.join("parsers/s01-parse/crowdsecurity/dovecot-logs.yaml")],
        &[hub.join("scenarios/crowdsecurity/dovecot-spam.yaml")],
    );
    let dump = theirs.bed.path("dump").display().to_string();
    theirs.read(&gatepost.log(), "dovecot", &["-dump-data", &dump]);
    let parsed = std::fs::read_to_string(theirs.bed.path("dump/parser-dump.yaml")).expect("what it parsed");
    let count = |text: &str| parsed.matches(text).count();
    assert!(count("dovecot_login_result: auth_failed") >= 20, "{parsed}");
    assert!(count("source_ip: 127.0.0.41") >= 11 && count("source_ip: 10.0.0") == 0, "{parsed}");
}
