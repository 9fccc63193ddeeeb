//! People and tokens: how they come in, what a browser keeps of that, and its end.

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::Site;

/// Adds administrators, all with the password "a long password".
fn with_administrators(admin: &str, names: &[&str]) -> Site {
    let site = Site::new(admin);
    let password = site.bed.write("password", "a long password\n");
    let password = password.to_str().expect("a path");
    for name in names {
        site.bed.said(&["admin", "add", name, "--role", "admin", "--password-file", password]);
    }
    site
}

/// A log-in, by a browser that already has something: the cookie as it is set, and as it is sent back from then on.
fn log_in(site: &Site, name: &str, before: &str) -> (String, String) {
    let body = format!("{{\"name\":\"{name}\",\"password\":\"a long password\"}}");
    let arguments = ["--header", "Content-Type: application/json", "--header", before, "--data", &body];
    let answer = site.curl("/api/v1/login", &arguments);
    assert_eq!(answer.status, 200, "{}", answer.body);
    let set = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).expect("a cookie");
    let cookie = format!("Cookie: {}", set.split(';').next().unwrap_or_default());
    (set.to_owned(), cookie)
}

#[test]
fn a_form_of_the_console_changes_nothing_without_its_proof_or_a_word_of_what_to_do() {
    let site = with_administrators("", &["kim"]);
    let (_, cookie) = log_in(&site, "kim", "");
    let me = site.curl("/api/v1/me", &["--header", &cookie]).json();
    let proof = me["me"][0]["proof"].as_str().expect("a proof").to_owned();
    let posted = |page: &str, form: &str| site.curl(page, &["--header", &cookie, "--data", form]).status;
    for page in ["/map", "/backends", "/bans", "/log", "/users", "/administrators", "/system"] {
        let fields = "user=kim&backend=store&network=192.0.2.1&level=info&name=kim&role=viewer&password=x";
        assert_eq!(posted(page, &format!("{fields}&do=remove")), 403, "{page}: no proof");
        assert_eq!(posted(page, &format!("{fields}&do=remove&proof=x{proof}")), 403, "{page}: another proof");
        assert_eq!(posted(page, &format!("{fields}&proof={proof}")), 400, "{page}: nothing to do");
        assert_eq!(posted(page, &format!("{fields}&do=dance&proof={proof}")), 400, "{page}: nothing that can be done");
    }
    for page in ["/sessions/kick", "/settings/review", "/settings/apply", "/logout"] {
        assert_eq!(posted(page, "back=/"), 403, "{page}: no proof");
        assert_eq!(posted(page, &format!("back=/&proof=x{proof}")), 403, "{page}: another proof");
    }
    assert_eq!(site.curl("/api/v1/me", &["--header", &cookie]).status, 200, "kim is still there");
    assert_eq!(posted("/log", &format!("do=level&level=protocol&proof={proof}")), 303);
}

#[test]
fn a_cookie_that_was_there_before_is_never_that_of_whoever_logs_in() {
    let site = with_administrators("", &["kim", "eve"]);
    let who = |cookie: &str| {
        let answer = site.curl("/api/v1/me", &["--header", cookie]);
        if answer.status == 200 { answer.json()["me"][0]["name"].clone() } else { Value::Null }
    };
    // One of eve's own, and one that nobody was ever given: left in kim's browser.
    let (_, eves) = log_in(&site, "eve", "");
    let (name, _) = eves.rsplit_once('=').expect("a name");
    for planted in [eves.clone(), format!("{name}={}", "a".repeat(43))] {
        let before = who(&planted);
        let (_, kims) = log_in(&site, "kim", &planted);
        assert_eq!(who(&kims), "kim");
        assert_ne!(kims, planted);
        assert_eq!(who(&planted), before, "it is worth what it was");
    }
}

