//! The REST API, metrics and probes, by curl, promtool and schemathesis.

mod people;

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use gatepost_lab::{Gatepost, SCHEMATHESIS, ensure_python_tool, free_port, wait_for};
use serde_json::Value;

use crate::bed::{Bed, KIM, NOWHERE, run};

/// A Gatepost whose console and API are listened on.
struct Site {
    gatepost: Gatepost,
    port: u16,
    bed: Bed,
}

/// An answer to a request.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}{}", self.head, self.body))
    }
}

impl Site {
    fn new(admin: &str) -> Self {
        Self::on(Bed::new(), admin)
    }

    fn on(bed: Bed, admin: &str) -> Self {
        let port = free_port().expect("a port");
        let configuration = bed.one_backend("", 1) + &format!("[admin]\nlisten = \"127.0.0.1:{port}\"\n{admin}\n");
        let gatepost = bed.gatepost(&configuration);
        Self { gatepost, port, bed }
    }

    fn token(&self, role: &str) -> String {
        self.bed.said(&["admin", "token", role, "--role", role]).trim().to_owned()
    }

    /// What curl, with further arguments, is answered.
    fn curl(&self, path: &str, arguments: &[&str]) -> Answer {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let text =
            run(Command::new("curl").args(["--silent", "--include", "--max-time", "20"]).args(arguments).arg(url));
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }

    fn get(&self, path: &str, token: &str) -> Answer {
        self.curl(path, &["--header", &format!("Authorization: Bearer {token}")])
    }

    fn send(&self, method: &str, path: &str, token: &str, body: &str) -> Answer {
        let authorization = format!("Authorization: Bearer {token}");
        let kind = "Content-Type: application/json";
        self.curl(path, &["--request", method, "--header", &authorization, "--header", kind, "--data", body])
    }
}

#[test]
fn strangers_see_probes_metrics_and_the_description_alone() {
    let site = Site::new("");
    assert_eq!((site.curl("/livez", &[]).status, site.curl("/readyz", &[]).status), (200, 200));
    assert_eq!(site.curl("/metrics", &[]).status, 200);
    assert_eq!(site.curl("/api/v1/openapi.json", &[]).json()["openapi"], "3.1.0");
    for path in ["/api/v1/status", "/api/v1/sessions", "/api/v1/nothing", "/nothing", "/api/v1/me"] {
        let answer = site.curl(path, &[]);
        assert_eq!(answer.status, 401, "{path}");
        assert!(answer.head.to_lowercase().contains("www-authenticate: bearer"), "{}", answer.head);
        assert!(answer.json()["error"].is_string());
    }
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        assert_eq!(site.curl("/api/v1/status", &["--request", method]).status, 401, "{method}");
    }
    assert_eq!(site.get("/api/v1/status", "gatepost_wrong").status, 401);
    for path in ["/api/v1/status", "/login"] {
        let head = site.curl(path, &[]).head.to_lowercase();
        for header in ["content-security-policy: default-src 'none'", "x-frame-options: deny", "nosniff", "no-store"] {
            assert!(head.contains(header), "{path}, {header}: {head}");
        }
    }
}

