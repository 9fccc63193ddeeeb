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
mod frame;
mod layout;
mod live;
mod log;
mod log_in;
mod map;
mod overview;
mod parts;
mod posted;
mod reports;
mod sessions;
mod settings;
mod system;
mod users;

use std::sync::Arc;

use askama::Template;
use axum::Router;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::gate::{Asker, broken};
use super::{App, Problem};
use crate::admin::{Command, items};
use frame::Frame;
use log_in::LogInPage;

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
        .route("/log/follow", get(live::follow))
        .route("/administrators", get(administrators::administrators).post(administrators::change_administrators))
        .route("/system", get(system::show).post(system::change))
        .route("/users", get(users::users).post(users::change_users))
        .route("/reports", get(reports::reports))
        .route("/reports.csv", get(reports::reports_csv))
        .route("/events", get(live::events))
        .route("/login", get(log_in::log_in_page).post(log_in::log_in))
        .route("/logout", post(log_in::log_out))
        .route("/setup", get(log_in::set_up_page).post(log_in::set_up))
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
                Err((StatusCode::UNAUTHORIZED, LogInPage::log_in(to, "")).into_response())
            }
            Err(problem) => Err(Trouble(problem).into_response()),
        }
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

/// Asks the control plane for the items of an answer; what can't be done is the asker's to know.
async fn ask<T: DeserializeOwned + Send + 'static>(
    app: &App,
    asker: &Asker,
    command: Command,
) -> Result<Vec<T>, Problem> {
    asker.may(command.needs())?;
    let name = command.name();
    let answer = app.ask(command, asker.by()).await.map_err(|error| Problem::new(StatusCode::CONFLICT, error))?;
    let answer = asker.shown(name, answer);
    // There may be hundreds of thousands, and the control plane has other things to do.
    let reading = tokio::task::spawn_blocking(move || items(name, answer)).await;
    reading.unwrap_or_else(|error| Err(error.to_string())).map_err(|error| app.broken(&format!("{name}: {error}")))
}

/// As [`ask`], where there is one item.
async fn ask_one<T: DeserializeOwned + Send + 'static>(
    app: &App,
    asker: &Asker,
    command: Command,
) -> Result<T, Problem> {
    let name = command.name();
    ask(app, asker, command).await?.pop().ok_or_else(|| app.broken(&format!("{name}: the answer is empty")))
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
    match ask::<IgnoredAny>(app, asker, command).await {
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
    // What browsers leave out could make two slashes of one.
    let is_ours = to.starts_with('/') && !to.starts_with("//") && !to.contains(|c: char| c == '\\' || c.is_control());
    if is_ours { to } else { "/" }
}
