//! The page of the embedded directory's users.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Query, State};
use gatepost_wire::Secret;

use super::frame::Frame;
use super::parts::{Filter, names};
use super::posted::Posted;
use super::{App, Page, Visitor, ask, carry_out, explain_problem, render};
use crate::admin::answers::User;
use crate::admin::{Command, UserChange};

/// Users that a page shows.
const USERS_SHOWN_MAX: usize = 500;

#[derive(Template)]
#[template(path = "users.html")]
struct Users {
    frame: Frame,
    user: String,
    rows: Vec<UserRow>,
    total: usize,
    backends: Vec<String>,
    /// Why there are none.
    problem: String,
}

struct UserRow {
    name: String,
    backend: String,
    services: String,
    state: String,
}

pub(super) async fn users(State(app): State<Arc<App>>, Visitor(asker): Visitor, Query(filter): Query<Filter>) -> Page {
    let frame = Frame::new(&app, &asker, "Users", "/users").await?.noting(filter.done.as_ref());
    // Where users are kept elsewhere, that is said.
    let (users, problem): (Vec<User>, _) = match ask(&app, &asker, Command::Users { directory: None }).await {
        Ok(users) => (users, String::new()),
        Err(problem) => (Vec::new(), problem.text),
    };
    let user = filter.user.unwrap_or_default().trim().to_owned();
    let wanted = user.to_lowercase();
    let found: Vec<_> = users.into_iter().filter(|user| user.name.to_lowercase().contains(&wanted)).collect();
    let row = |user: User| {
        let states = [(user.disabled, "may not log in"), (user.held, "log-ins wait"), (!user.password, "no password")];
        UserRow {
            name: user.name,
            backend: user.backend.unwrap_or_default(),
            services: user.services.unwrap_or_default(),
            state: states.iter().filter(|(is_so, _)| *is_so).map(|(_, words)| *words).collect::<Vec<_>>().join(", "),
        }
    };
    let total = found.len();
    let rows = found.into_iter().take(USERS_SHOWN_MAX).map(row).collect();
    let backends = names(ask(&app, &asker, Command::Backends).await?);
    render(&Users { frame, user, rows, total, backends, problem })
}

pub(super) async fn change_users(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let name = said.name("name");
    match said.get("do") {
        "set" => {}
        "remove" => {
            let command = Command::RemoveUser { name, directory: None };
            return carry_out(&app, asker, command, "/users", "removed").await;
        }
        _ => return posted.refuse(&app, "/users").await,
    }
    let some = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let password = Secret::new(said.get("password").as_bytes().to_vec());
    let password = match app.hash(password).await {
        Ok(hash) => hash,
        Err(problem) => return explain_problem(&app, asker, &problem, "/users").await,
    };
    let (disabled, held) = match said.get("state") {
        "enable" => (Some(false), None),
        "disable" => (Some(true), None),
        "hold" => (None, Some(true)),
        "release" => (None, Some(false)),
        _ => (None, None),
    };
    let (backend, services) = (some(said.get("backend")), some(said.get("services")));
    let change = UserChange { backend, disabled, held, services, password };
    let command = Command::SetUser { name, change, directory: None };
    carry_out(&app, asker, command, "/users", "added").await
}