#[test]
fn each_role_may_what_it_may_and_every_change_is_logged() {
    let site = Site::new("");
    let [viewer, operator, admin] = ["viewer", "operator", "admin"].map(|role| site.token(role));
    let status = site.get("/api/v1/status", &viewer).json();
    assert_eq!(status["status"][0]["name"], "mail.example.org");
    assert_eq!(site.send("POST", "/api/v1/backends/store/maint", &viewer, "{}").status, 403);
    assert_eq!(site.send("POST", "/api/v1/backends/store/maint", &operator, "").status, 200);
    assert_eq!(site.get("/api/v1/backends", &viewer).json()["backends"][0]["state"], "maint");
    let record = site.gatepost.wait_for_log("a command is carried out").expect("a record");
    assert!(record.contains("operator") && record.contains("from 127.0.0.1"), "{record}");
    assert_eq!(site.send("POST", "/api/v1/backends/none/maint", &operator, "").status, 409);
    assert_eq!(
        site.send("POST", "/api/v1/bans", &operator, "{\"network\":\"192.0.2.0/24\",\"for_seconds\":60}").status,
        200
    );
    assert_eq!(site.get("/api/v1/bans", &viewer).json()["bans"][0]["network"], "192.0.2.0/24");
    assert_eq!(site.send("DELETE", "/api/v1/bans?network=192.0.2.0/24", &operator, "").json()["bans"][0]["lifted"], 1);
    for (body, status) in [("{", 400), ("[]", 400), ("{\"network\":5}", 400), ("{\"other\":\"x\"}", 400), ("{}", 400)] {
        assert_eq!(site.send("POST", "/api/v1/bans", &operator, body).status, status, "{body}");
    }
    let as_text = site.curl("/api/v1/bans", &["--header", &format!("Authorization: Bearer {operator}"), "--data", "x"]);
    assert_eq!(as_text.status, 415);
    assert_eq!(site.send("PATCH", "/api/v1/bans", &operator, "").status, 405);
    let long = format!("{{\"network\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(site.send("POST", "/api/v1/bans", &operator, &long).status, 413);
    assert_eq!(site.send("POST", "/api/v1/stop", &operator, "").status, 403);
    // A token that is taken away is gone at once.
    site.bed.said(&["admin", "remove", "viewer"]);
    assert_eq!(site.get("/api/v1/status", &viewer).status, 401);
    assert_eq!(site.send("POST", "/api/v1/stop", &admin, "").status, 200);
    assert!(!site.gatepost.log().contains(&admin), "no token is logged");
}

#[test]
fn a_certificate_near_its_end_is_seen_by_whoever_looks() {
    let mut bed = Bed::new();
    let soon = SystemTime::now() + Duration::from_hours(73);
    bed.front = bed.authority.issue_until("soon", &["localhost"], soon).expect("a certificate");
    let site = Site::on(bed, "");
    let viewer = site.token("viewer");
    let told = site.get("/api/v1/certificates", &viewer).json();
    assert_eq!(told["certificates"][0]["state"], "expiring", "{told}");
    assert_eq!(told["certificates"][0]["days_left"], 3, "{told}");
    let page = site.get("/system", &viewer).body;
    assert!(page.contains("<span class=\"state expiring\">expiring</span>"), "{page}");
    let metrics = site.get("/metrics", &viewer).body;
    let line = metrics.lines().find(|line| line.starts_with("gatepost_certificate_expiry_seconds{")).expect("a metric");
    let left: f64 = line.rsplit(' ').next().and_then(|value| value.parse().ok()).expect("a number");
    assert!((72.0 * 3600.0..=73.0 * 3600.0).contains(&left), "{line}");
}

#[test]
fn console_and_api_speak_tls_with_a_certificate_of_their_own() {
    let bed = Bed::new();
    let port = free_port().expect("a port");
    let admin = bed.authority.issue("admin", &["localhost"]).expect("a certificate");
    let configuration = bed.one_backend("", 1)
        + &format!(
            "[admin]\nlisten = \"127.0.0.1:{port}\"\ncertificate = {{ chain = {:?}, key = {:?} }}\n",
            admin.chain, admin.key
        );
    let gatepost = bed.gatepost(&configuration);
    let url = format!("https://localhost:{port}/livez");
    let curl = |url: &str| {
        let mut command = Command::new("curl");
        command
            .args(["--silent", "--include", "--max-time", "20", "--cacert"])
            .arg(&bed.authority.certificate)
            .arg(url);
        command.output().expect("curl")
    };
    assert!(String::from_utf8_lossy(&curl(&url).stdout).contains("alive"));
    assert!(!curl(&url.replace("https", "http")).status.success(), "nothing is said in clear");
    // A reload moves it, and it can be turned off.
    let moved = free_port().expect("a port");
    gatepost.reload(&configuration.replace(&format!(":{port}"), &format!(":{moved}"))).expect("a reload");
    assert!(!curl(&url).status.success());
    assert!(
        String::from_utf8_lossy(&curl(&url.replace(&port.to_string(), &moved.to_string())).stdout).contains("alive")
    );
    let without =
        "[imap]\n[map]\ndefault = \"a\"\n[backend.a]\nhost = \"127.0.0.1\"\n[admin]\nlisten = \"0.0.0.0:9\"\n";
    assert!(Bed::new().refusal(without).contains("admin.listen"), "in clear for other machines: never");
}

/// What promtool says of a text of metrics.
fn promtool(text: &str) -> String {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = command.spawn().expect("promtool");
    promtool.stdin.take().expect("an input").write_all(text.as_bytes()).expect("an input");
    let output = promtool.wait_with_output().expect("an output");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A site whose metrics are behind a token, with one user at the back end at this port; and how it is configured.
fn with_metrics(bed: Bed, imap: u16) -> (Site, String) {
    let port = free_port().expect("a port");
    bed.write("users", "kim:::::::host=store\n");
    let configuration = bed.one_backend("", imap).replace("[map]\n", "[map]\ndirectories = [\"file\"]\n")
        + &format!(
            "[directory.file]\ntype = \"passwd-file\"\npath = \"users\"\n[[imap.access]]\ndeny = \"127.0.0.3\"\n\
             [admin]\nlisten = \"127.0.0.1:{port}\"\nmetrics_token_file = \"metrics.token\"\n"
        );
    let token = bed.write("metrics.token", "a token\n");
    run(Command::new("chmod").arg("600").arg(token));
    let gatepost = bed.gatepost(&configuration);
    (Site { gatepost, port, bed }, configuration)
}

#[test]
fn every_documented_metric_is_there_from_the_start() {
    let (site, _) = with_metrics(Bed::new(), NOWHERE);
    let text = site.get("/metrics", "a token").body;
    let there = metric_names(&text);
    let rows = include_str!("../../../../../docs/monitoring.md").lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<_> = rows.filter_map(|row| row.split(['{', '`']).next()).collect();
    assert!(documented.len() > 20, "{documented:?}");
    for name in documented {
        assert!(there.contains(name), "{name} is there from the start: {text}");
    }
    assert_eq!(promtool(&text), "");
}

#[test]
fn metrics_are_for_whoever_has_their_token() {
    let (site, _) = with_metrics(Bed::new(), NOWHERE);
    assert_eq!(site.curl("/metrics", &[]).status, 401);
    assert_eq!(site.get("/metrics", "a token").status, 200);
}

#[test]
fn metrics_are_said_on_the_command_line_too() {
    let (site, _) = with_metrics(Bed::new(), NOWHERE);
    let text = site.get("/metrics", "a token").body;
    assert_eq!(site.bed.said(&["metrics"]).lines().next(), text.lines().next());
}

#[test]
fn metrics_come_as_open_metrics_too() {
    let (site, _) = with_metrics(Bed::new(), NOWHERE);
    assert!(site.bed.secure().verdict("LOGIN kim secret").starts_with("NO"));
    let open = site.curl(
        "/metrics",
        &["--header", "Authorization: Bearer a token", "--header", "Accept: application/openmetrics-text"],
    );
    assert!(
        open.body.contains("gatepost_logins_total{service=\"imap\",mechanism=\"command\",result=\"unavailable\"} 1")
    );
    assert!(open.head.contains("application/openmetrics-text") && open.body.ends_with("# EOF\n"), "{}", open.body);
}

#[test]
fn metrics_count_what_happens_and_name_no_user() {
    let bed = Bed::new();
    let dovecot = bed.dovecot("store", &[KIM]);
    let (site, configuration) = with_metrics(bed, dovecot.imap);
    let metrics = || site.get("/metrics", "a token").body;
    let mut kim = site.bed.logged_in(KIM);
    kim.command("NOOP");
    assert!(site.bed.secure().verdict("LOGIN kim wrong").contains("AUTHENTICATIONFAILED"));
    drop(crate::talk::Talk::clear_from([127, 0, 0, 3].into(), site.bed.imap).rest());
    site.gatepost.reload(&configuration).expect("a reload");
    let listener =
        format!("gatepost_connections_total{{service=\"imap\",listener=\"127.0.0.1:{}\"}} 2", site.bed.imaps);
    let expected = [
        "gatepost_sessions{service=\"imap\",backend=\"store\"} 1",
        "gatepost_generation_sessions{generation=\"1\"} 1",
        "gatepost_rejected_total{service=\"imap\",reason=\"access\"} 1",
        "gatepost_logins_total{service=\"imap\",mechanism=\"command\",result=\"ok\"} 1",
        "gatepost_logins_total{service=\"imap\",mechanism=\"command\",result=\"denied\"} 1",
        "gatepost_login_seconds_count{service=\"imap\",stage=\"tls\"} 2",
        "gatepost_login_seconds_count{service=\"imap\",stage=\"backend_login\"} 1",
        "gatepost_backend_up{backend=\"store\",service=\"imap\"} 1",
        "gatepost_backend_connections{backend=\"store\",service=\"imap\"} 1",
        "gatepost_directory_seconds_count{directory=\"file\",result=\"found\"} 2",
        "gatepost_config_reloads_total{result=\"ok\"} 1",
        "gatepost_bans 0",
        &listener,
    ];
    wait_for(|| expected.iter().all(|line| metrics().lines().any(|found| found == *line))).unwrap_or_else(|_| {
        let text = metrics();
        let missing: Vec<_> = expected.iter().filter(|line| !text.lines().any(|found| found == **line)).collect();
        panic!("{missing:#?} in {text}")
    });
    let text = metrics();
    assert_eq!(promtool(&text), "");
    let up =
        text.lines().find_map(|line| line.strip_prefix("gatepost_bytes_total{service=\"imap\",direction=\"up\"} "));
    assert!(up.and_then(|count| count.parse::<u64>().ok()).is_some_and(|count| count >= 6), "{text}");
    assert!(!text.contains("kim"), "users are no labels");
}

#[test]
fn the_api_is_as_its_description_says() {
    let (package, version, program) = SCHEMATHESIS;
    let schemathesis = ensure_python_tool(package, version, program, true).expect("schemathesis");
    let site = Site::new("");
    let token = site.token("admin");
    let mut command = Command::new(schemathesis);
    command
        .arg("run")
        .arg(format!("http://127.0.0.1:{}/api/v1/openapi.json", site.port))
        .args(["--header", &format!("Authorization: Bearer {token}"), "--checks", "all", "--max-examples", "10"])
        // These would end what is being looked at, or never end.
        .args(["--exclude-path", "/api/v1/stop", "--exclude-path", "/api/v1/logout"])
        .args(["--exclude-path", "/api/v1/logs/live"])
        .args(["--seed", "1", "--no-color", "--generation-database", "none"])
        .current_dir(site.bed.path(""));
    run(&mut command);
    assert!(!site.gatepost.log().contains("panicked"), "{}", site.gatepost.log());
}

#[test]
fn the_log_is_there_as_it_was_and_as_it_comes() {
    let site = Site::new("");
    let [viewer, sender, operator] = ["viewer", "sender", "operator"].map(|role| site.token(role));
    let logs = |query: &str| site.get(&format!("/api/v1/logs{query}"), &viewer).json()["logs"].clone();
    let ready = logs("?text=is%20ready&service=server");
    assert!(ready[0]["message"].as_str().is_some_and(|text| text.contains("is ready")), "{ready}");
    assert_eq!(logs("?level=critical"), serde_json::json!([]));
    assert_eq!(site.get("/api/v1/logs?level=loud", &viewer).status, 400);
    assert_eq!(site.get("/api/v1/logs?lines=5", &viewer).status, 400);
    // A sender's records come in under its name, whatever they say of it.
    let record = r#"{"time":"2026-01-01T00:00:00Z","level":"warning","service":"imap","message":"far away","fields":[["node",{"name":"forged"}],["n",{"number":7}]]}"#;
    let mut live = Command::new("curl")
        .args(["--silent", "--no-buffer", "--max-time", "20", "--header", &format!("Authorization: Bearer {viewer}")])
        .arg(format!("http://127.0.0.1:{}/api/v1/logs/live?text=far", site.port))
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    let mut lines = BufReader::new(live.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
    let batch = format!("{{\"records\":[{record},{record}]}}");
    assert_eq!(site.send("POST", "/api/v1/logs", &sender, &batch).json()["logs"][0]["taken"], 2);
    wait_for(|| logs("?service=imap").as_array().is_some_and(|logs| logs.len() >= 2)).expect("the records");
    let kept = logs("?service=imap")[0].clone();
    assert_eq!(
        (&kept["node"], &kept["n"], &kept["time"]),
        (&"sender".into(), &7.into(), &"2026-01-01T00:00:00.000Z".into())
    );
    // Whoever follows since before or from now on is told; it may have begun later than the first two.
    let told = std::thread::spawn(move || lines.find(|line| line.starts_with("data: ")));
    while !told.is_finished() {
        assert_eq!(site.send("POST", "/api/v1/logs", &operator, &batch).status, 200);
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let told = told.join().expect("a thread").expect("a record");
    assert!(told.contains("\"message\":\"far away\""), "{told}");
    live.kill().expect("an end");
    live.wait().expect("an end");
    // A sender sees nothing, and a viewer sends nothing.
    for path in ["/api/v1/logs", "/api/v1/status", "/api/v1/me", "/api/v1/logs/live", "/", "/log", "/nothing"] {
        assert_eq!(site.get(path, &sender).status, 403, "{path}");
    }
    assert_eq!(site.send("POST", "/api/v1/logs", &viewer, &batch).status, 403);
    // The way in for the first administrator goes to nobody else's log; and nothing that is sent can look like ours.
    let forged = r#"{"records":[{"time":"","level":"info","service":"imap-login","message":"Aborted login (auth failed, 9 attempts in 1 secs): rip=192.0.2.7, x","fields":[["level",{"text":"critical"}]]}]}"#;
    assert_eq!(site.send("POST", "/api/v1/logs", &sender, forged).status, 200);
    let line = site.gatepost.wait_for_log("192.0.2.7").expect("the record");
    assert!(line.contains(" gatepost imap-login: Info: node=<sender>: Aborted login"), "{line}");
    let kept = logs("?text=192.0.2.7")[0].clone();
    assert_eq!((&kept["level"], &kept["node"]), (&"info".into(), &"sender".into()));
    for (body, status) in
        [("{}", 400), ("{\"records\":[{}]}", 400), ("{\"records\":[],\"x\":1}", 400), ("{\"records\":5}", 400)]
    {
        assert_eq!(site.send("POST", "/api/v1/logs", &sender, body).status, status, "{body}");
    }
}

/// The names of metrics in a text, without what a histogram adds to them.
fn metric_names(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("gatepost_") || word.starts_with("process_"));
    ours.map(|word| ["_bucket", "_count", "_sum"].iter().fold(word, |word, end| word.trim_end_matches(end)).to_owned())
        .collect()
}

#[test]
fn alerts_and_the_dashboard_are_sound_and_ask_for_what_there_is() {
    let deploy = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
    let rules = deploy.join("prometheus/gatepost.rules.yml");
    run(Command::new("promtool").args(["check", "rules"]).arg(&rules));
    let dashboard = std::fs::read_to_string(deploy.join("grafana/gatepost.json")).expect("a dashboard");
    let parsed: Value = serde_json::from_str(&dashboard).expect("JSON");
    let there = metric_names(&Site::new("").curl("/metrics", &[]).body);
    let asked = |text: &str| {
        // Names of the job and of files are no metrics.
        metric_names(text)
            .into_iter()
            .filter(|name| !matches!(name.as_str(), "gatepost_" | "gatepost"))
            .collect::<Vec<_>>()
    };
    for name in asked(&std::fs::read_to_string(rules).expect("rules")).iter().chain(&asked(&dashboard)) {
        assert!(there.contains(name), "{name} is asked for, and there is no such metric");
    }
    // Every expression of the dashboard is one to Prometheus.
    let expressions =
        parsed["panels"].as_array().expect("panels").iter().filter_map(|panel| panel["targets"].as_array());
    let rules: String = expressions
        .flatten()
        .enumerate()
        .map(|(n, target)| {
            let expression = target["expr"].as_str().unwrap_or_default().replace("$instance", ".*");
            format!("  - record: x{n}\n    expr: {}\n", Value::from(expression))
        })
        .collect();
    let bed = Bed::new();
    let file = bed.write("dashboard.yml", &format!("groups:\n- name: dashboard\n  rules:\n{rules}"));
    run(Command::new("promtool").args(["check", "rules"]).arg(file));
}

#[test]
fn users_of_the_embedded_directory_are_kept_over_the_api() {
    let site = Site::new("");
    let [viewer, admin] = ["viewer", "admin"].map(|role| site.token(role));
    assert_eq!(site.get("/api/v1/users", &viewer).status, 409, "there is no such directory");
    let file = std::fs::read_to_string(site.bed.path("gatepost.toml")).expect("a file");
    let file = file + "[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n";
    site.bed.write("gatepost.toml", &file);
    site.bed.said(&["user", "add", "noa"]);
    site.bed.said(&["user", "remove", "noa"]);
    site.gatepost.reload(&file).expect("a reload");
    let set = |body: &str| site.send("PUT", "/api/v1/users/kim", &admin, body);
    assert_eq!(
        set("{\"backend\":\"store\",\"password\":\"kim knows it\",\"services\":\"imap,pop3\"}").json()["users"][0]["result"],
        "added"
    );
    assert_eq!(set("{\"disabled\":true,\"held\":true,\"services\":\"all\"}").json()["users"][0]["result"], "changed");
    let kim = site.get("/api/v1/users", &viewer).json()["users"][0].clone();
    assert_eq!((&kim["name"], &kim["backend"], &kim["services"]), (&"kim".into(), &"store".into(), &Value::Null));
    assert_eq!((&kim["disabled"], &kim["held"], &kim["password"]), (&true.into(), &true.into(), &true.into()));
    assert_eq!(set("{\"backend\":\"nowhere\"}").status, 409);
    assert_eq!(set("{\"services\":\"fax\"}").status, 409);
    assert_eq!(site.send("PUT", "/api/v1/users/kim", &viewer, "{}").status, 403);
    assert_eq!(site.send("DELETE", "/api/v1/users/kim", &admin, "").status, 200);
    assert_eq!(site.send("DELETE", "/api/v1/users/kim", &admin, "").status, 409);
    let log = site.gatepost.log();
    assert!(!log.contains("kim knows it") && !log.contains("ARGON2"), "{log}");
}

#[test]
fn settings_are_read_checked_applied_and_taken_back() {
    let site = Site::new("# kept as it is");
    let token = site.token("admin");
    let settings = || site.get("/api/v1/settings", &token).json()["settings"][0].clone();
    let file = || std::fs::read_to_string(site.bed.path("gatepost.toml")).expect("a file");
    let (before, digest) = (file(), settings()["digest"].as_str().expect("a digest").to_owned());
    let effective = settings()["effective"].as_array().expect("a list").clone();
    let is_default = |setting: &&Value| setting["table"] == "[imap]" && setting["key"] == "max_errors";
    let found = effective.iter().find(is_default).expect("a setting");
    assert_eq!((&found["value"], &found["default"]), (&"10".into(), &true.into()));
    let change = |value: &str, digest: &str| {
        format!(
            "{{\"changes\":[{{\"table\":[\"imap\"],\"key\":\"max_errors\",\"value\":{}}}],\"digest\":\"{digest}\"}}",
            Value::from(value)
        )
    };
    let checked = site.send("POST", "/api/v1/settings/check", &token, &change("5", &digest)).json()["check"][0].clone();
    let diff = checked["diff"].as_array().expect("lines");
    assert!(checked["problems"] == Value::Array(Vec::new()) && diff.contains(&"+max_errors = 5".into()), "{checked}");
    assert_eq!(file(), before, "a check changes nothing");
    let wrong = site.send("POST", "/api/v1/settings/check", &token, &change("\"five\"", &digest)).json();
    assert!(
        wrong["check"][0]["problems"][0].as_str().is_some_and(|text| text.contains("expected a whole number")),
        "{wrong}"
    );
    assert_eq!(site.send("POST", "/api/v1/settings/apply", &token, &change("\"five\"", &digest)).status, 409);
    assert_eq!(site.send("POST", "/api/v1/settings/apply", &token, &change("5", "old")).status, 409, "another file");
    // Misspelt it would be no key, and stand for the whole table.
    let misspelt = change("5", &digest).replace("\"key\"", "\"kye\"");
    assert_eq!(site.send("POST", "/api/v1/settings/apply", &token, &misspelt).status, 400);
    assert_eq!(site.send("POST", "/api/v1/settings/apply", &token, &change("5", &digest)).status, 200);
    assert!(file().contains("max_errors = 5") && file().contains("# kept as it is"));
    // A port that somebody else has: neither in force nor in the file.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
    let address = taken.local_addr().expect("an address");
    let listener = format!(
        "{{\"changes\":[{{\"table\":[\"imap\",\"listener\",\"2\"],\"key\":\"address\",\"value\":\"\\\"{address}\\\"\"}}]}}"
    );
    let (in_force, refused) = (file(), site.send("POST", "/api/v1/settings/apply", &token, &listener));
    assert!(refused.status == 409 && refused.body.contains("is in use by another program"), "{}", refused.body);
    assert_eq!(file(), in_force);
    site.bed.clear();
    assert_eq!(settings()["undo"], 1);
    // What somebody wrote since by hand is not thrown away.
    let by_hand = in_force.clone() + "# by hand\n";
    site.bed.write("gatepost.toml", &by_hand);
    let refused = site.send("POST", "/api/v1/settings/undo", &token, "");
    assert!(refused.status == 409 && refused.body.contains("changed since by other means"), "{}", refused.body);
    assert_eq!(file(), by_hand);
    site.bed.write("gatepost.toml", &in_force);
    // Nor is what somebody else changed since this was looked at.
    let seen = |digest: &str| format!("{{\"digest\":\"{digest}\"}}");
    let refused = site.send("POST", "/api/v1/settings/undo", &token, &seen(&digest));
    assert!(refused.status == 409 && refused.body.contains("changed meanwhile"), "{}", refused.body);
    let now = settings()["digest"].as_str().expect("a digest").to_owned();
    assert_eq!(site.send("POST", "/api/v1/settings/undo", &token, &seen(&now)).status, 200);
    assert_eq!(file(), before);
    assert_eq!(site.send("POST", "/api/v1/settings/undo", &token, "").status, 409);
    let operator = site.token("operator");
    assert_eq!(site.send("POST", "/api/v1/settings/apply", &operator, &change("5", &digest)).status, 403);
}
