//! The console: pages made here, which work without a script, and follow what happens with one.
//!
//! A page asks the control plane as every other way in does; a form that changes something is checked for whose it is,
//! carried out, and answered with another page. State that no command gives belongs on no page, but for the log and the
//! administrators.

mod administrators;
mod backends;
mod bans;
mod charts;
mod forms;
mod log;
mod map;
mod overview;
mod parts;
mod reports;
mod sessions;
mod settings;
mod system;
mod users;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::Router;
use axum::extract::{Extension, FromRequestParts, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use futures_util::Stream;
use gatepost_wire::{Course, PROTOCOLS, Secret};
use serde_json::{Value, json};

use super::gate::{Asker, Peer, broken};
use super::{App, Problem, logs};
use crate::admin::Command;
use crate::admin::accounts::Role;
use parts::Filter;

/// How often numbers are sent to a page.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/", get(overview::show))
        .route("/services/{service}/{tab}", get(settings::service))
        .route("/settings/review", post(settings::review))
        .route("/settings/apply", post(settings::apply))
        .route("/map", get(map::show).post(map::change))
        .route("/backends", get(backends::show).post(backends::change))
        .route("/sessions", get(sessions::show))
        .route("/sessions/kick", post(sessions::kick))
        .route("/bans", get(bans::show).post(bans::change))
        .route("/log", get(log::show).post(log::change))
        .route("/log/follow", get(follow))
        .route("/administrators", get(administrators::administrators).post(administrators::change_administrators))
        .route("/system", get(system::show).post(system::change))
        .route("/users", get(users::users).post(users::change_users))
        .route("/reports", get(reports::reports))
        .route("/reports.csv", get(reports::reports_csv))
        .route("/events", get(events))
        .route("/login", get(log_in_page).post(log_in))
        .route("/logout", post(log_out))
        .route("/setup", get(set_up_page).post(set_up))
        .route(
            "/assets/console.css",
            get(|| asset("text/css; charset=utf-8", include_str!("../../../../console/console.css"))),
        )
        .route(
            "/assets/console.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("../../../../console/console.js"))),
        )
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("../../../../console/icon.svg"))))
}

