//! Whose mail is taken, and for whom: without a log-in, only users whom the map places, so that nothing is relayed elsewhere.

use std::sync::Arc;

use gatepost_wire::sasl;
use gatepost_wire::smtp::{Mailbox, OwnReply, Recipient, Reply};

use crate::backend::Backend;
use crate::config::{Level, Names};
use crate::directory::{Bar, Who};
use crate::map::{Found, Map, NoPlace, Reason};
use crate::service::Session;

/// An address whose user is looked for.
pub(crate) struct Address {
    /// As it was written, completed where it had no domain.
    written: Mailbox,
    /// As users are looked up.
    pub(crate) name: String,
    /// As that, before an alias was resolved.
    completed: String,
    /// The domain that completes names here.
    own_domain: Option<String>,
}

/// Where a recipient's mail goes.
pub(super) struct Placed {
    pub(super) backend: Arc<Backend>,
    /// The user's name there, by which a host is drawn as it is for their log-ins.
    pub(super) login: String,
    /// The recipient as it is named there.
    pub(super) recipient: Recipient,
}

/// Why a recipient is not to be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unwelcome {
    /// Nobody knows such a user, or places such addresses.
    Unknown,
    /// A directory knows such a user, but not that the address is theirs: its domain is none of ours.
    Foreign,
    Disabled,
    /// The user is being moved.
    Held,
    /// A directory names a place that can't be used. The text is for the administrator.
    Misplaced(String),
}

impl Address {
    /// What a mailbox is called. One without a domain (RFC 5321 has `postmaster`) is of the first that is ours.
    pub(crate) fn new(mailbox: &Mailbox, names: &Names, domains: &[String]) -> Self {
        let mut written = mailbox.clone();
        if let (None, None, Some(domain)) = (&written.domain, &names.by.domain, domains.first()) {
            written = Mailbox::of(&format!("{}@{domain}", written.local));
        }
        let name = written.name();
        let own_domain = names.by.domain.as_ref().map(|domain| domain.to_lowercase());
        Self { name: names.canonical(&name), completed: names.completed(&name), own_domain, written }
    }

    /// Whether it stands for another user's.
    fn is_alias(&self) -> bool {
        self.name != self.completed
    }

    /// Its domain as it was written, or as it was completed.
    fn domain(&self) -> Option<String> {
        self.written.domain.clone().or_else(|| domain_of(&self.name)).map(|domain| domain.to_lowercase())
    }

    /// Whether what users are looked up by has the domain that was written: none was taken off, or put in its place.
    fn is_whole(&self) -> bool {
        self.domain() == domain_of(&self.completed).map(|domain| domain.to_lowercase())
    }

    /// Whether its domain is ours.
    fn is_of(&self, domains: &[String]) -> bool {
        self.domain().is_some_and(|domain| domains.contains(&domain) || self.own_domain.as_ref() == Some(&domain))
    }

    /// Whether mail for it is ours to take, if there is such a user. Many directories look at the local part alone, and
    /// names may be shortened before: what a back end makes of the address as it was written, nobody has asked.
    fn is_ours(&self, map: &Map, domains: &[String], found: &Found) -> bool {
        let is_named = match found {
            Found::Account { directory, entry, .. } => entry.name.is_some() || map.is_exact(directory),
            Found::Nobody => false,
        };
        self.is_of(domains) || (self.is_whole() && (is_named || self.is_alias()))
    }
}

fn domain_of(name: &str) -> Option<String> {
    name.rsplit_once('@').map(|(_, domain)| domain.to_owned())
}

/// Where mail for an address goes, by what the directories say: `domains` are those all of whose addresses are ours.
pub(crate) fn place(
    map: &Map,
    domains: &[String],
    address: &Address,
    found: &Found,
) -> Result<(Arc<Backend>, Reason), Unwelcome> {
    // At some servers such an address leads on to somewhere else.
    if address.written.is_routed() {
        return Err(Unwelcome::Unknown);
    }
    if !address.is_ours(map, domains, found) {
        return Err(if found.entry().is_some() { Unwelcome::Foreign } else { Unwelcome::Unknown });
    }
    match found.entry() {
        Some(entry) if entry.barred == Some(Bar::Disabled) => return Err(Unwelcome::Disabled),
        Some(entry) if entry.held => return Err(Unwelcome::Held),
        _ if map.is_held(&address.name) => return Err(Unwelcome::Held),
        _ => {}
    }
    map.choose(&address.name, found).map_err(|no_place| match no_place {
        NoPlace::Unknown => Unwelcome::Unknown,
        NoPlace::Refused(why) => Unwelcome::Misplaced(why),
    })
}

