//! The map over directories that say what they are told to say.

use super::*;
use crate::directory::scripted::{Scripted, abilities};
use crate::directory::{KeptSecret, Location};
use crate::overrides::{Duty, Overrides};
use gatepost_wire::PROTOCOLS;

/// Two back ends, and what is said of the map.
fn map_of(said: &str, directories: &[(&str, &Arc<Scripted>, bool)]) -> Map {
    let text = format!(
        "[imap]\n[[imap.listener]]\naddress = \"127.0.0.1:1143\"\ntls = \"none\"\n[map]\n{said}\n\
         [backend.a]\nhost = \"127.0.0.1\"\n[backend.b]\nhost = \"127.0.0.1\"\n"
    );
    let draft = config::parse(std::path::Path::new("gatepost.toml"), &text).expect("a file");
    let config = draft.sound().unwrap_or_else(|problems| panic!("{problems}")).config;
    let (states, overrides) = (Arc::default(), Arc::new(Overrides::default()));
    let mut problems = Vec::new();
    let backends = Backends::open(&config, &states, &overrides, &mut Vec::new(), &mut problems);
    assert_eq!(problems, []);
    let authenticators = directories.iter().map(|(name, directory, finds)| {
        let times = config::Cache { verified: Duration::ZERO, ..config.map.cache };
        let directory = Arc::clone(directory) as _;
        Arc::new(Authenticator::new(name, abilities(*finds), directory, times, &Arc::default()))
    });
    let authenticators = authenticators.collect();
    let log = Logger::start(&config::Log::QUIET).expect("a log");
    let checker = Checker::new(tokio::runtime::Handle::current());
    Map::new(&config.map, &config.names, authenticators, backends, checker, log, &Arc::default())
}

const REMEMBERING: &str = "default = \"a\"\n[map.cache]\nfound = \"1h\"\nmissing = \"1h\"";

fn kim() -> Who {
    Who::somebody("kim", "imap")
}

fn at(place: &str) -> Entry {
    Entry { place: Some(place.into()), password: Some(KeptSecret::new("{PLAIN}right")), ..Entry::default() }
}

async fn place(map: &Map, who: &Who) -> Option<String> {
    let found = map.find(who).await.expect("an answer");
    found.entry().map(|entry| entry.place.as_ref().map(|place| place.name.clone()).unwrap_or_default())
}

#[tokio::test]
async fn without_directories_nobody_is_asked() {
    let map = map_of("default = \"a\"", &[]);
    assert!(matches!(map.known(&kim()), Some(Found::Nobody)));
    let (backend, reason) = map.choose("kim", &Found::Nobody).expect("a place");
    assert_eq!((&*backend.name, reason), ("a", Reason::Default));
    assert!(map.authenticators().is_empty() && map.backends().named("b").is_some());
}

#[tokio::test]
async fn the_first_directory_that_knows_the_user_says_where() {
    let [first, second] = [&[("lee", at("a"))][..], &[("kim", at("b")), ("lee", at("b"))]].map(Scripted::with);
    let map = map_of("default = \"a\"", &[("first", &first, true), ("second", &second, true)]);
    let names: Vec<_> = map.authenticators().iter().map(|authenticator| &*authenticator.name).collect();
    assert_eq!(names, ["first", "second"]);
    let found = map.find(&kim()).await.expect("an answer");
    assert!(matches!(&found, Found::Account { directory, .. } if &**directory == "second"));
    let (backend, reason) = map.choose("kim", &found).expect("a place");
    assert_eq!((&*backend.name, reason), ("b", Reason::Directory));
    assert_eq!(place(&map, &Who::somebody("lee", "imap")).await.as_deref(), Some("a"));
    assert_eq!(place(&map, &Who::somebody("max", "imap")).await, None);
    first.asked();
    // Nothing is remembered that nobody asked to have remembered.
    assert!(map.known(&kim()).is_none());
    place(&map, &kim()).await;
    place(&map, &kim()).await;
    assert_eq!(first.asked(), 2);
    first.be_silent(true);
    let unanswered = map.find(&kim()).await.expect_err("no answer");
    assert_eq!(unanswered.to_string(), "first: no answer");
}

