//! What goes on arriving at a page for as long as somebody looks.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Query, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use serde_json::json;

use super::parts::Filter;
use super::{App, Visitor, ask_one, charts};
use crate::admin::Command;
use crate::admin::answers::Live;
use crate::admin::http::logs;

/// How often numbers are sent to a page.
const LIVE_INTERVAL: Duration = Duration::from_secs(2);

/// Sends the overview's numbers for as long as somebody looks.
pub(super) async fn events(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let stream = futures_util::stream::unfold((app, asker), |(app, asker)| async move {
        tokio::time::sleep(LIVE_INTERVAL).await;
        // Whoever may not look any more, and whoever is here while Gatepost stops, is shown the end.
        if !asker.is_still_known(&app) {
            return None;
        }
        let live: Live = ask_one(&app, &asker, Command::Live).await.ok()?;
        let event = Event::default().event("live").data(charts::update(&live).to_string());
        Some((Ok(event), (app, asker)))
    });
    Sse::new(stream).keep_alive(KeepAlive::default())
}

/// Sends the log's records for as long as somebody looks.
pub(super) async fn follow(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    logs::follow(app, asker, filter.wanted(), |record| {
        let shown = json!({ "level": record.level().name(), "text": record.text() });
        Event::default().event("record").data(shown.to_string())
    })
}
