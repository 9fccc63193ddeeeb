//! A responder asked over HTTP: nginx's `auth_http` protocol, or the same in JSON.
//!
//! In nginx's form everything stands in headers, and a user without a password can't be asked about. What
//! nginx says is from its `ngx_mail_auth_http_module`; where that is silent, from how it behaves.

use std::time::Duration;

use bytes::Bytes;
use gatepost_wire::Secret;
use http_body_util::Full;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Response, Uri};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Accounts, Answering, Bar, Entry, Fault, KeptSecret, Location, Verdict, Who, fields};
use crate::config::{self, HttpForm, Problem, SecretHeader, TlsVersion};
use crate::net::health::Health;
use crate::net::http::HttpClient;
use crate::net::tls;
use crate::secret_file;

/// See the module's documentation.
pub(crate) struct Http {
    settings: config::Http,
    uri: Uri,
    headers: Vec<(HeaderName, HeaderValue)>,
    client: HttpClient,
    health: Health,
}

/// What the responder says in JSON.
enum Told {
    /// It knows the user; where a password was shown, that is right, unless the account is barred.
    Account(Option<Bar>, Entry),
    Unknown,
    Wrong,
}

impl Http {
    /// Reads secrets and authorities; the responder is connected to when it is first asked.
    pub(crate) fn open(settings: &config::Http, min: TlsVersion, warnings: &mut Vec<Problem>) -> Result<Self, Problem> {
        let tls = tls::client_config(&settings.trust, min)?;
        let client = HttpClient::new(&tls, settings.connections, settings.timeout);
        let mut headers = Vec::new();
        for (name, value) in &settings.headers.0 {
            headers.push(header(name, value.as_bytes()).map_err(|what| Problem::of("headers", what))?);
        }
        if let Some(SecretHeader { name, file }) = &settings.secret_header {
            let value = secret_file::read(file, warnings)?;
            let (name, mut value) = header(name, value.expose()).map_err(|what| file.problem(what))?;
            value.set_sensitive(true);
            headers.push((name, value));
        }
        Ok(Self { settings: settings.clone(), uri: settings.url.clone(), headers, client, health: Health::default() })
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Fault> {
        let answer = self.client.send(request).await;
        self.health.mark(answer.is_ok());
        answer.map_err(|what| self.fault(what))
    }

    fn fault(&self, what: impl std::fmt::Display) -> Fault {
        Fault(format!("{}: {what}", self.uri))
    }

    fn request(&self, method: Method, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
        request
    }

    async fn ask_nginx(&self, who: &Who, password: &Secret) -> Result<Verdict, Fault> {
        let mut request = self.request(Method::GET, Bytes::new());
        let headers = request.headers_mut();
        let mut add = |name: &'static str, value: &[u8]| {
            // What is not a header's value has been escaped.
            if let Ok(value) = HeaderValue::from_bytes(value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        };
        add("auth-method", b"plain");
        add("auth-user", escaped(who.user.as_bytes()).as_slice());
        add("auth-pass", escaped(password.expose()).as_slice());
        add("auth-protocol", protocol_name(who.service).as_bytes());
        add("auth-login-attempt", who.via.attempt.to_string().as_bytes());
        add("client-ip", who.client.ip().to_canonical().to_string().as_bytes());
        if who.via.is_proxied {
            add("proxy-protocol-addr", who.client.ip().to_canonical().to_string().as_bytes());
            add("proxy-protocol-port", who.client.port().to_string().as_bytes());
            add("proxy-protocol-server-addr", who.via.local.ip().to_canonical().to_string().as_bytes());
            add("proxy-protocol-server-port", who.via.local.port().to_string().as_bytes());
        }
        if let Some(tls) = who.via.tls {
            add("auth-ssl", b"on");
            add("auth-ssl-protocol", tls.version().as_bytes());
            add("auth-ssl-cipher", tls.cipher().as_bytes());
        }
        if let Some(pass) = headers.get_mut("auth-pass") {
            pass.set_sensitive(true);
        }
        let response = self.send(request).await?;
        let value = |name: &str| response.headers().get(name).map(HeaderValue::as_bytes);
        let text = |name: &str| value(name).map(|value| String::from_utf8_lossy(value).into_owned());
        // nginx looks at nothing but this.
        let Some(status) = text("auth-status") else {
            return Err(self.fault(format_args!("it answers {} without Auth-Status", response.status())));
        };
        if !status.eq_ignore_ascii_case("OK") {
            let is_temporary = text("auth-error-code").is_some_and(|code| code.starts_with('4'));
            if is_temporary {
                return Err(self.fault(format_args!("it says that it can't tell now: {status:?}")));
            }
            if let Some(seconds) = text("auth-wait").and_then(|wait| wait.parse().ok()) {
                tokio::time::sleep(Duration::from_secs(seconds).min(self.settings.timeout)).await;
            }
            return Ok(Verdict::Wrong);
        }
        let port = text("auth-port").map(|port| fields::port(&port)).transpose();
        let port = port.map_err(|why| self.fault(format_args!("Auth-Port: {why}")))?;
        let login_password = value("auth-pass").map(KeptSecret::new);
        Ok(Verdict::Right(Entry {
            place: Location::of(text("auth-server"), port),
            login: text("auth-user"),
            login_password,
            ..Entry::default()
        }))
    }

    /// `password`: to be checked; without one, only what is known of the user is asked for.
    async fn ask_json(&self, who: &Who, password: Option<&Secret>) -> Result<Told, Fault> {
        let question = json!({
            "user": who.user,
            "service": who.service,
            "client": { "address": who.client.ip().to_canonical(), "port": who.client.port() },
            "local": { "address": who.via.local.ip().to_canonical(), "port": who.via.local.port() },
            "attempt": who.via.attempt,
            "tls": who.via.tls.map(|tls| json!({ "version": tls.version(), "cipher": tls.cipher() })),
        });
        let mut body = Zeroizing::new(question.to_string().into_bytes());
        if let Some(password) = password {
            let Ok(password) = std::str::from_utf8(password.expose()) else { return Ok(Told::Wrong) };
            // Put in by hand, where it leaves nothing behind.
            let quoted = Zeroizing::new(serde_json::to_vec(password).map_err(|error| self.fault(error))?);
            body.pop();
            *body = [&body[..], b",\"password\":", &quoted, b"}"].concat();
        }
        let mut request = self.request(Method::POST, Bytes::from_owner(body));
        request.headers_mut().insert(hyper::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.send(request).await?;
        if !response.status().is_success() {
            return Err(self.fault(format_args!("it answers {}", response.status())));
        }
        let answer: Value = serde_json::from_slice(response.body()).map_err(|error| self.fault(error))?;
        let bar = match answer["result"].as_str() {
            Some("ok") => None,
            Some("unknown") => return Ok(Told::Unknown),
            Some("wrong") => return Ok(Told::Wrong),
            Some("disabled") => Some(Bar::Disabled),
            Some("expired") => Some(Bar::Expired),
            Some("locked") => Some(Bar::Locked),
            Some("temporary") => return Err(self.fault("it says that it can't tell now")),
            _ => return Err(self.fault("its answer has no `result` that is known")),
        };
        let entry = read_json(&answer).map_err(|what| self.fault(what))?;
        Ok(Told::Account(bar, entry))
    }
}

impl Accounts for Http {
    fn find<'a>(&'a self, who: &'a Who) -> Answering<'a, Option<Entry>> {
        Box::pin(async move {
            match self.settings.form {
                HttpForm::Nginx => Err(self.fault("nginx's protocol can't ask about a user without a password")),
                HttpForm::Json => match self.ask_json(who, None).await? {
                    Told::Account(barred, entry) => Ok(Some(Entry { barred, ..entry })),
                    Told::Unknown => Ok(None),
                    Told::Wrong => Err(self.fault("it answers `wrong` where no password was shown")),
                },
            }
        })
    }

    fn authenticate<'a>(&'a self, who: &'a Who, password: &'a Secret) -> Answering<'a, Verdict> {
        Box::pin(async move {
            match self.settings.form {
                HttpForm::Nginx => self.ask_nginx(who, password).await,
                HttpForm::Json => Ok(match self.ask_json(who, Some(password)).await? {
                    Told::Account(None, entry) => Verdict::Right(entry),
                    Told::Account(Some(bar), _) => Verdict::Barred(bar),
                    Told::Unknown => Verdict::Unknown,
                    Told::Wrong => Verdict::Wrong,
                }),
            }
        })
    }

