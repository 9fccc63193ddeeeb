//! Responders asked over HTTP: nginx as one of its own protocol's, Python's server for JSON.

use std::path::Path;
use std::time::Duration;

use gatepost_lab::{Mailbox, Process, free_port, wait_for_port};

use super::{REFUSED, UNAVAILABLE};
use crate::bed::{Bed, KIM, LEE};

fn configuration(bed: &Bed, imap: &str, map: &str, directory: &str) -> String {
    bed.configuration(&format!(
        "{imap}\n[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"lookup\"]\nhosts = [\"127.0.0.1\"]\n{map}\n\
         [directory.lookup]\ntype = \"http\"\n{directory}\n"
    ))
}

/// nginx, answering as an `auth_http` responder for kim and lee, with what it was asked in `asked`.
fn nginx(bed: &Bed, store: u16, secure: bool) -> (Process, u16) {
    let port = free_port().expect("a port");
    let folder = bed.path("nginx");
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.display();
    let tls = if secure {
        format!("ssl_certificate {}; ssl_certificate_key {};", bed.store.chain.display(), bed.store.key.display())
    } else {
        String::new()
    };
    let listen = if secure { "ssl" } else { "" };
    let configuration = format!(
        "daemon off; master_process off; pid {path}/pid; error_log {path}/error.log;\nevents {{ }}\nhttp {{\n\
         client_body_temp_path {path}/1; proxy_temp_path {path}/2; fastcgi_temp_path {path}/3; uwsgi_temp_path {path}/4; scgi_temp_path {path}/5;\n\
         log_format asked '$request_method $request_uri $connection $connection_requests method=$http_auth_method user=$http_auth_user pass=$http_auth_pass '\n\
         'protocol=$http_auth_protocol attempt=$http_auth_login_attempt ip=$http_client_ip ssl=$http_auth_ssl/$http_auth_ssl_protocol/$http_auth_ssl_cipher '\n\
         'proxy=$http_proxy_protocol_addr key=$http_x_auth_key site=$http_x_site';\n\
         access_log {path}/asked asked;\n\
         map \"$http_x_auth_key:$http_auth_user:$http_auth_pass\" $verdict {{\n\
         default \"Invalid login or password\";\n\
         \"of the site:kim:kim's%20secret\" OK;\n\"of the site:lee:not%20the%20store's\" OK;\n\
         \"of the site:max:later\" \"Temporary server problem\";\n}}\n\
         map $http_auth_user $code {{ default \"\"; max \"451 4.3.0\"; }}\n\
         map $http_auth_user $login {{ default \"\"; lee lee; }}\nmap $http_auth_user $password {{ default \"\"; lee \"lee's secret\"; }}\n\
         server {{ listen 127.0.0.1:{port} {listen}; {tls}\n location = /auth {{\n\
         add_header Auth-Status $verdict; add_header Auth-Server 127.0.0.1; add_header Auth-Port {store};\n\
         add_header Auth-Error-Code $code; add_header Auth-User $login; add_header Auth-Pass $password; add_header Auth-Wait 1;\n\
         return 204;\n }}\n location = /none {{ return 200; }}\n }}\n}}\n"
    );
    let file = bed.write("nginx.conf", &configuration);
    let arguments = ["-c", &file.display().to_string()];
    let process =
        Process::start(Path::new("/usr/sbin/nginx"), &arguments, &folder.join("output"), false).expect("nginx");
    wait_for_port(port, Duration::from_secs(10)).expect("nginx");
    (process, port)
}

fn nginx_directory(url: &str) -> String {
    format!(
        "url = \"{url}\"\nca = \"ca.pem\"\nheaders = {{ X-Site = \"mail\" }}\nsecret_header = {{ name = \"X-Auth-Key\", file = \"key.secret\" }}"
    )
}

#[test]
fn a_responder_of_nginxs_serves_as_it_is() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.write("key.secret", "of the site");
    let (_nginx, port) = nginx(&bed, store.imap, false);
    let gatepost =
        bed.gatepost(&configuration(&bed, "", "", &nginx_directory(&format!("http://127.0.0.1:{port}/auth"))));
    let mut talk = bed.secure();
    assert_eq!(talk.verdict("LOGIN kim wrong"), REFUSED);
    talk.log_in(KIM);
    let asked = || std::fs::read_to_string(bed.path("nginx/asked")).unwrap_or_default();
    let lines = asked();
    let line = lines.lines().last().expect("a request");
    for part in [
        "GET /auth ",
        "method=plain user=kim pass=kim's%20secret protocol=imap attempt=2 ip=127.0.0.1 ssl=on/TLSv1.3/TLS13_AES_128_GCM_SHA256",
        "proxy=- ",
        "key=of the site site=mail",
    ] {
        assert!(line.contains(part), "{part}: {line}");
    }
    // Connections are kept: the second request came on the first's.
    let connection = |line: &str| line.split(' ').nth(2).map(str::to_owned);
    assert_eq!(lines.lines().next().and_then(connection), connection(line), "{lines}");
    // Another name and password for the store.
    assert!(bed.secure().try_log_in(Mailbox { user: "lee", password: "not the store's" }).starts_with("OK "));
    assert_eq!(bed.secure().try_log_in(LEE), REFUSED);
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success() && said.contains("answers only to who brings a password"), "{said}");
    // What says that it can't tell now is an outage.
    assert_eq!(bed.secure().try_log_in(Mailbox { user: "max", password: "later" }), UNAVAILABLE);
    gatepost.wait_for_log("it can't tell now").expect("the reason");
    let log = gatepost.log();
    assert!(!log.contains("of the site") && !log.contains("lee's secret"), "{log}");
}

