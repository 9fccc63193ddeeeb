//! Who asks, and may they? Names by which we may be called, tokens, log-ins, and the headers that keep a browser's
//! other pages out.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use gatepost_wire::Secret;
use serde_json::Value;
use subtle::ConstantTimeEq as _;
use tokio::time::timeout;

use super::{App, Problem, redaction};
use crate::admin::accounts::{Accounts, NAME_CHARS_MAX, Person, Role, digest, random_text};
use crate::config::{self, Level};
use crate::defence::{Consequence, Defence};
use crate::directory::KeptSecret;
use crate::log::Field;

/// A log-in ends after so long without a request …
const IDLE_TIME: Duration = Duration::from_mins(30);
/// … and after so long in any case.
const LOGIN_TIME: Duration = Duration::from_hours(12);
/// Log-ins at once; beyond it, the one that was quiet for longest goes.
const LOGINS_MAX: usize = 1000;
/// How long a wrong password takes at least.
const WRONG_TIME: Duration = Duration::from_secs(1);

/// Longest password of a user.
pub(super) const PASSWORD_BYTES_MAX: usize = 1024;
/// How long a request's body may take to come, and what of it is read.
const BODY_TIME: Duration = Duration::from_secs(10);
const FORM_BYTES_MAX: usize = 1024 * 1024;

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
    // Without one, browsers would call the origin of our own forms `null`.
    ("referrer-policy", "same-origin"),
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
    /// The digest of the password's hash: with another password, it is over.
    stored: String,
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
    pass: Pass,
}

/// What somebody came in with. Of what is sent to us, the digest is kept.
#[derive(Debug, Clone)]
enum Pass {
    Token {
        digest: String,
    },
    Browser {
        /// Of its cookie.
        digest: String,
        /// What its forms must bring along.
        proof: String,
    },
}

impl Asker {
    /// What forms must bring along, where it is a browser that asks.
    pub(super) fn proof(&self) -> Option<&str> {
        match &self.pass {
            Pass::Token { .. } => None,
            Pass::Browser { proof, .. } => Some(proof),
        }
    }

    /// Whether they could come in once more: their log-in or token may have been taken away meanwhile.
    pub(super) fn is_still_known(&self, app: &App) -> bool {
        match &self.pass {
            Pass::Token { digest } => {
                app.accounts.by_token_digest(digest).is_ok_and(|person| person.as_ref() == Some(&self.person))
            }
            // To look on is no use of a log-in that would keep it alive.
            Pass::Browser { digest, .. } => app.gate.peek(digest).is_some_and(|login| {
                app.accounts.person(&login.person.name).is_ok_and(|found| login.holds(found.as_ref()))
            }),
        }
    }

    /// An answer as they may see it: passwords are for administrators alone.
    pub(super) fn shown(&self, command: &'static str, mut answer: Value) -> Value {
        if self.person.role != Role::Admin && command == "settings" {
            redaction::strike_out(&mut answer);
        }
        answer
    }

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
        let asker = Self::identify(parts, app).await?;
        asker.may(Role::Viewer)?;
        Ok(asker)
    }
}

/// A token that may send records to the log.
pub(super) struct Sender(pub(super) Asker);

impl FromRequestParts<Arc<App>> for Sender {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let asker = Asker::identify(parts, app).await?;
        if asker.proof().is_some() || !asker.person.role.may_send() {
            let text = "only a token of the roles sender, operator or admin may send records";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        Ok(Self(asker))
    }
}

impl Asker {
    /// Who it is, whatever they may do.
    async fn identify(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let Extension(Peer { address, is_tls }) =
            Extension::from_request_parts(parts, app).await.map_err(|error| broken(error.to_string()))?;
        if let Some(token) = bearer(&parts.headers) {
            let person = app.accounts.by_token(token).map_err(|error| app.broken(&error))?;
            let person = person.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "this token is not known"))?;
            return Ok(Self { person, address, pass: Pass::Token { digest: digest(token) } });
        }
        let cookie = cookie(&parts.headers, is_tls);
        let Some((cookie, login)) = cookie.and_then(|cookie| Some((cookie, app.gate.login(cookie)?))) else {
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "log in, or send a token (Authorization: Bearer …)"));
        };
        // What has been taken away or changed meanwhile is gone.
        let found = app.accounts.person(&login.person.name).map_err(|error| app.broken(&error))?;
        let digest = digest(cookie);
        if !login.holds(found.as_ref()) {
            app.gate.logins().remove(&digest);
            return Err(Problem::new(StatusCode::UNAUTHORIZED, "log in again"));
        }
        Ok(Self { person: login.person, address, pass: Pass::Browser { digest, proof: login.proof } })
    }
}

