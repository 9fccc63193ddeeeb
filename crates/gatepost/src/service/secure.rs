//! TLS with the client, at once or when it asks, and what log-ins can be bound to in it.

use std::pin::pin;
use std::sync::Arc;

use tokio::time::{Instant, timeout_at};

use super::Session;
use super::called_off::unless_called_off;
use crate::metrics::{Rejection, Stage};
use crate::net::channel_binding::Witness;
use crate::net::client_certificate;
use crate::net::tls::Spoken;
use crate::story::Ended;

impl Session {
    /// Takes up TLS. Whatever came in clear before is not looked at.
    pub(super) async fn secure(&mut self) -> Result<(), Ended> {
        let result = self.accept_tls().await;
        if matches!(result, Err(Ended::TlsFailed(_))) {
            self.reject(Rejection::Tls);
        }
        result
    }

    async fn accept_tls(&mut self) -> Result<(), Ended> {
        let (config, we_speak) = match &self.snapshot.listener.tls {
            Spoken::Never => return Err(Ended::TlsFailed("there is none here".into())),
            Spoken::StartTls(config) => (config, false),
            Spoken::Implicit(config) => (config, true),
        };
        let mut config = Arc::clone(config);
        if self.service().binds() {
            let (own, witness) = Witness::of(&config);
            (config, self.witness) = (own, Some(witness));
        }
        let started = Instant::now();
        // The beginning of TLS, where anything is.
        let early = std::mem::take(&mut self.early).expose().to_vec();
        let accepting = timeout_at(self.deadline, self.client.accept_tls(config, early, we_speak));
        let accepted = unless_called_off(&self.shared, &self.handle, pin!(accepting)).await?;
        match accepted {
            Ok(Ok(())) => {
                self.story().tls = self.client.tls_facts();
                self.took(Stage::Tls, started.elapsed());
                Ok(())
            }
            Ok(Err(error)) => Err(Ended::TlsFailed(error.to_string())),
            Err(_) => Err(Ended::TlsFailed("the handshake took too long".into())),
        }
    }

    /// The names in the client's certificate, as it has them.
    pub(super) fn certified_names(&self) -> Vec<String> {
        match (self.client.peer_certificate(), self.snapshot.listener.client_certificates()) {
            (Some(certificate), Some(settings)) => client_certificate::names(certificate, &settings.names),
            _ => Vec::new(),
        }
    }

    /// The bytes that bind to this connection by this type; `None`: there are none.
    pub(super) fn binding(&self, kind: &str) -> Option<Vec<u8>> {
        self.witness.as_ref()?.binding(kind)
    }

    /// Whether a log-in can be bound to this connection.
    pub(super) fn can_bind(&self) -> bool {
        self.witness.as_ref().is_some_and(|witness| witness.can_bind())
    }
}
