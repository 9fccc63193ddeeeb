//! What administrators do to a running server: sessions, back ends out of service, moves, bans, traces.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_lab::{Dovecot, Gatepost};

use crate::bed::{Bed, KIM, LEE};

/// What a command that fails complains of.
fn refusal(bed: &Bed, arguments: &[&str]) -> String {
    let output = bed.command(arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Two back ends that hold everybody's mail, and Gatepost with this map and these directories before them.
struct Site {
    configuration: String,
    a: Dovecot,
    b: Dovecot,
    gatepost: Gatepost,
    bed: Bed,
}

impl Site {
    fn new(map: &str) -> Self {
        let bed = Bed::new();
        let [a, b] = ["a", "b"].map(|name| bed.dovecot(name, &[KIM, LEE]));
        let configuration = bed.configuration(&format!(
            "[imap.backend]\ntls = \"none\"\n{map}\n[backend.a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
             [backend.b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n",
            a.imap, b.imap
        ));
        bed.write("users", "kim:::::::host=a\nlee:::::::host=b\n");
        bed.write("gatepost.toml", &configuration);
        if map.contains("people.db") {
            bed.said(&["user", "add", "kim", "--backend", "a"]);
        }
        let gatepost = bed.gatepost(&configuration);
        Self { configuration, a, b, gatepost, bed }
    }

    fn restart(self) -> Self {
        let Self { bed, configuration, a, b, gatepost } = self;
        drop(gatepost);
        let gatepost = bed.gatepost(&configuration);
        Self { configuration, a, b, gatepost, bed }
    }
}

const FILE: &str = "[map]\ndirectories = [\"file\"]\n[directory.file]\ntype = \"passwd-file\"\npath = \"users\"\n";
const PEOPLE: &str =
    "[map]\ndirectories = [\"people\"]\n[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n";
const SPREAD: &str = "[map]\nspread = { a = 1, b = 1 }\n";

#[test]
fn sessions_are_listed_and_ended() {
    let site = Site::new(FILE);
    let mut kim = site.bed.logged_in(KIM);
    let mut lee = site.bed.logged_in(LEE);
    let mut stranger = site.bed.clear();
    stranger.command("CAPABILITY");
    let sessions = site.bed.list(&["sessions"]);
    let states: Vec<_> = sessions.iter().map(|session| session["state"].as_str().unwrap_or("")).collect();
    assert_eq!(states.iter().filter(|state| **state == "open").count(), 2, "{states:?}");
    assert_eq!(states.iter().filter(|state| **state == "log-in").count(), 1, "{states:?}");
    kim.command("NOOP");
    let of_kim = site.bed.list(&["sessions", "--user", "KIM"]);
    let [session] = &of_kim[..] else { panic!("{of_kim:?}") };
    assert_eq!(
        (&session["user"], &session["backend"], &session["service"]),
        (&"kim".into(), &"a".into(), &"imap".into())
    );
    assert_eq!(session["host"], format!("127.0.0.1:{}", site.a.imap));
    assert!(session["tls"].as_str().is_some_and(|tls| tls.starts_with("TLSv1.3")), "{session}");
    assert!(session["bytes_up"].as_u64().is_some_and(|count| count > 0), "{session}");
    let id = session["id"].as_str().expect("an id");
    // What people read names the same session, and holds nothing that only a terminal understands.
    let table = site.bed.said(&["sessions"]);
    assert!(table.contains(id) && table.starts_with("ID ") && !table.contains('\u{1b}'), "{table}");
    assert_eq!(site.bed.list(&["kick", id]).len(), 1);
    let last = kim.rest();
    assert!(last.contains("* BYE"), "{last}");
    site.gatepost.wait_for_log("ended by an administrator").expect("the session's record");
    lee.command("NOOP");
    assert_eq!(site.bed.list(&["kick", "--backend", "b"]).len(), 1);
    assert!(lee.rest().contains("* BYE"));
    // One that is not logged in yet goes by the same word.
    assert_eq!(site.bed.list(&["kick", "--service", "imap"]).len(), 1);
    assert!(stranger.rest().contains("* BYE"));
    // One that was told is still listened to for a moment.
    gatepost_lab::wait_for(|| site.bed.list(&["sessions"]).is_empty()).expect("nobody is left");
    let is_told_of_all = || site.gatepost.log().matches("ended by an administrator").count() == 3;
    gatepost_lab::wait_for(is_told_of_all).expect("each one's record says who ended it");
    assert!(refusal(&site.bed, &["kick", id]).contains("there is no session"));
    assert_eq!(site.bed.command(&["kick"]).status.code(), Some(2), "everybody is never meant by saying nothing");
}

#[test]
fn a_drained_back_end_empties_while_users_go_elsewhere() {
    let site = Site::new(SPREAD);
    let mut kim = site.bed.logged_in(KIM);
    let home = site.bed.list(&["sessions"])[0]["backend"].as_str().expect("a back end").to_owned();
    let away = if home == "a" { "b" } else { "a" };
    kim.command("NOOP");
    let drained = std::thread::scope(|threads| {
        let waiting = threads.spawn(|| site.bed.list(&["drain", &home, "--over", "4s", "--wait"]));
        assert!(kim.rest().contains("* BYE"));
        waiting.join().expect("a thread")
    });
    assert_eq!((&drained[0]["state"], &drained[0]["sessions"]), (&"draining".into(), &1.into()));
    let _kim = site.bed.logged_in(KIM);
    assert_eq!(site.bed.list(&["sessions"])[0]["backend"], away);
    // It is remembered over a restart, and said by whoever explains.
    let site = site.restart();
    let states = |bed: &Bed| -> Vec<_> { bed.list(&["backends"]).iter().map(|b| b["state"].clone()).collect() };
    let expected = if home == "a" { ["draining", "up"] } else { ["up", "draining"] };
    assert_eq!(states(&site.bed), expected);
    assert!(site.bed.said(&["explain", "kim"]).contains(&format!("back end {away}")));
    site.bed.list(&["ready", &home]);
    assert_eq!(states(&site.bed), ["up", "up"]);
    let _kim = site.bed.logged_in(KIM);
    assert_eq!(site.bed.list(&["sessions"])[0]["backend"], home.as_str());
    assert!(refusal(&site.bed, &["drain", "c"]).contains("which has a, b"));
}

#[test]
fn a_drain_cuts_who_never_pauses_at_its_end_and_a_change_of_mind_stops_it() {
    let site = Site::new(FILE);
    let mut kim = site.bed.logged_in(KIM);
    kim.goes_on();
    site.bed.list(&["drain", "a", "--over", "1h"]);
    site.bed.list(&["ready", "a"]);
    // Longer than a session must be quiet to be asked to go.
    std::thread::sleep(Duration::from_secs(3));
    kim.goes_on();
    // A command that is never finished: there is no safe point.
    kim.send("a1 SELECT ");
    site.bed.list(&["drain", "a", "--over", "2s"]);
    assert!(!kim.rest().contains("* BYE"), "nothing is said into the middle of a command");
}

#[test]
fn a_back_end_in_maintenance_takes_nobody_and_says_so() {
    let site = Site::new(FILE);
    let mut kim = site.bed.logged_in(KIM);
    kim.command("NOOP");
    site.bed.list(&["maint", "a"]);
    assert!(kim.rest().contains("* BYE"));
    let mut again = site.bed.secure();
    let answer = again.try_log_in(KIM);
    assert!(answer.contains("NO [UNAVAILABLE]"), "{answer}");
    site.gatepost.wait_for_log("out of service (maint)").expect("the reason");
    let explained = site.bed.command(&["explain", "kim"]);
    let steps = String::from_utf8_lossy(&explained.stdout);
    assert!(!explained.status.success() && steps.contains("out of service (maint)"), "{explained:?}");
    site.bed.logged_in(LEE);
    site.bed.list(&["ready", "a"]);
    site.bed.logged_in(KIM);
}

#[test]
fn a_user_moves_with_all_sessions_and_the_directory_knows() {
    let site = Site::new(PEOPLE);
    let mut kim = site.bed.logged_in(KIM);
    kim.command("NOOP");
    let moved = site.bed.list(&["move", "kim", "b"]);
    assert_eq!(
        (&moved[0]["from"], &moved[0]["kept"], &moved[0]["ended"]),
        (&"a".into(), &"directory people".into(), &1.into())
    );
    assert!(kim.rest().contains("* BYE"));
    site.bed.logged_in(KIM);
    site.b.wait_for_log("user=<kim>").expect("a log-in at the new place");
    assert!(site.bed.said(&["user", "list"]).contains('b'));
    assert!(refusal(&site.bed, &["move", "nobody", "b"]).contains("nobody knows"));
    assert!(refusal(&site.bed, &["move", "kim", "c"]).contains("there is no back end"));
}

#[test]
fn a_move_that_the_directory_cannot_note_is_kept_in_the_state() {
    let site = Site::new(FILE);
    let moved = site.bed.list(&["move", "kim", "b"]);
    assert_eq!((&moved[0]["kept"], &moved[0]["ended"]), (&"state".into(), &0.into()));
    let site = site.restart();
    site.bed.logged_in(KIM);
    site.b.wait_for_log("user=<kim>").expect("a log-in at the new place");
    let explained = site.bed.said(&["explain", "kim"]);
    assert!(explained.contains("where an administrator has moved this user"), "{explained}");
}

#[test]
fn a_banned_network_is_cut_off_until_the_ban_is_lifted() {
    let site = Site::new(FILE);
    let mut kim = site.bed.logged_in(KIM);
    kim.command("NOOP");
    let banned = site.bed.list(&["bans", "add", "127.0.0.0/8", "--for", "1h"]);
    assert_eq!(banned[0]["ended"], 1);
    assert!(kim.rest().contains("* BYE"));
    let mut refused = crate::talk::Talk::clear(site.bed.imap);
    assert!(refused.rest().starts_with("* BYE"));
    site.gatepost.wait_for_log("denied by the ban of 127.0.0.0/8").expect("the reason");
    let bans = site.bed.list(&["bans"]);
    assert_eq!((&bans[0]["network"], &bans[0]["by"]), (&"127.0.0.0/8".into(), &"administrator".into()));
    assert!(bans[0]["until"].is_string());
    let site = site.restart();
    assert!(crate::talk::Talk::clear(site.bed.imap).rest().starts_with("* BYE"), "a restart forgives nobody");
    assert!(refusal(&site.bed, &["bans", "remove", "10.0.0.0/8"]).contains("there is no ban"));
    assert_eq!(site.bed.list(&["bans", "remove", "127.0.0.0/8"])[0]["lifted"], 1);
    site.bed.logged_in(KIM);
    assert!(site.bed.said(&["bans"]).contains("nobody is banned"));
    assert!(refusal(&site.bed, &["bans", "add", "10.0.0.0/99"]).contains("expected a network"));
}

#[test]
fn a_ban_for_guessing_is_listed_and_lifted_too() {
    let defence = "[defence]\nfailures_per_ip = 1\nfailures_per_user = 5\ndelay = \"0s\"\n";
    let site = Site::new(&format!("{FILE}{defence}"));
    let mut guess = site.bed.secure();
    assert!(guess.verdict("LOGIN kim wrong").contains("NO [AUTHENTICATIONFAILED]"));
    let bans = site.bed.list(&["bans"]);
    assert_eq!((&bans[0]["network"], &bans[0]["by"]), (&"127.0.0.1".into(), &"guessing".into()));
    assert!(crate::talk::Talk::clear(site.bed.imap).rest().starts_with("* BYE"));
    site.bed.list(&["bans", "remove", "127.0.0.1"]);
    site.bed.logged_in(KIM);
}

#[test]
fn one_users_conversations_are_logged_without_their_secrets() {
    let site = Site::new(FILE);
    site.bed.list(&["trace", "kim", "--for", "1m"]);
    site.bed.logged_in(LEE);
    site.bed.logged_in(KIM);
    // Both are over: what is logged of kim is all there.
    let ends = || site.gatepost.log().matches("session ended").count();
    gatepost_lab::wait_for(|| ends() == 2).expect("two records");
    let log = site.gatepost.log();
    let protocol: Vec<_> = log.lines().filter(|line| line.contains(": Protocol: ")).collect();
    assert!(
        protocol.iter().any(|line| line.contains("C: ")) && protocol.iter().any(|line| line.contains("S: ")),
        "{log}"
    );
    assert!(protocol.iter().any(|line| line.contains("with=\"back end\"")), "both conversations: {log}");
    let plain = STANDARD.encode(format!("\0{}\0{}", KIM.user, KIM.password));
    assert!([KIM.password, LEE.password, &plain].iter().all(|secret| !log.contains(secret)), "{log}");
    let sessions: std::collections::HashSet<_> =
        protocol.iter().filter_map(|line| line.split("session=").nth(1)).collect();
    assert_eq!(sessions.len(), 1, "kim's alone: {log}");
    site.bed.list(&["trace", "kim", "--off"]);
    site.bed.logged_in(KIM);
    gatepost_lab::wait_for(|| ends() == 3).expect("a third record");
    let after = site.gatepost.log();
    assert_eq!(after.lines().filter(|line| line.contains(": Protocol: ")).count(), protocol.len());
}

#[test]
fn the_log_level_changes_until_the_next_reload() {
    let site = Site::new(FILE);
    let is_logged = |user| {
        let before = site.gatepost.log().len();
        site.bed.logged_in(user);
        gatepost_lab::wait_for(|| site.gatepost.log()[before..].contains("session ended")).expect("a record");
        site.gatepost.log()[before..].contains(": Protocol: ")
    };
    assert!(!is_logged(KIM));
    site.bed.list(&["log-level", "protocol"]);
    assert!(is_logged(KIM));
    site.bed.list(&["log-level", "info"]);
    assert!(!is_logged(KIM));
    site.bed.list(&["log-level", "protocol"]);
    site.bed.list(&["reload"]);
    assert!(!is_logged(KIM));
    assert_eq!(site.bed.command(&["log-level", "loud"]).status.code(), Some(2));
}

#[test]
fn what_happened_is_reported_and_outlives_a_restart() {
    let site = Site::new(FILE);
    drop(site.bed.logged_in(KIM));
    assert!(site.bed.secure().verdict("LOGIN kim wrong").contains("AUTHENTICATIONFAILED"));
    site.bed.list(&["bans", "add", "127.0.0.3"]);
    drop(crate::talk::Talk::clear_from([127, 0, 0, 3].into(), site.bed.imap).rest());
    // A second has passed, in which somebody looked how many there were.
    let _kim = site.bed.logged_in(KIM);
    let row = |bed: &Bed, arguments: &[&str]| bed.list(arguments).pop().expect("a row");
    gatepost_lab::wait_for(|| row(&site.bed, &["report"])["peak_sessions"].as_u64() >= Some(1)).expect("a peak");
    let report = row(&site.bed, &["report", "--hourly", "--days", "1"]);
    assert_eq!((&report["service"], &report["logins"], &report["failures"]), (&"imap".into(), &2.into(), &1.into()));
    assert_eq!((&report["rejected"][0]["reason"], &report["rejected"][0]["count"]), (&"ban".into(), &1.into()));
    let site = site.restart();
    assert_eq!(row(&site.bed, &["report"])["logins"], 2);
    let csv = site.bed.said(&["report", "--csv"]);
    assert!(csv.starts_with("from,service,connections,") && csv.lines().count() == 2 && csv.contains("ban 1"), "{csv}");
    assert!(site.bed.said(&["report"]).contains("TURNED AWAY"));
}

#[test]
fn certificates_are_listed_with_their_end() {
    let site = Site::new(FILE);
    let certificates = site.bed.list(&["certificates"]);
    let [certificate] = &certificates[..] else { panic!("{certificates:?}") };
    assert_eq!(certificate["names"][0], "localhost");
    assert!(certificate["days_left"].as_i64().is_some() && certificate["until"].is_string(), "{certificate}");
    assert!(site.bed.said(&["certificates"]).contains("localhost"));
    let record = {
        site.bed.list(&["ready", "a"]);
        site.gatepost.wait_for_log("a command is carried out").expect("every change has its record")
    };
    assert!(record.contains("ready") && record.contains("uid"), "{record}");
}
