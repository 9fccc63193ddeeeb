//! The page of administrators: who may log in here, and tokens for programs.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use gatepost_wire::Secret;

use super::frame::Frame;
use super::parts::Filter;
use super::posted::Posted;
use super::{App, Page, Problem, Visitor, explain_problem, go, render};
use crate::admin::accounts::{Listed, Role};
use crate::admin::http::gate::Asker;
use crate::config::Level;
use crate::log::Field;

#[derive(Template)]
#[template(path = "administrators.html")]
struct Administrators {
    frame: Frame,
    rows: Vec<AdministratorRow>,
    token: String,
}

struct AdministratorRow {
    name: String,
    role: &'static str,
    by: &'static str,
    made: String,
}

pub(super) async fn administrators(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Query(filter): Query<Filter>,
) -> Page {
    show_administrators(&app, &asker, filter.done.as_ref(), String::new()).await
}

async fn show_administrators(app: &App, asker: &Asker, done: Option<&String>, token: String) -> Page {
    asker.may(Role::Admin)?;
    let frame = Frame::new(app, asker, "Administrators", "/administrators").await?.noting(done);
    let row = |listed: Listed| AdministratorRow {
        name: listed.name,
        role: listed.role.name(),
        by: listed.by,
        made: listed.made.unwrap_or_default(),
    };
    let rows = app.accounts.list().map_err(|error| app.broken(&error))?.into_iter().map(row).collect();
    render(&Administrators { frame, rows, token })
}

/// What came of it.
enum Done {
    /// A new token, to be shown this once.
    Token(String),
    /// The word by which the page says so.
    Said(&'static str),
}

/// What a form asks to be done about an administrator or a token.
enum What {
    Person(Role),
    Token(Role),
    Remove,
}

pub(super) async fn change_administrators(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    asker.may(Role::Admin)?;
    let name = said.name("name");
    let what = match (said.get("do"), said.get("role").parse()) {
        ("person", Ok(role)) => What::Person(role),
        ("token", Ok(role)) => What::Token(role),
        ("remove", _) => What::Remove,
        _ => return posted.refuse(&app, "/administrators").await,
    };
    let password = Secret::new(said.get("password").as_bytes().to_vec());
    let (accounts, changed) = (Arc::clone(&app.accounts), name.clone());
    // Hashing takes a while.
    let work = tokio::task::spawn_blocking(move || match what {
        What::Person(role) => accounts.set(&changed, role, &password).map(|()| Done::Said("added")),
        What::Token(role) => accounts.add_token(&changed, role).map(Done::Token),
        What::Remove => accounts.remove(&changed).map(|()| Done::Said("removed")),
    });
    let result = work.await.map_err(|error| app.broken(&error.to_string()))?;
    let record = app.log.record(Level::Info, "admin", "administrators were changed");
    let record = record.with("name", Field::Name(name)).with("what", said.get("do"));
    record.with("by", asker.by()).with("done", if result.is_ok() { "yes" } else { "no" }).write();
    match result {
        Ok(Done::Token(token)) => show_administrators(&app, asker, None, token).await,
        Ok(Done::Said(done)) => Ok(go("/administrators", done)),
        Err(error) => {
            let problem = Problem::new(StatusCode::CONFLICT, error);
            explain_problem(&app, asker, &problem, "/administrators").await
        }
    }
}
