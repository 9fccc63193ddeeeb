//! Asking a running Gatepost, and telling it what to do: one [`Command`] for whoever asks, and the ways in.
//!
//! Here belongs what turns a question into a command and its answer into bytes; what a command does is the control
//! plane's business.

pub(crate) mod socket;

use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

/// What can be asked of a running Gatepost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// How it is doing, in a few figures.
    Status,
    /// How each host of each back end is doing.
    Backends,
    /// To forget what directories and name servers have said, of one user or of all.
    FlushCaches { user: Option<String> },
    /// To take a changed configuration into use.
    Reload,
    /// To stop in good order.
    Stop,
}

/// The command's result: an object with one list, named as the command. An error is for the one who asked.
pub(crate) type Answer = Result<Value, String>;

/// A command on its way to the control plane.
pub(crate) struct Asked {
    pub(crate) command: Command,
    pub(crate) reply: oneshot::Sender<Answer>,
}

/// Where commands go.
pub(crate) type Asking = mpsc::Sender<Asked>;

impl Command {
    /// The name of the list in its answer, and of the command on the wire.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Backends => "backends",
            Self::FlushCaches { .. } => "cache",
            Self::Reload => "reload",
            Self::Stop => "stop",
        }
    }

    /// As it is sent.
    fn to_json(&self) -> Value {
        let user = match self {
            Self::FlushCaches { user } => user.as_deref(),
            Self::Status | Self::Backends | Self::Reload | Self::Stop => None,
        };
        json!({ "command": self.name(), "user": user })
    }

    /// Reads what was sent.
    fn from_json(request: &Value) -> Result<Self, String> {
        let user = match &request["user"] {
            Value::Null => None,
            Value::String(user) => Some(user.clone()),
            _ => return Err("a user is named by a text".into()),
        };
        match request["command"].as_str() {
            Some("status") => Ok(Self::Status),
            Some("backends") => Ok(Self::Backends),
            Some("cache") => Ok(Self::FlushCaches { user }),
            Some("reload") => Ok(Self::Reload),
            Some("stop") => Ok(Self::Stop),
            Some(other) => Err(format!("{other:?} is no command of this version of Gatepost")),
            None => Err("a request is a line of JSON with a \"command\"".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_as_they_were_sent() {
        let user = Some("kim@example.org".to_owned());
        for command in [
            Command::Status,
            Command::Backends,
            Command::FlushCaches { user },
            Command::FlushCaches { user: None },
            Command::Reload,
            Command::Stop,
        ] {
            assert_eq!(Command::from_json(&command.to_json()), Ok(command));
        }
        for bad in [json!({ "command": "dance" }), json!([]), json!({ "command": "cache", "user": 5 })] {
            assert!(Command::from_json(&bad).is_err(), "{bad}");
        }
    }
}
