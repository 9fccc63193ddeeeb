//! OAuth 2 access tokens: whether one is good, and whose it is. Where that user's mail is, other directories say.
//!
//! What a good token claims, its provider is asked (`introspection`), or its signature shows (`signatures`); what it must be
//! besides belongs here.

mod introspection;
mod signatures;

use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use gatepost_wire::Secret;
use http_body_util::Full;
use hyper::header::{ACCEPT, HeaderValue};
use hyper::{Request, Uri};
use serde_json::Value;

use super::{Answering, Bearer, Fault, TokenVerdict, Tokens};
use crate::config::{self, Problem, TlsVersion, TokenCheck};
use crate::net::http::HttpClient;
use crate::net::tls;
use crate::secret_file;
use introspection::Introspection;
use signatures::Signatures;

/// Connections to the provider that are kept.
const CONNECTIONS: u32 = 4;
/// Clocks may differ by this much.
const LEEWAY_SECONDS: u64 = 60;

/// See the module's documentation.
pub(crate) struct OAuth2 {
    check: Check,
    /// What a token must have.
    scope: Vec<String>,
    /// Which claim says whose it is.
    user_claim: String,
    /// Whether sessions end when their token does.
    close_sessions: bool,
}

/// How a token is found good.
enum Check {
    Introspection(Introspection),
    Signatures(Signatures),
}

/// The provider, which answers in JSON.
struct Provider(HttpClient);

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
        check: &TokenCheck,
        min: TlsVersion,
        warnings: &mut Vec<Problem>,
    ) -> Result<Self, Problem> {
        let tls = tls::client_config(&settings.trust, min)?;
        let provider = Provider(HttpClient::new(&tls, CONNECTIONS, settings.timeout));
        let authorization = settings.client.as_ref().map(|client| authorization(client, warnings)).transpose()?;
        let check = match check.clone() {
            TokenCheck::Introspection(url) => {
                Check::Introspection(Introspection::new(provider, url, authorization, settings))
            }
            TokenCheck::Signatures { issuer, configuration } => {
                let audience = settings.audience.clone();
                Check::Signatures(Signatures::new(provider, issuer, configuration, audience))
            }
        };
        let config::OAuth2 { scope, user_claim, close_sessions, .. } = settings.clone();
        Ok(Self { check, scope, user_claim, close_sessions })
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
        let claims = match &self.check {
            Check::Introspection(introspection) => introspection.claims(token).await?,
            Check::Signatures(signatures) => signatures.claims(token).await?,
        };
        self.accept(&claims)
    }

    /// What a good token's claims must be besides, and whose it is.
    fn accept(&self, claims: &Value) -> Result<Bearer, Bad> {
        let granted = scopes(claims);
        if let Some(missing) = self.scope.iter().find(|scope| !granted.contains(&scope.as_str())) {
            return Err(Bad::Unfit(format!("the token lacks the scope {missing:?}")));
        }
        let claim = &self.user_claim;
        let Some(name) = claims[claim].as_str().and_then(|name| gatepost_wire::sasl::user_name(name.as_bytes())) else {
            return Err(Bad::Unfit(format!("the token has no claim {claim:?} with a user's name: see `user_claim`")));
        };
        // A user may set any address, and only one that the provider has seen mail arrive at is theirs.
        if claim == "email" && !matches!(claims["email_verified"], Value::Null | Value::Bool(true)) {
            return Err(Bad::Unfit("the token's email is not verified".into()));
        }
        let expires = claims["exp"].as_u64();
        let expires = expires.and_then(|seconds| UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        Ok(Bearer { name, expires: expires.filter(|_| self.close_sessions) })
    }
}

impl Provider {
    async fn get(&self, url: &Uri) -> Result<Value, Fault> {
        let mut request = Request::new(Full::default());
        *request.uri_mut() = url.clone();
        self.fetch(request).await
    }

    async fn fetch(&self, mut request: Request<Full<Bytes>>) -> Result<Value, Fault> {
        let url = request.uri().clone();
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        let response = self.0.send(request).await.map_err(|what| Fault(format!("{url}: {what}")))?;
        if !response.status().is_success() {
            return Err(Fault(format!("{url}: it answers {}", response.status())));
        }
        serde_json::from_slice(response.body()).map_err(|error| Fault(format!("{url}: {error}")))
    }
}

/// What identifies us to the provider.
fn authorization(client: &config::OAuth2Client, warnings: &mut Vec<Problem>) -> Result<HeaderValue, Problem> {
    let secret = secret_file::read(&client.secret_file, warnings)?;
    let pair = Secret::new([client.id.as_bytes(), b":", secret.expose()].concat());
    let value = format!("Basic {}", STANDARD.encode(pair.expose()));
    let mut value = HeaderValue::from_str(&value).map_err(|error| client.secret_file.problem(error))?;
    value.set_sensitive(true);
    Ok(value)
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

impl Tokens for OAuth2 {
    fn check<'a>(&'a self, token: &'a Secret) -> Answering<'a, TokenVerdict> {
        Box::pin(self.judge(token))
    }

    fn forget(&self) -> usize {
        match &self.check {
            Check::Introspection(introspection) => introspection.forget(),
            Check::Signatures(_) => 0,
        }
    }
}
