//! Services and listeners as sessions need them: settings, compiled rules, TLS.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use gatepost_wire::{Carry, ClientSetup, ClientTls, LogInRules, Mechanism, OAuthHints, Offers};
use rustls::ServerConfig;

use super::admit::AccessLevel;
use crate::auth::{Authenticator, TokenChecker};
use crate::config::{self, Plaintext};
use crate::ledger::Scope;
use crate::metrics::{Counter, ServiceMetrics};
use crate::net::tls::Spoken;

/// What is known of a client beside what it says.
pub(super) struct Client {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Secured>,
}

/// A client's TLS.
pub(super) struct Secured {
    /// It has shown a certificate, which TLS has checked.
    pub(crate) has_certificate: bool,
    /// There is something that a log-in could be bound to.
    pub(crate) can_bind: bool,
}

/// A service, ready to serve.
pub(crate) struct Service {
    pub(crate) settings: config::Service,
    /// This node's name.
    pub(crate) node: String,
    /// By which a back end that is really this Gatepost is known.
    pub(crate) own_greeting: String,
    pub(crate) access: AccessLevel,
    pub(crate) scope: Scope,
    /// Who checks passwords and tokens at the proxy; `None`: the back end alone does.
    pub(crate) checks: Option<Checks>,
    pub(crate) oauth: OAuthHints,
    pub(crate) metrics: Arc<ServiceMetrics>,
}

/// The directories that are asked.
pub(crate) struct Checks {
    /// In this order.
    pub(crate) passwords: Vec<Arc<Authenticator>>,
    pub(crate) tokens: Option<Arc<TokenChecker>>,
}

/// Whether a sender may begin with a header of the PROXY protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProxyHeader {
    Never,
    Optional,
    Required,
}

/// A listener, ready to serve.
pub(crate) struct Listener {
    pub(crate) service: Arc<Service>,
    pub(crate) settings: config::Listener,
    pub(crate) access: AccessLevel,
    pub(crate) scope: Scope,
    pub(crate) tls: Spoken<Arc<ServerConfig>>,
    /// Those that were accepted.
    pub(crate) connections: Arc<Counter>,
}

impl Service {
    /// Its name in logs.
    pub(crate) fn name(&self) -> &'static str {
        self.settings.protocol.name
    }

    /// Whether somebody checks passwords, and they may be shown.
    fn takes_passwords(&self) -> bool {
        let is_checked = self.checks.as_ref().is_none_or(|checks| !checks.passwords.is_empty());
        is_checked && self.settings.lets_passwords_be_shown()
    }

    /// Whether log-ins may be bound to the TLS beneath them.
    pub(crate) fn binds(&self) -> bool {
        self.settings.written.mechanisms.contains(&Mechanism::SCRAM_PLUS)
    }
}

impl Listener {
    /// Whether a header of the PROXY protocol may or must come from this sender.
    pub(super) fn proxy_header_of(&self, sender: IpAddr) -> ProxyHeader {
        match &self.settings.written.proxy_protocol {
            Some(proxy) if !proxy.from.iter().any(|network| network.contains(sender)) => ProxyHeader::Never,
            Some(proxy) if proxy.required => ProxyHeader::Required,
            Some(_) => ProxyHeader::Optional,
            None => ProxyHeader::Never,
        }
    }

    /// Which certificates of clients are taken here.
    pub(crate) fn client_certificates(&self) -> Option<&config::ClientCertificates> {
        self.settings.client_certificates(&self.service.settings)
    }

    /// What a conversation with this client must know to begin, at this point.
    pub(super) fn client_setup(&self, client: &Client, offers: Offers, carry: Carry, trace: bool) -> ClientSetup {
        let settings = &self.service.settings.written;
        ClientSetup {
            name: self.service.node.clone(),
            greeting: settings.greeting.clone(),
            tls: match (&client.tls, &self.tls) {
                (Some(_), _) => ClientTls::Up,
                (None, Spoken::StartTls(_)) => ClientTls::Offered,
                (None, Spoken::Never | Spoken::Implicit(_)) => ClientTls::Never,
            },
            offers,
            max_errors: settings.max_errors.0,
            carry,
            trace,
        }
    }

    /// How this client may log in, at this point.
    pub(super) fn log_in_rules(&self, client: &Client) -> LogInRules {
        let settings = &self.service.settings.written;
        let secured = client.tls.is_some();
        let is_private = match settings.plaintext {
            Plaintext::Tls => secured,
            Plaintext::Loopback => secured || client.address.ip().to_canonical().is_loopback(),
            Plaintext::Always => true,
        };
        // Where a certificate is required, there is no way around TLS.
        let needs_tls = self.client_certificates().is_some_and(|clients| clients.required);
        let is_possible = |mechanism: &&Mechanism| match **mechanism {
            Mechanism::External => client.tls.as_ref().is_some_and(|tls| tls.has_certificate),
            Mechanism::SCRAM_PLUS => client.tls.as_ref().is_some_and(|tls| tls.can_bind),
            _ => true,
        };
        LogInRules {
            takes_secrets: is_private && (secured || !needs_tls),
            has_password_command: self.service.takes_passwords(),
            mechanisms: settings.mechanisms.iter().filter(is_possible).copied().collect(),
            oauth: self.service.oauth.clone(),
            id: settings.id,
            max_auth_errors: settings.max_auth_errors.0,
        }
    }
}