fn asset(kind: &'static str, text: &'static str) -> std::future::Ready<impl IntoResponse> {
    std::future::ready(([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text))
}

/// Whoever looks at a page; a stranger sees the log-in.
struct Visitor(Asker);

impl FromRequestParts<Arc<App>> for Visitor {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Response> {
        match Asker::from_request_parts(parts, app).await {
            Ok(asker) => Ok(Self(asker)),
            Err(problem) if problem.status == StatusCode::UNAUTHORIZED => {
                // What was posted can't be asked for again.
                let page = parts.uri.path_and_query().filter(|_| parts.method == Method::GET);
                let to = page.map_or("/", axum::http::uri::PathAndQuery::as_str);
                Err((StatusCode::UNAUTHORIZED, Door::log_in(to, "")).into_response())
            }
            Err(problem) => Err(Trouble(problem).into_response()),
        }
    }
}

/// What every page has around it.
struct Frame {
    title: String,
    node: String,
    here: String,
    person: String,
    role: Role,
    proof: String,
    /// What was done a moment ago.
    notice: &'static str,
    nav: Vec<Group>,
}

/// Pages that belong together.
struct Group {
    title: &'static str,
    links: Vec<(String, String)>,
}

impl Frame {
    async fn new(app: &App, asker: &Asker, title: impl Into<String>, here: impl Into<String>) -> Result<Self, Problem> {
        let status = ask(app, asker, Command::Status).await?;
        let status = &status["status"][0];
        let link = |url: &str, name: &str| (url.to_owned(), name.to_owned());
        let of_service = |name: &Value| {
            let name = name.as_str().unwrap_or_default();
            (format!("/services/{name}/listeners"), service_title(name))
        };
        let services = status["services"].as_array().into_iter().flatten().map(of_service).collect();
        let mut system = vec![link("/system", "System")];
        if asker.person.role == Role::Admin {
            system.push(link("/administrators", "Administrators"));
        }
        let nav = vec![
            Group {
                title: "Now",
                links: vec![
                    link("/", "Overview"),
                    link("/sessions", "Sessions"),
                    link("/log", "Log"),
                    link("/bans", "Bans"),
                    link("/reports", "Reports"),
                ],
            },
            Group { title: "Services", links: services },
            Group {
                title: "Mail stores",
                links: vec![
                    link("/backends", "Back ends"),
                    link("/map", "Map and directories"),
                    link("/users", "Users"),
                ],
            },
            Group { title: "Gatepost", links: system },
        ];
        Ok(Self {
            title: title.into(),
            node: status["name"].as_str().unwrap_or_default().to_owned(),
            here: here.into(),
            person: asker.person.name.clone(),
            role: asker.person.role,
            proof: asker.proof.clone().unwrap_or_default(),
            notice: "",
            nav,
        })
    }

    /// Says what was done before this page was asked for.
    fn noting(mut self, done: Option<&String>) -> Self {
        self.notice = done.map_or("", |done| notice(done));
        self
    }

    /// Whether this page is at `url`.
    fn is_here(&self, url: &str) -> bool {
        self.here.split('?').next() == Some(url)
    }

    /// Whether this page is the one at `url`, or a part of it: all parts of a service are its page.
    fn is_part_of(&self, url: &str) -> bool {
        let service =
            |url: &str| url.strip_prefix("/services/").and_then(|rest| rest.split('/').next()).map(str::to_owned);
        self.is_here(url) || service(url).is_some_and(|name| service(&self.here) == Some(name))
    }

    fn may_operate(&self) -> bool {
        self.role >= Role::Operator
    }

    fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

/// What was done, by the word in the address: nobody else's text is ever shown.
fn notice(done: &str) -> &'static str {
    match done {
        "applied" => "The change is in force and in the file.",
        "undone" => "The latest change is taken back.",
        "kicked" => "The sessions end.",
        "moved" => "The user is moved: log-ins come to the other back end from now on.",
        "forgotten" => "What was remembered is forgotten.",
        "banned" => "The network is turned away, and its sessions end.",
        "lifted" => "The network is let in again.",
        "drain" => "The back end takes no more log-ins, and its sessions end over the time.",
        "maint" => "The back end is out of service.",
        "ready" => "The back end is in service again.",
        "reloaded" => "The configuration file was read again.",
        "level" => "The log's level is changed until the next reload.",
        "traced" => "The user's conversations are in the log for ten minutes, from the next log-in on.",
        "removed" => "Removed.",
        "added" => "Added, or changed.",
        _ => "",
    }
}

/// A service's name for people.
fn service_title(name: &str) -> String {
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.name == name) else { return name.to_owned() };
    match protocol.course {
        Course::LogIn(_) => format!("{} Proxy", protocol.title),
        Course::Submission(_) | Course::Mail(_) => protocol.title.to_owned(),
    }
}

/// A page, or why there is none.
type Page = Result<Response, Trouble>;

/// Why there is no page, said on one.
struct Trouble(Problem);

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

#[derive(Template)]
#[template(path = "trouble.html")]
struct TroublePage<'a> {
    text: &'a str,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        match (TroublePage { text: &self.0.text }).render() {
            Ok(page) => (self.0.status, Html(page)).into_response(),
            Err(_) => self.0.into_response(),
        }
    }
}

fn render(template: &impl Template) -> Page {
    Ok(Html(template.render().map_err(|error| broken(error.to_string()))?).into_response())
}

/// Asks the control plane; what can't be done is the asker's to know.
async fn ask(app: &App, asker: &Asker, command: Command) -> Result<Value, Problem> {
    asker.may(command.needs())?;
    let name = command.name();
    let answer = app.ask(command, asker.by()).await.map_err(|error| Problem::new(StatusCode::CONFLICT, error))?;
    Ok(asker.shown(name, answer))
}

/// A page that says why something was not done.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage {
    frame: Frame,
    lines: Vec<String>,
    back: String,
}

/// Says on a page why something was not done.
async fn explain_problem(app: &App, asker: &Asker, problem: &Problem, back: &str) -> Page {
    let frame = Frame::new(app, asker, "That was not done", back).await?;
    let lines = problem.text.lines().map(str::to_owned).collect();
    let mut page = render(&ProblemPage { frame, lines, back: local(back).to_owned() })?;
    *page.status_mut() = problem.status;
    Ok(page)
}

