//! The pages outside: log-in, set-up, and the way out again.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Extension, Query, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Redirect, Response};
use gatepost_wire::Secret;

use super::parts::Filter;
use super::posted::{Posted, Said};
use super::{App, Page, go, render};
use crate::admin::http::gate::Peer;

/// The pages outside: log-in and set-up.
#[derive(Template)]
#[template(path = "log_in.html")]
pub(super) struct LogInPage {
    title: &'static str,
    problem: String,
    is_setup: bool,
    token: String,
    to: String,
}

impl LogInPage {
    pub(super) fn log_in(to: &str, problem: &str) -> Response {
        let page =
            Self { title: "Log in", problem: problem.into(), is_setup: false, token: String::new(), to: to.into() };
        render(&page).unwrap_or_else(IntoResponse::into_response)
    }

    fn set_up(token: &str, problem: &str) -> Response {
        let page =
            Self { title: "Set up", problem: problem.into(), is_setup: true, token: token.into(), to: String::new() };
        render(&page).unwrap_or_else(IntoResponse::into_response)
    }
}

pub(super) async fn log_in_page() -> Response {
    LogInPage::log_in("/", "")
}

pub(super) async fn log_in(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, said: Said) -> Response {
    let password = Secret::new(said.get("password").as_bytes().to_vec());
    match app.log_in(said.get("name"), password, peer).await {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go(said.get("to"), "")).into_response(),
        Err(problem) => (problem.status, LogInPage::log_in(said.get("to"), &problem.text)).into_response(),
    }
}

pub(super) async fn log_out(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    _: Posted,
) -> Page {
    let cookie = app.log_out(&headers, peer)?;
    Ok(([(header::SET_COOKIE, cookie)], Redirect::to("/login")).into_response())
}

pub(super) async fn set_up_page(Query(said): Query<Filter>) -> Response {
    LogInPage::set_up(said.token.as_deref().unwrap_or_default(), "")
}

pub(super) async fn set_up(State(app): State<Arc<App>>, Extension(peer): Extension<Peer>, said: Said) -> Response {
    let password = || Secret::new(said.get("password").as_bytes().to_vec());
    if let Err(problem) = app.set_up(said.get("token"), said.get("name"), password()).await {
        return (problem.status, LogInPage::set_up(said.get("token"), &problem.text)).into_response();
    }
    match app.log_in(said.get("name"), password(), peer).await {
        Ok(cookie) => ([(header::SET_COOKIE, cookie)], go("/", "")).into_response(),
        Err(problem) => (problem.status, LogInPage::log_in("/", &problem.text)).into_response(),
    }
}
