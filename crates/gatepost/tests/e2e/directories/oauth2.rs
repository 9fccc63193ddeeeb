//! OAuth 2: tokens of a provider whose keys and answers the tests make, with a standard library for JWT.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_lab::{Gatepost, MASTER, MASTER_PASSWORD};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};

use super::{REFUSED, UNAVAILABLE};
use crate::bed::{Bed, KIM, LEE, back_end};
use crate::talk::Talk;

/// A provider: it has keys, and knows opaque tokens.
#[derive(Clone)]
struct Provider {
    port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    keys: Vec<(String, EncodingKey)>,
    opaque: HashMap<String, Value>,
    asked: Vec<String>,
    is_down: bool,
}

impl Provider {
    fn start() -> Self {
        let state: Arc<Mutex<State>> = Arc::default();
        let served = Arc::clone(&state);
        let port = back_end(move |stream| serve(&stream, &served));
        let provider = Self { port, state };
        provider.add_key("one");
        provider
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}/realm", self.port)
    }

    fn add_key(&self, id: &str) {
        let key = rcgen::KeyPair::generate().expect("a key");
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        self.lock().keys.push((id.to_owned(), key));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("a lock")
    }

    /// A token signed with the key of this name.
    fn sign(&self, key: &str, claims: &Value) -> String {
        let state = self.lock();
        let (_, key_itself) = state.keys.iter().find(|(id, _)| id == key).expect("a key");
        let header = Header { kid: Some(key.to_owned()), ..Header::new(Algorithm::ES256) };
        encode(&header, claims, key_itself).expect("a token")
    }

    fn claims(&self) -> Value {
        json!({ "iss": self.issuer(), "aud": ["mail", "other"], "email": "Kim", "scope": "openid mail", "exp": now() + 600 })
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs()
}

/// Answers requests on a connection, one after another.
fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            if line == "\r\n" {
                break;
            }
            head.push(line.trim_end().to_owned());
        }
        let header = |name: &str| {
            let prefix = format!("{name}: ");
            head.iter()
                .find(|line| line.to_lowercase().starts_with(&prefix))
                .map(|line| line[prefix.len()..].to_owned())
        };
        let length = header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let mut body = vec![0; length];
        reader.read_exact(&mut body).expect("a body");
        let body = String::from_utf8(body).expect("a text");
        let mut state = state.lock().expect("a lock");
        let path = head[0].split(' ').nth(1).expect("a path").to_owned();
        let issuer = format!("http://{}/realm", header("host").expect("a host"));
        state.asked.push(path.clone());
        let answer = match path.as_str() {
            _ if state.is_down => None,
            "/realm/.well-known/openid-configuration" => {
                Some(json!({ "issuer": issuer, "jwks_uri": format!("{issuer}/keys") }))
            }
            "/realm/keys" => {
                let jwk = |(id, key): &(String, EncodingKey)| {
                    let mut jwk = Jwk::from_encoding_key(key, Algorithm::ES256).expect("a key");
                    jwk.common.key_id = Some(id.clone());
                    jwk
                };
                Some(json!({ "keys": state.keys.iter().map(jwk).collect::<Vec<_>>() }))
            }
            "/introspect" if header("authorization").as_deref() == Some("Basic Z2F0ZXBvc3Q6b2YgdXM=") => {
                let token = body.split('&').find_map(|pair| pair.strip_prefix("token=")).expect("a token");
                let token = token.replace("%2B", "+").replace("%3D", "=");
                Some(state.opaque.get(&token).cloned().unwrap_or_else(|| json!({ "active": false })))
            }
            _ => None,
        };
        let (status, body) = answer.map_or(("500 Sorry", String::new()), |answer| ("200 OK", answer.to_string()));
        let mut stream = stream;
        let sent = write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if sent.is_err() {
            return;
        }
    }
}

/// The store lets Gatepost in as the master, since it knows nothing of tokens.
fn gatepost(bed: &Bed, store: u16, sso: &str) -> Gatepost {
    bed.write("master.secret", MASTER_PASSWORD);
    bed.write("client.secret", "of us");
    bed.gatepost(&bed.configuration(&format!(
        "authenticate = \"proxy\"\ndirectory = [\"people\", \"sso\"]\nmechanisms = [\"PLAIN\", \"OAUTHBEARER\", \"XOAUTH2\"]\n\
         [imap.backend]\ntls = \"none\"\n[map]\ndefault = \"store\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {store} }}\nlogin = {{ master = \"{MASTER}\", password_file = \"master.secret\" }}\n\
         [directory.people]\ntype = \"passwd-file\"\npath = \"users\"\n[directory.sso]\ntype = \"oauth2\"\naudience = \"mail\"\n{sso}\n"
    )))
}