#[test]
fn who_brings_a_token_is_refused_where_the_responder_wants_a_password() {
    let bed = Bed::new();
    bed.write("key.secret", "of the site");
    let imap = "mechanisms = [\"PLAIN\", \"OAUTHBEARER\"]";
    let gatepost = bed.gatepost(&configuration(&bed, imap, "", &nginx_directory("http://127.0.0.1:9/auth")));
    gatepost.wait_for_log("OAUTHBEARER is offered, but lookup of map.directories only answers").expect("a warning");
    // n,a=kim,^Aauth=Bearer token^A^A
    assert_eq!(bed.secure().verdict("AUTHENTICATE OAUTHBEARER bixhPWtpbSwBYXV0aD1CZWFyZXIgdG9rZW4BAQ=="), UNAVAILABLE);
    gatepost.wait_for_log("of `map.directories` only answers to who brings a password").expect("the reason");
}

#[test]
fn over_https_the_responder_is_who_it_says() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    bed.write("key.secret", "of the site");
    let (_nginx, port) = nginx(&bed, store.imap, true);
    let imap = "authenticate = \"proxy\"\ndirectory = \"lookup\"";
    let sound = configuration(&bed, imap, "", &nginx_directory(&format!("https://localhost:{port}/auth")));
    let gatepost = bed.gatepost(&sound);
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "));
    let asked = std::fs::read_to_string(bed.path("nginx/asked")).expect("requests");
    assert_eq!(asked.lines().count(), 1, "checked and placed by one question: {asked}");
    let stranger = Bed::new();
    let other = format!("ca = {:?}", stranger.authority.certificate.display().to_string());
    gatepost.reload(&sound.replace("ca = \"ca.pem\"", &other)).expect("a reload");
    assert_eq!(bed.secure().try_log_in(KIM), UNAVAILABLE);
    let said = gatepost.wait_for_log("certificate").expect("the reason");
    assert!(!said.contains("secret"), "{said}");
}

#[test]
fn a_responder_that_is_none_or_gone_is_an_outage() {
    let bed = Bed::new();
    bed.write("key.secret", "of the site");
    let (nginx, port) = nginx(&bed, 143, false);
    let gatepost =
        bed.gatepost(&configuration(&bed, "", "", &nginx_directory(&format!("http://127.0.0.1:{port}/none"))));
    assert_eq!(bed.secure().try_log_in(KIM), UNAVAILABLE);
    gatepost.wait_for_log("without Auth-Status").expect("the reason");
    drop(nginx);
    assert_eq!(bed.secure().try_log_in(KIM), UNAVAILABLE);
    gatepost.wait_for_log("Connection refused").expect("the reason");
}

const JSON_RESPONDER: &str = r#"
import http.server, json, sys
port, store = int(sys.argv[1]), int(sys.argv[2])
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *arguments): pass
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(sys.argv[3], "a") as file: print(json.dumps(asked), file=file)
        known = {"kim": "kim's secret", "lee": "lee's secret"}
        if asked["user"] == "max": answer = {"result": "wrong"}
        elif asked["user"] not in known: answer = {"result": "unknown"}
        elif "password" in asked and asked["password"] != known[asked["user"]]: answer = {"result": "wrong"}
        elif asked["user"] == "lee": answer = {"result": "disabled"}
        else: answer = {"result": "ok", "backend": "127.0.0.1", "port": store, "services": ["imap"], "networks": ["127.0.0.0/8"]}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;

#[test]
fn a_responder_may_speak_json() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM]);
    let script = bed.write("responder.py", JSON_RESPONDER);
    let port = free_port().expect("a port");
    let words = [
        script.display().to_string(),
        port.to_string(),
        store.imap.to_string(),
        bed.path("asked").display().to_string(),
    ];
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let _responder =
        Process::start(Path::new("/usr/bin/python3"), &words, &bed.path("responder.out"), false).expect("python3");
    wait_for_port(port, Duration::from_secs(10)).expect("the responder");
    let imap = "authenticate = \"proxy\"\ndirectory = \"lookup\"";
    let directory = format!("form = \"json\"\nurl = \"http://127.0.0.1:{port}/\"");
    let gatepost = bed.gatepost(&configuration(&bed, imap, "", &directory));
    assert!(bed.secure().try_log_in(KIM).starts_with("OK "), "{}", gatepost.log());
    assert_eq!(bed.secure().try_log_in(Mailbox { user: "kim", password: "wrong" }), REFUSED);
    assert_eq!(bed.secure().try_log_in(Mailbox { user: "nobody", password: "wrong" }), REFUSED);
    assert_eq!(bed.secure().try_log_in(LEE), "NO [CONTACTADMIN] This account is disabled.");
    let asked = std::fs::read_to_string(bed.path("asked")).expect("what was asked");
    assert!(asked.contains("\"service\": \"imap\"") && asked.contains("\"version\": \"TLSv1.3\""), "{asked}");
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(explained.status.success() && said.contains("127.0.0.1"), "{said}");
    // That nobody has this name, such a responder has not said.
    let explained = gatepost.command(&["explain", "max"]).expect("an answer");
    let said = String::from_utf8_lossy(&explained.stdout).into_owned();
    assert!(said.contains("it answers `wrong` where no password was shown"), "{said}");
}