/// Carries out what a form asks for, and goes to the page that shows it.
async fn carry_out(app: &App, asker: &Asker, command: Command, to: &str, done: &'static str) -> Page {
    match ask(app, asker, command).await {
        Ok(_) => Ok(go(to, done)),
        Err(problem) => explain_problem(app, asker, &problem, to).await,
    }
}

/// Leads to a page of ours.
fn go(to: &str, done: &'static str) -> Response {
    let to = local(to);
    let joint = if to.contains('?') { '&' } else { '?' };
    Redirect::to(&if done.is_empty() { to.to_owned() } else { format!("{to}{joint}done={done}") }).into_response()
}

/// An address on this server; anything else is the first page.
fn local(to: &str) -> &str {
    let is_ours = to.starts_with('/') && !to.starts_with("//") && !to.contains(['\\', '\r', '\n']);
    if is_ours { to } else { "/" }
}

/// What a form said, by name.
struct Said(Vec<(String, String)>);

impl Said {
    fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value.as_str())
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// As [`Said`], where a handler takes it.
type Posted = Form<Vec<(String, String)>>;

/// The pages outside: log-in and set-up.
#[derive(Template)]
#[template(path = "door.html")]
struct Door {
    title: &'static str,
    problem: String,
    is_setup: bool,
    token: String,
    to: String,
}

impl Door {
    fn log_in(to: &str, problem: &str) -> Response {
        let door =
            Self { title: "Log in", problem: problem.into(), is_setup: false, token: String::new(), to: to.into() };
        render(&door).unwrap_or_else(IntoResponse::into_response)
    }

    fn set_up(token: &str, problem: &str) -> Response {
        let door =
            Self { title: "Set up", problem: problem.into(), is_setup: true, token: token.into(), to: String::new() };
        render(&door).unwrap_or_else(IntoResponse::into_response)
    }
}

async fn log_in_page() -> Response {
    Door::log_in("/", "")
}

async fn log_in(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, Form(posted): Posted) -> Response {
    let said = Said(posted);
    let password = Secret::new(said.get("password").as_bytes().to_vec());
    match app.log_in(said.get("name"), password, peer).await {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go(said.get("to"), "")).into_response(),
        Err(problem) => (problem.status, Door::log_in(said.get("to"), &problem.text)).into_response(),
    }
}

async fn log_out(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    Form(posted): Posted,
) -> Page {
    asker.proves(Said(posted).get("proof"))?;
    let cookie = app.log_out(&headers, peer)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

async fn set_up_page(Query(said): Query<Filter>) -> Response {
    Door::set_up(said.token.as_deref().unwrap_or_default(), "")
}

async fn set_up(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, Form(posted): Posted) -> Response {
    let said = Said(posted);
    let password = || Secret::new(said.get("password").as_bytes().to_vec());
    if let Err(problem) = app.set_up(said.get("token"), said.get("name"), password()).await {
        return (problem.status, Door::set_up(said.get("token"), &problem.text)).into_response();
    }
    match app.log_in(said.get("name"), password(), peer).await {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go("/", "")).into_response(),
        Err(problem) => (problem.status, Door::log_in("/", &problem.text)).into_response(),
    }
}

/// Sends the overview's numbers for as long as somebody looks.
async fn events(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = futures_util::stream::unfold((app, asker), |(app, asker)| async move {
        tokio::time::sleep(LIVE_INTERVAL).await;
        // Whoever may not look any more, and whoever is here while Gatepost stops, is shown the end.
        if !asker.is_still_known(&app) {
            return None;
        }
        let live = ask(&app, &asker, Command::Live).await.ok()?;
        let event = Event::default().event("live").data(charts::update(&live["live"][0]).to_string());
        Some((Ok(event), (app, asker)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Sends the log's records for as long as somebody looks.
async fn follow(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    logs::follow(app, asker, filter.wanted(), |record| {
        let shown = json!({ "level": record.level().name(), "text": record.text() });
        Event::default().event("record").data(shown.to_string())
    })
}

/// Every service that there can be.
fn service_names() -> Vec<&'static str> {
    PROTOCOLS.iter().map(|protocol| protocol.name).collect()
}
