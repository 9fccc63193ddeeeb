//! LDAP (RFC 4511), Active Directory included.
//!
//! A look-up is one search, multiplexed with others on one connection to a server; a password is checked by
//! a bind on a connection of its own, or by its hash in the entry. `server` has the connections, `entry`
//! makes accounts of what comes back. Nothing belongs here that another kind of directory could need too.

mod entry;
mod server;

use std::time::{Duration, Instant};

use gatepost_wire::Secret;
use ldap3::{SearchEntry, dn_escape, ldap_escape};

use super::{Accounts, Answering, Entry, Fault, Verdict, Who};
use crate::config::{self, LdapVerify, Problem, Several, Template, TlsVersion};
use crate::net::health::{Health, in_order};
use crate::net::tls;
use crate::secret_file;
use server::{Bound, Identity, Refused, Search, Server, Trouble};

/// Rounds over all servers while none can serve; with [`Ldap::patience`] over, sooner.
const ROUNDS_MAX: u32 = 4;
/// The pause before the second round. It doubles with each, and varies by half, so that many waiting
/// log-ins don't all come again at once.
const ROUND_PAUSE: Duration = Duration::from_millis(100);

/// See the module's documentation.
pub(crate) struct Ldap {
    settings: config::Ldap,
    look_up: LookUp,
    servers: Vec<Server>,
    /// The attributes that are asked for.
    attributes: Vec<String>,
}

/// How a user's entry is found.
enum LookUp {
    /// By its name; what else must hold of it, `filter` says.
    Named { dn: Template, filter: Option<Template> },
    /// By a search.
    Searched { base: Template, scope: config::LdapScope, filter: Template },
}

impl LookUp {
    /// As the settings have it; `None`: they name no entry, which is a mistake.
    fn of(settings: &config::Ldap) -> Option<Self> {
        let filter = settings.filter.clone();
        if let Some(dn) = settings.dn.clone() {
            return Some(Self::Named { dn, filter });
        }
        Some(Self::Searched { base: settings.base.clone()?, scope: settings.scope, filter: filter? })
    }
}

impl Ldap {
    /// Reads secrets and authorities; servers are connected to when they are first asked.
    pub(crate) fn open(settings: &config::Ldap, min: TlsVersion, warnings: &mut Vec<Problem>) -> Result<Self, Problem> {
        let tls = tls::client_config(&settings.trust, min)?;
        let identity = match &settings.bind {
            Some(bind) => {
                let password = secret_file::read(&bind.password_file, warnings)?;
                if std::str::from_utf8(password.expose()).is_err() {
                    return Err(bind.password_file.problem("holds a password that is not UTF-8, which LDAP wants"));
                }
                Some(Identity { dn: bind.dn.clone(), password })
            }
            None => None,
        };
        let identity = std::sync::Arc::new(identity);
        let look_up = LookUp::of(settings)
            .ok_or_else(|| Problem::of("directory", "needs `dn`, or `base` and `filter`, to find users by"))?;
        let open = |url: &config::LdapUrl| Server::new(url, settings, &tls, &identity);
        let servers = settings.urls.iter().map(open).collect();
        let attributes = entry::attributes(&settings.fields);
        Ok(Self { settings: settings.clone(), look_up, servers, attributes })
    }

    /// How long all servers together may take: one that hangs must not keep the others from answering.
    fn patience(&self) -> Duration {
        self.settings.timeout * u32::try_from(self.servers.len()).unwrap_or(1).saturating_add(1)
    }

