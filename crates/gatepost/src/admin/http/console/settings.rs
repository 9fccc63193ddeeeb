//! Pages of settings, the look at a change before it is made, and making it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use gatepost_wire::PROTOCOLS;
use serde::de::IgnoredAny;

use super::forms;
use super::frame::{Frame, service_title};
use super::layout::{Group, MAIL, Shown, TABS, Tab};
use super::parts::Filter;
use super::posted::Posted;
use super::{App, Page, Problem, Visitor, ask, ask_one, explain_problem, go, local, render};
use crate::admin::accounts::Role;
use crate::admin::answers::{Checked, Settings};
use crate::admin::http::gate::Asker;
use crate::admin::{Changes, Command};
use crate::config::{Lists, TablePath};

/// A group as it is shown.
struct GroupView {
    title: &'static str,
    forms: Vec<String>,
}

#[derive(Template)]
#[template(path = "settings.html")]
struct SettingsPage<'a> {
    frame: &'a Frame,
    tabs: Vec<(String, &'static str)>,
    seen: Seen,
}

#[derive(Template)]
#[template(path = "part.html")]
struct Part<'a> {
    frame: &'a Frame,
    seen: Seen,
}

/// What can be seen of the settings.
struct Seen {
    groups: Vec<GroupView>,
    digest: String,
    /// Why it is nothing: the rest of a page is there all the same.
    problem: String,
}

impl Seen {
    async fn of(app: &App, asker: &Asker, groups: &'static [Group], service: &str) -> Result<Self, Problem> {
        match file(app, asker).await {
            Ok((lists, digest)) => {
                let groups = views(&lists, groups, service, asker.person.role < Role::Admin)?;
                Ok(Self { groups, digest, problem: String::new() })
            }
            Err(problem) => Ok(Self { groups: Vec::new(), digest: String::new(), problem: problem.text }),
        }
    }
}

/// The file's text and digest.
async fn file(app: &App, asker: &Asker) -> Result<(Lists, String), Problem> {
    let Settings { text, digest, .. } = ask_one(app, asker, Command::Settings).await?;
    Ok((Lists::of(&text).map_err(|error| Problem::new(StatusCode::CONFLICT, error))?, digest))
}

fn views(lists: &Lists, groups: &'static [Group], service: &str, is_fixed: bool) -> Result<Vec<GroupView>, Problem> {
    let view = |group: &'static Group| {
        let show = |block| forms::show(lists, &TablePath::default(), block, service, is_fixed);
        let forms = group.blocks.iter().map(show).collect::<Result<Vec<_>, _>>()?;
        Ok(GroupView { title: group.title, forms })
    };
    let views = groups.iter().map(view).collect::<Result<Vec<_>, String>>().map_err(super::broken)?;
    // Not every service has all of them.
    Ok(views.into_iter().filter(|view| view.forms.iter().any(|form| !form.is_empty())).collect())
}

/// A part of a service's page.
pub(super) async fn service(
    State(app): State<Arc<App>>,
    Visitor(asker): Visitor,
    Path((service, tab)): Path<(String, String)>,
    Query(filter): Query<Filter>,
) -> Page {
    let nothing = || Problem::new(StatusCode::NOT_FOUND, "there is nothing at this address");
    let protocol = PROTOCOLS.iter().find(|protocol| protocol.name == service).ok_or_else(nothing)?;
    let takes_mail = !matches!(protocol.course, gatepost_wire::Course::LogIn(_));
    let tabs: Vec<&'static Tab> = TABS.iter().chain(takes_mail.then_some(&MAIL)).collect();
    let tab = tabs.iter().find(|known| known.id == tab).ok_or_else(nothing)?;
    let here = format!("/services/{service}/{}", tab.id);
    let title = service_title(&service);
    let frame = Frame::new(&app, &asker, title, here).await?.noting(filter.done.as_ref());
    let seen = Seen::of(&app, &asker, tab.groups, &service).await?;
    let tabs = tabs.iter().map(|tab| (format!("/services/{service}/{}", tab.id), tab.title)).collect();
    render(&SettingsPage { frame: &frame, tabs, seen })
}

/// The settings that stand below something else on a page.
pub(super) async fn shown(app: &App, asker: &Asker, frame: &Frame, what: Shown) -> Result<String, Problem> {
    let seen = Seen::of(app, asker, what.groups(), "").await?;
    Part { frame, seen }.render().map_err(|error| super::broken(error.to_string()))
}

#[derive(Template)]
#[template(path = "review.html")]
struct Review {
    frame: Frame,
    problems: Vec<String>,
    warnings: Vec<String>,
    effects: Vec<String>,
    diff: Vec<(&'static str, String)>,
    digest: String,
    /// As JSON, to be made once they have been looked at.
    changes: String,
    back: String,
}

/// Shows what a change would do.
pub(super) async fn review(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let back = local(said.get("back")).to_owned();
    let lists = match file(&app, asker).await {
        Ok((lists, _)) => lists,
        Err(problem) => return explain_problem(&app, asker, &problem, &back).await,
    };
    let conflict = |error| Problem::new(StatusCode::CONFLICT, error);
    let changes = match forms::changes(&lists, &said.0) {
        Ok(changes) => changes,
        Err(error) => return explain_problem(&app, asker, &conflict(error), &back).await,
    };
    let changes = Changes { changes, digest: Some(said.get("digest").to_owned()) };
    let checked: Checked = match ask_one(&app, asker, Command::CheckSettings(changes.clone())).await {
        Ok(checked) => checked,
        Err(problem) => return explain_problem(&app, asker, &problem, &back).await,
    };
    let kind = |line: String| match line.chars().next() {
        Some('+') => ("plus", line),
        Some('-') => ("minus", line),
        _ => ("same", line),
    };
    let frame = Frame::new(&app, asker, "Look at the change", back.clone()).await?;
    render(&Review {
        frame,
        problems: checked.problems,
        warnings: checked.warnings,
        effects: checked.effects,
        diff: checked.diff.into_iter().map(kind).collect(),
        digest: checked.digest,
        changes: serde_json::to_string(&changes.changes).unwrap_or_default(),
        back,
    })
}

/// Makes a change that has been looked at.
pub(super) async fn apply(State(app): State<Arc<App>>, posted: Posted) -> Page {
    let Posted { asker, said } = &posted;
    let back = said.get("back");
    let conflict = |error: serde_json::Error| Problem::new(StatusCode::BAD_REQUEST, error.to_string());
    let changes = serde_json::from_str(said.get("changes")).map_err(conflict)?;
    let changes = Changes { changes, digest: Some(said.get("digest").to_owned()) };
    match ask::<IgnoredAny>(&app, asker, Command::ApplySettings(changes)).await {
        Ok(_) => Ok(go(back, "applied")),
        Err(problem) => explain_problem(&app, asker, &problem, back).await,
    }
}
