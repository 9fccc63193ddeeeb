//! The REST API: what comes is checked against the row of its address, becomes a command, and is answered as that is.

use std::collections::HashMap;
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Extension, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, get, on, post};
use axum::{Json, Router};
use gatepost_wire::Secret;
use serde_json::{Map, Value, json};

use super::endpoints::{ENDPOINTS, Endpoint, Method};
use super::gate::{ApiAsker, Asker, Peer, broken};
use super::inputs::{At, Inputs, Said};
use super::{App, Problem, logs, openapi};

/// What of a request's body is read.
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

pub(super) fn router() -> Router<Arc<App>> {
    let mut paths: Vec<(&'static str, MethodRouter<Arc<App>>)> = Vec::new();
    for endpoint in ENDPOINTS {
        let filter = match endpoint.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let handler = move |State(app): State<Arc<App>>,
                            ApiAsker(asker): ApiAsker,
                            path: Option<Path<HashMap<String, String>>>,
                            query: Result<Query<HashMap<String, String>>, QueryRejection>,
                            headers: HeaderMap,
                            body: Bytes| async move {
            let path = path.map(|Path(path)| path).unwrap_or_default();
            let query = query.map(|Query(query)| query).unwrap_or_default();
            carry_out(endpoint, &app, &asker, [path, query], (&headers, &body)).await
        };
        match paths.iter_mut().find(|(path, _)| *path == endpoint.path) {
            Some((_, methods)) => *methods = std::mem::take(methods).on(filter, handler),
            None => paths.push((endpoint.path, on(filter, handler))),
        }
    }
    let api = paths.into_iter().fold(Router::new(), |router, (path, methods)| router.route(path, methods));
    let api = api
        .route("/openapi.json", get(|| async { ([(header::CONTENT_TYPE, "application/json")], openapi::text()) }))
        .route("/me", get(|ApiAsker(asker): ApiAsker| async move { Json(describe(&asker)) }))
        .route("/login", post(log_in))
        .route("/logout", post(log_out))
        .route("/setup", post(set_up))
        .merge(logs::router())
        .method_not_allowed_fallback(|_: ApiAsker| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this address does not take this method")
        });
    Router::new().nest("/api/v1", api)
}

fn describe(asker: &Asker) -> Value {
    json!({ "me": [{ "name": asker.person.name, "role": asker.person.role, "proof": asker.proof() }] })
}

async fn carry_out(
    endpoint: &Endpoint,
    app: &App,
    asker: &Asker,
    [path, query]: [HashMap<String, String>; 2],
    (headers, body): (&HeaderMap, &Bytes),
) -> Result<Response, Problem> {
    asker.may(endpoint.role)?;
    let bad = |text: String| Problem::new(StatusCode::BAD_REQUEST, text);
    let body =
        if endpoint.inputs.iter().any(|input| input.at == At::Body) { read_body(headers, body)? } else { Map::new() };
    let mut inputs = read(endpoint, path, query, body).map_err(bad)?;
    for said in inputs.all_mut() {
        if let Said::Password(password) = said
            && let Some(hash) = app.hash(password.duplicate()).await?
        {
            *said = Said::Text(hash);
        }
    }
    let command = (endpoint.command)(&mut inputs).ok_or_else(|| broken("an input is missing that is required"))?;
    asker.may(command.needs())?;
    // What can't be done is about what is there now, not about how it was asked for.
    let name = command.name();
    let answer = app.ask(command, asker.by()).await.map_err(|error| Problem::new(StatusCode::CONFLICT, error))?;
    Ok(Json(asker.shown(name, answer)).into_response())
}

/// The JSON object that is a request's body; none at all is an empty one.
pub(super) fn read_body(headers: &HeaderMap, body: &Bytes) -> Result<Map<String, Value>, Problem> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.split(';').next().map(str::trim) != Some("application/json") {
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a body is application/json"));
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Problem::new(StatusCode::BAD_REQUEST, "the body is a JSON object")),
        Err(error) => Err(Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))),
    }
}

/// Reads what a request says, if that is what its address takes.
fn read(
    endpoint: &Endpoint,
    mut path: HashMap<String, String>,
    mut query: HashMap<String, String>,
    mut body: Map<String, Value>,
) -> Result<Inputs, String> {
    let mut inputs = Inputs::default();
    for input in endpoint.inputs {
        let given = match input.at {
            At::Path => path.remove(input.name).map(Value::String),
            At::Query => query.remove(input.name).map(Value::String),
            At::Body => body.remove(input.name),
        };
        inputs.take(input, given)?;
    }
    if let Some(unknown) = query.keys().next().or_else(|| body.keys().next()) {
        return Err(format!("{unknown:?} is nothing that this address takes"));
    }
    Ok(inputs)
}

/// Logs a person in with name and password, as the console's page does; the answer sets the cookie.
async fn log_in(
    State(app): State<Arc<App>>,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let mut body = read_body(&headers, &body)?;
    let name = take_text(&mut body, "name")?;
    let password = Secret::new(take_text(&mut body, "password")?.into_bytes());
    let cookie = app.log_in(&name, password, peer).await?;
    Ok(([(header::SET_COOKIE, cookie)], Json(json!({ "login": [{ "name": name }] }))).into_response())
}

/// Makes the first administrator.
async fn set_up(State(app): State<Arc<App>>, headers: HeaderMap, body: Bytes) -> Result<Response, Problem> {
    let mut body = read_body(&headers, &body)?;
    let [token, name, password] =
        [take_text(&mut body, "token")?, take_text(&mut body, "name")?, take_text(&mut body, "password")?];
    app.set_up(&token, &name, Secret::new(password.into_bytes())).await?;
    Ok(Json(json!({ "setup": [{ "name": name }] })).into_response())
}

/// A text that a body must hold.
fn take_text(body: &mut Map<String, Value>, name: &str) -> Result<String, Problem> {
    match body.remove(name) {
        Some(Value::String(text)) if !text.is_empty() => Ok(text),
        _ => Err(Problem::new(StatusCode::BAD_REQUEST, format!("{name} is missing, or no text"))),
    }
}

async fn log_out(
    State(app): State<Arc<App>>,
    _asker: ApiAsker,
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let cookie = app.log_out(&headers, peer)?;
    Ok(([(header::SET_COOKIE, cookie)], Json(json!({ "logout": [{}] }))).into_response())
}
