//! Pages of settings: what stands where, the look at a change before it is made, and making it.

use std::sync::Arc;

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use gatepost_wire::PROTOCOLS;
use serde_json::Value;

use super::forms::{self, Block, Inner, Kind};
use super::frame::{Frame, service_title};
use super::parts::Filter;
use super::posted::Posted;
use super::{App, Page, Problem, Visitor, ask, explain_problem, go, local, render};
use crate::admin::accounts::Role;
use crate::admin::http::gate::Asker;
use crate::admin::{Changes, Command};
use crate::config::{Lists, TablePath};

/// A part of a service's page.
struct Tab {
    id: &'static str,
    title: &'static str,
    groups: &'static [Group],
}

/// Blocks that belong together.
struct Group {
    title: &'static str,
    blocks: &'static [Block],
}

const fn table(title: &'static str, path: &'static str, keys: &'static [&'static str]) -> Block {
    Block { title, path, kind: Kind::Table, keys, inner: Inner::These(&[]) }
}

const fn list(title: &'static str, path: &'static str, inner: &'static [Block]) -> Block {
    Block { title, path, kind: Kind::List, keys: &[], inner: Inner::These(inner) }
}

/// Tables under names, each with all that may stand in it.
const fn named(title: &'static str, path: &'static str) -> Block {
    Block { title, path, kind: Kind::Named, keys: &[], inner: Inner::All }
}

/// No setting of the table itself.
const NOTHING: &[&str] = &["-"];
const LIMITS: Block = table("Flow control", "limits", &[]);
const CERTIFICATE: Block = table("Its own certificate", "certificate", &[]);
const CLIENT_CERTIFICATE: Block = table("Certificates of clients", "client_certificate", &[]);
const PROXY_PROTOCOL: Block = table("Load balancers (PROXY protocol)", "proxy_protocol", &[]);
const ACCESS: Block = list("Access rule", "access", &[LIMITS]);

/// The parts of every service's page.
static TABS: &[Tab] = &[
    Tab {
        id: "listeners",
        title: "Listeners",
        groups: &[
            Group { title: "General", blocks: &[list("Listener", "*/listener", &[PROXY_PROTOCOL, LIMITS, ACCESS])] },
            Group {
                title: "SSL settings",
                blocks: &[
                    Block {
                        title: "Listener",
                        path: "*/listener",
                        kind: Kind::Kept,
                        keys: NOTHING,
                        inner: Inner::These(&[CERTIFICATE, CLIENT_CERTIFICATE]),
                    },
                    table("For all services", "tls", &[]),
                    list("Certificate", "tls/certificate", &[]),
                ],
            },
            Group { title: "Greeting", blocks: &[table("", "*", &["greeting", "id"])] },
        ],
    },
    Tab {
        id: "access",
        title: "Access control",
        groups: &[
            Group { title: "Rules of this service", blocks: &[list("Access rule", "*/access", &[LIMITS])] },
            Group { title: "Rules for all services", blocks: &[list("Global rule", "access", &[LIMITS])] },
        ],
    },
    Tab {
        id: "flow",
        title: "Flow control",
        groups: &[Group { title: "Limits of this service", blocks: &[table("Connections", "*/limits", &[])] }],
    },
    Tab {
        id: "logging",
        title: "Logging",
        groups: &[
            Group { title: "Level", blocks: &[table("", "log", &[])] },
            Group {
                title: "Where what goes",
                blocks: &[list("Rule", "log/rule", &[table("Rotation", "rotate", &[])])],
            },
        ],
    },
    Tab {
        id: "authentication",
        title: "Encryption and authentication",
        groups: &[
            Group {
                title: "Log-ins",
                blocks: &[table("", "*", &["authenticate", "directory", "mechanisms", "plaintext"])],
            },
            Group { title: "Certificates of clients", blocks: &[table("Certificates", "*/client_certificate", &[])] },
        ],
    },
    Tab {
        id: "errors",
        title: "Error control",
        groups: &[
            Group {
                title: "In one session",
                blocks: &[table("", "*", &["max_errors", "max_auth_errors", "login_timeout", "idle_timeout"])],
            },
            Group { title: "Against guessing, for all services", blocks: &[table("Defence", "defence", &[])] },
        ],
    },
    Tab {
        id: "threads",
        title: "Threads",
        groups: &[Group { title: "For all services", blocks: &[table("", "threads", &[])] }],
    },
    Tab {
        id: "backend",
        title: "Back-end connection",
        groups: &[Group {
            title: "How this service talks to back ends",
            blocks: &[table("Connection", "*/backend", &[])],
        }],
    },
];

/// What services of mail have beside.
static MAIL: Tab = Tab {
    id: "mail",
    title: "Mail",
    groups: &[
        Group {
            title: "What is taken",
            blocks: &[table("", "*", &["domains", "helo", "reverse_dns", "greet_delay", "senders"])],
        },
        Group { title: "How much", blocks: &[table("Rates", "*/rates", &[])] },
    ],
};

/// Settings that stand on other pages.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shown {
    Backends,
    Map,
    Defence,
    System,
}

static BACKENDS: &[Group] = &[Group { title: "Back ends", blocks: &[named("Back end", "backend")] }];

