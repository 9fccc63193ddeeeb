//! The map: what becomes of a user, and moving one.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::frame::Frame;
use super::layout::Shown;
use super::parts::{Filter, names, said};
use super::posted::Posted;
use super::settings::shown;
use super::{App, Page, Visitor, ask, carry_out, render};
use crate::admin::Command;
use crate::admin::answers::Step;

#[derive(Template)]
#[template(path = "map.html")]
struct Map {
    frame: Frame,
    user: String,
    steps: Vec<Step>,
    backends: Vec<String>,
    settings: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Map and directories", "/map").await?.noting(filter.done.as_ref());
    let user = said(filter.user.as_ref()).unwrap_or_default();
    let steps =
        if user.is_empty() { Vec::new() } else { ask(&app, &asker, Command::Explain { user: user.clone() }).await? };
    let backends = names(ask(&app, &asker, Command::Backends).await?);
    let settings = shown(&app, &asker, &frame, Shown::Map).await?;
    render(&Map { frame, user, steps, backends, settings })
}

pub(super) async fn change(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let user = said.name("user");
    let (command, done) = match said.get("do") {
        "move" => (Command::Move { user, backend: said.get("backend").to_owned() }, "moved"),
        "forget" => (Command::FlushCaches { user: Some(user) }, "forgotten"),
        _ => return posted.refuse(&app, "/map").await,
    };
    carry_out(&app, asker, command, "/map", done).await
}
