//! Back ends: how they are, and taking them out of service and into it again.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::frame::Frame;
use super::layout::Shown;
use super::parts::Filter;
use super::posted::Posted;
use super::settings::shown;
use super::{App, Page, Visitor, ask, carry_out, render};
use crate::admin::answers::Backend;
use crate::admin::{Command, defaults};

#[derive(Template)]
#[template(path = "backends.html")]
struct Backends {
    frame: Frame,
    rows: Vec<Backend>,
    settings: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Back ends", "/backends").await?.noting(filter.done.as_ref());
    let rows = ask(&app, &asker, Command::Backends).await?;
    let settings = shown(&app, &asker, &frame, Shown::Backends).await?;
    render(&Backends { frame, rows, settings })
}

pub(super) async fn change(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let backend = said.get("backend").to_owned();
    let (command, done) = match said.get("do") {
        "drain" => {
            let over_seconds = said.get("over").parse().unwrap_or(defaults::DRAIN.as_secs());
            (Command::Drain { backend, over_seconds }, "drain")
        }
        "maint" => (Command::Maint { backend }, "maint"),
        "ready" => (Command::Ready { backend }, "ready"),
        _ => return posted.refuse(&app, "/backends").await,
    };
    carry_out(&app, asker, command, "/backends", done).await
}
