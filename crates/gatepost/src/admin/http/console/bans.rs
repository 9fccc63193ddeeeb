//! Bans: who may not connect.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::frame::Frame;
use super::layout::Shown;
use super::parts::Filter;
use super::posted::Posted;
use super::settings::shown;
use super::{App, Page, Visitor, ask, carry_out, render};
use crate::admin::Command;
use crate::admin::answers::Ban;

#[derive(Template)]
#[template(path = "bans.html")]
struct Bans {
    frame: Frame,
    rows: Vec<Ban>,
    settings: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Bans", "/bans").await?.noting(filter.done.as_ref());
    let rows = ask(&app, &asker, Command::Bans).await?;
    let settings = shown(&app, &asker, &frame, Shown::Defence).await?;
    render(&Bans { frame, rows, settings })
}

pub(super) async fn change(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let network = said.name("network");
    let (command, done) = match said.get("do") {
        "add" => (Command::Ban { network, for_seconds: said.get("for").parse().ok() }, "banned"),
        "remove" => (Command::Unban { network }, "lifted"),
        _ => return posted.refuse(&app, "/bans").await,
    };
    carry_out(&app, asker, command, "/bans", done).await
}
