//! Who asks, and may they? Names by which we may be called, tokens, log-ins, and the headers that keep a browser's
//! other pages out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gatepost_wire::Secret;
use subtle::ConstantTimeEq as _;

use super::{App, Problem};
use crate::admin::accounts::{Accounts, Person, Role, digest, random_text};
use crate::config::{self, Level};
use crate::defence::{Consequence, Defence};

/// A log-in ends after so long without a request …
const IDLE_TIME: Duration = Duration::from_mins(30);
/// … and after so long in any case.
const LOGIN_TIME: Duration = Duration::from_hours(12);
/// Log-ins at once; beyond it, the one that was quiet for longest goes.
const LOGINS_MAX: usize = 1000;
/// How long a wrong password takes at least.
const WRONG_TIME: Duration = Duration::from_secs(1);

/// The cookie's name. The prefix keeps other hosts and clear HTTP from setting it.
const COOKIE_TLS: &str = "__Host-gatepost";
const COOKIE_CLEAR: &str = "gatepost";
/// The header in which a page's own script shows that it is ours.
const PROOF_HEADER: &str = "x-gatepost-proof";

/// What every answer says to browsers.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; font-src 'self'; connect-src 'self'; \
         form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("permissions-policy", "camera=(), geolocation=(), microphone=(), payment=()"),
];

/// Log-ins under way and what guards them.
pub(super) struct Gate {
    /// By the digest of the cookie.
    logins: Mutex<HashMap<String, Login>>,
    defence: Arc<Defence>,
    limits: Arc<config::Defence>,
    /// Lets in who makes the first administrator.
    first: Mutex<Option<String>>,
}

/// Somebody who is logged in with a browser.
#[derive(Debug, Clone)]
struct Login {
    person: Person,
    /// What forms must bring along.
    proof: String,
    began: Instant,
    seen: Instant,
}

impl Default for Gate {
    fn default() -> Self {
        let limits = config::Defence {
            failures_per_ip: 20,
            failures_per_user: 10,
            window: Duration::from_mins(10),
            delay: Duration::from_secs(15),
            ban: Duration::from_mins(10),
            exempt: Vec::new(),
        };
        Self { logins: Mutex::default(), defence: Arc::default(), limits: Arc::new(limits), first: Mutex::default() }
    }
}

/// Where a request came from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer {
    pub(super) address: IpAddr,
    pub(super) is_tls: bool,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    pub(super) person: Person,
    pub(super) address: IpAddr,
    /// Set where it is a browser: what its forms must bring along.
    pub(super) proof: Option<String>,
}

impl Asker {
    /// For the log.
    pub(super) fn by(&self) -> String {
        format!("{} ({}) from {}", self.person.name, self.person.role.name(), self.address)
    }

    /// Whether this is allowed to them.
    pub(super) fn may(&self, needed: Role) -> Result<(), Problem> {
        if self.person.role >= needed {
            return Ok(());
        }
        let text =
            format!("this needs the role {}, and {} is {}", needed.name(), self.person.name, self.person.role.name());
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }
}

impl FromRequestParts<Arc<App>> for Asker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Extension(Peer { address, is_tls }) =
            Extension::from_request_parts(parts, app).await.map_err(|error| broken(error.to_string()))?;
        if let Some(token) = bearer(&parts.headers) {
            let person = app.accounts.by_token(token).map_err(broken)?;
            let person = person.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "this token is not known"))?;
            return Ok(Self { person, address, proof: None });
        }
        let login = cookie(&parts.headers, is_tls).and_then(|cookie| app.gate.login(cookie));
        let Some(login) = login else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "log in, or send a token (Authorization: Bearer …)"));
        };
        // What has been taken away meanwhile is gone.
        match app.accounts.person(&login.person.name).map_err(broken)? {
            Some((role, _)) if role == login.person.role => {}
            _ => return Err(Problem::new(StatusCode::UNAUTHORIZED, "log in again")),
        }
        Ok(Self { person: login.person, address, proof: Some(login.proof) })
    }
}

/// Who asks the API: a browser that changes something there also shows that it is one of our pages that asks.
pub(super) struct ApiAsker(pub(super) Asker);

impl FromRequestParts<Arc<App>> for ApiAsker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let asker = Asker::from_request_parts(parts, app).await?;
        let shown = parts.headers.get(PROOF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_proved = asker.proof.as_ref().is_none_or(|proof| shown.ct_eq(proof.as_bytes()).into());
        if !is_safe(&parts.method) && !is_proved {
            let text = format!("a request of a browser that changes something brings {PROOF_HEADER}");
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        Ok(Self(asker))
    }
}

/// Whether a request of this method changes nothing.
fn is_safe(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}

/// What every request passes: is it for us, and may this page of a browser ask it.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_probe = matches!(path, "/livez" | "/readyz" | "/metrics");
    let mut response = match check(&app, &request) {
        Err(problem) if !is_probe => problem.into_response(),
        _ => next.run(request).await,
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

fn check(app: &App, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A foreign name that leads here is how a foreign page would get to us (DNS rebinding).
    if !app.door.load().is_called(host) {
        let text = format!("this server is not called {host:?}: see [admin] hosts");
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, text));
    }
    if is_safe(request.method()) || bearer(headers).is_some() {
        return Ok(());
    }
    let site = headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
    let origin = headers.get(header::ORIGIN).and_then(|origin| origin.to_str().ok());
    let is_ours = |origin: &str| origin.split_once("://").is_some_and(|(_, name)| name.eq_ignore_ascii_case(host));
    if site.is_some_and(|site| !matches!(site, "same-origin" | "none")) || origin.is_some_and(|origin| !is_ours(origin))
    {
        return Err(Problem::new(StatusCode::FORBIDDEN, "another site's page can't ask this"));
    }
    Ok(())
}

