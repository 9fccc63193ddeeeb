//! Which settings stand on which page, in which order and under which headings.

use super::forms::{Block, Inner, Keys, Kind};

/// A part of a service's page.
pub(super) struct Tab {
    pub(super) id: &'static str,
    pub(super) title: &'static str,
    pub(super) groups: &'static [Group],
}

/// Blocks that belong together.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) blocks: &'static [Block],
}

const fn table(title: &'static str, path: &'static str, keys: Keys) -> Block {
    Block { title, path, kind: Kind::Table, keys, inner: Inner::These(&[]) }
}

const fn list(title: &'static str, path: &'static str, inner: &'static [Block]) -> Block {
    Block { title, path, kind: Kind::List, keys: Keys::All, inner: Inner::These(inner) }
}

/// Tables under names, each with all that may stand in it.
const fn named(title: &'static str, path: &'static str) -> Block {
    Block { title, path, kind: Kind::Named, keys: Keys::All, inner: Inner::All }
}

const LIMITS: Block = table("Flow control", "limits", Keys::All);
const CERTIFICATE: Block = table("Its own certificate", "certificate", Keys::All);
const CLIENT_CERTIFICATE: Block = table("Certificates of clients", "client_certificate", Keys::All);
const PROXY_PROTOCOL: Block = table("Load balancers (PROXY protocol)", "proxy_protocol", Keys::All);
const ACCESS: Block = list("Access rule", "access", &[LIMITS]);

/// The parts of every service's page.
pub(super) static TABS: &[Tab] = &[
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
                        keys: Keys::None,
                        inner: Inner::These(&[CERTIFICATE, CLIENT_CERTIFICATE]),
                    },
                    table("For all services", "tls", Keys::All),
                    list("Certificate", "tls/certificate", &[]),
                ],
            },
            Group { title: "Greeting", blocks: &[table("", "*", Keys::These(&["greeting", "id"]))] },
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
        groups: &[Group { title: "Limits of this service", blocks: &[table("Connections", "*/limits", Keys::All)] }],
    },
    Tab {
        id: "logging",
        title: "Logging",
        groups: &[
            Group { title: "Level", blocks: &[table("", "log", Keys::All)] },
            Group {
                title: "Where what goes",
                blocks: &[list("Rule", "log/rule", &[table("Rotation", "rotate", Keys::All)])],
            },
        ],
    },
    Tab {
        id: "authentication",
        title: "Encryption and authentication",
        groups: &[
            Group {
                title: "Log-ins",
                blocks: &[table("", "*", Keys::These(&["authenticate", "directory", "mechanisms", "plaintext"]))],
            },
            Group {
                title: "Certificates of clients",
                blocks: &[table("Certificates", "*/client_certificate", Keys::All)],
            },
        ],
    },
    Tab {
        id: "errors",
        title: "Error control",
        groups: &[
            Group {
                title: "In one session",
                blocks: &[table(
                    "",
                    "*",
                    Keys::These(&["max_errors", "max_auth_errors", "login_timeout", "idle_timeout"]),
                )],
            },
            Group { title: "Against guessing, for all services", blocks: &[table("Defence", "defence", Keys::All)] },
        ],
    },
    Tab {
        id: "threads",
        title: "Threads",
        groups: &[Group { title: "For all services", blocks: &[table("", "threads", Keys::All)] }],
    },
    Tab {
        id: "backend",
        title: "Back-end connection",
        groups: &[Group {
            title: "How this service talks to back ends",
            blocks: &[table("Connection", "*/backend", Keys::All)],
        }],
    },
];

/// What services of mail have beside.
pub(super) static MAIL: Tab = Tab {
    id: "mail",
    title: "Mail",
    groups: &[
        Group {
            title: "What is taken",
            blocks: &[table("", "*", Keys::These(&["domains", "helo", "reverse_dns", "greet_delay", "senders"]))],
        },
        Group { title: "How much", blocks: &[table("Rates", "*/rates", Keys::All)] },
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

impl Shown {
    /// What stands there.
    pub(super) const fn groups(self) -> &'static [Group] {
        match self {
            Self::Backends => BACKENDS,
            Self::Map => MAP,
            Self::Defence => DEFENCE,
            Self::System => SYSTEM,
        }
    }
}

static BACKENDS: &[Group] = &[Group { title: "Back ends", blocks: &[named("Back end", "backend")] }];

static MAP: &[Group] = &[
    Group {
        title: "Map",
        blocks: &[
            table("", "map", Keys::All),
            table("What is remembered", "map/cache", Keys::All),
            list("Map rule", "map/rule", &[]),
        ],
    },
    Group { title: "Directories", blocks: &[named("Directory", "directory")] },
];

static DEFENCE: &[Group] = &[Group { title: "Defence", blocks: &[table("Failed log-ins", "defence", Keys::All)] }];

static SYSTEM: &[Group] = &[
    Group { title: "This node", blocks: &[table("", "", Keys::All)] },
    Group { title: "Threads", blocks: &[table("", "threads", Keys::All)] },
    Group { title: "TLS", blocks: &[table("", "tls", Keys::All), list("Certificate", "tls/certificate", &[])] },
    Group { title: "Names in the DNS", blocks: &[table("", "dns", Keys::All)] },
    Group {
        title: "Console and API",
        blocks: &[table("", "admin", Keys::All), table("Their own certificate", "admin/certificate", Keys::All)],
    },
    Group {
        title: "Log",
        blocks: &[table("", "log", Keys::All), list("Rule", "log/rule", &[table("Rotation", "rotate", Keys::All)])],
    },
    Group { title: "Traces", blocks: &[table("OpenTelemetry", "traces", Keys::All)] },
    Group { title: "Access rules for all services", blocks: &[list("Global rule", "access", &[LIMITS])] },
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::forms;
    use super::*;
    use crate::config::{Lists, TablePath};

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
