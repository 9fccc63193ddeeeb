//! OAuth 2 access tokens: signed ones checked with the provider's keys (RFC 9068, `OpenID` Connect discovery),
//! or any that the provider is asked about (RFC 7662).
//!
//! It checks tokens alone, and says whose they are; where that user's mail is, other directories say.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gatepost_wire::Secret;
use http_body_util::Full;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Answering, Bearer, Fault, TokenVerdict, Tokens};
use crate::cache::Cache;
use crate::config::{self, Problem, TlsVersion};
use crate::net::http::HttpClient;
use crate::net::tls;
use crate::secret_file;

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
/// Clocks may differ by this much.
const LEEWAY_SECONDS: u64 = 60;
/// Answers about tokens remembered at once.
const TOKENS_MAX: usize = 20_000;

/// See the module's documentation.
pub(crate) struct OAuth2 {
    settings: config::OAuth2,
    http: HttpClient,
    /// What identifies us to the provider when it is asked about a token.
    authorization: Option<HeaderValue>,
    keys: Mutex<Keys>,
    fetching: tokio::sync::Mutex<()>,
    /// What the provider said of tokens, by their SHA-256.
    known: Cache<Known>,
}

/// The provider's keys, as far as they are known.
#[derive(Default, Clone)]
struct Keys {
    fetched: Option<(Arc<JwkSet>, Instant)>,
    /// When they were last asked for, and what came of it.
    asked: Option<(Instant, Result<(), Fault>)>,
}

/// A token that was good, and for how long it is from then on.
#[derive(Clone)]
struct Known {
    claims: Arc<Value>,
    lifetime: Duration,
}

/// Why a token isn't taken.
enum Bad {
    /// Somebody's mistake or guess: nothing to tell.
    Wrong,
    /// What an administrator may want to know.
    Unfit(String),
    /// Nobody can say.
    Untold(Fault),
}

impl From<Fault> for Bad {
    fn from(fault: Fault) -> Self {
        Self::Untold(fault)
    }
}

