//! Pages about what is there now, and the forms on them.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::Value;

use super::charts::{Chart, Tile, charts, tiles};
use super::settings::{Shown, shown};
use super::{
    App, Frame, Page, Posted, Said, Visitor, ask, carry_out, explain_problem, go, render, service_names, service_title,
};
use crate::admin::http::logs::Wanted;
use crate::admin::human::{self, bytes};
use crate::admin::{Command, Whose, defaults};
use crate::config::Level;
use crate::log::Record;

/// Sessions that a page shows.
const SESSIONS_SHOWN_MAX: usize = 500;
/// Warnings that the overview shows.
const WARNINGS_SHOWN_MAX: usize = 8;

/// What the address of a page may say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Filter {
    pub(super) user: Option<String>,
    pub(super) backend: Option<String>,
    pub(super) service: Option<String>,
    pub(super) level: Option<Level>,
    pub(super) text: Option<String>,
    pub(super) by: Option<String>,
    pub(super) days: Option<u64>,
    pub(super) token: Option<String>,
    pub(super) done: Option<String>,
}

impl Filter {
    /// The records that are wanted.
    pub(super) fn wanted(&self) -> Wanted {
        Wanted { level: self.level, service: self.service.clone(), text: self.text.clone() }
    }
}

/// What is said, if that is anything.
fn said(text: Option<&String>) -> Option<String> {
    text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
}

pub(super) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(list) => list.iter().map(text).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

pub(super) fn list<'v>(answer: &'v Value, name: &str) -> impl Iterator<Item = &'v Value> {
    answer[name].as_array().into_iter().flatten()
}

/// How long ago a moment was, in few words.
fn age(value: &Value) -> String {
    human::age(value).unwrap_or_default()
}

struct LogLine {
    level: &'static str,
    text: String,
}

impl LogLine {
    fn of(record: &Record) -> Self {
        Self { level: record.level().name(), text: record.text() }
    }
}

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    tiles: Vec<Tile>,
    charts: Vec<Chart>,
    services: Vec<ServiceRow>,
    backends: Vec<BackendRow>,
    warnings: Vec<LogLine>,
}

struct ServiceRow {
    name: String,
    title: String,
    listeners: String,
    sessions: u64,
}

struct BackendRow {
    name: String,
    state: String,
    connections: String,
    is_out: bool,
    hosts: Vec<HostRow>,
}

struct HostRow {
    service: String,
    host: String,
    state: String,
    fault: String,
}

fn backend_rows(answer: &Value) -> Vec<BackendRow> {
    let host = |host: &Value| HostRow {
        service: text(&host["service"]),
        host: text(&host["host"]),
        state: text(&host["state"]),
        fault: text(&host["fault"]),
    };
    let row = |backend: &Value| BackendRow {
        name: text(&backend["name"]),
        state: text(&backend["state"]),
        connections: text(&backend["connections"]),
        is_out: matches!(backend["state"].as_str(), Some("draining" | "maint")),
        hosts: list(backend, "hosts").map(host).collect(),
    };
    list(answer, "backends").map(row).collect()
}

/// The names of all back ends.
pub(super) fn backend_names(answer: &Value) -> Vec<String> {
    list(answer, "backends").map(|backend| text(&backend["name"])).collect()
}

