//! The way in for browsers and scripts: console, REST API, metrics and probes, over HTTP.
//!
//! Here belongs what makes of a request a [`Command`](super::Command) or a page, and who may ask for it. What is asked
//! for is the control plane's business, as for every other way in.

mod api;
mod console;
mod endpoints;
mod gate;
mod inputs;
mod logs;
mod openapi;
mod probes;
mod redaction;
mod server;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use tokio::sync::watch;

use super::accounts::Accounts;
use super::{Answer, Asking, Command, ask_control};
use crate::auth::Checker;
use crate::log::Logger;
use crate::world::HttpService;
use gate::{Asker, Gate};
pub(crate) use server::Http;

/// What all of it needs.
pub(crate) struct App {
    asking: Asking,
    accounts: Arc<Accounts>,
    checker: Checker,
    log: Logger,
    /// True once Gatepost is stopping.
    stopping: watch::Receiver<bool>,
    /// What the configuration says of it.
    http: ArcSwap<HttpService>,
    gate: Gate,
}

impl App {
    pub(crate) fn new(
        asking: Asking,
        accounts: Arc<Accounts>,
        checker: Checker,
        log: Logger,
        stopping: watch::Receiver<bool>,
        http: Arc<HttpService>,
    ) -> Arc<Self> {
        let gate = Gate::default();
        Arc::new(Self { asking, accounts, checker, log, stopping, http: ArcSwap::new(http), gate })
    }

    /// Has the control plane do something.
    async fn ask(&self, command: Command, by: String) -> Answer {
        ask_control(command, by, &self.asking).await
    }

    /// The token by which the first administrator is made, where there is none yet.
    pub(crate) fn first_token(&self) -> Result<Option<String>, String> {
        self.gate.first_token(&self.accounts)
    }
}

/// All that can be asked for.
fn router(app: &Arc<App>) -> Router {
    let router = Router::new().merge(probes::router()).merge(api::router()).merge(console::router());
    router
        // Strangers are not told what there is.
        .fallback(|_: Asker| async { Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address") })
        .layer(axum::middleware::from_fn_with_state(Arc::clone(app), gate::guard))
        .with_state(Arc::clone(app))
}

/// Why something can't be had, in words for whoever asked.
#[derive(Debug)]
struct Problem {
    status: StatusCode,
    text: String,
}

impl Problem {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, axum::Json(json!({ "error": self.text }))).into_response();
        if self.status == StatusCode::UNAUTHORIZED {
            let value = axum::http::HeaderValue::from_static("Bearer realm=\"gatepost\"");
            response.headers_mut().insert(axum::http::header::WWW_AUTHENTICATE, value);
        }
        response
    }
}
