//! Back ends: how they are, and taking them out of service and into it again.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};

use super::parts::{BackendRow, Filter, backend_rows};
use super::settings::{Shown, shown};
use super::{App, Frame, Page, Posted, Said, Visitor, ask, carry_out, render};
use crate::admin::{Command, defaults};

#[derive(Template)]
#[template(path = "backends.html")]
struct Backends {
    frame: Frame,
    rows: Vec<BackendRow>,
    settings: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Back ends", "/backends").await?.noting(filter.done.as_ref());
    let rows = backend_rows(&ask(&app, &asker, Command::Backends).await?);
    let settings = shown(&app, &asker, &frame, Shown::Backends).await?;
    render(&Backends { frame, rows, settings })
}

pub(super) async fn change(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
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