static MAP: &[Group] = &[
    Group {
        title: "Map",
        blocks: &[
            table("", "map", &[]),
            table("What is remembered", "map/cache", &[]),
            list("Map rule", "map/rule", &[]),
        ],
    },
    Group { title: "Directories", blocks: &[named("Directory", "directory")] },
];

static DEFENCE: &[Group] = &[Group { title: "Defence", blocks: &[table("Failed log-ins", "defence", &[])] }];

static SYSTEM: &[Group] = &[
    Group { title: "This node", blocks: &[table("", "", &[])] },
    Group { title: "Threads", blocks: &[table("", "threads", &[])] },
    Group { title: "TLS", blocks: &[table("", "tls", &[]), list("Certificate", "tls/certificate", &[])] },
    Group { title: "Names in the DNS", blocks: &[table("", "dns", &[])] },
    Group {
        title: "Console and API",
        blocks: &[table("", "admin", &[]), table("Their own certificate", "admin/certificate", &[])],
    },
    Group {
        title: "Log",
        blocks: &[table("", "log", &[]), list("Rule", "log/rule", &[table("Rotation", "rotate", &[])])],
    },
    Group { title: "Traces", blocks: &[table("OpenTelemetry", "traces", &[])] },
    Group { title: "Access rules for all services", blocks: &[list("Global rule", "access", &[LIMITS])] },
];

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
    let answer = ask(app, asker, Command::Settings).await?;
    let settings = &answer["settings"][0];
    let lists = Lists::of(settings["text"].as_str().unwrap_or_default());
    let digest = settings["digest"].as_str().unwrap_or_default().to_owned();
    Ok((lists.map_err(|error| Problem::new(StatusCode::CONFLICT, error))?, digest))
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
    let groups = match what {
        Shown::Backends => BACKENDS,
        Shown::Map => MAP,
        Shown::Defence => DEFENCE,
        Shown::System => SYSTEM,
    };
    let seen = Seen::of(app, asker, groups, "").await?;
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
    let checked = match ask(&app, asker, Command::CheckSettings(changes.clone())).await {
        Ok(answer) => answer["check"][0].clone(),
        Err(problem) => return explain_problem(&app, asker, &problem, &back).await,
    };
    let texts = |key: &str| {
        let list = checked[key].as_array().into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>()
    };
    let kind = |line: String| match line.chars().next() {
        Some('+') => ("plus", line),
        Some('-') => ("minus", line),
        _ => ("same", line),
    };
    let frame = Frame::new(&app, asker, "Look at the change", back.clone()).await?;
    render(&Review {
        frame,
        problems: texts("problems"),
        warnings: texts("warnings"),
        effects: texts("effects"),
        diff: texts("diff").into_iter().map(kind).collect(),
        digest: checked["digest"].as_str().unwrap_or_default().to_owned(),
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
    match ask(&app, asker, Command::ApplySettings(changes)).await {
        Ok(_) => Ok(go(back, "applied")),
        Err(problem) => explain_problem(&app, asker, &problem, back).await,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// A file in which every kind of table may stand.
    const FILE: &str = "[[log.rule]]\n[[tls.certificate]]\n[[access]]\n[[imap.access]]\n[[imap.listener]]\n[[imap.listener.access]]\n\
        [[map.rule]]\n[backend.a]\n[directory.s]\ntype = \"sql\"\n[directory.p]\ntype = \"passwd-file\"\n\
        [directory.l]\ntype = \"ldap\"\n[directory.h]\ntype = \"http\"\n[directory.o]\ntype = \"oauth2\"\n";

    /// The settings that pages show, as `table key`, where NAME stands for what the administrator chose.
    fn shown() -> BTreeSet<String> {
        let lists = Lists::of(FILE).expect("a file");
        let mut html = String::new();
        for service in ["imap", "submission", "smtp"] {
            let tabs = TABS.iter().chain((service != "imap").then_some(&MAIL)).flat_map(|tab| tab.groups);
            for group in tabs.chain([BACKENDS, MAP, DEFENCE, SYSTEM].into_iter().flatten()) {
                let show = |block| forms::show(&lists, &TablePath::default(), block, service, false);
                html.extend(group.blocks.iter().map(|block| show(block).expect("a form")));
            }
        }
        let names = html.split("name=\"v|").skip(1).filter_map(|rest| rest.split('"').next());
        let plain = |name: &str| {
            let (path, key) = name.rsplit_once('|').expect("a key");
            let parts = path.split('/').filter(|part| part.parse::<usize>().is_err());
            let parts = parts.map(|part| if part.len() == 1 { "NAME" } else { part });
            format!("{} {key}", parts.collect::<Vec<_>>().join("."))
        };
        names.map(plain).collect()
    }

    #[test]
    fn every_setting_is_on_a_page() {
        let shown = shown();
        let reference = crate::config::reference_json();
        let settings = reference["reference"].as_array().expect("a list");
        for setting in settings {
            let head = setting["table"].as_str().expect("a table");
            let table = head.split(" #").next().unwrap_or_default().trim().trim_matches(['[', ']']);
            let name = format!("{table} {}", setting["key"].as_str().expect("a key"));
            assert!(shown.contains(&name), "{name} is on no page");
        }
        assert!(settings.len() > 150, "only {} settings", settings.len());
    }
}