    /// Asks the servers in turn, and again while all are out of order for the moment.
    async fn ask<'s, T, F>(&'s self, question: impl Fn(&'s Server) -> F) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, Trouble>>,
    {
        let deadline = Instant::now() + self.patience();
        let mut reasons = Vec::new();
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                let pause = jittered(ROUND_PAUSE * 2_u32.pow(round - 1));
                if Instant::now() + pause >= deadline {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
            for server in in_order(self.servers.iter().collect(), |server| &server.health) {
                let reason = match question(server).await {
                    Ok(answer) => {
                        server.health.mark_up();
                        return Ok(answer);
                    }
                    Err(Trouble::Lasting(reason)) => return Err(Fault(format!("{}: {reason}", server.url()))),
                    Err(Trouble::Passing(reason)) => {
                        server.health.mark_down();
                        reason
                    }
                    Err(Trouble::Shortage(reason)) => reason,
                };
                let reason = format!("{}: {reason}", server.url());
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
                if Instant::now() >= deadline {
                    return Err(Fault(reasons.join("; ")));
                }
            }
        }
        Err(Fault(reasons.join("; ")))
    }

    /// The search for a name; `None`: nobody can have it here.
    fn search(&self, user: &str) -> Option<Search> {
        let (base, scope, filter) = match &self.look_up {
            LookUp::Named { dn, filter } => (dn, config::LdapScope::Base, filter.as_ref()),
            LookUp::Searched { base, scope, filter } => (base, *scope, Some(filter)),
        };
        let filter = match filter {
            Some(filter) => filter.render(user, ldap_escape)?,
            // An entry that is known by its name needs no further condition.
            None => "(objectClass=*)".to_owned(),
        };
        Some(Search { base: render_dn(base, user)?, scope, filter, attributes: self.attributes.clone() })
    }

    /// The one entry that a search gave, with its name in the directory.
    async fn find_one(&self, who: &Who) -> Result<Option<(String, Entry)>, Fault> {
        let Some(search) = self.search(&who.user) else { return Ok(None) };
        let found = self.ask(|server| server.find(&search)).await?;
        self.only(found, &who.user)
    }

    fn only(&self, mut found: Vec<SearchEntry>, user: &str) -> Result<Option<(String, Entry)>, Fault> {
        if found.len() > 1 && self.settings.several == Several::Refuse {
            let names = found.iter().map(|entry| format!("{:?}", entry.dn)).collect::<Vec<_>>().join(" and ");
            return Err(Fault(format!(
                "several entries match {user:?}: {names}; narrow `filter`, or set several = \"first\""
            )));
        }
        if found.is_empty() {
            return Ok(None);
        }
        let found = found.swap_remove(0);
        let entry = entry::read(&found, &self.settings).map_err(|what| Fault(format!("{:?}: {what}", found.dn)))?;
        Ok(Some((found.dn, entry)))
    }

    /// Has a server check the password of the entry `dn`. `read`: the entry is wanted too, with the user's own rights.
    async fn bind(&self, dn: &str, password: &Secret, read: Option<Search>, user: &str) -> Result<Verdict, Fault> {
        // RFC 4513, section 5.1.3: a password is UTF-8. One that isn't can't be right.
        let Ok(password) = std::str::from_utf8(password.expose()) else { return Ok(Verdict::Wrong) };
        Ok(match self.ask(|server| server.bind(dn, password, read.as_ref())).await? {
            Bound::Right(None) => Verdict::Right(Entry::default()),
            Bound::Right(Some(found)) => match self.only(found, user)? {
                Some((_, entry)) => Verdict::Right(entry),
                // What is not seen may be what keeps the user out.
                None => Verdict::Unfit(format!("{dn:?} can't be read by its user, or `filter` excludes it")),
            },
            Bound::Refused(Refused::Barred(bar)) => Verdict::Barred(bar),
            Bound::Refused(Refused::Wrong) => Verdict::Wrong,
        })
    }
}

impl Accounts for Ldap {
    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move { Ok(self.find_one(who).await?.map(|(_, entry)| entry)) })
    }

    fn authenticate<'a>(&'a self, who: &'a Who, password: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move {
            match (self.settings.verify, &self.look_up) {
                (LdapVerify::Compare, _) => {
                    Ok(self.find_one(who).await?.map_or(Verdict::Unknown, |(_, entry)| Verdict::Compare(entry)))
                }
                (LdapVerify::Bind, LookUp::Named { filter, .. }) => {
                    let Some(search) = self.search(&who.user) else { return Ok(Verdict::Unknown) };
                    let dn = search.base.clone();
                    // With nothing to see in the entry, it need not be readable.
                    let read = (filter.is_some() || entry::is_read(&self.settings.fields)).then_some(search);
                    self.bind(&dn, password, read, &who.user).await
                }
                (LdapVerify::Bind, LookUp::Searched { .. }) => {
                    let Some((dn, entry)) = self.find_one(who).await? else { return Ok(Verdict::Unknown) };
                    let verdict = self.bind(&dn, password, None, &who.user).await?;
                    // A bind says whether the password is right; what else holds of the account stands in the entry.
                    Ok(if matches!(verdict, Verdict::Right(_)) { Verdict::Right(entry) } else { verdict })
                }
            }
        })
    }

    fn is_down(&self) -> bool {
        self.servers.iter().all(|server: &Server| Health::is_down(&server.health))
    }
}

/// A name put into a distinguished name, where commas and the like would mean something (RFC 4514).
fn render_dn(template: &Template, user: &str) -> Option<String> {
    template.render(user, dn_escape)
}

/// Between half of `time` and all of it.
fn jittered(time: Duration) -> Duration {
    let mut random = [0];
    // Without randomness all wait for as long, and that works too.
    let _ = getrandom::fill(&mut random);
    time / 2 + time / 2 * u32::from(random[0]) / 255
}