/// Something of ours is out of order.
pub(super) fn broken(error: String) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error)
}

/// The token that a request brings.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

fn cookie(headers: &HeaderMap, is_tls: bool) -> Option<&str> {
    let wanted = if is_tls { COOKIE_TLS } else { COOKIE_CLEAR };
    let cookies = headers.get_all(header::COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    cookies.flat_map(|value| value.split(';')).find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        (name == wanted).then_some(value)
    })
}

impl App {
    /// Logs somebody in with a password; what the browser keeps. Slowed, then refused, after failures.
    pub(super) async fn log_in(
        &self,
        name: &str,
        password: Secret,
        Peer { address, is_tls }: Peer,
    ) -> Result<HeaderValue, Problem> {
        let gate = &self.gate;
        let refused = |text| Problem::new(StatusCode::UNAUTHORIZED, text);
        let begun = gate.defence.begin(Some(&gate.limits), address, Some(name), Instant::now());
        let Ok(attempt) = begun else {
            return Err(Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too many failed log-ins: try again in ten minutes",
            ));
        };
        tokio::time::sleep(attempt.delay).await;
        let began = Instant::now();
        let kept = self.accounts.person(name).map_err(broken)?;
        let tag = gate.defence.tag(password.expose());
        let stored = kept.as_ref().map(|(_, stored)| stored.clone());
        let is_right = self.checker.check(stored, password).await.map_err(|error| broken(error.to_string()))?;
        let (Some((role, _)), true) = (kept, is_right) else {
            let consequence = attempt.failed(tag, Instant::now());
            let record = self.log.record(Level::Warning, "admin", "a log-in of an administrator failed");
            let record = record.with("user", crate::log::Field::Name(name.to_owned())).with("rip", address);
            record.with("banned", if consequence == Consequence::Ban { "yes" } else { "no" }).write();
            tokio::time::sleep_until((began + WRONG_TIME).into()).await;
            return Err(refused("the name or the password is wrong"));
        };
        attempt.succeeded(name, Instant::now());
        let person = Person { name: name.to_owned(), role };
        let record = self.log.record(Level::Info, "admin", "an administrator logged in");
        record
            .with("user", crate::log::Field::Name(name.to_owned()))
            .with("role", role.name())
            .with("rip", address)
            .write();
        let cookie = gate.keep(person).map_err(broken)?;
        cookie_header(is_tls, &cookie, LOGIN_TIME)
    }

    /// Makes the first administrator, for whoever has the token that the log showed.
    pub(super) async fn set_up(&self, token: &str, name: &str, password: Secret) -> Result<(), Problem> {
        let expected = self.first_token().map_err(broken)?;
        if !expected.is_some_and(|expected| expected.as_bytes().ct_eq(token.as_bytes()).into()) {
            tokio::time::sleep(WRONG_TIME).await;
            let text = "this token is not the one that the log shows, or there is an administrator already";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        let (accounts, first) = (Arc::clone(&self.accounts), name.to_owned());
        // Hashing takes a while.
        let work = tokio::task::spawn_blocking(move || accounts.set_first(&first, &password));
        let is_first = work.await.map_err(|error| broken(error.to_string()))?;
        if !is_first.map_err(|error| Problem::new(StatusCode::CONFLICT, error))? {
            return Err(Problem::new(StatusCode::CONFLICT, "there is an administrator already"));
        }
        let record = self.log.record(Level::Warning, "admin", "the first administrator was made");
        record.with("user", crate::log::Field::Name(name.to_owned())).write();
        Ok(())
    }

    /// Ends a browser's log-in; what makes it forget.
    pub(super) fn log_out(&self, headers: &HeaderMap, Peer { is_tls, .. }: Peer) -> Result<HeaderValue, Problem> {
        if let Some(cookie) = cookie(headers, is_tls) {
            self.gate.logins().remove(&digest(cookie));
        }
        cookie_header(is_tls, "", Duration::ZERO)
    }
}

fn cookie_header(is_tls: bool, cookie: &str, life: Duration) -> Result<HeaderValue, Problem> {
    let (name, secure) = if is_tls { (COOKIE_TLS, "; Secure") } else { (COOKIE_CLEAR, "") };
    let text = format!("{name}={cookie}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{secure}", life.as_secs());
    HeaderValue::from_str(&text).map_err(|error| broken(error.to_string()))
}

impl Gate {
    /// Who is logged in with this cookie.
    fn login(&self, cookie: &str) -> Option<Login> {
        let mut logins = self.logins();
        let now = Instant::now();
        logins.retain(|_, login| now - login.seen < IDLE_TIME && now - login.began < LOGIN_TIME);
        let login = logins.get_mut(&digest(cookie))?;
        login.seen = now;
        Some(login.clone())
    }

    /// A log-in of its own for a person, never one that the browser brought along; its cookie.
    fn keep(&self, person: Person) -> Result<String, String> {
        let (cookie, proof, now) = (random_text()?, random_text()?, Instant::now());
        let mut logins = self.logins();
        if logins.len() >= LOGINS_MAX
            && let Some(quietest) = logins.iter().min_by_key(|(_, login)| login.seen).map(|(key, _)| key.clone())
        {
            logins.remove(&quietest);
        }
        logins.insert(digest(&cookie), Login { person, proof, began: now, seen: now });
        Ok(cookie)
    }

    /// The token by which the first administrator is made, where there is none yet.
    pub(super) fn first_token(&self, accounts: &Accounts) -> Result<Option<String>, String> {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        if !accounts.has_nobody()? {
            *first = None;
        } else if first.is_none() {
            *first = Some(random_text()?);
        }
        Ok(first.clone())
    }

    fn logins(&self) -> MutexGuard<'_, HashMap<String, Login>> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