impl OAuth2 {
    /// Reads secrets and authorities; the provider is asked with the first token.
    pub(crate) fn open(
        settings: &config::OAuth2,
        min: TlsVersion,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Problem> {
        let tls = tls::client_config(&settings.trust, min)?;
        let authorization = match &settings.client {
            Some(client) => {
                let secret = secret_file::read(&client.secret_file, warnings)?;
                let pair = Secret::new([client.id.as_bytes(), b":", secret.expose()].concat());
                let value = format!("Basic {}", STANDARD.encode(pair.expose()));
                let mut value = HeaderValue::from_str(&value).map_err(|error| client.secret_file.problem(error))?;
                value.set_sensitive(true);
                Some(value)
            }
            None => None,
        };
        Ok(Self {
            settings: settings.clone(),
            http: HttpClient::new(&tls, 4, settings.timeout),
            authorization,
            keys: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            known: Cache::new(TOKENS_MAX),
        })
    }

    async fn judge(&self, token: &Secret) -> Result<TokenVerdict, Fault> {
        // The front takes no token with other letters.
        let Ok(text) = std::str::from_utf8(token.expose()) else { return Ok(TokenVerdict::Wrong) };
        match self.bearer(text).await {
            Ok(bearer) => Ok(TokenVerdict::Good(bearer)),
            Err(Bad::Wrong) => Ok(TokenVerdict::Wrong),
            Err(Bad::Unfit(why)) => Ok(TokenVerdict::Unfit(why)),
            Err(Bad::Untold(fault)) => Err(fault),
        }
    }

    async fn bearer(&self, token: &str) -> Result<Bearer, Bad> {
        let claims = match &self.settings.introspection {
            Some(url) => self.introspect(url, token).await?,
            None => self.verify(token).await?,
        };
        self.accept(&claims)
    }

    /// What a good token's claims must be besides, and whose it is.
    fn accept(&self, claims: &Value) -> Result<Bearer, Bad> {
        let granted = scopes(claims);
        if let Some(missing) = self.settings.scope.iter().find(|scope| !granted.contains(&scope.as_str())) {
            return Err(Bad::Unfit(format!("the token lacks the scope {missing:?}")));
        }
        let claim = &self.settings.user_claim;
        let Some(name) = claims[claim].as_str().and_then(|name| gatepost_wire::sasl::user_name(name.as_bytes())) else {
            return Err(Bad::Unfit(format!("the token has no claim {claim:?} with a user's name: see `user_claim`")));
        };
        // A user may set any address, and only one that the provider has seen mail arrive at is theirs.
        if claim == "email" && !matches!(claims["email_verified"], Value::Null | Value::Bool(true)) {
            return Err(Bad::Unfit("the token's email is not verified".into()));
        }
        let expires = claims["exp"].as_u64();
        let expires = expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Ok(Bearer { name, expires: expires.filter(|_| self.settings.close_sessions) })
    }

    /// Checks a signed token: the claims of a good one.
    async fn verify(&self, token: &str) -> Result<Value, Bad> {
        let Ok(header) = decode_header(token) else { return Err(Bad::Wrong) };
        if !ALGORITHMS.contains(&header.alg) {
            return Err(Bad::Unfit(format!("the token is signed by {:?}, which is not taken", header.alg)));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY_SECONDS;
        validation.validate_nbf = true;
        validation.set_audience(&self.settings.audience);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        if let Some(issuer) = &self.settings.issuer {
            validation.set_issuer(&[issuer]);
        }
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

    fn lock_keys(&self) -> std::sync::MutexGuard<'_, Keys> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From the issuer to its keys (`OpenID` Connect Discovery 1.0, section 4).
    async fn discover(&self) -> Result<JwkSet, Fault> {
        let url = self.settings.configuration().ok_or_else(|| Fault("there is no `issuer`".into()))?;
        let configuration = self.get(&url).await?;
        let issuer = configuration["issuer"].as_str();
        if issuer != self.settings.issuer.as_deref() {
            return Err(Fault(format!("{url}: it is the configuration of {issuer:?}, another issuer")));
        }
        let keys = configuration["jwks_uri"].as_str().and_then(|text| text.parse::<Uri>().ok());
        let keys = keys.ok_or_else(|| Fault(format!("{url}: it names no `jwks_uri`")))?;
        if keys.scheme_str() != url.scheme_str() {
            return Err(Fault(format!("{url}: its keys at {keys} are not as safe as itself")));
        }
        let set = self.get(&keys).await?;
        serde_json::from_value(set).map_err(|error| Fault(format!("{keys}: {error}")))
    }

    async fn get(&self, url: &Uri) -> Result<Value, Fault> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url.clone();
        self.fetch(request).await
    }

    async fn fetch(&self, mut request: Request<Full<Bytes>>) -> Result<Value, Fault> {
        let url = request.uri().clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.http.send(request).await.map_err(|what| Fault(format!("{url}: {what}")))?;
        if !response.status().is_success() {
            return Err(Fault(format!("{url}: it answers {}", response.status())));
        }
        serde_json::from_slice(response.body()).map_err(|error| Fault(format!("{url}: {error}")))
    }

    /// Asks the provider about a token: the claims of a good one.
    async fn introspect(&self, url: &Uri, token: &str) -> Result<Value, Bad> {
        let question = STANDARD.encode(Sha256::digest(token));
        if let Some(known) = self.known.get(&question, Instant::now(), |known| known.lifetime) {
            return Ok((*known.claims).clone());
        }
        let (head, tail) = ("token=", "&token_type_hint=access_token");
        // Never grown, so that no copy of the token is left behind unwiped.
        let mut body = Zeroizing::new(Vec::with_capacity(head.len() + 3 * token.len() + tail.len()));
        body.extend_from_slice(head.as_bytes());
        for byte in token.bytes() {
            // What a token may consist of needs no escaping but for two.
            match byte {
                b'+' => body.extend_from_slice(b"%2B"),
                b'=' => body.extend_from_slice(b"%3D"),
                byte => body.push(byte),
            }
        }
        body.extend_from_slice(tail.as_bytes());
        let mut request = Request::new(Full::new(Bytes::from_owner(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let claims = self.fetch(request).await?;
        if claims["active"] != true {
            return Err(Bad::Wrong);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let expires = claims["exp"].as_u64();
        if expires.is_some_and(|end| end <= now)
            || claims["nbf"].as_u64().is_some_and(|start| start > now + LEEWAY_SECONDS)
        {
            return Err(Bad::Wrong);
        }
        if let (Some(issuer), Some(named)) = (&self.settings.issuer, claims["iss"].as_str())
            && issuer != named
        {
            return Err(Bad::Unfit(format!("the token is of another issuer, {named:?}")));
        }
        if !self.settings.audience.is_empty()
            && !audience(&claims).any(|name| self.settings.audience.iter().any(|a| a == name))
        {
            return Err(Bad::Unfit("the token is for another audience".into()));
        }
        let left = expires.map_or(Duration::MAX, |end| Duration::from_secs(end - now));
        let known = Known { claims: Arc::new(claims.clone()), lifetime: self.settings.cache.min(left) };
        self.known.keep(question, known, Instant::now());
        Ok(claims)
    }
}

/// A token's scopes: a text with spaces between (RFC 8693, section 4.2), or a list in `scp`.
fn scopes(claims: &Value) -> Vec<&str> {
    let words = ["scope", "scp"].into_iter().flat_map(|claim| match &claims[claim] {
        Value::String(text) => text.split_ascii_whitespace().collect(),
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    });
    words.collect()
}

/// Whom a token is for: one, or a list.
fn audience(claims: &Value) -> impl Iterator<Item = &str> {
    let list = claims["aud"].as_array().map(Vec::as_slice).unwrap_or_default();
    claims["aud"].as_str().into_iter().chain(list.iter().filter_map(Value::as_str))
}

impl Tokens for OAuth2 {
    fn check<'a>(&'a self, token: &'a Secret) -> Answering<'a, TokenVerdict> {
        Box::pin(self.judge(token))
    }

    fn forget(&self) -> usize {
        self.known.forget_about(None)
    }
}
