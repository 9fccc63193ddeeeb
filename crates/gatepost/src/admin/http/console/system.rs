//! This process: certificates, reading the file again, and the settings of the whole program.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::frame::Frame;
use super::layout::Shown;
use super::parts::Filter;
use super::posted::Posted;
use super::settings::shown;
use super::{App, Page, Visitor, ask, ask_one, carry_out, render};
use crate::admin::Command;
use crate::admin::answers::{Certificate, Settings, Status};
use crate::admin::human::time;

#[derive(Template)]
#[template(path = "system.html")]
struct System {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    undo: usize,
    digest: String,
    certificates: Vec<Certificate>,
    settings: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "System", "/system").await?.noting(filter.done.as_ref());
    let status: Status = ask_one(&app, &asker, Command::Status).await?;
    // A file that can't be read is said below.
    let file: Option<Settings> = ask_one(&app, &asker, Command::Settings).await.ok();
    let (path, undo, digest) = file.map(|file| (file.path, file.undo, file.digest)).unwrap_or_default();
    let facts = vec![
        ("Name", status.name),
        ("Version", status.version.into_owned()),
        ("Process", status.pid.to_string()),
        ("Up", time(status.up_seconds)),
        ("Sessions", status.sessions.to_string()),
        ("Threads", status.workers.to_string()),
        ("File", path),
    ];
    let certificates = ask(&app, &asker, Command::Certificates).await?;
    let settings = shown(&app, &asker, &frame, Shown::System).await?;
    render(&System { frame, facts, undo, digest, certificates, settings })
}

pub(super) async fn change(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let (command, done) = match said.get("do") {
        "undo" => (Command::UndoSettings { digest: Some(said.get("digest").to_owned()) }, "undone"),
        "flush" => (Command::FlushCaches { user: None }, "forgotten"),
        "reload" => (Command::Reload, "reloaded"),
        _ => return posted.refuse(&app, "/system").await,
    };
    carry_out(&app, asker, command, "/system", done).await
}