    fn is_down(&self) -> bool {
        self.health.is_down()
    }
}

/// An account as the JSON form has it. What is left out is as if nothing were known of it.
fn read_json(answer: &Value) -> Result<Entry, String> {
    let text = |key: &str| match &answer[key] {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        _ => Err(format!("`{key}` in its answer is no text")),
    };
    let list = |key: &str| match &answer[key] {
        Value::Null => Ok(None),
        Value::Array(items) => {
            let texts = items.iter().map(|item| item.as_str().map(str::to_owned));
            texts
                .collect::<Option<Vec<_>>>()
                .map(Some)
                .ok_or_else(|| format!("`{key}` in its answer is no list of texts"))
        }
        _ => Err(format!("`{key}` in its answer is no list")),
    };
    let port = match &answer["port"] {
        Value::Null => None,
        port => Some(fields::port(&port.to_string()).map_err(|_| "`port` in its answer is no port")?),
    };
    let services = list("services")?;
    let networks = list("networks")?.unwrap_or_default();
    Ok(Entry {
        place: Location::of(text("backend")?, port),
        services: services.map(|names| fields::services(names.iter().map(String::as_str))),
        networks: fields::networks(networks.iter().map(String::as_str))?,
        login: text("login")?,
        login_password: text("login_password")?.map(KeptSecret::new),
        held: match &answer["held"] {
            Value::Null => false,
            held => held.as_bool().ok_or("`held` in its answer is neither true nor false")?,
        },
        ..Entry::default()
    })
}

/// nginx knows IMAP, POP3 and SMTP; what it never heard of keeps its own name.
fn protocol_name(service: &str) -> &str {
    match service {
        "submission" => "smtp",
        other => other,
    }
}

/// As nginx escapes names and passwords: space, `%` and control characters, and also DEL, which no header may hold.
fn escaped(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut escaped = Zeroizing::new(Vec::with_capacity(text.len() * 3));
    for &byte in text {
        if byte <= b' ' || byte == b'%' || byte == 0x7f {
            escaped.extend_from_slice(format!("%{byte:02X}").as_bytes());
        } else {
            escaped.push(byte);
        }
    }
    escaped
}

fn header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), String> {
    let header_name = name.parse().map_err(|_| format!("{name:?} is no name of a header"))?;
    let value = HeaderValue::from_bytes(value).map_err(|_| format!("{name} has a value that no header can have"))?;
    Ok((header_name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_passwords_are_escaped_as_nginx_does() {
        assert_eq!(*escaped(b"a b%c\r\n\xc3\xa4"), b"a%20b%25c%0D%0A\xc3\xa4");
    }
}