impl Unwelcome {
    fn reply(&self) -> Reply {
        match self {
            Self::Unknown => OwnReply::UnknownUser.reply(),
            Self::Foreign => OwnReply::ForeignDomain.reply(),
            Self::Disabled => OwnReply::UserDisabled.reply(),
            Self::Held => OwnReply::UserHeld.reply(),
            Self::Misplaced(_) => OwnReply::Misplaced.reply(),
        }
    }
}

impl Session {
    fn address(&self, mailbox: &Mailbox) -> Address {
        let listener = &self.snapshot.listener;
        Address::new(mailbox, &listener.settings.names, listener.service.settings.domains())
    }

    /// Where a recipient's mail goes; an error is what the client is told.
    pub(super) async fn place(&mut self, recipient: &Recipient) -> Result<Placed, Reply> {
        let mailbox = &recipient.mailbox;
        let address = self.address(mailbox);
        if sasl::user_name(address.name.as_bytes()).is_none() {
            return Err(Unwelcome::Unknown.reply());
        }
        let found = self.find(&address.name).await?;
        let domains = self.snapshot.listener.service.settings.domains();
        let (backend, _) = place(&self.snapshot.map, domains, &address, &found).map_err(|unwelcome| {
            match &unwelcome {
                Unwelcome::Misplaced(why) => self.report(Level::Error, "a recipient can't be placed", why),
                Unwelcome::Foreign => {
                    let what = "a directory finds users of domains that are not in `domains`, and does not name them";
                    self.report(Level::Warning, what, "list them, or have the directory give the account's whole name");
                }
                Unwelcome::Unknown | Unwelcome::Disabled | Unwelcome::Held => {}
            }
            unwelcome.reply()
        })?;
        // Of aliases, and names without a domain, only we know whom they mean. All others stay as they are: what is left
        // out of a name to look it up, such as a detail, may mean something to the back end.
        let mut placed = recipient.clone();
        if address.is_alias() || mailbox.domain.is_none() {
            placed.mailbox = Mailbox::of(&address.name);
        }
        Ok(Placed { backend, login: found.log_in_name(&address.name).to_owned(), recipient: placed })
    }

    /// What the directories say of a name; an error is what the client is told.
    async fn find(&self, name: &str) -> Result<Found, Reply> {
        let who: Who = self.who(name);
        if let Some(found) = self.snapshot.map.known(&who) {
            return Ok(found);
        }
        let map = Arc::clone(&self.snapshot.map);
        let found = self.on_control(async move { map.find(&who).await }).await;
        found.map_err(|unanswered| {
            self.report(Level::Error, "a directory can't answer", &unanswered.to_string());
            OwnReply::NoLookUp.reply()
        })
    }

    /// Whether an address is this user's: their own name, or one of ours that a directory gives the same log-in. An error is
    /// what the client is told.
    pub(super) async fn check_owner(&self, user: &str, mailbox: &Mailbox) -> Result<(), Reply> {
        let address = self.address(mailbox);
        let stranger = || OwnReply::NotYourAddress.reply();
        if address.written.is_routed() {
            return Err(stranger());
        }
        if address.name == user && address.is_whole() {
            return Ok(());
        }
        let map = &self.snapshot.map;
        let domains = self.snapshot.listener.service.settings.domains();
        let (own, other) = (self.find(user).await?, self.find(&address.name).await?);
        // Who logs in by a bare name is known by it in our domains.
        let is_bare = !user.contains('@') && address.name.rsplit_once('@').is_some_and(|(local, _)| local == user);
        let is_same = address.name == user || (is_bare && address.is_of(domains)) || {
            let log_in = |found: &Found, name: &str| {
                let backend = map.choose(name, found).ok().map(|(backend, _)| Arc::clone(&backend.name))?;
                found.entry().map(|_| (found.log_in_name(name).to_owned(), backend))
            };
            log_in(&own, user).is_some_and(|own| Some(own) == log_in(&other, &address.name))
        };
        if is_same && address.is_ours(map, domains, &other) { Ok(()) } else { Err(stranger()) }
    }
}