/// Who asks the API: a browser that changes something there also shows that it is one of our pages that asks.
pub(super) struct ApiAsker(pub(super) Asker);

impl FromRequestParts<Arc<App>> for ApiAsker {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Problem> {
        let asker = Asker::from_request_parts(parts, app).await?;
        let shown = parts.headers.get(PROOF_HEADER).map(HeaderValue::as_bytes).unwrap_or_default();
        let is_proved = asker.proof().is_none_or(|proof| shown.ct_eq(proof.as_bytes()).into());
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

impl Asker {
    /// Whether a form came from one of our own pages.
    pub(super) fn proves(&self, shown: &str) -> Result<(), Problem> {
        match self.proof() {
            Some(proof) if bool::from(proof.as_bytes().ct_eq(shown.as_bytes())) => Ok(()),
            _ => Err(Problem::new(StatusCode::FORBIDDEN, "this form is too old or not ours: load the page again")),
        }
    }
}

/// What every request passes: is it for us, and may this page of a browser ask it.
pub(super) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_probe = matches!(path, "/livez" | "/readyz" | "/metrics");
    let mut response = match check(&app, &request) {
        Err(problem) if !is_probe => problem.into_response(),
        _ => match with_body(request).await {
            Ok(request) => next.run(request).await,
            Err(problem) => problem.into_response(),
        },
    };
    for (name, value) in HEADERS {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// A request with its body, if it may have one: whoever is slow keeps nobody else out.
async fn with_body(request: Request) -> Result<Request, Problem> {
    let (head, body) = request.into_parts();
    if is_safe(&head.method) {
        return Ok(Request::from_parts(head, Body::empty()));
    }
    let most = if head.uri.path().starts_with("/api/") { super::api::BODY_BYTES_MAX } else { FORM_BYTES_MAX };
    match timeout(BODY_TIME, axum::body::to_bytes(body, most)).await {
        Ok(Ok(bytes)) => Ok(Request::from_parts(head, Body::from(bytes))),
        Ok(Err(_)) => Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too long, or did not come whole")),
        Err(_) => Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "the body took too long to come")),
    }
}

fn check(app: &App, request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    // A foreign name that leads here is how a foreign page would get to us (DNS rebinding).
    if !app.http.load().is_called(host) {
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

/// Something of ours is out of order; the text is for whoever asked.
pub(super) fn broken(text: impl Into<String>) -> Problem {
    Problem::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}

fn wrong() -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, "the name or the password is wrong")
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
    /// Logs somebody in with a password; what the browser keeps. Slowed, then refused, after failures. Whoever hangs up
    /// meanwhile has tried all the same.
    pub(super) async fn log_in(
        self: &Arc<Self>,
        name: &str,
        password: Secret,
        peer: Peer,
    ) -> Result<HeaderValue, Problem> {
        if name.chars().count() > NAME_CHARS_MAX || name.contains(char::is_control) {
            tokio::time::sleep(WRONG_TIME).await;
            return Err(wrong());
        }
        let (app, name) = (Arc::clone(self), name.to_owned());
        let trying = tokio::spawn(async move { app.try_log_in(&name, password, peer).await });
        trying.await.unwrap_or_else(|error| Err(self.broken(&error.to_string())))
    }

    async fn try_log_in(
        &self,
        name: &str,
        password: Secret,
        Peer { address, is_tls }: Peer,
    ) -> Result<HeaderValue, Problem> {
        let gate = &self.gate;
        let begun = gate.defence.begin(Some(&gate.limits), address, Some(name), Instant::now());
        let Ok(attempt) = begun else {
            let text = "too many failed log-ins: try again in ten minutes";
            return Err(Problem::new(StatusCode::TOO_MANY_REQUESTS, text));
        };
        tokio::time::sleep(attempt.delay).await;
        let began = Instant::now();
        let kept = self.accounts.person(name).map_err(|error| self.broken(&error))?;
        let tag = gate.defence.tag(password.expose());
        let stored = kept.as_ref().map(|(_, stored)| KeptSecret::new(stored.clone()));
        let is_right = self.checker.check(stored, password).await.map_err(|error| self.broken(&error.to_string()))?;
        let (Some((role, stored)), true) = (kept, is_right) else {
            let consequence = attempt.failed(tag, Instant::now());
            let record = self.log.record(Level::Warning, "admin", "a log-in of an administrator failed");
            let record = record.with("user", Field::Name(name.to_owned())).with("rip", address);
            record.with("banned", if consequence == Consequence::Ban { "yes" } else { "no" }).write();
            tokio::time::sleep_until((began + WRONG_TIME).into()).await;
            return Err(wrong());
        };
        attempt.succeeded(name, Instant::now());
        let person = Person { name: name.to_owned(), role };
        let record = self.log.record(Level::Info, "admin", "an administrator logged in");
        record.with("user", Field::Name(name.to_owned())).with("role", role.name()).with("rip", address).write();
        let cookie = gate.keep(person, digest(&stored)).map_err(|error| self.broken(&error))?;
        cookie_header(is_tls, &cookie, LOGIN_TIME)
    }

    /// What is kept of a user's password; of none, nothing.
    pub(super) async fn hash(&self, password: Secret) -> Result<Option<String>, Problem> {
        if password.expose().is_empty() {
            return Ok(None);
        }
        if password.expose().len() > PASSWORD_BYTES_MAX {
            let text = format!("a password has at most {PASSWORD_BYTES_MAX} bytes");
            return Err(Problem::new(StatusCode::BAD_REQUEST, text));
        }
        // It takes a while, and a core.
        let work = tokio::task::spawn_blocking(move || crate::auth::hash::make(&password));
        let hash = work.await.map_err(|error| self.broken(&error.to_string()))?;
        hash.map(Some).map_err(|error| Problem::new(StatusCode::CONFLICT, error.to_string()))
    }

    /// Something of ours is out of order: the log says what, and strangers are told nothing of it.
    pub(super) fn broken(&self, what: &str) -> Problem {
        if let Some(times) = self.log.seldom(what) {
            let record = self.log.record(Level::Error, "admin", "a request could not be answered");
            record.with("problem", what).with("times", times).write();
        }
        broken("something is out of order here: the log says what")
    }

    /// Makes the first administrator, for whoever has the token that the log showed.
    pub(super) async fn set_up(&self, token: &str, name: &str, password: Secret) -> Result<(), Problem> {
        let expected = self.first_token().map_err(|error| self.broken(&error))?;
        if !expected.is_some_and(|expected| expected.as_bytes().ct_eq(token.as_bytes()).into()) {
            tokio::time::sleep(WRONG_TIME).await;
            let text = "this token is not the one that the log shows, or there is an administrator or a token already";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        let (accounts, first) = (Arc::clone(&self.accounts), name.to_owned());
        // Hashing takes a while.
        let work = tokio::task::spawn_blocking(move || accounts.set_first(&first, &password));
        let is_first = work.await.map_err(|error| self.broken(&error.to_string()))?;
        if !is_first.map_err(|error| Problem::new(StatusCode::CONFLICT, error))? {
            return Err(Problem::new(StatusCode::CONFLICT, "there is an administrator already"));
        }
        let record = self.log.record(Level::Warning, "admin", "the first administrator was made");
        record.with("user", Field::Name(name.to_owned())).write();
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

impl Login {
    fn lasts(&self, now: Instant) -> bool {
        now - self.seen < IDLE_TIME && now - self.began < LOGIN_TIME
    }

    /// Whether the person is the same as at the log-in, with the same role and password.
    fn holds(&self, found: Option<&(Role, String)>) -> bool {
        found.is_some_and(|(role, stored)| *role == self.person.role && digest(stored) == self.stored)
    }
}

impl Gate {
    /// Who is logged in with this cookie.
    fn login(&self, cookie: &str) -> Option<Login> {
        let mut logins = self.logins();
        let now = Instant::now();
        logins.retain(|_, login| login.lasts(now));
        let login = logins.get_mut(&digest(cookie))?;
        login.seen = now;
        Some(login.clone())
    }

    /// The log-in of a cookie of which this is the digest; it grows no younger by that.
    fn peek(&self, digest: &str) -> Option<Login> {
        self.logins().get(digest).filter(|login| login.lasts(Instant::now())).cloned()
    }

    /// A log-in of its own for a person, never one that the browser brought along; its cookie.
    fn keep(&self, person: Person, stored: String) -> Result<String, String> {
        let (cookie, proof, now) = (random_text()?, random_text()?, Instant::now());
        let mut logins = self.logins();
        if logins.len() >= LOGINS_MAX
            && let Some(quietest) = logins.iter().min_by_key(|(_, login)| login.seen).map(|(key, _)| key.clone())
        {
            logins.remove(&quietest);
        }
        logins.insert(digest(&cookie), Login { person, stored, proof, began: now, seen: now });
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