#[tokio::test]
async fn an_account_of_another_name_is_passed_over() {
    let other = Scripted::with(&[("kim", Entry { name: Some("lee".into()), ..at("b") })]);
    let map = map_of("default = \"a\"", &[("other", &other, true)]);
    assert_eq!(place(&map, &kim()).await, None);
    let evidence = secret("right");
    let checker = Checker::new(tokio::runtime::Handle::current());
    assert_eq!(map.authenticate(&checker, &kim(), &evidence).await, Ok(None));
}

#[tokio::test]
async fn answers_are_remembered_for_each_service_until_they_are_forgotten() {
    let people = Scripted::with(&[("kim", at("b"))]);
    let map = map_of(REMEMBERING, &[("people", &people, true)]);
    let (pop3, max) = (Who::somebody("kim", "pop3"), Who::somebody("max", "imap"));
    assert!(map.known(&kim()).is_none());
    for who in [&kim(), &kim(), &pop3, &max, &max] {
        place(&map, who).await;
    }
    assert_eq!(people.asked(), 3);
    let kept = map.known(&kim()).and_then(|found| found.entry().cloned());
    assert_eq!(kept, Some(Entry { password: None, ..at("b") }), "what a password is compared with is not kept");
    assert!(matches!(map.known(&max), Some(Found::Nobody)));
    let places = map.cache_metrics.as_ref().expect("figures");
    assert_eq!((places.hits.get(), places.misses.get()), (2, 1));
    people.know("kim", Some(at("a")));
    people.know("max", Some(at("b")));
    assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 0));
    let now = map.find_now(&kim()).await.expect("an answer");
    assert_eq!(now.entry(), Some(&at("a")), "who asks for now is not given what was");
    assert_eq!((place(&map, &kim()).await.as_deref(), place(&map, &max).await), (Some("a"), None));
    assert_eq!(map.forget(Some(&["max".to_owned()])), 1);
    assert_eq!(place(&map, &max).await.as_deref(), Some("b"));
    assert_eq!(map.forget(None), 3);
    assert!(map.known(&kim()).is_none());
}

#[tokio::test]
async fn who_is_gone_is_forgotten_even_where_that_is_not_remembered() {
    let people = Scripted::with(&[("kim", at("b"))]);
    let map = map_of("default = \"a\"\n[map.cache]\nfound = \"1h\"\nstale = \"1h\"", &[("people", &people, true)]);
    place(&map, &kim()).await;
    people.know("kim", None);
    let now = map.find_now(&kim()).await.expect("an answer");
    assert!(matches!(now, Found::Nobody));
    people.be_silent(true);
    people.be_down(true);
    assert!(map.known(&kim()).is_none());
    assert!(map.find(&kim()).await.is_err(), "not served from before");
}

#[tokio::test]
async fn an_old_answer_serves_in_an_outage_and_only_then() {
    let people = Scripted::with(&[("kim", at("b"))]);
    let map = map_of("default = \"a\"\n[map.cache]\nstale = \"1h\"", &[("people", &people, true)]);
    place(&map, &kim()).await;
    assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 2));
    assert!(map.known(&kim()).is_none());
    people.be_silent(true);
    assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 1));
    people.be_down(true);
    assert_eq!((place(&map, &kim()).await.as_deref(), people.asked()), (Some("b"), 0));
    assert!(map.find(&Who::somebody("max", "imap")).await.is_err());
}

