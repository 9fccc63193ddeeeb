//! What machines ask without logging in: is it alive, is it ready, and what are its numbers.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use subtle::ConstantTimeEq as _;

use super::gate::bearer;
use super::{App, Problem};
use crate::admin::{Command, items};
use crate::metrics::text::Format;

pub(super) fn router() -> Router<Arc<App>> {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// Whether clients should be sent here.
async fn ready(State(app): State<Arc<App>>) -> Response {
    if *app.stopping.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn metrics(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    if let Some(token) = &app.http.load().metrics_token {
        let shown = bearer(&headers).unwrap_or_default();
        if !bool::from(shown.as_bytes().ct_eq(token.expose())) {
            return Err(Problem::new(
                StatusCode::UNAUTHORIZED,
                "metrics need the bearer token of [admin] metrics_token_file",
            ));
        }
    }
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let format = Format::of(accept);
    let command = Command::Metrics { is_open: format == Format::OpenMetrics };
    let answer = app.ask(command, "a scraper".into()).await;
    let answer = answer.map_err(|error| Problem::new(StatusCode::SERVICE_UNAVAILABLE, error))?;
    let text = items::<String>("metrics", answer).map_err(|error| app.broken(&error))?.concat();
    Ok(([(header::CONTENT_TYPE, format.content_type())], text).into_response())
}
