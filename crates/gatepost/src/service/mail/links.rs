//! The connections to back ends that a session's mail may go over.

use std::ops::{Index, IndexMut};
use std::slice;
use std::time::SystemTime;

use super::connection::Connection;

/// See the module's documentation.
pub(super) enum Links {
    /// To whatever back ends recipients have.
    Many {
        /// Kept for the session, since a client may have more than one message.
        connections: Vec<Connection>,
        /// What the client called itself when back ends were told of it.
        introduced: Option<String>,
    },
    /// To the one that a user has logged in at.
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
    pub(super) fn many() -> Self {
        Self::Many { connections: Vec::new(), introduced: None }
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
        self.all().iter().position(|connection| *connection.backend == *backend)
    }

    /// One more. Whoever has logged in sends by their own back end alone.
    pub(super) fn add(&mut self, connection: Connection) {
        if let Self::Many { connections, .. } = self {
            connections.push(connection);
        }
    }

    /// Closes a connection that can be had again; the others may have other numbers then.
    pub(super) fn remove(&mut self, n: usize) {
        if let Self::Many { connections, .. } = self {
            connections.remove(n);
        }
    }

    /// Forgets connections that are lost and can be had again.
    pub(super) fn forget_lost(&mut self) {
        if let Self::Many { connections, .. } = self {
            connections.retain(|connection| !connection.is_lost());
        }
    }

    /// The client calls itself so: back ends that were told another name are left.
    pub(super) async fn introduce(&mut self, helo: Option<&str>) {
        if matches!(self, Self::Many { introduced, .. } if introduced.as_deref() != helo) {
            self.leave().await;
            *self = Self::Many { connections: Vec::new(), introduced: helo.map(str::to_owned) };
        }
    }

    /// Says goodbye everywhere.
    pub(super) async fn leave(&mut self) {
        for connection in self.all_mut() {
            connection.leave().await;
        }
        if let Self::Many { connections, .. } = self {
            connections.clear();
        }
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