#[test]
fn a_browser_logs_in_with_a_cookie_that_foreign_pages_cannot_use() {
    let site = with_administrators("hosts = [\"console.example.org\"]", &["kim"]);
    let (set, cookie) = log_in(&site, "kim", "");
    for word in ["HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(set.contains(word), "{set}");
    }
    let json = "Content-Type: application/json";
    let me = site.curl("/api/v1/me", &["--header", &cookie]).json();
    let proof = format!("X-Gatepost-Proof: {}", me["me"][0]["proof"].as_str().expect("a proof"));
    let change = |more: &[&str]| {
        let arguments = ["--request", "POST", "--header", &cookie, "--header", json, "--data", "{}"];
        site.curl("/api/v1/cache/flush", &[&arguments[..], more].concat()).status
    };
    assert_eq!(change(&[]), 403, "the cookie alone changes nothing");
    assert_eq!(change(&["--header", &proof]), 200);
    assert_eq!(change(&["--header", &proof, "--header", "Origin: http://evil.example"]), 403);
    assert_eq!(change(&["--header", &proof, "--header", "Sec-Fetch-Site: cross-site"]), 403);
    assert_eq!(change(&["--header", &proof, "--header", "Host: evil.example"]), 421, "DNS rebinding");
    let own =
        ["--header", &proof, "--header", "Host: console.example.org", "--header", "Origin: http://console.example.org"];
    assert_eq!(change(&own), 200);
    assert_eq!(
        site.curl("/api/v1/logout", &["--request", "POST", "--header", &cookie, "--header", &proof]).status,
        200
    );
    assert_eq!(site.curl("/api/v1/me", &["--header", &cookie]).status, 401, "it is over on our side too");
    // Guesses are refused after a while, side by side or one after another, whoever they are about.
    let guess = |n: usize| {
        let wrong = format!("{{\"name\":\"lee\",\"password\":\"wrong {n}\"}}");
        site.curl("/api/v1/login", &["--header", json, "--data", &wrong]).status
    };
    let statuses: Vec<_> = std::thread::scope(|threads| {
        let guesses: Vec<_> = (0..12).map(|n| threads.spawn(move || guess(n))).collect();
        guesses.into_iter().map(|guess| guess.join().expect("an answer")).collect()
    });
    let refused = statuses.iter().filter(|status| **status == 429).count();
    assert!(refused >= 2 && statuses.iter().all(|status| [401, 429].contains(status)), "{statuses:?}");
    site.gatepost.wait_for_log("a log-in of an administrator failed: user=<lee>").expect("a record");
    assert!(!site.gatepost.log().contains("a long password"), "{}", site.gatepost.log());
}

#[test]
fn the_first_administrator_is_made_by_who_reads_the_log() {
    let site = Site::new("");
    let line = site.gatepost.wait_for_log("there is no administrator yet").expect("an invitation");
    let token = line.split("token=").nth(1).expect("a token").trim_end_matches('"').to_owned();
    let set_up = |token: &str, name: &str, password: &str| {
        let body = format!("{{\"token\":\"{token}\",\"name\":\"{name}\",\"password\":\"{password}\"}}");
        site.curl("/api/v1/setup", &["--header", "Content-Type: application/json", "--data", &body]).status
    };
    assert_eq!(set_up("wrong", "kim", "a long password"), 403);
    assert_eq!(set_up(&token, "kim", "short"), 409);
    assert_eq!(set_up(&token, "kim", "a long password"), 200);
    assert_eq!(set_up(&token, "lee", "a long password"), 403, "it serves once");
    assert!(site.bed.said(&["admin", "list"]).contains("kim"));
}

#[test]
fn a_token_is_enough_to_make_nobody_the_first_and_its_end_is_the_end_of_what_it_follows() {
    let site = Site::new("");
    let line = site.gatepost.wait_for_log("/setup?token=").expect("an invitation");
    let token = line.split("token=").nth(1).expect("a token").trim_end_matches('"');
    let viewer = site.token("viewer");
    // Whoever may read the log must not become an administrator by it.
    let form = format!("token={token}&name=eve&password=long enough");
    let answer = site.curl("/setup", &["--data", &form]);
    assert!(answer.status == 403 && answer.body.contains("this token is not the one"), "{}", answer.body);
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--include", "--no-buffer", "--max-time", "20", "--header"]);
    curl.arg(format!("Authorization: Bearer {viewer}")).arg(format!("http://127.0.0.1:{}/log/follow", site.port));
    let mut following = curl.stdout(Stdio::piped()).spawn().expect("curl");
    let mut said = BufReader::new(following.stdout.take().expect("its output"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert!(line.contains(" 200 "), "{line}");
    site.bed.said(&["admin", "remove", "viewer"]);
    said.read_to_string(&mut line).expect("the rest");
    // It fails when curl's time is over before the stream is.
    assert!(following.wait().expect("an end").success(), "{line}");
}
