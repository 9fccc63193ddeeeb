//! Tokens of any kind, about which their provider is asked (RFC 7662).

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Uri};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{Bad, LEEWAY_SECONDS, Provider};
use crate::cache::Cache;
use crate::config;

/// Answers about tokens remembered at once.
const TOKENS_MAX: usize = 20_000;

/// See the module's documentation.
pub(super) struct Introspection {
    provider: Provider,
    /// Where it is asked.
    url: Uri,
    /// What identifies us there.
    authorization: Option<HeaderValue>,
    /// A token may name no other; `None`: any.
    issuer: Option<String>,
    /// A token must be for one of these; empty: for anybody.
    audience: Vec<String>,
    /// How long answers are remembered, within the token's life.
    kept_for: Duration,
    /// What the provider said of tokens, by their SHA-256.
    known: Cache<Known>,
}

/// A token that was good, and for how long it is from then on.
#[derive(Clone)]
struct Known {
    claims: Arc<Value>,
    lifetime: Duration,
}

impl Introspection {
    pub(super) fn new(
        provider: Provider,
        url: Uri,
        authorization: Option<HeaderValue>,
        config::OAuth2 { issuer, audience, cache, .. }: &config::OAuth2,
    ) -> Self {
        let (issuer, audience, kept_for) = (issuer.clone(), audience.clone(), *cache);
        Self { provider, url, authorization, issuer, audience, kept_for, known: Cache::new(TOKENS_MAX) }
    }

    /// Forgets what the provider said; of how many tokens that was.
    pub(super) fn forget(&self) -> usize {
        self.known.forget_about(None)
    }

    /// The claims of a good token.
    pub(super) async fn claims(&self, token: &str) -> Result<Value, Bad> {
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
        *request.uri_mut() = self.url.clone();
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        let claims = self.provider.fetch(request).await?;
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
        if let (Some(issuer), Some(named)) = (&self.issuer, claims["iss"].as_str())
            && issuer != named
        {
            return Err(Bad::Unfit(format!("the token is of another issuer, {named:?}")));
        }
        if !self.audience.is_empty() && !audience(&claims).any(|name| self.audience.iter().any(|a| a == name)) {
            return Err(Bad::Unfit("the token is for another audience".into()));
        }
        let left = expires.map_or(Duration::MAX, |end| Duration::from_secs(end - now));
        let known = Known { claims: Arc::new(claims.clone()), lifetime: self.kept_for.min(left) };
        self.known.keep(question, known, Instant::now());
        Ok(claims)
    }
}

/// Whom a token is for: one, or a list.
fn audience(claims: &Value) -> impl Iterator<Item = &str> {
    let list = claims["aud"].as_array().map(Vec::as_slice).unwrap_or_default();
    claims["aud"].as_str().into_iter().chain(list.iter().filter_map(Value::as_str))
}