fn bearer(user: &str, token: &str) -> String {
    let name = if user.is_empty() { String::new() } else { format!("a={user}") };
    STANDARD.encode(format!("n,{name},\x01auth=Bearer {token}\x01\x01"))
}

/// Logs in with a token; the verdict, and the reason that came before a refusal.
fn token_log_in(talk: &mut Talk, mechanism: &str, message: &str) -> (String, Option<Value>) {
    talk.send(format!("t AUTHENTICATE {mechanism} {message}\r\n"));
    let mut line = talk.line();
    let reason = line.strip_prefix("+ ").map(|text| {
        let text = STANDARD.decode(text).expect("base64");
        serde_json::from_slice(&text).expect("JSON")
    });
    if reason.is_some() {
        talk.send(if mechanism == "XOAUTH2" { "\r\n" } else { "AQ==\r\n" });
    }
    while !line.starts_with("t ") {
        line = talk.line();
    }
    (line[2..].to_owned(), reason)
}

#[test]
fn signed_tokens_are_checked_with_the_providers_keys() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.write("users", "lee:{PLAIN}lee's secret\n");
    let provider = Provider::start();
    let sso = format!("issuer = \"{}\"\nscope = \"mail\"", provider.issuer());
    let gatepost = gatepost(&bed, store.imap, &sso);
    let good = provider.sign("one", &provider.claims());
    let try_one = |user: &str, token: &str| token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer(user, token));

    let (verdict, _) = try_one("kim", &good);
    assert!(verdict.starts_with("OK "), "{verdict} {}", gatepost.log());
    assert!(try_one("", &good).0.starts_with("OK "), "the token says whose it is");
    let google = STANDARD.encode(format!("user=kim\x01auth=Bearer {good}\x01\x01"));
    assert!(token_log_in(&mut bed.secure(), "XOAUTH2", &google).0.starts_with("OK "));
    store.wait_for_log("user=<kim>").expect("kim at the store");
    assert!(bed.secure().try_log_in(LEE).starts_with("OK "), "passwords are the other directory's");

    let (verdict, reason) = try_one("lee", &good);
    let reason = reason.expect("a reason");
    assert_eq!(
        (verdict.as_str(), &reason["status"], &reason["scope"]),
        (REFUSED, &json!("invalid_token"), &json!("mail"))
    );
    assert_eq!(reason["openid-configuration"], format!("{}/.well-known/openid-configuration", provider.issuer()));
    gatepost.wait_for_log("what was shown is that of 'kim'").expect("the reason");

    let with = |change: fn(&mut Value)| {
        let mut claims = provider.claims();
        change(&mut claims);
        provider.sign("one", &claims)
    };
    for (what, token, said) in [
        ("of another issuer", with(|c| c["iss"] = "http://127.0.0.1/other".into()), "InvalidIssuer"),
        ("for another audience", with(|c| c["aud"] = "shop".into()), "InvalidAudience"),
        ("without a scope", with(|c| c["scope"] = "openid".into()), "lacks the scope"),
        ("of an address that may be another's", with(|c| c["email_verified"] = false.into()), "not verified"),
        ("of nobody", with(|c| c["email"] = Value::Null), "no claim"),
        ("without an end", with(|c| drop(c.as_object_mut().expect("claims").remove("exp"))), "MissingRequiredClaim"),
        ("from tomorrow on", with(|c| c["nbf"] = (now() + 86_400).into()), "ImmatureSignature"),
    ] {
        assert_eq!(try_one("kim", &token).0, REFUSED, "{what}");
        gatepost.wait_for_log(said).unwrap_or_else(|error| panic!("{what}: {error}"));
    }
    assert_eq!(try_one("kim", &with(|c| c["exp"] = (now() - 600).into())).0, REFUSED, "expired");
    // One letter of the signature, and one of the claims.
    let (start, signature) = good.rsplit_once('.').expect("a signature");
    let other = if signature.starts_with('A') { "B" } else { "A" };
    assert_eq!(try_one("kim", &format!("{start}.{other}{}", &signature[1..])).0, REFUSED);
    assert_eq!(try_one("kim", "not.a.token").0, REFUSED);
    // Signed with a secret that everybody could know: the public key, or none at all.
    let shared = encode(&Header::default(), &provider.claims(), &EncodingKey::from_secret(b"public")).expect("a token");
    assert_eq!(try_one("kim", &shared).0, REFUSED);
    gatepost.wait_for_log("HS256, which is not taken").expect("the reason");
    let none = format!("eyJhbGciOiJub25lIn0.{}.", good.split('.').nth(1).expect("claims"));
    assert_eq!(try_one("kim", &none).0, REFUSED);
    let log = gatepost.log();
    assert!(!log.contains(&good) && !log.contains(signature), "no token is written down");
}

