//! The log over the API: its latest records, those to come, and those that other Gateposts send.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use axum::{Json, Router};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast;

use super::api::read_body;
use super::gate::{ApiAsker, Asker, Sender};
use super::{App, Problem};
use crate::config::Level;
use crate::log::{Carried, Record};

/// How often it is looked whether whoever follows still may.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// Which records are wanted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Wanted {
    /// Records of this level and graver ones. Default: info.
    pub(super) level: Option<Level>,
    /// Of this service.
    pub(super) service: Option<String>,
    /// With this in their line of text.
    pub(super) text: Option<String>,
}

impl Wanted {
    pub(super) fn wants(&self, record: &Record) -> bool {
        let said = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        record.level() <= self.level.unwrap_or(Level::Info)
            && said(&self.service).is_none_or(|service| service.trim() == record.about())
            && said(&self.text).is_none_or(|text| record.text().contains(text.trim()))
    }
}

pub(super) fn router() -> Router<Arc<App>> {
    Router::new().route("/logs", get(recent).post(take)).route("/logs/live", get(live))
}

fn wanted(query: Result<Query<Wanted>, QueryRejection>) -> Result<Wanted, Problem> {
    query.map(|Query(wanted)| wanted).map_err(|error| Problem::new(StatusCode::BAD_REQUEST, error.body_text()))
}

async fn recent(
    State(app): State<Arc<App>>,
    _asker: ApiAsker,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Json<Value>, Problem> {
    let wanted = wanted(query)?;
    let kept = app.log.recent().map(|(records, _)| records).unwrap_or_default();
    let records: Vec<_> = kept.iter().filter(|record| wanted.wants(record)).map(|record| record.json()).collect();
    Ok(Json(json!({ "logs": records })))
}

async fn live(
    State(app): State<Arc<App>>,
    ApiAsker(asker): ApiAsker,
    query: Result<Query<Wanted>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let wanted = wanted(query)?;
    Ok(follow(app, asker, wanted, |record| Event::default().event("record").data(record.json().to_string())))
}

/// Sends records as they come, for as long as somebody looks who may.
pub(super) fn follow(
    app: Arc<App>,
    asker: Asker,
    wanted: Wanted,
    show: fn(&Record) -> Event,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let records = app.log.recent().map(|(_, records)| records);
    let looks = tokio::time::interval(LOOK_INTERVAL);
    let follower = records.map(|records| Follower { app, asker, wanted, records, looks });
    let stream = futures_util::stream::unfold(follower, move |follower| async move {
        let mut follower = follower?;
        let record = follower.next().await?;
        Some((Ok(show(&record)), Some(follower)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Somebody who follows the log.
struct Follower {
    app: Arc<App>,
    asker: Asker,
    wanted: Wanted,
    records: broadcast::Receiver<Arc<Record>>,
    /// When it is looked whether they still may.
    looks: tokio::time::Interval,
}

impl Follower {
    /// The next record that is wanted, for as long as they may see it.
    async fn next(&mut self) -> Option<Arc<Record>> {
        loop {
            tokio::select! {
                _ = self.looks.tick() => {
                    if !self.asker.is_still_known(&self.app) {
                        return None;
                    }
                }
                received = self.records.recv() => match received {
                    Ok(record) if self.wanted.wants(&record) => return Some(record),
                    // Whoever is too slow misses some.
                    Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
            }
        }
    }
}

/// Takes records that another Gatepost sends, under the name of its token.
async fn take(
    State(app): State<Arc<App>>,
    Sender(asker): Sender,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, Problem> {
    let bad = |text: &str| Problem::new(StatusCode::BAD_REQUEST, format!("records: {text}"));
    let mut body = read_body(&headers, &body)?;
    let records = body.remove("records").ok_or_else(|| bad("there are none"))?;
    if let Some(unknown) = body.keys().next() {
        return Err(bad(&format!("{unknown:?} is nothing that this address takes")));
    }
    let records: Vec<Carried> = serde_json::from_value(records).map_err(|error| bad(&error.to_string()))?;
    let taken = app.log.take(&asker.person.name, records);
    Ok(Json(json!({ "logs": [{ "taken": taken }] })))
}
