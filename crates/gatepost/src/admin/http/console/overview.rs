//! The overview: what is going on, now and for the last minutes.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};

use super::charts::{Chart, Tile, charts, tiles};
use super::frame::{Frame, service_title};
use super::parts::{Filter, LogLine};
use super::{App, Page, Visitor, ask, ask_one, render};
use crate::admin::Command;
use crate::admin::answers::{Backend, Live, Status, Word};
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
    backends: Vec<Backend>,
    warnings: Vec<LogLine>,
}

struct ServiceRow {
    name: Word,
    title: String,
    listeners: String,
    sessions: u32,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Overview", "/").await?.noting(filter.done.as_ref());
    let status: Status = ask_one(&app, &asker, Command::Status).await?;
    let live: Live = ask_one(&app, &asker, Command::Live).await?;
    let backends = ask(&app, &asker, Command::Backends).await?;
    let service = |name: &Word| {
        let held = status.by_service.iter().find(|held| held.service == *name);
        let listeners = status.listening.iter().filter(|listener| listener.service == *name);
        ServiceRow {
            name: name.clone(),
            title: service_title(name),
            listeners: listeners.map(|listener| &*listener.address).collect::<Vec<_>>().join(", "),
            sessions: held.map_or(0, |held| held.sessions),
        }
    };
    let services = status.services.iter().map(service).collect();
    let recent = app.log.recent().map(|(lines, _)| lines).unwrap_or_default();
    let grave = recent.iter().rev().filter(|record| record.level() <= Level::Warning);
    let mut warnings: Vec<_> = grave.take(WARNINGS_SHOWN_MAX).map(|record| LogLine::of(record)).collect();
    warnings.reverse();
    render(&Overview { frame, tiles: tiles(&live), charts: charts(&live), services, backends, warnings })
}
