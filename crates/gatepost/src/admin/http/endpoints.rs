//! The address in the API of every command but `metrics`, which `probes` answers: one row says where it is, what it takes, who
//! may ask it, what it does and what it answers. Its route, the checks of what comes and its description all follow from the
//! row. The few addresses that are no commands (log-ins and who is logged in, the set-up, the description, the log) stand in
//! `api` and `logs`.

use schemars::{Schema, SchemaGenerator};

use super::inputs::{At, Input, Inputs, Kind, Unsaid};
use crate::admin::accounts::Role;
use crate::admin::{Command, UserChange, answers, defaults};

/// One address and method.
pub(super) struct Endpoint {
    pub(super) method: Method,
    /// Behind `/api/v1`; what stands in braces is an input.
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) role: Role,
    pub(super) inputs: &'static [Input],
    /// The command that it is; `None`: something that is required is missing.
    pub(super) command: fn(&mut Inputs) -> Option<Command>,
    /// The name of the list in its answer.
    pub(super) list: &'static str,
    /// What the items of that list look like.
    pub(super) item: fn(&mut SchemaGenerator) -> Schema,
}

/// The methods that there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    Get,
    Post,
    Put,
    Delete,
}

impl Method {
    /// As `OpenAPI` names it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Get => "get",
            Self::Post => "post",
            Self::Put => "put",
            Self::Delete => "delete",
        }
    }
}

const fn input(name: &'static str, at: At, kind: Kind, unsaid: Unsaid, help: &'static str) -> Input {
    Input { name, at, kind, unsaid, help }
}

const fn text(name: &'static str, at: At, help: &'static str) -> Input {
    input(name, at, Kind::Text, Unsaid::Refused, help)
}

const fn maybe(name: &'static str, at: At, help: &'static str) -> Input {
    input(name, at, Kind::Text, Unsaid::Nothing, help)
}

const CHANGES: Input = input("changes", At::Body, Kind::Changes, Unsaid::Refused, "The changes, in their order.");
const DIGEST: Input =
    maybe("digest", At::Body, "The digest of the file that they are about, so that nobody else's are overwritten.");
