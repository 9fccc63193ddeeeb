//! The log as it comes, and what may be changed about it for a while.

use std::sync::Arc;

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};

use super::parts::{Filter, LogLine, said};
use super::{App, Frame, Page, Posted, Said, Visitor, carry_out, render, service_names};
use crate::admin::{Command, defaults};
use crate::config::Level;

#[derive(Template)]
#[template(path = "log.html")]
struct Log {
    frame: Frame,
    levels: [&'static str; Level::ALL.len()],
    level: &'static str,
    services: Vec<&'static str>,
    service: String,
    text: String,
    lines: Vec<LogLine>,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Log", "/log").await?.noting(filter.done.as_ref());
    let recent = app.log.recent().map(|(lines, _)| lines).unwrap_or_default();
    let wanted = filter.wanted();
    let lines = recent.iter().filter(|record| wanted.wants(record)).map(|record| LogLine::of(record)).collect();
    let mut services = service_names();
    services.extend(["directory", "server", "admin"]);
    render(&Log {
        frame,
        levels: Level::ALL.map(Level::name),
        level: filter.level.unwrap_or(Level::Info).name(),
        services,
        service: said(filter.service.as_ref()).unwrap_or_default(),
        text: said(filter.text.as_ref()).unwrap_or_default(),
        lines,
    })
}

pub(super) async fn change(State(app): State<Arc<App>>, Visitor(asker): Visitor, Form(posted): Posted) -> Page {
    let said = Said(posted);
    asker.proves(said.get("proof"))?;
    if said.get("do") == "trace" {
        let command = Command::Trace { user: said.get("user").to_owned(), for_seconds: defaults::TRACE.as_secs() };
        return carry_out(&app, &asker, command, "/log?level=protocol", "traced").await;
    }
    let level = said.get("level").parse().unwrap_or(Level::Info);
    carry_out(&app, &asker, Command::LogLevel { level }, "/log", "level").await
}
