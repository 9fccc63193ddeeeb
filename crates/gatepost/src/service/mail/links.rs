//! Who brings a session's mail, and the connections to back ends that it may go over.

use std::ops::{Index, IndexMut};
use std::slice;
use std::time::SystemTime;

use gatepost_wire::smtp::Dialect;

use super::connection::Connection;
use super::screen::Screened;

/// See the module's documentation.
pub(super) enum Links {
    /// Of a client that brings mail: to whatever back ends recipients have.
    Many {
        client: Screened,
        /// What it speaks.
        dialect: Dialect,
        /// Kept for the session, since a client may have more than one message.
        connections: Vec<Connection>,
        /// What the client called itself when back ends were told of it.
        introduced: Option<String>,
    },
    /// Of a user who has logged in: to the one back end where that was. SMTP is spoken.
    One { connection: Box<Connection>, user: User },
}

/// A user who has logged in to send mail.
pub(super) struct User {
    pub(super) name: String,
    /// When what they logged in with is over.
    pub(super) expires: Option<SystemTime>,
}

impl Links {
    /// To back ends that are not known yet.
    pub(super) fn many(client: Screened, dialect: Dialect) -> Self {
        Self::Many { client, dialect, connections: Vec::new(), introduced: None }
    }

    /// The name of a client that brings mail in the DNS, where that is known to be its own.
    pub(super) fn client_name(&self) -> Option<&str> {
        match self {
            Self::Many { client, .. } => client.name.as_deref(),
            Self::One { .. } => None,
        }
    }

    /// What the client speaks.
    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Many { dialect, .. } => *dialect,
            Self::One { .. } => Dialect::Smtp,
        }
    }

    /// All there are, in the order in which they came.
    pub(super) fn all(&self) -> &[Connection] {
        match self {
            Self::Many { connections, .. } => connections,
            Self::One { connection, .. } => slice::from_ref(&**connection),
        }
    }

    pub(super) fn all_mut(&mut self) -> &mut [Connection] {
        match self {
            Self::Many { connections, .. } => connections,
            Self::One { connection, .. } => slice::from_mut(&mut **connection),
        }
    }

    pub(super) fn position_of(&self, backend: &str) -> Option<usize> {
        self.all().iter().position(|connection| **connection.backend() == *backend)
    }

    /// Those that come and go; `None`: there is one alone, from beginning to end.
    fn changing(&mut self) -> Option<&mut Vec<Connection>> {
        match self {
            Self::Many { connections, .. } => Some(connections),
            Self::One { .. } => None,
        }
    }

    /// One more, if there may be more than one.
    pub(super) fn add(&mut self, connection: Connection) -> bool {
        self.changing().map(|connections| connections.push(connection)).is_some()
    }

    /// Closes a connection, if it can be had again; the others may have other numbers then.
    pub(super) fn remove(&mut self, n: usize) -> bool {
        self.changing().map(|connections| connections.remove(n)).is_some()
    }

    /// Forgets connections that are lost and can be had again.
    pub(super) fn forget_lost(&mut self) {
        if let Some(connections) = self.changing() {
            connections.retain(|connection| !connection.is_lost());
        }
    }

    /// The client calls itself so: back ends that were told another name are left.
    pub(super) async fn introduce(&mut self, helo: Option<&str>) {
        let Self::Many { introduced, connections, .. } = self else { return };
        if introduced.as_deref() != helo {
            leave_all(connections).await;
            *introduced = helo.map(str::to_owned);
        }
    }

    /// Says goodbye everywhere.
    pub(super) async fn leave(&mut self) {
        match self {
            Self::Many { connections, .. } => leave_all(connections).await,
            Self::One { connection, .. } => connection.leave().await,
        }
    }
}

/// Says goodbye to each, and gives back at once what it held.
async fn leave_all(connections: &mut Vec<Connection>) {
    for mut connection in std::mem::take(connections) {
        connection.leave().await;
    }
}

impl Index<usize> for Links {
    type Output = Connection;

    fn index(&self, n: usize) -> &Connection {
        &self.all()[n]
    }
}

impl IndexMut<usize> for Links {
    fn index_mut(&mut self, n: usize) -> &mut Connection {
        &mut self.all_mut()[n]
    }
}
