//! What each command does.

use serde_json::{Value, json};

use super::{Acceptors, Entrance, Server};
use crate::admin::socket::Socket;
use crate::admin::{Answer, Command};
use crate::config::Level;
use crate::net::health::Standing;

impl Server {
    /// Does what a command says; stopping is up to the caller.
    pub(super) async fn obey(
        &self,
        command: Command,
        acceptors: &mut Acceptors,
        socket: &mut Option<Socket>,
    ) -> Answer {
        let name = command.name();
        let list = match command {
            Command::Status => json!([self.status()]),
            Command::Backends => self.backends(),
            Command::FlushCaches { user } => {
                let forgotten = self.entrance.world.load().forget(user.as_deref());
                let mut record = self.shared.log.record(Level::Info, "server", "what was remembered is forgotten");
                if let Some(user) = &user {
                    record = record.with("user", user.as_str());
                }
                record.with("answers", forgotten as u64).write();
                json!([{ "user": user, "forgotten": forgotten }])
            }
            Command::Reload => {
                let warnings = self.reload(acceptors, socket).await.map_err(|problems| problems.to_string())?;
                json!([{ "warnings": warnings.iter().map(ToString::to_string).collect::<Vec<_>>() }])
            }
            Command::Stop => json!([{ "drain_seconds": self.entrance.world.load().config.drain.as_secs() }]),
        };
        Ok(json!({ name: list }))
    }

    fn status(&self) -> Value {
        let Entrance { world, workers, .. } = &*self.entrance;
        let world = world.load();
        json!({
            "name": world.config.name,
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "up_seconds": self.started.elapsed().as_secs(),
            "sessions": workers.sessions(),
            "workers": workers.count(),
            "listeners": world.addresses().iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    }

    fn backends(&self) -> Value {
        let word = |is_up| if is_up { "up" } else { "down" };
        let world = self.entrance.world.load();
        let reports = world.map.backends().report().into_iter().map(|report| {
            let hosts = report.hosts.iter().map(|host| {
                let state = word(host.standing == Standing::Up);
                json!({ "service": host.service, "host": host.host, "state": state, "fault": host.fault })
            });
            let state = word(report.hosts.iter().any(|host| host.standing == Standing::Up));
            json!({
                "name": &*report.name,
                "state": state,
                "connections": report.connections,
                "hosts": hosts.collect::<Vec<_>>(),
            })
        });
        reports.collect()
    }
}
