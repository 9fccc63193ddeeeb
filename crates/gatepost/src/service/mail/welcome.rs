//! Whose mail is taken, and for whom: only users whom the map places, so that nothing is ever relayed to elsewhere.

use std::sync::Arc;

use gatepost_wire::sasl;
use gatepost_wire::smtp::{Mailbox, Path, Reply};

use crate::backend::Backend;
use crate::config::Level;
use crate::directory::{Bar, Entry, Who};
use crate::map::{Evidence, Found, Map, NoPlace, Reason, Unanswered};
use crate::service::Session;

/// Why a recipient is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unwelcome {
    /// Nobody knows such a user, or places such addresses.
    Unknown,
    Disabled,
    /// The user is being moved.
    Held,
    /// A directory names a place that can't be used. The text is for the administrator.
    Misplaced(String),
}

/// Where mail for a user goes, by what the directories say: `domains` are those all of whose addresses are ours.
pub(crate) fn place(
    map: &Map,
    domains: &[String],
    name: &str,
    found: &Found,
) -> Result<(Arc<Backend>, Reason), Unwelcome> {
    match found.entry() {
        Some(entry) if entry.barred == Some(Bar::Disabled) => return Err(Unwelcome::Disabled),
        Some(entry) if entry.held => return Err(Unwelcome::Held),
        Some(_) => {}
        // A default is for users of ours: it would make an open relay if all others came there as well.
        None if !is_ours(domains, name) => return Err(Unwelcome::Unknown),
        None => {}
    }
    map.choose(name, found).map_err(|no_place| match no_place {
        NoPlace::Unknown => Unwelcome::Unknown,
        NoPlace::Refused(why) => Unwelcome::Misplaced(why),
    })
}

/// Whether an address that no directory knows is one of ours, and leads nowhere else.
fn is_ours(domains: &[String], name: &str) -> bool {
    let Some((local, domain)) = name.rsplit_once('@') else { return false };
    !local.contains(['@', '%', '!']) && domains.contains(&domain.to_lowercase())
}

impl Unwelcome {
    fn reply(&self) -> Reply {
        match self {
            Self::Unknown => Reply::ours(550, "5.1.1 There is no such user here."),
            Self::Disabled => Reply::ours(550, "5.2.1 This user takes no mail."),
            Self::Held => Reply::ours(451, "4.2.1 This user is being moved, try again later."),
            Self::Misplaced(_) => Reply::ours(451, "4.3.5 The server is not set up for this user, try again later."),
        }
    }
}

impl Session {
    /// The back end of a recipient, and the recipient as it is named there; an error is what the client is told.
    pub(super) async fn place(&mut self, path: &Path) -> Result<(Arc<Backend>, Path), Reply> {
        let Some(mailbox) = &path.mailbox else { return Err(Unwelcome::Unknown.reply()) };
        let names = &self.snapshot.listener.settings.names;
        let written = mailbox.name();
        let name = names.canonical(&written);
        if sasl::user_name(name.as_bytes()).is_none() {
            return Err(Unwelcome::Unknown.reply());
        }
        // Of aliases, and names without a domain, only we know whom they mean. All others stay as they are: what is left
        // out of a name to look it up, such as a detail, may mean something to the back end.
        let is_renamed = mailbox.domain.is_none() || names.is_alias(&written);
        let found = self.find(&name).await.map_err(|unanswered| {
            self.report("a directory can't answer for a recipient", &unanswered.to_string());
            Reply::ours(451, "4.3.0 Recipients can't be looked up now, try again later.")
        })?;
        let domains = &self.snapshot.listener.service.settings.mail.domains;
        let (backend, _) = place(&self.snapshot.map, domains, &name, &found).map_err(|unwelcome| {
            if let Unwelcome::Misplaced(why) = &unwelcome {
                self.report("mail could not be handed over", why);
            }
            unwelcome.reply()
        })?;
        let mut path = path.clone();
        if is_renamed {
            path.mailbox = Some(Mailbox::of(&name));
        }
        Ok((backend, path))
    }

    /// What the directories say of a name.
    async fn find(&self, name: &str) -> Result<Found, Unanswered> {
        let who: Who = self.who(name);
        if let Some(found) = self.snapshot.map.known(&who) {
            return Ok(found);
        }
        let map = Arc::clone(&self.snapshot.map);
        self.on_control(async move { map.find(&who, Evidence::default()).await }).await
    }

    /// Whether an address is the user's who has logged in: their own name, or one that a directory gives the same log-in.
    pub(super) async fn owns(&self, address: &str) -> bool {
        let user = self.story.user.as_deref().unwrap_or_default();
        let name = self.snapshot.listener.settings.names.canonical(address);
        if name == user {
            return true;
        }
        let log_in = |found: &Found, name: &str| {
            let of = |entry: &Entry| entry.login.clone().unwrap_or_else(|| name.to_owned());
            found.entry().map(|entry| (of(entry), entry.place.clone()))
        };
        match (self.find(user).await, self.find(&name).await) {
            (Ok(own), Ok(other)) => {
                let (own, other) = (log_in(&own, user), log_in(&other, &name));
                own.is_some() && own == other
            }
            _ => false,
        }
    }

    /// Tells the administrator of something that many recipients may meet.
    fn report(&self, what: &'static str, fault: &str) {
        if let Some(times) = self.shared.log.seldom(&format!("{} {what} {fault}", self.story.service)) {
            let record = self.shared.log.record(Level::Error, self.story.service, what);
            record.with("fault", fault).with("times", times).write();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_our_domains_are_ours() {
        let domains = ["example.org".to_owned()];
        assert!(is_ours(&domains, "kim@example.org") && is_ours(&domains, "kim@Example.ORG"));
        for name in [
            "kim@example.net",
            "kim",
            "kim%example.net@example.org",
            "example.net!kim@example.org",
            "kim@example.net@example.org",
            "kim@sub.example.org",
            "@example.org.evil",
        ] {
            assert!(!is_ours(&domains, name), "{name}");
        }
    }
}
