//! Every address of the API: one row says where it is, what it takes, who may ask it, what it does and what it answers.
//! The router, the checks of what comes and the `OpenAPI` document all follow from the rows.

use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::admin::accounts::Role;
use crate::admin::{Changes, Command, UserChange, Whose, answers, defaults};
use crate::config::whole;

/// One address and method.
pub(super) struct Endpoint {
    pub(super) method: &'static str,
    /// Behind `/api/v1`; what stands in braces is an input.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) role: Role,
    pub(super) inputs: &'static [Input],
    /// The command that it is.
    pub(super) command: fn(&Inputs) -> Result<Command, String>,
    /// The name of the list in its answer.
    pub(super) list: &'static str,
    /// What the items of that list look like.
    pub(super) item: fn(&mut SchemaGenerator) -> Schema,
}

/// Something that a request says.
pub(super) struct Input {
    pub(super) name: &'static str,
    pub(super) at: At,
    pub(super) kind: Kind,
    pub(super) is_required: bool,
    pub(super) help: &'static str,
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    Path,
    Query,
    /// A key of the JSON object that is the body.
    Body,
}

/// What it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    /// A whole number from 0.
    Seconds,
    Level,
    Truth,
    /// A text that becomes a hash before anybody sees it.
    Password,
    /// hour or day.
    Period,
    /// From 1 to 90, as a text.
    Days,
    /// A list of [`Change`](crate::config::Change).
    Changes,
}

/// What a request says, checked.
pub(super) struct Inputs(pub(super) Map<String, Value>);

impl Inputs {
    fn text(&self, name: &str) -> String {
        self.some_text(name).unwrap_or_default()
    }

    fn some_text(&self, name: &str) -> Option<String> {
        self.0.get(name).and_then(Value::as_str).map(str::to_owned)
    }

    fn truth(&self, name: &str) -> Option<bool> {
        self.0.get(name).and_then(Value::as_bool)
    }

    fn seconds(&self, name: &str) -> Option<u64> {
        self.0.get(name).and_then(whole)
    }

    fn changes(&self) -> Result<Changes, String> {
        let changes = self.0.get("changes").cloned().unwrap_or_default();
        let changes = serde_json::from_value(changes).map_err(|error| format!("changes: {error}"))?;
        Ok(Changes { changes, digest: self.some_text("digest") })
    }

    fn whose(&self) -> Whose {
        Whose {
            id: self.some_text("id"),
            user: self.some_text("user"),
            backend: self.some_text("backend"),
            service: self.some_text("service"),
            ..Whose::default()
        }
    }
}

const fn input(name: &'static str, at: At, kind: Kind, is_required: bool, help: &'static str) -> Input {
    Input { name, at, kind, is_required, help }
}

const fn text(name: &'static str, at: At, help: &'static str) -> Input {
    input(name, at, Kind::Text, true, help)
}

const fn maybe(name: &'static str, at: At, help: &'static str) -> Input {
    input(name, at, Kind::Text, false, help)
}

const CHANGES: Input = input("changes", At::Body, Kind::Changes, true, "The changes, in their order.");
const DIGEST: Input =
    maybe("digest", At::Body, "The digest of the file that they are about, so that nobody else's are overwritten.");