#[tokio::test]
async fn who_was_moved_is_looked_up_anew() {
    let people = Scripted::with(&[("kim", at("b"))]);
    let map = map_of(REMEMBERING, &[("people", &people, true)]);
    let began = Instant::now();
    place(&map, &kim()).await;
    assert!(map.known(&kim()).is_some() && !map.was_moved_since("kim", began) && !map.is_held("kim"));
    let overrides = map.backends().overrides();
    overrides.hold("kim");
    assert!(map.is_held("kim") && !map.is_held("lee"));
    assert!(map.was_moved_since("kim", began) && !map.was_moved_since("lee", began));
    overrides.release("kim");
    assert!(map.known(&kim()).is_none() && !map.is_held("kim"));
    people.asked();
    place(&map, &kim()).await;
    place(&map, &kim()).await;
    assert_eq!(people.asked(), 2, "not believed for a while");
    overrides.set_place("kim", Some("a")).expect("kept");
    let found = map.find(&kim()).await.expect("an answer");
    let (backend, reason) = map.choose("kim", &found).expect("a place");
    assert_eq!((&*backend.name, reason), ("a", Reason::Moved));
}

#[tokio::test]
async fn an_answer_from_before_a_move_is_not_kept() {
    let people = Scripted::with(&[("kim", at("b"))]);
    let map = map_of(REMEMBERING, &[("people", &people, true)]);
    let asked = Instant::now();
    map.backends().overrides().hold("kim");
    let found = map.find_now(&kim()).await.expect("an answer");
    map.backends().overrides().release("kim");
    map.keep(&kim(), found, asked);
    assert!(map.cache.get(&kim().question(), Instant::now(), |_| Duration::MAX).is_none());
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes().to_vec())
}

#[tokio::test]
async fn a_directory_that_wants_to_see_a_password_is_asked_with_it_or_passed_over() {
    let (mute, open) = (Scripted::with(&[("kim", at("b"))]), Scripted::with(&[("kim", at("a"))]));
    let map = map_of(REMEMBERING, &[("mute", &mute, false), ("open", &open, true)]);
    assert_eq!((place(&map, &kim()).await.as_deref(), mute.asked()), (Some("a"), 0));
    let (right, wrong) = (secret("right"), secret("wrong"));
    let ask = async |who: &Who, password| {
        let evidence = Evidence { password: Some(password), ..Evidence::default() };
        map.find_by(who, evidence).await
    };
    let answer = ask(&kim(), &right).await.expect("an answer");
    assert!(matches!(&answer, Answer::Checked { directory, .. } if &**directory == "mute"));
    assert!(matches!(ask(&kim(), &wrong).await, Ok(Answer::Denied(Denial::Wrong))));
    assert!(matches!(ask(&Who::somebody("max", "imap"), &right).await, Ok(Answer::Found(Found::Nobody))));
    assert!(map.known(&kim()).is_none(), "such an answer is for the one who brought the password");
    mute.know("max", Some(Entry { name: Some("lee".into()), ..at("b") }));
    let max = Who::somebody("max", "imap");
    assert!(matches!(ask(&max, &right).await, Ok(Answer::Found(Found::Nobody))), "the account is another's");
    mute.be_silent(true);
    assert!(ask(&kim(), &right).await.is_err());
}

#[tokio::test]
async fn the_directory_that_has_checked_the_password_is_not_asked_again() {
    let people = Scripted::with(&[("kim", at("a"))]);
    let [finding, mute] = [true, false].map(|finds| map_of(REMEMBERING, &[("people", &people, finds)]));
    for (map, finds) in [(finding, true), (mute, false)] {
        let checked = at("b");
        let evidence = Evidence { checked: Some(("people", &checked)), ..Evidence::default() };
        let answer = map.find_by(&kim(), evidence).await.expect("an answer");
        assert!(matches!(&answer, Answer::Checked { entry, .. } if **entry == checked));
        assert_eq!(people.asked(), 0);
        assert_eq!(map.known(&kim()).is_some(), finds, "for its place, which is all that is remembered");
        let newer = at("c");
        let evidence = Evidence { checked: Some(("people", &newer)), ..Evidence::default() };
        let found = map.find_by(&kim(), evidence).await.expect("an answer");
        assert_eq!(found.entry(), Some(&newer), "whatever is remembered");
        map.forget(None);
        let other = Evidence { checked: Some(("other", &checked)), ..Evidence::default() };
        let found = map.find_by(&kim(), other).await.expect("an answer");
        assert_eq!(found.entry(), finds.then_some(&at("a")), "of another directory's word nothing follows");
        people.asked();
    }
}

