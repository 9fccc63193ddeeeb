//! Reaching a back end on behalf of this session's client.

use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gatepost_wire::{BuildBack, Introduction};
use tokio::time::Instant;

use super::Session;
use super::called_off::unless_called_off;
use super::denied::Denied;
use super::resolve::Destination;
use crate::backend::{Aim, Backend, Client, Connected, Failure, Own, Purpose};
use crate::metrics::Stage;
use crate::story::At;

/// What is wanted of a back end, and for whom.
pub(super) struct Wanted<'a> {
    /// The name there, by which a host is drawn too.
    pub(super) user: &'a str,
    pub(super) aim: Aim<'a>,
    pub(super) introduction: &'a Introduction,
    /// The client's name in the DNS, where that is known to be its own.
    pub(super) name: Option<&'a str>,
    pub(super) deadline: Instant,
}

/// What a log-in brings to the conversation with the back end.
pub(super) struct Onward {
    /// Builds the machine for that.
    pub(super) back: BuildBack,
    /// What the client said before its log-in.
    pub(super) introduction: Introduction,
}

/// A user who is in, with all that the log-in found out.
pub(super) struct LoggedIn {
    pub(super) user: String,
    pub(super) backend: Arc<str>,
    pub(super) connected: Connected,
    /// When it was found out where the user's mail is.
    pub(super) placed_at: std::time::Instant,
    /// When the session must end, whatever it does.
    pub(super) expires: Option<SystemTime>,
}

impl Session {
    /// Does at a back end what is wanted of it.
    pub(super) async fn reach(&self, backend: &Backend, wanted: Wanted<'_>) -> Result<Connected, Failure> {
        let Wanted { user, aim, introduction, name, deadline } = wanted;
        let service = self.service();
        let session = self.story().session;
        let tell = |line| self.tell_line("back end", line);
        let purpose = Purpose {
            protocol: service.settings.protocol,
            user,
            aim,
            client: Client { address: self.address, local: self.local, session: session.as_str(), name, introduction },
            own: Own { greeting: &service.own_greeting, listeners: &self.snapshot.own_listeners },
            deadline,
            tell: self.is_heard().then_some(&tell),
        };
        let connected = backend.reach(&purpose).await?;
        self.story().at = At::In { backend: Arc::clone(&backend.name), host: connected.host, tls: connected.tls };
        Ok(connected)
    }

    /// Logs in at the user's place. `asked`: when somebody began to find out whether the credentials are right.
    pub(super) async fn connect(
        &self,
        to: Destination<'_>,
        onward: &Onward,
        asked: Instant,
    ) -> Result<LoggedIn, Denied> {
        let Destination { user, backend, login, credentials, expires, placed_at } = to;
        self.story().at = At::Tried(Arc::clone(&backend.name));
        let aim = Aim::LogIn(onward.back, &credentials);
        let introduction = &onward.introduction;
        let wanted = Wanted { user: &login, aim, introduction, name: None, deadline: self.deadline };
        let started = Instant::now();
        let reaching = pin!(self.reach(&backend, wanted));
        let logged_in = tokio::select! {
            logged_in = unless_called_off(&self.shared, &self.handle, reaching) => logged_in?,
            () = self.client.connection().broken() => return Err(Denied::Left),
        };
        let failure = match logged_in {
            Ok(connected) => {
                self.took_before(Stage::Connect, connected.connect_took, connected.login_took);
                self.took(Stage::BackendLogin, connected.login_took);
                return Ok(LoggedIn { user, backend: Arc::clone(&backend.name), connected, placed_at, expires });
            }
            Err(failure) => failure,
        };
        // However far it came.
        self.trail.note(Stage::BackendLogin, started.elapsed(), Duration::ZERO);
        Err(match failure {
            Failure::BadCredentials => {
                self.shared.pace.record(asked.elapsed());
                Denied::Wrong
            }
            Failure::Passed(text) => Denied::Passed(text),
            Failure::Limit(max) => Denied::Full(format!("the back end has max_connections, {max}")),
            Failure::Unavailable(reason) => Denied::Unavailable(reason),
        })
    }
}