#[test]
fn keys_change_and_the_provider_may_be_gone() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    bed.write("users", "lee:x\n");
    let provider = Provider::start();
    let gatepost = gatepost(&bed, store.imap, &format!("issuer = \"{}\"", provider.issuer()));
    let try_one = |token: &str| token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer("kim", token)).0;
    provider.lock().is_down = true;
    let first = provider.sign("one", &provider.claims());
    assert_eq!(try_one(&first), UNAVAILABLE, "nobody can tell");
    gatepost.wait_for_log("it answers 500").expect("the reason");
    provider.lock().is_down = false;
    let deadline = std::time::Instant::now() + Duration::from_secs(8);
    while !try_one(&first).starts_with("OK ") {
        assert!(std::time::Instant::now() < deadline, "it is asked again after two seconds");
    }
    let asked = || provider.lock().asked.len();
    let before = asked();
    assert!(try_one(&first).starts_with("OK "));
    assert_eq!(asked(), before, "keys are remembered");
    // A key that was added later is looked for, but not with every token that names an unknown one.
    provider.add_key("two");
    let second = provider.sign("two", &provider.claims());
    let deadline = std::time::Instant::now() + Duration::from_secs(15);
    while !try_one(&second).starts_with("OK ") {
        assert!(std::time::Instant::now() < deadline, "{}", gatepost.log());
    }
    assert_eq!(asked(), before + 2, "configuration and keys, once more");
    // While the provider is gone, its keys go on serving.
    provider.lock().is_down = true;
    assert!(try_one(&first).starts_with("OK ") && try_one(&second).starts_with("OK "));
}

#[test]
fn opaque_tokens_are_asked_about_and_remembered_within_their_life() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    bed.write("users", "lee:x\n");
    let provider = Provider::start();
    let sso = format!(
        "introspection = \"http://127.0.0.1:{}/introspect\"\nuser_claim = \"username\"\nclient = {{ id = \"gatepost\", secret_file = \"client.secret\" }}",
        provider.port
    );
    let gatepost = gatepost(&bed, store.imap, &sso);
    let try_one = |token: &str| token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer("kim", token)).0;
    let known = json!({ "active": true, "username": "kim", "aud": "mail", "exp": now() + 600 });
    provider.lock().opaque.insert("opaque+1==".into(), known.clone());
    let mut for_others = known.clone();
    for_others["aud"] = "shop".into();
    provider.lock().opaque.insert("opaque2".into(), for_others);
    assert!(try_one("opaque+1==").starts_with("OK "), "{}", gatepost.log());
    assert_eq!(try_one("opaque2"), REFUSED);
    assert_eq!(try_one("unknown"), REFUSED);
    let asked = provider.lock().asked.len();
    assert!(try_one("opaque+1==").starts_with("OK "));
    assert_eq!(provider.lock().asked.len(), asked, "remembered");
    assert_ne!(bed.list(&["cache", "flush"])[0]["forgotten"], 0);
    assert!(try_one("opaque+1==").starts_with("OK "));
    assert_eq!(provider.lock().asked.len(), asked + 1, "forgotten");
    assert!(bed.said(&["explain", "kim"]).contains("Gatepost checks it against sso, then the back end"));
    let mut short = known;
    short["exp"] = (now() + 2).into();
    provider.lock().opaque.insert("opaque3".into(), short);
    assert!(try_one("opaque3").starts_with("OK "));
    provider.lock().is_down = true;
    assert!(try_one("opaque+1==").starts_with("OK "), "known to be good");
    assert_eq!(try_one("unknown"), UNAVAILABLE);
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(try_one("opaque3"), UNAVAILABLE, "its life is over, and nobody can tell");
    assert!(!gatepost.log().contains("opaque"), "{}", gatepost.log());
}