const BACKEND: Input = text("backend", At::Path, "The back end.");
/// All of them.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: "GET",
        path: "/status",
        summary: "How the server is doing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Status),
        list: "status",
        item: SchemaGenerator::subschema_for::<answers::Status>,
    },
    Endpoint {
        method: "GET",
        path: "/live",
        summary: "The last minutes in numbers.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Live),
        list: "live",
        item: SchemaGenerator::subschema_for::<answers::Live>,
    },
    Endpoint {
        method: "GET",
        path: "/reports",
        summary: "What services did in the last days, by the hour or by the day.",
        role: Role::Viewer,
        inputs: &[
            input("by", At::Query, Kind::Period, false, "hour or day. Default: day."),
            input("days", At::Query, Kind::Days, false, "How many days back; at most 90. Default: 30."),
        ],
        command: |inputs| {
            let by_day = inputs.some_text("by").is_none_or(|by| by == "day");
            let days = inputs.some_text("days").and_then(|days| days.parse().ok()).unwrap_or(defaults::REPORT_DAYS);
            Ok(Command::Report { days, by_day })
        },
        list: "report",
        item: SchemaGenerator::subschema_for::<answers::Report>,
    },
    Endpoint {
        method: "GET",
        path: "/explain/{user}",
        summary: "Every step that a user's log-in would take.",
        role: Role::Viewer,
        inputs: &[text("user", At::Path, "The user's name, as a client would give it.")],
        command: |inputs| Ok(Command::Explain { user: inputs.text("user") }),
        list: "explain",
        item: SchemaGenerator::subschema_for::<answers::Step>,
    },
    Endpoint {
        method: "GET",
        path: "/sessions",
        summary: "The sessions that are open, or some of them.",
        role: Role::Viewer,
        inputs: &[
            maybe("user", At::Query, "Of this user."),
            maybe("backend", At::Query, "At this back end."),
            maybe("service", At::Query, "Of this service."),
        ],
        command: |inputs| Ok(Command::Sessions(inputs.whose())),
        list: "sessions",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: "DELETE",
        path: "/sessions/{id}",
        summary: "End a session.",
        role: Role::Operator,
        inputs: &[text("id", At::Path, "The session's id.")],
        command: |inputs| Ok(Command::Kick(inputs.whose())),
        list: "kick",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: "POST",
        path: "/sessions/kick",
        summary: "End all sessions of a user, at a back end, or of a service: those to which all that is said applies.",
        role: Role::Operator,
        inputs: &[
            maybe("user", At::Body, "Of this user."),
            maybe("backend", At::Body, "At this back end."),
            maybe("service", At::Body, "Of this service."),
        ],
        command: |inputs| Ok(Command::Kick(inputs.whose())),
        list: "kick",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: "GET",
        path: "/backends",
        summary: "The back ends, and how each host of them is doing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Backends),
        list: "backends",
        item: SchemaGenerator::subschema_for::<answers::Backend>,
    },
    Endpoint {
        method: "POST",
        path: "/backends/{backend}/drain",
        summary: "Take a back end out of service gently: no new log-ins, and its sessions end spread over the time.",
        role: Role::Operator,
        inputs: &[
            BACKEND,
            input("over_seconds", At::Body, Kind::Seconds, false, "The time that its sessions have. Default: 300."),
        ],
        command: |inputs| {
            let over_seconds = inputs.seconds("over_seconds").unwrap_or(defaults::DRAIN.as_secs());
            Ok(Command::Drain { backend: inputs.text("backend"), over_seconds })
        },
        list: "drain",
        item: SchemaGenerator::subschema_for::<answers::Service>,
    },
    Endpoint {
        method: "POST",
        path: "/backends/{backend}/maint",
        summary: "Take a back end out of service at once.",
        role: Role::Operator,
        inputs: &[BACKEND],
        command: |inputs| Ok(Command::Maint { backend: inputs.text("backend") }),
        list: "maint",
        item: SchemaGenerator::subschema_for::<answers::Service>,
    },
    Endpoint {
        method: "POST",
        path: "/backends/{backend}/ready",
        summary: "Take a back end into service again.",
        role: Role::Operator,
        inputs: &[BACKEND],
        command: |inputs| Ok(Command::Ready { backend: inputs.text("backend") }),
        list: "ready",
        item: SchemaGenerator::subschema_for::<answers::Service>,
    },
    Endpoint {
        method: "GET",
        path: "/users",
        summary: "The users of the embedded directory.",
        role: Role::Viewer,
        inputs: &[maybe("directory", At::Query, "Its name, where there are several.")],
        command: |inputs| Ok(Command::Users { directory: inputs.some_text("directory") }),
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::User>,
    },
    Endpoint {
        method: "PUT",
        path: "/users/{user}",
        summary: "Add a user to the embedded directory, or change what is said of one: what is left out stays.",
        role: Role::Admin,
        inputs: &[
            text("user", At::Path, "The user's name."),
            maybe("directory", At::Query, "The directory's name, where there are several."),
            maybe("backend", At::Body, "The back end that holds the mail."),
            maybe("services", At::Body, "The only services, divided by commas; all: all of them."),
            input("disabled", At::Body, Kind::Truth, false, "May not log in."),
            input("held", At::Body, Kind::Truth, false, "Log-ins wait."),
            input("password", At::Body, Kind::Password, false, "A new password."),
        ],
        command: |inputs| {
            let change = UserChange {
                backend: inputs.some_text("backend"),
                disabled: inputs.truth("disabled"),
                held: inputs.truth("held"),
                services: inputs.some_text("services"),
                // The hash has taken its place.
                password: inputs.some_text("password"),
            };
            Ok(Command::SetUser { name: inputs.text("user"), change, directory: inputs.some_text("directory") })
        },
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::Changed>,
    },
    Endpoint {
        method: "DELETE",
        path: "/users/{user}",
        summary: "Remove a user from the embedded directory.",
        role: Role::Admin,
        inputs: &[
            text("user", At::Path, "The user's name."),
            maybe("directory", At::Query, "The directory's name, where there are several."),
        ],
        command: |inputs| {
            Ok(Command::RemoveUser { name: inputs.text("user"), directory: inputs.some_text("directory") })
        },
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::Changed>,
    },
    Endpoint {
        method: "POST",
        path: "/users/{user}/move",
        summary: "Have a user come to another back end from now on; the mail is moved before.",
        role: Role::Operator,
        inputs: &[text("user", At::Path, "The user."), text("backend", At::Body, "The back end.")],
        command: |inputs| Ok(Command::Move { user: inputs.text("user"), backend: inputs.text("backend") }),
        list: "move",
        item: SchemaGenerator::subschema_for::<answers::Moved>,
    },
    Endpoint {
        method: "POST",
        path: "/users/{user}/trace",
        summary: "Log a user's conversations before the log-in, secrets struck out, whatever the log's level.",
        role: Role::Operator,
        inputs: &[
            text("user", At::Path, "The user."),
            input("for_seconds", At::Body, Kind::Seconds, false, "For how long; 0: no more. Default: 600."),
        ],
        command: |inputs| {
            let for_seconds = inputs.seconds("for_seconds").unwrap_or(defaults::TRACE.as_secs());
            Ok(Command::Trace { user: inputs.text("user"), for_seconds })
        },
        list: "trace",
        item: SchemaGenerator::subschema_for::<answers::Traced>,
    },
    Endpoint {
        method: "GET",
        path: "/bans",
        summary: "Who may not connect, by an administrator or for guessing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Bans),
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Ban>,
    },
    Endpoint {
        method: "POST",
        path: "/bans",
        summary: "Turn away a network, and end its sessions.",
        role: Role::Operator,
        inputs: &[
            text("network", At::Body, "An address, a network such as 192.0.2.0/24, or a range."),
            input("for_seconds", At::Body, Kind::Seconds, false, "For how long. Default: until it is lifted."),
        ],
        command: |inputs| {
            Ok(Command::Ban { network: inputs.text("network"), for_seconds: inputs.seconds("for_seconds") })
        },
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Ban>,
    },
    Endpoint {
        method: "DELETE",
        path: "/bans",
        summary: "Let a network in again.",
        role: Role::Operator,
        inputs: &[text("network", At::Query, "As it was banned, or one that a banned address is in.")],
        command: |inputs| Ok(Command::Unban { network: inputs.text("network") }),
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Unbanned>,
    },
    Endpoint {
        method: "GET",
        path: "/certificates",
        summary: "The certificates in use, and until when they are good.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Certificates),
        list: "certificates",
        item: SchemaGenerator::subschema_for::<answers::Certificate>,
    },
    Endpoint {
        method: "PUT",
        path: "/log-level",
        summary: "Log records of this level and heavier ones in every place, until the next reload.",
        role: Role::Operator,
        inputs: &[input("level", At::Body, Kind::Level, true, "The level.")],
        command: |inputs| {
            let level = inputs.0.get("level").cloned().unwrap_or_default();
            let level = serde_json::from_value(level).map_err(|error| error.to_string())?;
            Ok(Command::LogLevel { level })
        },
        list: "log-level",
        item: SchemaGenerator::subschema_for::<answers::LogLevel>,
    },
    Endpoint {
        method: "POST",
        path: "/cache/flush",
        summary: "Forget what directories and name servers have said, of one user or of all.",
        role: Role::Operator,
        inputs: &[maybe("user", At::Body, "Of this user alone.")],
        command: |inputs| Ok(Command::FlushCaches { user: inputs.some_text("user") }),
        list: "cache",
        item: SchemaGenerator::subschema_for::<answers::Flushed>,
    },
    Endpoint {
        method: "GET",
        path: "/settings",
        summary: "The configuration file, and every setting in force.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Ok(Command::Settings),
        list: "settings",
        item: SchemaGenerator::subschema_for::<answers::Settings>,
    },
    Endpoint {
        method: "POST",
        path: "/settings/check",
        summary: "What changes of the configuration file would do, without making them.",
        role: Role::Admin,
        inputs: &[CHANGES, DIGEST],
        command: |inputs| Ok(Command::CheckSettings(inputs.changes()?)),
        list: "check",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: "POST",
        path: "/settings/apply",
        summary: "Make changes of the configuration file, with its comments and order kept, and take them into use.",
        role: Role::Admin,
        inputs: &[CHANGES, DIGEST],
        command: |inputs| Ok(Command::ApplySettings(inputs.changes()?)),
        list: "apply",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: "POST",
        path: "/settings/undo",
        summary: "Take back the latest change that was made so; five can be.",
        role: Role::Admin,
        inputs: &[DIGEST],
        command: |inputs| Ok(Command::UndoSettings { digest: inputs.some_text("digest") }),
        list: "undo",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: "POST",
        path: "/reload",
        summary: "Take a changed configuration file into use, or say what is wrong with it and change nothing.",
        role: Role::Operator,
        inputs: &[],
        command: |_| Ok(Command::Reload),
        list: "reload",
        item: SchemaGenerator::subschema_for::<answers::Reloaded>,
    },
    Endpoint {
        method: "POST",
        path: "/upgrade",
        summary: "Have a new binary take over; this process stays for the sessions that it has.",
        role: Role::Admin,
        inputs: &[],
        command: |_| Ok(Command::Upgrade),
        list: "upgrade",
        item: SchemaGenerator::subschema_for::<answers::Upgraded>,
    },
    Endpoint {
        method: "POST",
        path: "/stop",
        summary: "Stop in good order.",
        role: Role::Admin,
        inputs: &[],
        command: |_| Ok(Command::Stop),
        list: "stop",
        item: SchemaGenerator::subschema_for::<answers::Stopping>,
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_agrees_with_its_command() {
        for endpoint in ENDPOINTS {
            let value = |input: &Input| match input.kind {
                Kind::Text => json!("x"),
                Kind::Seconds => json!(5),
                Kind::Level => json!("info"),
                Kind::Truth => json!(true),
                Kind::Password => json!("x"),
                Kind::Period => json!("hour"),
                Kind::Days => json!("5"),
                Kind::Changes => json!([{ "table": ["imap"], "key": "id", "value": "true" }]),
            };
            let said = endpoint.inputs.iter().map(|input| (input.name.to_owned(), value(input))).collect();
            let command =
                (endpoint.command)(&Inputs(said)).unwrap_or_else(|error| panic!("{}: {error}", endpoint.path));
            assert_eq!(command.name(), endpoint.list, "{}", endpoint.path);
            assert_eq!(command.needs(), endpoint.role, "{}", endpoint.path);
            let changes = endpoint.method != "GET" && !endpoint.path.ends_with("/check");
            assert_eq!(command.changes(), changes, "{}", endpoint.path);
            for input in endpoint.inputs {
                let stands = endpoint.path.contains(&format!("{{{}}}", input.name));
                assert_eq!(stands, input.at == At::Path, "{} of {}", input.name, endpoint.path);
            }
        }
    }
}