pub(super) async fn overview(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Page {
    let frame = Frame::new(&app, &asker, "Overview", "/").await?.noting(filter.done.as_ref());
    let status = ask(&app, &asker, Command::Status).await?;
    let live = ask(&app, &asker, Command::Live).await?;
    let backends = backend_rows(&ask(&app, &asker, Command::Backends).await?);
    let service = |name: &Value| {
        let held = list(&status["status"][0], "by_service").find(|held| held["service"] == *name);
        let listeners = list(&status["status"][0], "listening").filter(|listener| listener["service"] == *name);
        ServiceRow {
            name: text(name),
            title: service_title(&text(name)),
            listeners: listeners.map(|listener| text(&listener["address"])).collect::<Vec<_>>().join(", "),
            sessions: held.and_then(|held| held["sessions"].as_u64()).unwrap_or(0),
        }
    };
    let services = list(&status["status"][0], "services").map(service).collect();
    let recent = app.log.recent().map(|(lines, _)| lines).unwrap_or_default();
    let grave = recent.iter().rev().filter(|record| record.level() <= Level::Warning);
    let mut warnings: Vec<_> = grave.take(WARNINGS_SHOWN_MAX).map(|record| LogLine::of(record)).collect();
    warnings.reverse();
    let live = &live["live"][0];
    render(&Overview { frame, tiles: tiles(live), charts: charts(live), services, backends, warnings })
}

#[derive(Template)]
#[template(path = "sessions.html")]
struct Sessions {
    frame: Frame,
    user: String,
    backend: String,
    service: String,
    backends: Vec<String>,
    services: Vec<&'static str>,
    rows: Vec<SessionRow>,
    total: usize,
}

struct SessionRow {
    id: String,
    user: String,
    service: String,
    backend: String,
    client: String,
    age: String,
    idle: String,
    up: String,
    down: String,
    state: String,
}

pub(super) async fn sessions(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
    uri: axum::http::Uri,
) -> Page {
    let here = uri.path_and_query().map_or("/sessions", axum::http::uri::PathAndQuery::as_str);
    let here = here.split("done=").next().unwrap_or_default().trim_end_matches(['?', '&']);
    let frame = Frame::new(&app, &asker, "Sessions", here).await?.noting(filter.done.as_ref());
    let whose = Whose {
        user: said(filter.user.as_ref()),
        backend: said(filter.backend.as_ref()),
        service: said(filter.service.as_ref()),
        ..Whose::default()
    };
    let answer = ask(&app, &asker, Command::Sessions(whose.clone())).await?;
    let row = |session: &Value| {
        let count = |key: &str| bytes(session[key].as_f64().unwrap_or(0.0));
        SessionRow {
            id: text(&session["id"]),
            user: text(&session["user"]),
            service: text(&session["service"]),
            backend: text(&session["backend"]),
            client: text(&session["client"]),
            age: age(&session["since"]),
            idle: human::time(session["idle_seconds"].as_u64().unwrap_or(0)),
            up: count("bytes_up"),
            down: count("bytes_down"),
            state: text(&session["state"]),
        }
    };
    // Those of processes that have handed over stand behind ours.
    let mut sessions: Vec<_> = list(&answer, "sessions").collect();
    sessions.sort_by_key(|session| session["since"].as_str());
    let backends = backend_rows(&ask(&app, &asker, Command::Backends).await?);
    render(&Sessions {
        frame,
        user: whose.user.unwrap_or_default(),
        backend: whose.backend.unwrap_or_default(),
        service: whose.service.unwrap_or_default(),
        backends: backends.into_iter().map(|row| row.name).collect(),
        services: service_names(),
        total: sessions.len(),
        rows: sessions.into_iter().take(SESSIONS_SHOWN_MAX).map(row).collect(),
    })
}

pub(super) async fn kick(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    for id in said.all("id") {
        let command = Command::Kick(Whose { id: Some(id.to_owned()), ..Whose::default() });
        // One that has gone by itself meanwhile is what was wanted.
        if let Err(problem) = ask(&app, &asker, command).await
            && !problem.text.contains("there is no session")
        {
            return explain_problem(&app, &asker, &problem, said.get("back")).await;
        }
    }
    Ok(go(said.get("back"), "kicked"))
}

#[derive(Template)]
#[template(path = "backends.html")]
struct Backends {
    frame: Frame,
    rows: Vec<BackendRow>,
    settings: String,
}

pub(super) async fn backends(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Page {
    let frame = Frame::new(&app, &asker, "Back ends", "/backends").await?.noting(filter.done.as_ref());
    let rows = backend_rows(&ask(&app, &asker, Command::Backends).await?);
    let settings = shown(&app, &asker, &frame, Shown::Backends).await?;
    render(&Backends { frame, rows, settings })
}

pub(super) async fn change_backend(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    let backend = said.get("backend").to_owned();
    let (command, done) = match said.get("do") {
        "drain" => {
            let over_seconds = said.get("over").parse().unwrap_or(defaults::DRAIN.as_secs());
            (Command::Drain { backend, over_seconds }, "drain")
        }
        "maint" => (Command::Maint { backend }, "maint"),
        _ => (Command::Ready { backend }, "ready"),
    };
    carry_out(&app, &asker, command, "/backends", done).await
}

#[derive(Template)]
#[template(path = "bans.html")]
struct Bans {
    frame: Frame,
    rows: Vec<BanRow>,
    settings: String,
}

struct BanRow {
    network: String,
    by: String,
    until: String,
}

pub(super) async fn bans(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Bans", "/bans").await?.noting(filter.done.as_ref());
    let answer = ask(&app, &asker, Command::Bans).await?;
    let row = |ban: &Value| {
        let until = if ban["until"].is_null() { "it is lifted".into() } else { text(&ban["until"]) };
        BanRow { network: text(&ban["network"]), by: text(&ban["by"]), until }
    };
    let rows = list(&answer, "bans").map(row).collect();
    let settings = shown(&app, &asker, &frame, Shown::Defence).await?;
    render(&Bans { frame, rows, settings })
}

pub(super) async fn change_bans(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    let network = said.get("network").trim().to_owned();
    let (command, done) = match said.get("do") {
        "add" => (Command::Ban { network, for_seconds: said.get("for").parse().ok() }, "banned"),
        _ => (Command::Unban { network }, "lifted"),
    };
    carry_out(&app, &asker, command, "/bans", done).await
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    frame: Frame,
    levels: [&'static str; Level::ALL.len()],
    level: &'static str,
    services: Vec<&'static str>,
    service: String,
    text: String,
    lines: Vec<LogLine>,
}

pub(super) async fn log(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Log", "/log").await?.noting(filter.done.as_ref());
    let recent = app.log.recent().map(|(lines, _)| lines).unwrap_or_default();
    let wanted = filter.wanted();
    let lines = recent.iter().filter(|record| wanted.wants(record)).map(|record| LogLine::of(record)).collect();
    let mut services = service_names();
    services.extend(["directory", "server", "admin"]);
    render(&Log {
        frame,
        levels: Level::ALL.map(Level::name),
        level: filter.level.unwrap_or(Level::Info).name(),
        services,
        service: said(filter.service.as_ref()).unwrap_or_default(),
        text: said(filter.text.as_ref()).unwrap_or_default(),
        lines,
    })
}

pub(super) async fn change_log(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    if said.get("do") == "trace" {
        let command = Command::Trace { user: said.get("user").to_owned(), for_seconds: defaults::TRACE.as_secs() };
        return carry_out(&app, &asker, command, "/log?level=protocol", "traced").await;
    }
    let level = said.get("level").parse().unwrap_or(Level::Info);
    carry_out(&app, &asker, Command::LogLevel { level }, "/log", "level").await
}

#[derive(Template)]
#[template(path = "map.html")]
struct Map {
    frame: Frame,
    user: String,
    steps: Vec<(String, String)>,
    backends: Vec<String>,
    settings: String,
}

pub(super) async fn map(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Map and directories", "/map").await?.noting(filter.done.as_ref());
    let user = said(filter.user.as_ref()).unwrap_or_default();
    let steps = if user.is_empty() {
        Vec::new()
    } else {
        let answer = ask(&app, &asker, Command::Explain { user: user.clone() }).await?;
        list(&answer, "explain").map(|step| (text(&step["step"]), text(&step["text"]))).collect()
    };
    let backends = backend_names(&ask(&app, &asker, Command::Backends).await?);
    let settings = shown(&app, &asker, &frame, Shown::Map).await?;
    render(&Map { frame, user, steps, backends, settings })
}

pub(super) async fn change_map(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    let user = said.get("user").to_owned();
    let (command, done) = match said.get("do") {
        "move" => (Command::Move { user, backend: said.get("backend").to_owned() }, "moved"),
        _ => (Command::FlushCaches { user: Some(user) }, "forgotten"),
    };
    carry_out(&app, &asker, command, "/map", done).await
}

#[derive(Template)]
#[template(path = "system.html")]
struct System {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    undo: u64,
    digest: String,
    certificates: Vec<CertificateRow>,
    settings: String,
}

struct CertificateRow {
    names: String,
    state: String,
    until: String,
    days: String,
    chain: String,
}

pub(super) async fn system(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "System", "/system").await?.noting(filter.done.as_ref());
    let status = ask(&app, &asker, Command::Status).await?;
    let status = &status["status"][0];
    // A file that can't be read is said below.
    let file = ask(&app, &asker, Command::Settings).await.unwrap_or_default();
    let facts = vec![
        ("Name", text(&status["name"])),
        ("Version", text(&status["version"])),
        ("Process", text(&status["pid"])),
        ("Up", human::time(status["up_seconds"].as_u64().unwrap_or(0))),
        ("Sessions", text(&status["sessions"])),
        ("Threads", text(&status["workers"])),
        ("File", text(&file["settings"][0]["path"])),
    ];
    let answer = ask(&app, &asker, Command::Certificates).await?;
    let certificate = |certificate: &Value| CertificateRow {
        names: text(&certificate["names"]),
        state: text(&certificate["state"]),
        until: text(&certificate["until"]),
        days: text(&certificate["days_left"]),
        chain: text(&certificate["chain"]),
    };
    let certificates = list(&answer, "certificates").map(certificate).collect();
    let settings = shown(&app, &asker, &frame, Shown::System).await?;
    let undo = file["settings"][0]["undo"].as_u64().unwrap_or(0);
    let digest = text(&file["settings"][0]["digest"]);
    render(&System { frame, facts, undo, digest, certificates, settings })
}

pub(super) async fn change_system(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    let (command, done) = match said.get("do") {
        "undo" => (Command::UndoSettings { digest: Some(said.get("digest").to_owned()) }, "undone"),
        "flush" => (Command::FlushCaches { user: None }, "forgotten"),
        _ => (Command::Reload, "reloaded"),
    };
    carry_out(&app, &asker, command, "/system", done).await
}
