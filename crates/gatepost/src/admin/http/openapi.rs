//! The API's description, made of the rows of its commands (`OpenAPI` 3.1); the few addresses that are none are described here.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::endpoints::{ENDPOINTS, Endpoint};
use super::inputs::{At, Input, Kind, Unsaid};
use crate::admin::{LASTING_SECONDS_MAX, defaults};
use crate::config::Level;
use crate::log::Carried;

/// The whole document.
fn document() -> Value {
    let mut generator = SchemaSettings::draft2020_12()
        .with(|settings| settings.definitions_path = "/components/schemas".into())
        .into_generator();
    let mut paths = json!({});
    for endpoint in ENDPOINTS {
        paths[format!("/api/v1{}", endpoint.path)][endpoint.method.name()] = describe(endpoint, &mut generator);
    }
    let login = json!({
        "type": "object", "required": ["name", "password"], "additionalProperties": false,
        "properties": { "name": { "type": "string", "minLength": 1 }, "password": { "type": "string", "minLength": 1 } },
    });
    paths["/api/v1/login"]["post"] = json!({
        "summary": "Log in with name and password; the answer sets a cookie.",
        "security": [],
        "requestBody": { "required": true, "content": { "application/json": { "schema": login } } },
        "responses": responses(&list("login", &json!({ "type": "object" })), &[400, 401, 403, 415, 429]),
    });
    let text = json!({ "type": "string", "minLength": 1 });
    let setup = json!({
        "type": "object", "required": ["token", "name", "password"], "additionalProperties": false,
        "properties": { "token": text, "name": text, "password": text },
    });
    paths["/api/v1/setup"]["post"] = json!({
        "summary": "Make the first administrator, with the token that the log shows at each start while there is nobody.",
        "security": [],
        "requestBody": { "required": true, "content": { "application/json": { "schema": setup } } },
        "responses": responses(&list("setup", &json!({ "type": "object" })), &[400, 403, 409, 415]),
    });
    paths["/api/v1/logout"]["post"] = json!({
        "summary": "Log out.",
        "responses": responses(&list("logout", &json!({ "type": "object" })), &[401, 403]),
    });
    paths["/api/v1/me"]["get"] = json!({
        "summary": "Who asks.",
        "responses": responses(&list("me", &json!({ "type": "object" })), &[401]),
    });
    describe_logs(&mut paths, &mut generator);
    paths["/api/v1/openapi.json"]["get"] = json!({
        "summary": "This document.",
        "security": [],
        "responses": { "200": { "description": "The document.", "content": { "application/json": { "schema": {} } } } },
    });
    let schemas = generator.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Gatepost",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Every answer is an object with one list, or with an `error` that says why there is none. A change that a browser makes with its cookie brings the header X-Gatepost-Proof, which GET /api/v1/me tells.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, { "cookie": [] }, { "cookie_of_https": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": { "type": "http", "scheme": "bearer" },
                "cookie": { "type": "apiKey", "in": "cookie", "name": "gatepost" },
                "cookie_of_https": { "type": "apiKey", "in": "cookie", "name": "__Host-gatepost" },
            },
        },
    })
}

/// The log's addresses, which are about no command.
fn describe_logs(paths: &mut Value, generator: &mut schemars::SchemaGenerator) {
    let query = |name: &str, schema: Value, help: &str| json!({ "name": name, "in": "query", "required": false, "description": help, "schema": schema });
    let parameters = json!([
        query(
            "level",
            generator.subschema_for::<Level>().to_value(),
            "Records of this level and graver ones. Default: info."
        ),
        query("service", json!({ "type": "string" }), "Of this service."),
        query("text", json!({ "type": "string" }), "With this in their line of text."),
    ]);
    let record = json!({
        "type": "object", "required": ["time", "level", "service", "message"],
        "description": "A record; its fields stand beside these.",
        "properties": {
            "time": { "type": "string" }, "level": generator.subschema_for::<Level>().to_value(),
            "service": { "type": "string" }, "message": { "type": "string" },
        },
    });
    paths["/api/v1/logs"]["get"] = json!({
        "summary": "The log's latest records.",
        "description": "For the role viewer and those above it.",
        "parameters": parameters,
        "responses": responses(&list("logs", &record), &[400, 401, 403]),
    });
    let batch = json!({
        "type": "object", "required": ["records"], "additionalProperties": false,
        "properties": { "records": { "type": "array", "items": generator.subschema_for::<Carried>().to_value() } },
    });
    let taken = json!({ "type": "object", "required": ["taken"], "properties": { "taken": { "type": "integer" } } });
    paths["/api/v1/logs"]["post"] = json!({
        "summary": "Take records of another Gatepost into the log.",
        "description": "For tokens of the roles sender, operator and admin.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": batch } } },
        "responses": responses(&list("logs", &taken), &[400, 401, 403, 413, 415]),
    });
    let mut live = responses(&json!({}), &[400, 401, 403]);
    live["200"] = json!({
        "description": "Events named record, each with a record as its data.",
        "content": { "text/event-stream": { "schema": { "type": "string" } } },
    });
    paths["/api/v1/logs/live"]["get"] = json!({
        "summary": "The log's records as they come, for as long as the connection stands.",
        "description": "For the role viewer and those above it.",
        "parameters": parameters,
        "responses": live,
    });
}