#[tokio::test]
async fn a_password_is_checked_by_whoever_knows_the_user() {
    let people = Scripted::with(&[("kim", at("a")), ("lee", Entry::default())]);
    let map = map_of("default = \"a\"", &[("people", &people, true)]);
    let checker = Checker::new(tokio::runtime::Handle::current());
    let check = async |user: &str, password: &str| {
        map.authenticate(&checker, &Who::somebody(user, "imap"), &secret(password)).await
    };
    assert_eq!(check("kim", "right").await, Ok(Some(Ok(at("a")))));
    assert_eq!(check("kim", "wrong").await, Ok(Some(Err(Denial::Wrong))));
    assert_eq!(check("lee", "right").await, Ok(None), "there is nothing to compare with");
    assert_eq!(check("max", "right").await, Ok(None));
    people.be_silent(true);
    assert!(check("kim", "right").await.is_err());
    people.be_exact(true);
    assert!(map.is_exact("people") && !map.is_exact("other"));
    people.be_exact(false);
    assert!(!map.is_exact("people"));
}

#[tokio::test]
async fn what_a_user_may_come_to_is_what_is_offered() {
    let pop3 = PROTOCOLS.iter().find(|protocol| protocol.name == "pop3").expect("a protocol");
    let people = Scripted::with(&[]);
    let sole = map_of("default = \"a\"", &[]);
    let shared = map_of("default = \"a\"", &[("people", &people, true)]);
    let open = map_of("default = \"a\"\nhosts = [\"127.0.0.1\"]", &[("people", &people, true)]);
    for map in [&sole, &shared, &open] {
        let know = |name: &str, list: &str| {
            map.backends().named(name).expect("a back end").learn(pop3, "127.0.0.1", list);
        };
        know("a", "TOP UIDL");
        know("b", "UIDL UTF8");
    }
    let offers = |map: &Map| map.offers(pop3).names(pop3).collect::<Vec<_>>();
    assert_eq!(offers(&sole), ["TOP", "UIDL"]);
    assert_eq!(offers(&shared), ["UIDL"]);
    assert!(offers(&open).is_empty());
}

#[tokio::test]
async fn a_spread_leaves_out_who_takes_no_log_ins() {
    let map = map_of("spread = { a = 1, b = 1 }", &[]);
    let named = |user: &str| map.choose(user, &Found::Nobody).expect("a place").0.name.to_string();
    let users: Vec<_> = (0..20).map(|n| format!("user{n}")).collect();
    let before: std::collections::BTreeSet<_> = users.iter().map(|user| named(user)).collect();
    assert_eq!(before.len(), 2);
    map.backends().overrides().set_duty("a", Some(Duty::Maint)).expect("kept");
    assert!(users.iter().all(|user| named(user) == "b"));
}

#[tokio::test]
async fn a_host_that_the_directory_names_is_taken_where_it_may_be() {
    let map = map_of("default = \"a\"\nhosts = [\"127.0.0.1\"]", &[]);
    let found = |place: &str| Found::Account {
        directory: "people".into(),
        entry: Box::new(Entry { place: Some(Location { name: place.into(), port: Some(1144) }), ..at(place) }),
    };
    let (backend, reason) = map.choose("kim", &found("127.0.0.1")).expect("a place");
    assert_eq!((&*backend.name, reason), ("127.0.0.1:1144", Reason::Directory));
    assert!(matches!(map.choose("kim", &found("127.0.0.2")), Err(NoPlace::Refused(_))));
}
