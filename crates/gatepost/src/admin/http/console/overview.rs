//! The overview: what is going on, now and for the last minutes.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use serde_json::Value;

use super::charts::{Chart, Tile, charts, tiles};
use super::frame::{Frame, service_title};
use super::parts::{BackendRow, Filter, LogLine, backend_rows, list, text};
use super::{App, Page, Visitor, ask, render};
use crate::admin::Command;
use crate::config::Level;

/// Warnings that the overview shows.
const WARNINGS_SHOWN_MAX: usize = 8;

#[derive(Template)]
#[template(path = "overview.html")]
struct Overview {
    frame: Frame,
    tiles: Vec<Tile>,
    charts: Vec<Chart>,
    services: Vec<ServiceRow>,
    backends: Vec<BackendRow>,
    warnings: Vec<LogLine>,
}

struct ServiceRow {
    name: String,
    title: String,
    listeners: String,
    sessions: u64,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Overview", "/").await?.noting(filter.done.as_ref());
    let status = ask(&app, &asker, Command::Status).await?;
    let live = ask(&app, &asker, Command::Live).await?;
    let backends = backend_rows(&ask(&app, &asker, Command::Backends).await?);
    let service = |name: &Value| {
        let held = list(&status["status"][0], "by_service").find(|held| held["service"] == *name);
        let listeners = list(&status["status"][0], "listening").filter(|listener| listener["service"] == *name);
        ServiceRow {
            name: text(name),
            title: service_title(&text(name)),
            listeners: listeners.map(|listener| text(&listener["address"])).collect::<Vec<_>>().join(", "),
            sessions: held.and_then(|held| held["sessions"].as_u64()).unwrap_or(0),
        }
    };
    let services = list(&status["status"][0], "services").map(service).collect();
    let recent = app.log.recent().map(|(lines, _)| lines).unwrap_or_default();
    let grave = recent.iter().rev().filter(|record| record.level() <= Level::Warning);
    let mut warnings: Vec<_> = grave.take(WARNINGS_SHOWN_MAX).map(|record| LogLine::of(record)).collect();
    warnings.reverse();
    let live = &live["live"][0];
    render(&Overview { frame, tiles: tiles(live), charts: charts(live), services, backends, warnings })
}
