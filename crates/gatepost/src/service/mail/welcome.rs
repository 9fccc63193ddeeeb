//! Whose mail is taken, and for whom: only users whom the map places, so that nothing is ever relayed to elsewhere.

use std::sync::Arc;

use gatepost_wire::sasl;
use gatepost_wire::smtp::{Mailbox, Path, Reply};

use crate::backend::Backend;
use crate::config::{Level, Names};
use crate::directory::{Bar, Entry, Who};
use crate::map::{Evidence, Found, Map, NoPlace, Reason, Unanswered};
use crate::service::Session;

/// An address whose user is looked for.
pub(crate) struct Address {
    /// As it was written, completed where it had no domain.
    written: Mailbox,
    /// As users are looked up.
    pub(crate) name: String,
    /// It stands for another user's, and so is ours.
    is_alias: bool,
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
        if let (None, None, Some(domain)) = (&written.domain, &names.domain, domains.first()) {
            written = Mailbox::of(&format!("{}@{domain}", written.local));
        }
        let name = written.name();
        Self { is_alias: names.is_alias(&name), name: names.canonical(&name), written }
    }

    /// Its domain as it was written, or as it was completed.
    fn domain(&self) -> Option<String> {
        let own = self.name.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        self.written.domain.as_ref().map(|domain| domain.to_lowercase()).or(own)
    }

    /// Whether mail for it is ours to take, if there is such a user. Many directories look at the local part alone, and
    /// names may be shortened before: what a back end makes of the address as it was written, nobody has asked.
    fn is_ours(&self, map: &Map, domains: &[String], found: &Found) -> bool {
        let domain = self.domain();
        if self.is_alias || domain.as_ref().is_some_and(|domain| domains.contains(domain)) {
            return true;
        }
        let Found::Account { directory, entry, .. } = found else { return false };
        let is_whole = domain.is_none_or(|domain| self.name.rsplit_once('@').is_some_and(|(_, own)| own == domain));
        is_whole && (entry.name.is_some() || map.is_exact(directory))
    }
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
            Self::Unknown => Reply::ours(550, "5.1.1 There is no such user here."),
            Self::Foreign => Reply::ours(550, "5.7.1 Mail for this domain is not taken here."),
            Self::Disabled => Reply::ours(550, "5.2.1 This user takes no mail."),
            Self::Held => Reply::ours(451, "4.2.1 This user is being moved, try again later."),
            Self::Misplaced(_) => Reply::ours(451, "4.3.5 The server is not set up for this user, try again later."),
        }
    }
}

impl Session {
    fn address(&self, mailbox: &Mailbox) -> Address {
        let listener = &self.snapshot.listener;
        Address::new(mailbox, &listener.settings.names, &listener.service.settings.mail.domains)
    }

    /// The back end of a recipient, and the recipient as it is named there; an error is what the client is told.
    pub(super) async fn place(&mut self, path: &Path) -> Result<(Arc<Backend>, Path), Reply> {
        let Some(mailbox) = &path.mailbox else { return Err(Unwelcome::Unknown.reply()) };
        let address = self.address(mailbox);
        if sasl::user_name(address.name.as_bytes()).is_none() {
            return Err(Unwelcome::Unknown.reply());
        }
        let found = self.find(&address.name).await?;
        let domains = &self.snapshot.listener.service.settings.mail.domains;
        let (backend, _) = place(&self.snapshot.map, domains, &address, &found).map_err(|unwelcome| {
            match &unwelcome {
                Unwelcome::Misplaced(why) => self.report("a recipient can't be placed", why),
                Unwelcome::Foreign => {
                    let domain = address.domain().unwrap_or_default();
                    let what = "a directory finds users of a domain that is not in `domains`, and does not name them";
                    self.report(what, &domain);
                }
                Unwelcome::Unknown | Unwelcome::Disabled | Unwelcome::Held => {}
            }
            unwelcome.reply()
        })?;
        // Of aliases, and names without a domain, only we know whom they mean. All others stay as they are: what is left
        // out of a name to look it up, such as a detail, may mean something to the back end.
        let mut path = path.clone();
        if address.is_alias || mailbox.domain.is_none() {
            path.mailbox = Some(Mailbox::of(&address.name));
        }
        Ok((backend, path))
    }

    /// What the directories say of a name; an error is what the client is told.
    async fn find(&self, name: &str) -> Result<Found, Reply> {
        let who: Who = self.who(name);
        if let Some(found) = self.snapshot.map.known(&who) {
            return Ok(found);
        }
        let map = Arc::clone(&self.snapshot.map);
        let found: Result<_, Unanswered> =
            self.on_control(async move { map.find(&who, Evidence::default()).await }).await;
        found.map_err(|unanswered| {
            self.report("a directory can't answer", &unanswered.to_string());
            Reply::ours(451, "4.3.0 Addresses can't be looked up now, try again later.")
        })
    }

    /// Whether an address is the user's who has logged in: their own name, or one of ours that a directory gives the same
    /// log-in. An error is what the client is told.
    pub(super) async fn check_owner(&self, mailbox: &Mailbox) -> Result<(), Reply> {
        let user = self.story.user.as_deref().unwrap_or_default();
        let address = self.address(mailbox);
        let stranger = || Reply::ours(553, "5.7.1 This is not your address.");
        if address.written.is_routed() {
            return Err(stranger());
        }
        let own_domain = user.rsplit_once('@').map(|(_, domain)| domain.to_owned());
        if address.name == user && (address.is_alias || address.domain() == own_domain) {
            return Ok(());
        }
        let domains = &self.snapshot.listener.service.settings.mail.domains;
        let (own, other) = (self.find(user).await?, self.find(&address.name).await?);
        let log_in = |found: &Found, name: &str| {
            let of = |entry: &Entry| entry.login.clone().unwrap_or_else(|| name.to_owned());
            found.entry().map(|entry| (of(entry), entry.place.clone()))
        };
        let is_same = address.name == user
            || log_in(&own, user).is_some_and(|own| log_in(&other, &address.name).is_some_and(|other| own == other));
        if is_same && address.is_ours(&self.snapshot.map, domains, &other) { Ok(()) } else { Err(stranger()) }
    }

    /// Tells the administrator of something that many messages may meet.
    pub(super) fn report(&self, what: &'static str, fault: &str) {
        if let Some(times) = self.shared.log.seldom(&format!("{} {what} {fault}", self.story.service)) {
            let record = self.shared.log.record(Level::Error, self.story.service, what);
            record.with("fault", fault).with("times", times).write();
        }
    }
}