/// The same as text, made once.
pub(super) fn text() -> &'static str {
    static TEXT: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    TEXT.get_or_init(|| document().to_string())
}

fn describe(endpoint: &Endpoint, generator: &mut schemars::SchemaGenerator) -> Value {
    let item = (endpoint.item)(generator).to_value();
    let has_body = endpoint.inputs.iter().any(|input| input.at == At::Body);
    let refusals: &[u16] = if has_body { &[400, 401, 403, 409, 413, 415] } else { &[400, 401, 403, 409] };
    let parameters = endpoint.inputs.iter().filter(|input| input.at != At::Body).map(|input| {
        let at = if input.at == At::Path { "path" } else { "query" };
        json!({
            "name": input.name, "in": at, "required": input.unsaid == Unsaid::Refused, "description": input.help,
            "schema": schema(input, generator),
        })
    });
    let mut described = json!({
        "summary": endpoint.summary,
        "description": format!("For the role {} and those above it.", endpoint.role.name()),
        "parameters": parameters.collect::<Vec<_>>(),
        "responses": responses(&list(endpoint.list, &item), refusals),
    });
    if has_body {
        let inputs: Vec<_> = endpoint.inputs.iter().filter(|input| input.at == At::Body).collect();
        let properties: serde_json::Map<_, _> =
            inputs.iter().map(|input| (input.name.to_owned(), documented(input, generator))).collect();
        let required: Vec<_> =
            inputs.iter().filter(|input| input.unsaid == Unsaid::Refused).map(|input| input.name).collect();
        let is_required = !required.is_empty();
        let schema = json!({
            "type": "object", "properties": properties, "required": required, "additionalProperties": false,
        });
        described["requestBody"] =
            json!({ "required": is_required, "content": { "application/json": { "schema": schema } } });
    }
    described
}

fn schema(input: &Input, generator: &mut schemars::SchemaGenerator) -> Value {
    let mut schema = match input.kind {
        Kind::Text => json!({ "type": "string", "minLength": 1, "pattern": "^[^\\u0000-\\u001f\\u007f-\\u009f]+$" }),
        Kind::Seconds => json!({ "type": "integer", "minimum": 0, "maximum": LASTING_SECONDS_MAX }),
        Kind::Changes => {
            json!({ "type": "array", "items": generator.subschema_for::<crate::config::Change>().to_value() })
        }
        Kind::Truth => json!({ "type": "boolean" }),
        // Characters of any kind take four bytes at most.
        Kind::Password => json!({ "type": "string", "minLength": 1, "maxLength": super::gate::PASSWORD_BYTES_MAX / 4 }),
        Kind::Period => json!({ "enum": ["hour", "day"] }),
        Kind::Days => json!({ "type": "integer", "minimum": 1, "maximum": defaults::REPORT_DAYS_MAX }),
        Kind::Level => json!({ "enum": crate::config::Level::ALL.map(crate::config::Level::name) }),
    };
    match (input.unsaid, input.kind) {
        (Unsaid::Refused | Unsaid::Nothing, _) => {}
        (Unsaid::Number(number), _) => schema["default"] = number.into(),
        (Unsaid::Truth(is_day), Kind::Period) => schema["default"] = if is_day { "day" } else { "hour" }.into(),
        (Unsaid::Truth(is_so), _) => schema["default"] = is_so.into(),
    }
    schema
}

fn documented(input: &Input, generator: &mut schemars::SchemaGenerator) -> Value {
    let mut schema = schema(input, generator);
    schema["description"] = input.help.into();
    schema
}

fn list(name: &str, item: &Value) -> Value {
    json!({
        "type": "object", "required": [name],
        "properties": { name: { "type": "array", "items": item } },
    })
}

fn responses(good: &Value, refusals: &[u16]) -> Value {
    let mut all = json!({ "200": { "description": "Done.", "content": { "application/json": { "schema": good } } } });
    let error = json!({ "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } });
    for status in refusals {
        let description = match status {
            400 => "What was asked makes no sense.",
            401 => "Nobody is logged in.",
            403 => "This is not allowed.",
            409 => "It can't be done as things are.",
            413 => "The body is too long.",
            415 => "The body is no JSON.",
            _ => "Too many failed log-ins.",
        };
        all[status.to_string()] =
            json!({ "description": description, "content": { "application/json": { "schema": error } } });
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The copy of the document that stands with the others.
    #[test]
    fn the_description_that_is_kept_is_todays() {
        let today = serde_json::to_string_pretty(&document()).expect("JSON") + "\n";
        crate::documents::keep("openapi.json", |_| today);
    }
}
