//! Sessions: who is there, and ending those that are chosen.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use serde::de::IgnoredAny;

use super::frame::{Frame, service_names};
use super::parts::{Filter, names, said};
use super::posted::Posted;
use super::{App, Page, Visitor, ask, explain_problem, go, render};
use crate::admin::answers::{Session, Word};
use crate::admin::human::{age, bytes, figure, time};
use crate::admin::{Command, NO_SESSION, Whose};

/// Sessions that a page shows.
const SESSIONS_SHOWN_MAX: usize = 500;

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
    service: Word,
    backend: String,
    client: String,
    age: String,
    idle: String,
    up: String,
    down: String,
    state: Word,
}

pub(super) async fn show(
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
    let mut sessions: Vec<Session> = ask(&app, &asker, Command::Sessions(whose.clone())).await?;
    // Those of processes that have handed over stand behind ours.
    sessions.sort_by(|a, b| a.since.cmp(&b.since));
    let row = |session: Session| SessionRow {
        age: age(&session.since).unwrap_or_default(),
        idle: time(session.idle_seconds.into()),
        up: bytes(figure(session.bytes_up)),
        down: bytes(figure(session.bytes_down)),
        id: session.id,
        user: session.user.unwrap_or_default(),
        service: session.service,
        backend: session.backend.unwrap_or_default(),
        client: session.client,
        state: session.state,
    };
    let backends = names(ask(&app, &asker, Command::Backends).await?);
    render(&Sessions {
        frame,
        user: whose.user.unwrap_or_default(),
        backend: whose.backend.unwrap_or_default(),
        service: whose.service.unwrap_or_default(),
        backends,
        services: service_names(),
        total: sessions.len(),
        rows: sessions.into_iter().take(SESSIONS_SHOWN_MAX).map(row).collect(),
    })
}

pub(super) async fn kick(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    for id in said.all("id") {
        let command = Command::Kick(Whose { id: Some(id.to_owned()), ..Whose::default() });
        // One that has gone by itself meanwhile is what was wanted.
        if let Err(problem) = ask::<IgnoredAny>(&app, asker, command).await
            && !problem.text.contains(NO_SESSION)
        {
            return explain_problem(&app, asker, &problem, said.get("back")).await;
        }
    }
    Ok(go(said.get("back"), "kicked"))
}
