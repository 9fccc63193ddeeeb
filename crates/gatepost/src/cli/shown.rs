//! Answers of the running server, for people.

use super::table::{Table, printable};
use crate::admin::answers::{
    Backend, BackendState, Ban, Certificate, Flushed, LogLevel, Moved, Rejected, Reloaded, Report, Session, Status,
    Stopping, Traced, Unbanned, Upgraded,
};
use crate::admin::human::{age, bytes, figure, time};

/// What may be unknown, in a table.
fn or_dash(text: Option<String>) -> String {
    text.unwrap_or_else(|| "-".to_owned())
}

pub(super) fn status(list: Vec<Status>) {
    for status in list {
        let by_service = status.by_service.iter().map(|held| format!("{} {}", held.service, held.sessions));
        for (name, value) in [
            ("name", status.name),
            ("version", status.version.into_owned()),
            ("pid", status.pid.to_string()),
            ("up", time(status.up_seconds)),
            ("sessions", status.sessions.to_string()),
            ("by_service", by_service.collect::<Vec<_>>().join(", ")),
            ("workers", status.workers.to_string()),
            ("services", status.services.join(", ")),
            ("listeners", status.listeners.join(", ")),
        ] {
            say_line!("{name:<12} {}", printable(&value));
        }
    }
}

pub(super) fn metrics(list: Vec<String>) {
    list.into_iter().for_each(super::say);
}

pub(super) fn sessions(list: Vec<Session>, nothing: &str) {
    let mut table = Table::new(&["ID", "SERVICE", "USER", "BACK END", "CLIENT", "AGE", "IDLE", "UP", "DOWN", "STATE"]);
    for session in list {
        table.row([
            session.id,
            session.service.into_owned(),
            or_dash(session.user),
            or_dash(session.backend),
            session.client,
            age(&session.since).unwrap_or(session.since),
            time(session.idle_seconds.into()),
            bytes(figure(session.bytes_up)),
            bytes(figure(session.bytes_down)),
            session.state.into_owned(),
        ]);
    }
    table.print(nothing);
}

pub(super) fn backends(list: Vec<Backend>) {
    let mut table = Table::new(&["BACK END", "STATE", "CONNECTIONS", "SERVICE", "HOST", "STATE", "FAULT"]);
    for backend in list {
        let mut own = [backend.name, backend.state.into_owned(), backend.connections.to_string()];
        for host in backend.hosts {
            let [name, state, connections] = std::mem::take(&mut own);
            let fault = host.fault.unwrap_or_default();
            table.row([name, state, connections, host.service.into_owned(), host.host, host.state.into_owned(), fault]);
        }
    }
    table.print("the configuration has no back ends");
}

pub(super) fn service(list: Vec<BackendState>) {
    for BackendState { name, state, sessions, over_seconds } in list {
        let (name, state, over) = (printable(&name), printable(&state), time(over_seconds));
        match sessions {
            0 => say_line!("{name} is {state}"),
            1 => say_line!("{name} is {state}: its session ends within {over}"),
            _ => say_line!("{name} is {state}: its {sessions} sessions end within {over}"),
        }
    }
}

pub(super) fn moved(list: Vec<Moved>) {
    for Moved { user, from, to, kept, ended } in list {
        let from = from.map(|from| format!("from {} ", printable(&from))).unwrap_or_default();
        let [user, to, kept] = [user, to, kept].map(|text| printable(&text));
        say_line!("{user}: {from}to {to}, kept in {kept}; {ended} sessions ended");
    }
}

/// When a ban ends.
fn end_of(ban: &Ban) -> &str {
    ban.until.as_deref().unwrap_or("it is removed")
}

pub(super) fn bans(list: Vec<Ban>) {
    let mut table = Table::new(&["NETWORK", "BY", "UNTIL"]);
    for ban in list {
        let until = end_of(&ban).to_owned();
        table.row([ban.network, ban.by.into_owned(), until]);
    }
    table.print("nobody is banned");
}

pub(super) fn banned(list: Vec<Ban>) {
    for ban in list {
        let (until, ended) = (printable(end_of(&ban)), ban.ended.unwrap_or_default());
        say_line!("{} is banned until {until}; {ended} sessions ended", printable(&ban.network));
    }
}

pub(super) fn unbanned(list: Vec<Unbanned>) {
    for Unbanned { network, lifted } in list {
        say_line!("{}: {lifted} bans lifted", printable(&network));
    }
}

pub(super) fn traced(list: Vec<Traced>) {
    for Traced { user, seconds } in list {
        let user = printable(&user);
        match seconds {
            0 => say_line!("conversations of {user} are no longer logged"),
            _ => say_line!("the log has the conversations of {user} for {}, from the next on", time(seconds)),
        }
    }
}

pub(super) fn certificates(list: Vec<Certificate>) {
    let mut table = Table::new(&["NAMES", "STATE", "UNTIL", "DAYS", "FILE"]);
    for Certificate { names, state, until, days_left, chain, .. } in list {
        table.row([names.join(", "), state.into_owned(), until, days_left.to_string(), chain]);
    }
    table.print("there are no certificates");
}

pub(super) fn log_level(list: Vec<LogLevel>) {
    for LogLevel { level } in list {
        say_line!("logging at level {} until the next reload", printable(&level));
    }
}

pub(super) fn reports(list: Vec<Report>) {
    let columns = ["FROM", "SERVICE", "CONNECTIONS", "LOG-INS", "FAILED", "PEAK", "UP", "DOWN", "TURNED AWAY, MOSTLY"];
    let mut table = Table::new(&columns);
    for row in list {
        let [connections, logins, failures, peak] =
            [row.connections, row.logins, row.failures, row.peak_sessions].map(|count| count.to_string());
        let [up, down] = [row.bytes_up, row.bytes_down].map(|count| bytes(figure(count)));
        let why = row.rejected.first().map(Rejected::to_string).unwrap_or_default();
        table.row([row.from, row.service, connections, logins, failures, peak, up, down, why]);
    }
    table.print("nothing has happened in that time");
}

pub(super) fn flushed(list: Vec<Flushed>) {
    for Flushed { forgotten, .. } in list {
        say_line!("{forgotten} answers are forgotten");
    }
}

pub(super) fn reloaded(list: Vec<Reloaded>) {
    for Reloaded { warnings } in list {
        warnings.iter().for_each(|warning| eprintln!("gatepost: warning: {}", printable(warning)));
        say_line!("the configuration was reloaded");
    }
}

pub(super) fn upgraded(list: Vec<Upgraded>) {
    for Upgraded { pid, generation } in list {
        say_line!("process {pid} serves, as generation {generation}; open sessions stay");
    }
}

pub(super) fn stopping(list: Vec<Stopping>) {
    for Stopping { drain_seconds } in list {
        say_line!("stopping: sessions have {drain_seconds} seconds to end");
    }
}
