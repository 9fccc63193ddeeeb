//! What every page has around it: who looks, where, and the ways to the other pages.

use gatepost_wire::{Course, PROTOCOLS};

use super::{App, Problem, ask_one};
use crate::admin::Command;
use crate::admin::accounts::Role;
use crate::admin::answers::{Status, Word};
use crate::admin::http::gate::Asker;

/// What every page has around it.
pub(super) struct Frame {
    pub(super) title: String,
    pub(super) node: String,
    pub(super) here: String,
    pub(super) person: String,
    pub(super) role: Role,
    pub(super) proof: String,
    /// What was done a moment ago.
    pub(super) notice: &'static str,
    pub(super) nav: Vec<Group>,
}

/// Pages that belong together.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) links: Vec<(String, String)>,
}

impl Frame {
    pub(super) async fn new(
        app: &App,
        asker: &Asker,
        title: impl Into<String>,
        here: impl Into<String>,
    ) -> Result<Self, Problem> {
        let status: Status = ask_one(app, asker, Command::Status).await?;
        let link = |url: &str, name: &str| (url.to_owned(), name.to_owned());
        let of_service = |name: &Word| (format!("/services/{name}/listeners"), service_title(name));
        let services = status.services.iter().map(of_service).collect();
        let mut system = vec![link("/system", "System")];
        if asker.person.role == Role::Admin {
            system.push(link("/administrators", "Administrators"));
        }
        let nav = vec![
            Group {
                title: "Now",
                links: vec![
                    link("/", "Overview"),
                    link("/sessions", "Sessions"),
                    link("/log", "Log"),
                    link("/bans", "Bans"),
                    link("/reports", "Reports"),
                ],
            },
            Group { title: "Services", links: services },
            Group {
                title: "Mail stores",
                links: vec![
                    link("/backends", "Back ends"),
                    link("/map", "Map and directories"),
                    link("/users", "Users"),
                ],
            },
            Group { title: "Gatepost", links: system },
        ];
        Ok(Self {
            title: title.into(),
            node: status.name,
            here: here.into(),
            person: asker.person.name.clone(),
            role: asker.person.role,
            proof: asker.proof().unwrap_or_default().to_owned(),
            notice: "",
            nav,
        })
    }

    /// Says what was done before this page was asked for.
    pub(super) fn noting(mut self, done: Option<&String>) -> Self {
        self.notice = done.map_or("", |done| notice(done));
        self
    }

    /// Whether this page is at `url`.
    pub(super) fn is_here(&self, url: &str) -> bool {
        self.here.split('?').next() == Some(url)
    }

    /// Whether this page is the one at `url`, or a part of it: all parts of a service are its page.
    pub(super) fn is_part_of(&self, url: &str) -> bool {
        let service =
            |url: &str| url.strip_prefix("/services/").and_then(|rest| rest.split('/').next()).map(str::to_owned);
        self.is_here(url) || service(url).is_some_and(|name| service(&self.here) == Some(name))
    }

    pub(super) fn may_operate(&self) -> bool {
        self.role >= Role::Operator
    }

    pub(super) fn is_admin(&self) -> bool {
        self.role == Role::Admin
    }
}

/// What was done, by the word in the address: nobody else's text is ever shown.
fn notice(done: &str) -> &'static str {
    match done {
        "applied" => "The change is in force and in the file.",
        "undone" => "The latest change is taken back.",
        "kicked" => "The sessions end.",
        "moved" => "The user is moved: log-ins come to the other back end from now on.",
        "forgotten" => "What was remembered is forgotten.",
        "banned" => "The network is turned away, and its sessions end.",
        "lifted" => "The network is let in again.",
        "drain" => "The back end takes no more log-ins, and its sessions end over the time.",
        "maint" => "The back end is out of service.",
        "ready" => "The back end is in service again.",
        "reloaded" => "The configuration file was read again.",
        "level" => "The log's level is changed until the next reload.",
        "traced" => "The user's conversations are in the log for ten minutes, from the next log-in on.",
        "removed" => "Removed.",
        "added" => "Added, or changed.",
        _ => "",
    }
}

/// A service's name for people.
pub(super) fn service_title(name: &str) -> String {
    let Some(protocol) = PROTOCOLS.iter().find(|protocol| protocol.name == name) else { return name.to_owned() };
    match protocol.course {
        Course::LogIn(_) => format!("{} Proxy", protocol.title),
        Course::Submission(_) | Course::Mail(_) => protocol.title.to_owned(),
    }
}

/// Every service that there can be.
pub(super) fn service_names() -> Vec<&'static str> {
    PROTOCOLS.iter().map(|protocol| protocol.name).collect()
}
