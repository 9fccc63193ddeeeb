//! Signed tokens (RFC 9068), checked with their provider's keys, which are found from its name (`OpenID` Connect Discovery).

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::Uri;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;

use super::{Bad, LEEWAY_SECONDS, Provider};
use crate::directory::Fault;

/// Signatures that are taken: none that a secret shared with others could make.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];
/// The provider's keys are asked for again after this time …
const KEYS_LIFETIME: Duration = Duration::from_hours(1);
/// … and go on serving for this long, should it not answer.
const KEYS_STALE_TIME: Duration = Duration::from_hours(24);
/// A token with an unknown key has them asked for again, but not more often than this.
const KEYS_INTERVAL: Duration = Duration::from_secs(10);
/// A provider that doesn't answer is asked again after this time.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// See the module's documentation.
pub(super) struct Signatures {
    provider: Provider,
    /// As tokens name it, to the letter.
    issuer: String,
    /// Where its configuration is.
    configuration: Uri,
    /// A token must be for one of these.
    audience: Vec<String>,
    keys: Mutex<Keys>,
    fetching: tokio::sync::Mutex<()>,
}

/// The provider's keys, as far as they are known.
#[derive(Default, Clone)]
struct Keys {
    fetched: Option<(Arc<JwkSet>, Instant)>,
    /// When they were last asked for, and what came of it.
    asked: Option<(Instant, Result<(), Fault>)>,
}

impl Signatures {
    pub(super) fn new(provider: Provider, issuer: String, configuration: Uri, audience: Vec<String>) -> Self {
        let (keys, fetching) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { provider, issuer, configuration, audience, keys, fetching }
    }

    /// The claims of a good token.
    pub(super) async fn claims(&self, token: &str) -> Result<Value, Bad> {
        let Ok(header) = decode_header(token) else { return Err(Bad::Wrong) };
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Bad::Unfit(format!("the token is signed by {:?}, which is not taken", header.alg)));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&self.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.set_issuer(&[&self.issuer]);
        let mut bad = Bad::Unfit("the token is signed with a key that the provider doesn't have".into());
        for key in self.keys_for(header.kid.as_deref()).await? {
            let Ok(decoding) = DecodingKey::from_jwk(&key) else { continue };
            if decoding.family() != header.alg.family() {
                continue;
            }
            match decode::<Value>(token, &decoding, &validation) {
                Ok(token) => return Ok(token.claims),
                Err(error) => match error.kind() {
                    // Another key may have signed it.
                    ErrorKind::InvalidSignature => bad = Bad::Wrong,
                    ErrorKind::ExpiredSignature => return Err(Bad::Wrong),
                    kind => return Err(Bad::Unfit(format!("the token is not good here: {kind:?}"))),
                },
            }
        }
        Err(bad)
    }

    /// The keys that a token may be signed with: the one that it names, else all.
    async fn keys_for(&self, id: Option<&str>) -> Result<Vec<Jwk>, Fault> {
        let pick = |set: &JwkSet| match id {
            Some(id) => set.find(id).cloned().into_iter().collect::<Vec<_>>(),
            None => set.keys.clone(),
        };
        let (known, due) = self.known_keys();
        if let Some(set) = &known {
            let found = pick(set);
            if !due && !found.is_empty() {
                return Ok(found);
            }
        }
        match self.fetch_keys().await {
            Ok(set) => Ok(pick(&set)),
            // Better than nothing, while the provider doesn't answer; but a key that it may have by now is no wrong one.
            Err(fault) => known.map(|set| pick(&set)).filter(|found| !found.is_empty()).ok_or(fault),
        }
    }

    /// The keys as they were fetched last, if they are still good for anything, and whether it is time for new ones.
    fn known_keys(&self) -> (Option<Arc<JwkSet>>, bool) {
        let keys = self.lock_keys();
        let usable = keys.fetched.as_ref().filter(|(_, at)| at.elapsed() < KEYS_STALE_TIME);
        (usable.map(|(set, _)| Arc::clone(set)), usable.is_none_or(|(_, at)| at.elapsed() >= KEYS_LIFETIME))
    }

    /// Fetches the keys, unless somebody just has, or has found that the provider doesn't answer.
    async fn fetch_keys(&self) -> Result<Arc<JwkSet>, Fault> {
        let _one_at_a_time = self.fetching.lock().await;
        let known = self.lock_keys().clone();
        match (&known.fetched, &known.asked) {
            (Some((set, _)), Some((at, Ok(())))) if at.elapsed() < KEYS_INTERVAL => return Ok(Arc::clone(set)),
            (_, Some((at, Err(fault)))) if at.elapsed() < RETRY_INTERVAL => return Err(fault.clone()),
            _ => {}
        }
        let fetched = self.discover().await.map(Arc::new);
        let now = Instant::now();
        let mut keys = self.lock_keys();
        keys.asked = Some((now, fetched.as_ref().map(drop).map_err(Fault::clone)));
        if let Ok(set) = &fetched {
            keys.fetched = Some((Arc::clone(set), now));
        }
        fetched
    }

    fn lock_keys(&self) -> MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the issuer to its keys (`OpenID` Connect Discovery 1.0, section 4).
    async fn discover(&self) -> Result<JwkSet, Fault> {
        let url = &self.configuration;
        let configuration = self.provider.get(url).await?;
        let issuer = configuration["issuer"].as_str();
        if issuer != Some(&*self.issuer) {
            return Err(Fault(format!("{url}: it is the configuration of {issuer:?}, another issuer")));
        }
        let keys = configuration["jwks_uri"].as_str().and_then(|text| text.parse::<Uri>().ok());
        let keys = keys.ok_or_else(|| Fault(format!("{url}: it names no `jwks_uri`")))?;
        if keys.scheme_str() != url.scheme_str() {
            return Err(Fault(format!("{url}: its keys at {keys} are not as safe as itself")));
        }
        let set = self.provider.get(&keys).await?;
        serde_json::from_value(set).map_err(|error| Fault(format!("{keys}: {error}")))
    }
}