const BACKEND: Input = text("backend", At::Path, "The back end.");
/// All of them.
pub(super) static ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        method: Method::Get,
        path: "/status",
        summary: "How the server is doing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Status),
        list: "status",
        item: SchemaGenerator::subschema_for::<answers::Status>,
    },
    Endpoint {
        method: Method::Get,
        path: "/live",
        summary: "The last minutes in numbers.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Live),
        list: "live",
        item: SchemaGenerator::subschema_for::<answers::Live>,
    },
    Endpoint {
        method: Method::Get,
        path: "/reports",
        summary: "What services did in the last days, by the hour or by the day.",
        role: Role::Viewer,
        inputs: &[
            input("by", At::Query, Kind::Period, Unsaid::Truth(true), "By the hour or by the day."),
            input("days", At::Query, Kind::Days, Unsaid::Number(defaults::REPORT_DAYS), "How many days back."),
        ],
        command: |inputs| Some(Command::Report { days: inputs.number("days")?, by_day: inputs.truth("by")? }),
        list: "report",
        item: SchemaGenerator::subschema_for::<answers::Report>,
    },
    Endpoint {
        method: Method::Get,
        path: "/explain/{user}",
        summary: "Every step that a user's log-in would take.",
        role: Role::Viewer,
        inputs: &[text("user", At::Path, "The user's name, as a client would give it.")],
        command: |inputs| Some(Command::Explain { user: inputs.text("user")? }),
        list: "explain",
        item: SchemaGenerator::subschema_for::<answers::Step>,
    },
    Endpoint {
        method: Method::Get,
        path: "/sessions",
        summary: "The sessions that are open, or some of them.",
        role: Role::Viewer,
        inputs: &[
            maybe("user", At::Query, "Of this user."),
            maybe("backend", At::Query, "At this back end."),
            maybe("service", At::Query, "Of this service."),
        ],
        command: |inputs| Some(Command::Sessions(inputs.whose())),
        list: "sessions",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: Method::Delete,
        path: "/sessions/{id}",
        summary: "End a session.",
        role: Role::Operator,
        inputs: &[text("id", At::Path, "The session's id.")],
        command: |inputs| Some(Command::Kick(inputs.whose())),
        list: "kick",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: Method::Post,
        path: "/sessions/kick",
        summary: "End all sessions of a user, at a back end, or of a service: those to which all that is said applies.",
        role: Role::Operator,
        inputs: &[
            maybe("user", At::Body, "Of this user."),
            maybe("backend", At::Body, "At this back end."),
            maybe("service", At::Body, "Of this service."),
        ],
        command: |inputs| Some(Command::Kick(inputs.whose())),
        list: "kick",
        item: SchemaGenerator::subschema_for::<answers::Session>,
    },
    Endpoint {
        method: Method::Get,
        path: "/backends",
        summary: "The back ends, and how each host of them is doing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Backends),
        list: "backends",
        item: SchemaGenerator::subschema_for::<answers::Backend>,
    },
    Endpoint {
        method: Method::Post,
        path: "/backends/{backend}/drain",
        summary: "Take a back end out of service gently: no new log-ins, and its sessions end spread over the time.",
        role: Role::Operator,
        inputs: &[
            BACKEND,
            input(
                "over_seconds",
                At::Body,
                Kind::Seconds,
                Unsaid::Number(defaults::DRAIN.as_secs()),
                "The time that its sessions have.",
            ),
        ],
        command: |inputs| {
            Some(Command::Drain { backend: inputs.text("backend")?, over_seconds: inputs.number("over_seconds")? })
        },
        list: "drain",
        item: SchemaGenerator::subschema_for::<answers::BackendState>,
    },
    Endpoint {
        method: Method::Post,
        path: "/backends/{backend}/maint",
        summary: "Take a back end out of service at once.",
        role: Role::Operator,
        inputs: &[BACKEND],
        command: |inputs| Some(Command::Maint { backend: inputs.text("backend")? }),
        list: "maint",
        item: SchemaGenerator::subschema_for::<answers::BackendState>,
    },
    Endpoint {
        method: Method::Post,
        path: "/backends/{backend}/ready",
        summary: "Take a back end into service again.",
        role: Role::Operator,
        inputs: &[BACKEND],
        command: |inputs| Some(Command::Ready { backend: inputs.text("backend")? }),
        list: "ready",
        item: SchemaGenerator::subschema_for::<answers::BackendState>,
    },
    Endpoint {
        method: Method::Get,
        path: "/users",
        summary: "The users of the embedded directory.",
        role: Role::Viewer,
        inputs: &[maybe("directory", At::Query, "Its name, where there are several.")],
        command: |inputs| Some(Command::Users { directory: inputs.text("directory") }),
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::User>,
    },
    Endpoint {
        method: Method::Put,
        path: "/users/{user}",
        summary: "Add a user to the embedded directory, or change what is said of one: what is left out stays.",
        role: Role::Admin,
        inputs: &[
            text("user", At::Path, "The user's name."),
            maybe("directory", At::Query, "The directory's name, where there are several."),
            maybe("backend", At::Body, "The back end that holds the mail."),
            maybe("services", At::Body, "The only services, divided by commas; all: all of them."),
            input("disabled", At::Body, Kind::Truth, Unsaid::Nothing, "May not log in."),
            input("held", At::Body, Kind::Truth, Unsaid::Nothing, "Log-ins wait."),
            input("password", At::Body, Kind::Password, Unsaid::Nothing, "A new password."),
        ],
        command: |inputs| {
            let change = UserChange {
                backend: inputs.text("backend"),
                disabled: inputs.truth("disabled"),
                held: inputs.truth("held"),
                services: inputs.text("services"),
                // The hash has taken its place.
                password: inputs.text("password"),
            };
            Some(Command::SetUser { name: inputs.text("user")?, change, directory: inputs.text("directory") })
        },
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::Changed>,
    },
    Endpoint {
        method: Method::Delete,
        path: "/users/{user}",
        summary: "Remove a user from the embedded directory.",
        role: Role::Admin,
        inputs: &[
            text("user", At::Path, "The user's name."),
            maybe("directory", At::Query, "The directory's name, where there are several."),
        ],
        command: |inputs| Some(Command::RemoveUser { name: inputs.text("user")?, directory: inputs.text("directory") }),
        list: "users",
        item: SchemaGenerator::subschema_for::<answers::Changed>,
    },
    Endpoint {
        method: Method::Post,
        path: "/users/{user}/move",
        summary: "Have a user come to another back end from now on; the mail is moved before.",
        role: Role::Operator,
        inputs: &[text("user", At::Path, "The user."), text("backend", At::Body, "The back end.")],
        command: |inputs| Some(Command::Move { user: inputs.text("user")?, backend: inputs.text("backend")? }),
        list: "move",
        item: SchemaGenerator::subschema_for::<answers::Moved>,
    },
    Endpoint {
        method: Method::Post,
        path: "/users/{user}/trace",
        summary: "Log a user's conversations before the log-in, secrets struck out, whatever the log's level.",
        role: Role::Operator,
        inputs: &[
            text("user", At::Path, "The user."),
            input(
                "for_seconds",
                At::Body,
                Kind::Seconds,
                Unsaid::Number(defaults::TRACE.as_secs()),
                "For how long; 0: no more.",
            ),
        ],
        command: |inputs| {
            Some(Command::Trace { user: inputs.text("user")?, for_seconds: inputs.number("for_seconds")? })
        },
        list: "trace",
        item: SchemaGenerator::subschema_for::<answers::Traced>,
    },
    Endpoint {
        method: Method::Get,
        path: "/bans",
        summary: "Who may not connect, by an administrator or for guessing.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Bans),
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Ban>,
    },
    Endpoint {
        method: Method::Post,
        path: "/bans",
        summary: "Turn away a network, and end its sessions.",
        role: Role::Operator,
        inputs: &[
            text("network", At::Body, "An address, a network such as 192.0.2.0/24, or a range."),
            input(
                "for_seconds",
                At::Body,
                Kind::Seconds,
                Unsaid::Nothing,
                "For how long. Default: until it is lifted.",
            ),
        ],
        command: |inputs| {
            Some(Command::Ban { network: inputs.text("network")?, for_seconds: inputs.number("for_seconds") })
        },
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Ban>,
    },
    Endpoint {
        method: Method::Delete,
        path: "/bans",
        summary: "Let a network in again.",
        role: Role::Operator,
        inputs: &[text("network", At::Query, "As it was banned, or one that a banned address is in.")],
        command: |inputs| Some(Command::Unban { network: inputs.text("network")? }),
        list: "bans",
        item: SchemaGenerator::subschema_for::<answers::Unbanned>,
    },
    Endpoint {
        method: Method::Get,
        path: "/certificates",
        summary: "The certificates in use, and until when they are good.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Certificates),
        list: "certificates",
        item: SchemaGenerator::subschema_for::<answers::Certificate>,
    },
    Endpoint {
        method: Method::Put,
        path: "/log-level",
        summary: "Log records of this level and heavier ones in every place, until the next reload.",
        role: Role::Operator,
        inputs: &[input("level", At::Body, Kind::Level, Unsaid::Refused, "The level.")],
        command: |inputs| Some(Command::LogLevel { level: inputs.level("level")? }),
        list: "log-level",
        item: SchemaGenerator::subschema_for::<answers::LogLevel>,
    },
    Endpoint {
        method: Method::Post,
        path: "/cache/flush",
        summary: "Forget what directories and name servers have said, of one user or of all.",
        role: Role::Operator,
        inputs: &[maybe("user", At::Body, "Of this user alone.")],
        command: |inputs| Some(Command::FlushCaches { user: inputs.text("user") }),
        list: "cache",
        item: SchemaGenerator::subschema_for::<answers::Flushed>,
    },
    Endpoint {
        method: Method::Get,
        path: "/settings",
        summary: "The configuration file, and every setting as it has it.",
        role: Role::Viewer,
        inputs: &[],
        command: |_| Some(Command::Settings),
        list: "settings",
        item: SchemaGenerator::subschema_for::<answers::Settings>,
    },
    Endpoint {
        method: Method::Post,
        path: "/settings/check",
        summary: "What changes of the configuration file would do, without making them.",
        role: Role::Admin,
        inputs: &[CHANGES, DIGEST],
        command: |inputs| Some(Command::CheckSettings(inputs.changes()?)),
        list: "check",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: Method::Post,
        path: "/settings/apply",
        summary: "Make changes of the configuration file, with its comments and order kept, and take them into use.",
        role: Role::Admin,
        inputs: &[CHANGES, DIGEST],
        command: |inputs| Some(Command::ApplySettings(inputs.changes()?)),
        list: "apply",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: Method::Post,
        path: "/settings/undo",
        summary: "Take back the latest change that was made so; five can be.",
        role: Role::Admin,
        inputs: &[DIGEST],
        command: |inputs| Some(Command::UndoSettings { digest: inputs.text("digest") }),
        list: "undo",
        item: SchemaGenerator::subschema_for::<answers::Checked>,
    },
    Endpoint {
        method: Method::Post,
        path: "/reload",
        summary: "Take a changed configuration file into use, or say what is wrong with it and change nothing.",
        role: Role::Operator,
        inputs: &[],
        command: |_| Some(Command::Reload),
        list: "reload",
        item: SchemaGenerator::subschema_for::<answers::Reloaded>,
    },
    Endpoint {
        method: Method::Post,
        path: "/upgrade",
        summary: "Have a new binary take over; this process stays for the sessions that it has.",
        role: Role::Admin,
        inputs: &[],
        command: |_| Some(Command::Upgrade),
        list: "upgrade",
        item: SchemaGenerator::subschema_for::<answers::Upgraded>,
    },
    Endpoint {
        method: Method::Post,
        path: "/stop",
        summary: "Stop in good order.",
        role: Role::Admin,
        inputs: &[],
        command: |_| Some(Command::Stop),
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
            let said = |is_said: fn(&Input) -> bool| {
                let mut inputs = Inputs::default();
                for input in endpoint.inputs {
                    let given = is_said(input).then(|| value(input));
                    inputs.take(input, given).expect("such a value");
                }
                inputs
            };
            let mut inputs = said(|_| true);
            let command = (endpoint.command)(&mut inputs).expect(endpoint.path);
            assert_eq!(inputs.unheard(), [""; 0], "{}", endpoint.path);
            let mut least = said(|input| input.unsaid == Unsaid::Refused);
            let least = (endpoint.command)(&mut least).expect("nothing else is required");
            match least {
                Command::Drain { over_seconds, .. } => assert_eq!(over_seconds, defaults::DRAIN.as_secs()),
                Command::Trace { for_seconds, .. } => assert_eq!(for_seconds, defaults::TRACE.as_secs()),
                Command::Report { days, by_day } => assert_eq!((days, by_day), (defaults::REPORT_DAYS, true)),
                _ => {}
            }
            assert_eq!(command.name(), endpoint.list, "{}", endpoint.path);
            assert_eq!(command.needs(), endpoint.role, "{}", endpoint.path);
            let changes = endpoint.method != Method::Get && !endpoint.path.ends_with("/check");
            assert_eq!(command.changes(), changes, "{}", endpoint.path);
            for input in endpoint.inputs {
                let stands = endpoint.path.contains(&format!("{{{}}}", input.name));
                assert_eq!(stands, input.at == At::Path, "{} of {}", input.name, endpoint.path);
            }
        }
    }
}
