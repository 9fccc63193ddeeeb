//! Who a client is that brings mail: what can be known of it before it says anything.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use gatepost_wire::Refusal;
use gatepost_wire::smtp::{OwnReply, Reply};
use tokio::time::{Instant, timeout, timeout_at};

use crate::config::{MailSettings, ReverseDns};
use crate::service::Session;
use crate::service::called_off::{CalledOff, unless_called_off};
use crate::story::Ended;

/// How long a client's name is looked for.
const NAME_TIME: Duration = Duration::from_secs(10);

/// A client that brings mail: what it must put up with, and what is known of it beside its address.
pub(super) struct Screened {
    pub(super) settings: Arc<MailSettings>,
    /// Its name in the DNS, if that leads back to its address.
    pub(super) name: Option<String>,
    /// Why its mail is not taken.
    pub(super) objection: Option<Reply>,
}

impl Session {
    /// Waits before the greeting, where that is set, and finds out who the client is.
    pub(super) async fn screen(&mut self, settings: Arc<MailSettings>) -> Result<Screened, Ended> {
        let MailSettings { greet_delay, reverse_dns, .. } = *settings;
        let started = Instant::now();
        let patience = started + greet_delay;
        let name = match reverse_dns {
            ReverseDns::Off => Ok(None),
            ReverseDns::Note | ReverseDns::Require => {
                let resolver = self.snapshot.map.backends().resolver();
                let looking = timeout(NAME_TIME, resolver.name_of(self.address.ip()));
                let looked = unless_called_off(&self.shared, &self.handle, pin!(looking)).await;
                match looked {
                    Ok(looked) => looked.unwrap_or_else(|_| Err("the name servers take too long".into())),
                    Err(called_off) => return Err(self.part(called_off).await),
                }
            }
        };
        if !greet_delay.is_zero() {
            let mut bytes = Vec::new();
            if self.early.is_empty() {
                let reading = timeout_at(patience, self.client.read(&mut bytes));
                let read = unless_called_off(&self.shared, &self.handle, pin!(reading)).await;
                match read {
                    Ok(Ok(Ok(0) | Err(_))) => return Err(Ended::Gone("left before the greeting".into())),
                    Ok(_) => {}
                    Err(called_off) => return Err(self.part(called_off).await),
                }
            }
            if !self.early.is_empty() || !bytes.is_empty() {
                self.say_last(&OwnReply::TooEarly.reply().line()).await;
                return Err(Ended::Refused(Refusal::Misbehaved));
            }
        }
        self.deadline += started.elapsed();
        let required = reverse_dns == ReverseDns::Require;
        let objection = match &name {
            Ok(Some(_)) => None,
            Ok(None) => required.then(|| OwnReply::NoName.reply()),
            Err(_) => required.then(|| OwnReply::NameUnknown.reply()),
        };
        Ok(Screened { settings, name: name.ok().flatten(), objection })
    }

    /// Whether the client has said something that it was not asked for. What it was is not looked at.
    pub(super) async fn has_spoken(&mut self) -> bool {
        let mut bytes = Vec::new();
        tokio::select! {
            biased;
            read = self.client.read(&mut bytes) => matches!(read, Ok(count) if count > 0),
            () = std::future::ready(()) => false,
        }
    }

    /// Tells a client that is called off before its greeting.
    async fn part(&mut self, called_off: CalledOff) -> Ended {
        let words = (self.service().settings.protocol.turned_away)(Refusal::ShuttingDown);
        self.say_last(&String::from_utf8_lossy(words)).await;
        called_off.into()
    }

    /// Says something before the conversation has begun, to somebody who may not listen.
    async fn say_last(&mut self, words: &str) {
        if self.is_heard() {
            self.tell_talk(Vec::new(), words);
        }
        let _ = self.send(&mut words.as_bytes().to_vec()).await;
    }
}
