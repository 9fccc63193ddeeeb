//! The log as it comes, and what may be changed about it for a while.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::frame::{Frame, service_names};
use super::parts::{Filter, LogLine, said};
use super::posted::Posted;
use super::{App, Page, Visitor, carry_out, render};
use crate::admin::{Command, defaults};
use crate::config::{Level, OTHER_SERVICES};

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
    services.extend(OTHER_SERVICES);
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

pub(super) async fn change(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let (command, to, done) = match (said.get("do"), said.get("level").parse()) {
        ("trace", _) => {
            let (user, for_seconds) = (said.name("user"), defaults::TRACE.as_secs());
            (Command::Trace { user, for_seconds }, "/log?level=protocol", "traced")
        }
        ("level", Ok(level)) => (Command::LogLevel { level }, "/log", "level"),
        _ => return posted.refuse(&app, "/log").await,
    };
    carry_out(&app, asker, command, to, done).await
}
