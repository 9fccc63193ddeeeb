//! This process: certificates, reading the file again, and all settings that stand nowhere else.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use serde_json::Value;

use super::frame::Frame;
use super::parts::{Filter, list, text};
use super::posted::Posted;
use super::settings::{Shown, shown};
use super::{App, Page, Visitor, ask, carry_out, render};
use crate::admin::Command;
use crate::admin::human::{self};

#[derive(Template)]
#[template(path = "system.html")]
struct System {
    frame: Frame,
    facts: Vec<(&'static str, String)>,
    undo: u64,
    digest: String,
    certificates: Vec<CertificateRow>,
    settings: String,
}

struct CertificateRow {
    names: String,
    state: String,
    until: String,
    days: String,
    chain: String,
}

pub(super) async fn show(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "System", "/system").await?.noting(filter.done.as_ref());
    let status = ask(&app, &asker, Command::Status).await?;
    let status = &status["status"][0];
    // A file that can't be read is said below.
    let file = ask(&app, &asker, Command::Settings).await.unwrap_or_default();
    let facts = vec![
        ("Name", text(&status["name"])),
        ("Version", text(&status["version"])),
        ("Process", text(&status["pid"])),
        ("Up", human::time(status["up_seconds"].as_u64().unwrap_or(0))),
        ("Sessions", text(&status["sessions"])),
        ("Threads", text(&status["workers"])),
        ("File", text(&file["settings"][0]["path"])),
    ];
    let answer = ask(&app, &asker, Command::Certificates).await?;
    let certificate = |certificate: &Value| CertificateRow {
        names: text(&certificate["names"]),
        state: text(&certificate["state"]),
        until: text(&certificate["until"]),
        days: text(&certificate["days_left"]),
        chain: text(&certificate["chain"]),
    };
    let certificates = list(&answer, "certificates").map(certificate).collect();
    let settings = shown(&app, &asker, &frame, Shown::System).await?;
    let undo = file["settings"][0]["undo"].as_u64().unwrap_or(0);
    let digest = text(&file["settings"][0]["digest"]);
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