#[test]
fn a_session_ends_with_its_token_where_that_is_set() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    bed.write("users", "lee:x\n");
    let provider = Provider::start();
    let sso = format!("issuer = \"{}\"\nclose_sessions = true", provider.issuer());
    let gatepost = gatepost(&bed, store.imap, &sso);
    let mut claims = provider.claims();
    claims["exp"] = (now() + 2).into();
    let mut talk = bed.secure();
    let (verdict, _) = token_log_in(&mut talk, "OAUTHBEARER", &bearer("kim", &provider.sign("one", &claims)));
    assert!(verdict.starts_with("OK "), "{verdict}");
    assert!(talk.verdict("NOOP").starts_with("OK "));
    assert_eq!(talk.rest(), "");
    gatepost.wait_for_log("its token has expired").expect("the reason");
}

#[test]
fn a_token_is_passed_on_to_a_store_that_takes_tokens() {
    let bed = Bed::new();
    // A store that takes the token of kim, and shows what it was given.
    let given: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = Arc::clone(&given);
    let store = back_end(move |mut stream| {
        let _ = stream.write_all(b"* OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=XOAUTH2] ready\r\n");
        let mut reader = BufReader::new(stream.try_clone().expect("a socket"));
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap_or(0) > 0 {
            kept.lock().expect("a lock").push(line.trim_end().to_owned());
            let is_good = line.contains(&STANDARD.encode("user=kim\x01auth=Bearer good\x01\x01"));
            let answer: &[u8] = match (is_good, line.trim_end()) {
                (true, _) => b"L OK [CAPABILITY IMAP4rev1] in\r\n",
                (_, "") => b"L NO [AUTHENTICATIONFAILED] no\r\n",
                _ => b"+ e30=\r\n",
            };
            let _ = stream.write_all(answer);
            line.clear();
        }
    });
    let gatepost = bed.gatepost(&bed.one_backend("mechanisms = [\"OAUTHBEARER\"]", store));
    let (verdict, _) = token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer("kim", "good"));
    assert!(verdict.starts_with("OK "), "{verdict}");
    let (verdict, reason) = token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer("kim", "bad"));
    assert_eq!((verdict.as_str(), reason), (REFUSED, Some(json!({ "status": "invalid_token" }))));
    assert_eq!(
        given.lock().expect("a lock").last().map(String::as_str),
        Some(""),
        "the exchange was brought to its end"
    );
    let (verdict, _) = token_log_in(&mut bed.secure(), "OAUTHBEARER", &bearer("", "good"));
    assert_eq!(verdict, REFUSED, "nobody says whose it is");
    gatepost.wait_for_log("the client names no user").expect("the reason");
    assert!(!gatepost.log().contains("good"));
}

#[test]
fn mistakes_are_said_before_anything_starts() {
    let bed = Bed::new();
    let refusal = |imap: &str, sso: &str| {
        bed.refusal(&bed.configuration(&format!(
            "{imap}\n[map]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n[directory.sso]\ntype = \"oauth2\"\n{sso}\n"
        )))
    };
    let said = refusal(
        "authenticate = \"proxy\"\ndirectory = \"sso\"",
        "issuer = \"https://sso.example.org\"\naudience = \"mail\"",
    );
    assert!(said.contains("PLAIN is offered, but no directory of `directory` checks passwords"), "{said}");
    let said = refusal("", "issuer = \"http://sso.example.org\"");
    assert!(said.contains("could make tokens; use https") && said.contains("needs `audience`"), "{said}");
    let in_map = bed.configuration(
        "[map]\ndirectories = [\"sso\"]\ndefault = \"store\"\n[backend.store]\nhost = \"127.0.0.1\"\n[directory.sso]\ntype = \"oauth2\"\n\
         issuer = \"https://sso.example.org\"\naudience = \"mail\"\n",
    );
    let said = bed.refusal(&in_map);
    assert!(said.contains("sso knows tokens, not where mail is"), "{said}");
    // Each mistake once, and nothing that only follows from it.
    for (sso, what) in
        [("audience = \"mail\"", "needs `issuer`"), ("issuer = \"nonsense\"\naudience = \"mail\"", "expected a URL")]
    {
        let said = refusal("", sso);
        assert!(said.contains(what) && said.matches("directory").count() == 1, "{said}");
    }
}
