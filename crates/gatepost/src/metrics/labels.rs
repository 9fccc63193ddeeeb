//! What numbers are told apart by, and numbers that are.

use std::marker::PhantomData;

use gatepost_wire::Mechanism;

/// A label with a closed set of values.
pub(crate) trait Label: Copy + 'static {
    /// Each of its values, in the order of their places.
    const VALUES: &'static [Self];

    fn place(self) -> usize;
}

/// An enum whose variants are a label's values: with `ALL` and each one's `name`.
macro_rules! label {
    ($(#[$about:meta])* $label:ident { $($(#[$doc:meta])* $value:ident = $name:literal,)+ }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $label { $($(#[$doc])* $value,)+ }

        impl $label {
            pub(crate) const ALL: [Self; [$($name),+].len()] = [$(Self::$value),+];

            /// As it is written.
            pub(crate) const fn name(self) -> &'static str {
                match self { $(Self::$value => $name,)+ }
            }
        }

        impl Label for $label {
            const VALUES: &'static [Self] = &Self::ALL;

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}

label! {
    /// Why a connection was turned away before a log-in.
    Rejection {
        Access = "access",
        Ban = "ban",
        Guessing = "guessing",
        Limit = "limit",
        ProxyHeader = "proxy-header",
        /// TLS was not to be had, at once or after STARTTLS.
        Tls = "tls",
    }
}

label! {
    /// What became of a log-in.
    LogIn {
        Ok = "ok",
        /// Wrong, or not allowed.
        Denied = "denied",
        /// Refused unseen, after too many failures.
        Guessing = "guessing",
        Limit = "limit",
        /// Something is out of order.
        Unavailable = "unavailable",
    }
}

label! {
    /// A part of a log-in that takes time.
    Stage {
        Tls = "tls",
        Auth = "auth",
        Map = "map",
        Connect = "connect",
        BackendLogin = "backend_login",
    }
}

label! {
    /// What became of a question to a directory.
    Answer {
        /// It knows the user.
        Found = "found",
        Unknown = "unknown",
        /// It can't answer.
        Fault = "fault",
    }
}

impl Label for Mechanism {
    const VALUES: &'static [Self] = &[
        Self::PLAIN,
        Self::LOGIN,
        Self::OAUTHBEARER,
        Self::XOAUTH2,
        Self::External,
        Self::SCRAM,
        Self::SCRAM_PLUS,
        Self::COMMAND,
    ];

    fn place(self) -> usize {
        match self {
            Self::PLAIN => 0,
            Self::LOGIN => 1,
            Self::OAUTHBEARER => 2,
            Self::XOAUTH2 => 3,
            Self::External => 4,
            Self::SCRAM => 5,
            Self::SCRAM_PLUS => 6,
            Self::COMMAND => 7,
        }
    }
}

/// A number for each value of a label.
#[derive(Debug)]
pub(crate) struct By<L, T>(Box<[T]>, PhantomData<L>);

impl<L: Label, T: Default> Default for By<L, T> {
    fn default() -> Self {
        Self(L::VALUES.iter().map(|_| T::default()).collect(), PhantomData)
    }
}

impl<L: Label, T> By<L, T> {
    pub(crate) fn of(&self, label: L) -> &T {
        &self.0[label.place()]
    }

    /// Each value of the label with its number.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (L, &T)> {
        L::VALUES.iter().copied().zip(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_stands_at_its_place() {
        let are_in_place = Mechanism::VALUES.iter().enumerate().all(|(n, mechanism)| mechanism.place() == n);
        assert!(are_in_place && Mechanism::SASL.iter().all(|mechanism| Mechanism::VALUES.contains(mechanism)));
    }
}
