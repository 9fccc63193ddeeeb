//! The console in a real Chromium: what an administrator does on each page, with the keyboard and eyes of a person.

use std::io::{BufRead as _, BufReader};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gatepost_lab::{Browser, Dovecot, Gatepost, View, free_port, wait_for};

use crate::bed::{Bed, KIM, LEE};

/// Two back ends, Gatepost with a console before them, and a browser that is logged in.
struct Site {
    _stores: [Dovecot; 2],
    gatepost: Gatepost,
    browser: Browser,
    port: u16,
    bed: Bed,
}

const PASSWORD: &str = "a long password";

impl Site {
    /// The first administrator is made on the way.
    fn new() -> Self {
        let bed = Bed::new();
        let stores = ["a", "b"].map(|name| bed.dovecot(name, &[KIM, LEE]));
        let port = free_port().expect("a port");
        bed.write("users", "kim:::::::host=a\nlee:::::::host=b\n");
        let configuration = bed.configuration(&format!(
            "greeting = \"Hello.\"   # be nice\n[imap.backend]\ntls = \"none\"\n[map]\ndirectories = [\"file\"]\n\
             [directory.file]\ntype = \"passwd-file\"\npath = \"users\"\n[backend.a]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n\
             [backend.b]\nhost = \"127.0.0.1\"\nimap = {{ port = {} }}\n[admin]\nlisten = \"127.0.0.1:{port}\"\n",
            stores[0].imap, stores[1].imap
        ));
        let gatepost = bed.gatepost(&configuration);
        let browser = Browser::start(&bed.path("")).unwrap_or_else(|error| panic!("{error}"));
        let site = Self { _stores: stores, gatepost, browser, port, bed };
        let line = site.gatepost.wait_for_log("/setup?token=").expect("an invitation");
        let token = line.split("token=").nth(1).expect("a token").trim_end_matches('"').to_owned();
        site.go(&format!("/setup?token={token}"));
        site.fill("input[name=name]", "root");
        site.fill("input[name=password]", PASSWORD);
        site.click("button.main");
        site.sees("Overview");
        site
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn go(&self, path: &str) {
        self.browser.go(&self.url(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    }

    fn fill(&self, selector: &str, text: &str) {
        self.browser.fill(selector, text).unwrap_or_else(|error| panic!("{error}"));
    }

    fn click(&self, selector: &str) {
        self.browser.click(selector).unwrap_or_else(|error| panic!("{error}"));
    }

    fn text(&self) -> String {
        self.browser.text().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Waits until the page says this.
    fn sees(&self, words: &str) {
        let is_there = || self.browser.text().is_ok_and(|text| text.contains(words));
        wait_for(is_there).unwrap_or_else(|_| panic!("never seen {words:?}:\n{}", self.text()));
    }

    /// Keeps a picture of a page for whoever wants to look at it, in the folder that `GATEPOST_PICTURES` names.
    fn keep_picture(&self, page: &str, is_dark: bool, width: u32) {
        let Some(folder) = std::env::var_os("GATEPOST_PICTURES") else { return };
        std::fs::create_dir_all(&folder).expect("a folder");
        let theme = if is_dark { "dark" } else { "light" };
        let name = page.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let picture = STANDARD.decode(self.browser.picture().expect("a picture")).expect("base64");
        std::fs::write(std::path::Path::new(&folder).join(format!("{name}-{theme}-{width}.png")), picture)
            .expect("a file");
    }

    fn file(&self) -> String {
        std::fs::read_to_string(self.bed.path("gatepost.toml")).expect("a file")
    }
}

/// Every page that a person can come to.
const PAGES: [&str; 18] = [
    "/",
    "/sessions",
    "/log",
    "/bans",
    "/backends",
    "/map?user=kim",
    "/system",
    "/administrators",
    "/reports",
    "/users",
    "/services/imap/listeners",
    "/services/imap/access",
    "/services/imap/flow",
    "/services/imap/logging",
    "/services/imap/authentication",
    "/services/imap/errors",
    "/services/imap/threads",
    "/services/imap/backend",
];

#[test]
fn every_page_is_whole_accessible_and_fits_in_both_themes_and_on_a_telephone() {
    let site = Site::new();
    let _kim = site.bed.logged_in(KIM);
    for is_dark in [false, true] {
        for size in [(1280, 900), (390, 844)] {
            site.browser.view(View { size, is_dark }).expect("a view");
            for page in PAGES {
                site.go(page);
                let title = site.browser.evaluate("document.title").expect("a title");
                assert!(title.as_str().is_some_and(|title| title.starts_with("Gatepost")), "{page}: {title}");
                assert!(!site.text().contains("\"error\""), "{page}: {}", site.text());
                let over =
                    site.browser.evaluate("document.documentElement.scrollWidth - innerWidth").expect("a number");
                assert!(over.as_i64().is_some_and(|over| over <= 0), "{page} is {over} too wide at {size:?}");
                let faults = site.browser.accessibility().expect("axe");
                assert!(faults.is_empty(), "{page}, dark {is_dark}, {size:?}: {faults:#?}");
                site.keep_picture(page, is_dark, size.0);
            }
        }
    }
    let complaints = site.browser.complaints().expect("the browser's log");
    assert!(complaints.is_empty(), "{complaints:#?}");
    // The first page, all that it loads with it.
    site.go("/");
    let size = "performance.getEntriesByType('resource').concat(performance.getEntriesByType('navigation'))\
                .reduce((sum, entry) => sum + entry.encodedBodySize, 0)";
    let bytes = site.browser.evaluate(size).expect("a number").as_u64().unwrap_or(u64::MAX);
    assert!(bytes < 100 * 1024, "{bytes} bytes");
}

#[test]
fn a_setting_is_changed_looked_at_applied_and_taken_back() {
    let site = Site::new();
    let _kim = site.bed.logged_in(KIM);
    let _lee = site.bed.logged_in(LEE);
    let before = site.file();
    site.go("/services/imap/flow");
    site.fill("[name='v|imap/limits|connections']", "1");
    site.click("button.main");
    site.sees("Look at the change");
    site.sees("imap: 2 sessions are open, and 1 is over the new limit of 1; it stays.");
    site.sees("+connections = 1");
    assert_eq!(site.file(), before, "nothing is changed yet");
    site.click("button.main");
    site.sees("The change is in force and in the file.");
    let after = site.file();
    assert!(after.contains("connections = 1") && after.contains("# be nice"), "{after}");
    assert!(crate::talk::Talk::clear(site.bed.imap).rest().contains("* BYE [LIMIT]"), "it is in force");
    // What is no value is refused before anything happens, with the place.
    site.fill("[name='v|imap/limits|connections']", "many");
    site.click("button.main");
    site.sees("no value of TOML");
    site.go("/services/imap/errors");
    site.fill("[name='v|imap|idle_timeout']", "1m");
    site.click("button.main");
    site.sees("This can't be used");
    site.sees("gatepost.toml:");
    assert_eq!(site.file(), after);
    // While somebody writes the file by hand, only the settings can't be seen.
    site.bed.write("gatepost.toml", "name = \n");
    site.go("/backends");
    site.sees("The settings can't be shown: the file has a mistake.");
    site.sees("Out of service at once");
    site.bed.write("gatepost.toml", &after);
    // What is wrong with a form is said on a page.
    let forged = "document.querySelector('main input[name=proof]').value = 'old'";
    site.go("/system");
    site.browser.evaluate(forged).expect("a form");
    site.click("button[value=undo]");
    site.sees("That was not done");
    assert!(site.browser.accessibility().expect("axe").is_empty());
    site.go("/system");
    site.click("button[value=undo]");
    site.sees("The latest change is taken back.");
    assert_eq!(site.file(), before);
    site.bed.clear();
    let log = site.gatepost.log();
    let is_record = |line: &str| line.contains("a command is carried out") && line.contains("root");
    assert!(log.lines().any(is_record), "{log}");
}

#[test]
fn listeners_and_rules_come_and_go_without_a_session_lost() {
    let site = Site::new();
    let mut kim = site.bed.logged_in(KIM);
    let port = free_port().expect("a port");
    site.go("/services/imap/listeners");
    site.fill("[name='v|imap/listener/2|address']", &format!("127.0.0.1:{port}"));
    site.click("button.main");
    site.sees(&format!("Connections are taken at 127.0.0.1:{port} (imap, STARTTLS)."));
    site.click("button.main");
    site.sees("in force");
    crate::talk::Talk::clear(port).greeted();
    // Another program's change is not overwritten.
    site.go("/services/imap/access");
    site.fill("[name='v|imap/access/0|deny']", "192.0.2.0/24, 198.51.100.7");
    site.bed.write("gatepost.toml", &(site.file() + "# somebody else was here\n"));
    site.click("button.main");
    site.sees("has been changed meanwhile");
    site.go("/services/imap/access");
    site.fill("[name='v|imap/access/0|deny']", "192.0.2.0/24, 198.51.100.7");
    site.click("button.main");
    site.sees("+deny = [\"192.0.2.0/24\", \"198.51.100.7\"]");
    site.click("button.main");
    site.sees("in force");
    assert!(site.file().contains("# somebody else was here"));
    site.go("/services/imap/listeners");
    site.click("[name='r|imap/listener/2']");
    site.click("button.main");
    site.sees("takes no more connections");
    site.click("button.main");
    site.sees("in force");
    assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err());
    kim.goes_on();
}

#[test]
fn other_services_have_the_same_pages_and_can_be_begun_there() {
    let site = Site::new();
    for (service, has_mail) in [("pop3", false), ("sieve", false), ("submission", true), ("smtp", true), ("lmtp", true)]
    {
        let tabs = PAGES.iter().filter_map(|page| page.strip_prefix("/services/imap/"));
        for tab in tabs.chain(has_mail.then_some("mail")) {
            let page = format!("/services/{service}/{tab}");
            for (size, is_dark) in [((1280, 900), false), ((390, 844), true)] {
                site.browser.view(View { size, is_dark }).expect("a view");
                site.go(&page);
                let over = site.browser.evaluate("document.documentElement.scrollWidth - innerWidth");
                assert!(
                    over.expect("a number").as_i64().is_some_and(|over| over <= 0),
                    "{page} is too wide at {size:?}"
                );
                let faults = site.browser.accessibility().expect("axe");
                assert!(faults.is_empty(), "{page}, dark {is_dark}, {size:?}: {faults:#?}");
                site.keep_picture(&page, is_dark, size.0);
            }
        }
    }
    site.browser.view(View { size: (1280, 900), is_dark: false }).expect("a view");
    let ports = [(); 2].map(|()| free_port().expect("a port"));
    for (service, port, greeting) in [("pop3", ports[0], "+OK"), ("smtp", ports[1], "220 ")] {
        site.go(&format!("/services/{service}/listeners"));
        site.fill(&format!("[name='v|{service}/listener/0|address']"), &format!("127.0.0.1:{port}"));
        site.click("button.main");
        site.sees(&format!("The service {service} begins."));
        site.click("button.main");
        site.sees("in force");
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a line");
        assert!(line.starts_with(greeting), "{line}");
    }
    site.go("/services/smtp/mail");
    site.fill("[name='v|smtp|domains']", "example.org, example.net");
    site.click("button.main");
    site.sees("+domains = [\"example.org\", \"example.net\"]");
    site.click("button.main");
    site.sees("in force");
    assert!(site.file().contains("domains = [\"example.org\", \"example.net\"]"));
}

#[test]
fn sessions_are_found_and_ended() {
    let site = Site::new();
    let mut kim = site.bed.logged_in(KIM);
    let _lee = site.bed.logged_in(LEE);
    kim.command("NOOP");
    site.go("/sessions");
    site.sees("2 open");
    site.fill("input[name=user]", "kim");
    site.click(".filter button");
    site.sees("1 open");
    site.click("tbody input[type=checkbox]");
    site.click("button.danger");
    site.sees("The sessions end.");
    assert!(kim.rest().contains("* BYE"));
}

#[test]
fn a_back_end_is_taken_out_of_service_and_a_user_is_moved() {
    let site = Site::new();
    let mut kim = site.bed.logged_in(KIM);
    kim.command("NOOP");
    site.go("/backends");
    site.fill("select[name=over]", "60");
    site.click("button[value=maint]");
    site.sees("The back end is out of service.");
    assert!(kim.rest().contains("* BYE"));
    site.go("/map?user=kim");
    site.sees("a is out of service (maint)");
    site.fill("select[name=backend]", "b");
    site.click("button[value=move]");
    site.sees("The user is moved");
    let _kim = site.bed.logged_in(KIM);
    site.go("/map?user=kim");
    site.sees("where an administrator has moved this user");
    site.go("/backends");
    site.click("button[value=ready]");
    site.sees("The back end is in service again.");
}

#[test]
fn users_of_the_embedded_directory_are_added_changed_and_removed() {
    let site = Site::new();
    // Until now there is none: that is said, and no page breaks.
    site.go("/users");
    site.sees("the configuration has no embedded directory");
    let file = site.file().replace(
        "[directory.file]",
        "[directory.people]\ntype = \"sql\"\nurl = \"sqlite://people.db\"\n[directory.file]",
    );
    let file = file.replace("directories = [\"file\"]", "directories = [\"people\", \"file\"]");
    site.bed.write("gatepost.toml", &file);
    let output = site.gatepost.command(&["user", "add", "noa", "--backend", "a"]).expect("gatepost");
    assert!(output.status.success());
    site.gatepost.reload(&file).expect("a reload");
    site.go("/users");
    site.sees("1 users");
    site.fill("#name", "max");
    site.fill("#backend", "b");
    site.fill("#password", "a secret of max");
    site.fill("#services", "imap");
    site.click("button[value=set]");
    site.sees("2 users");
    let listed =
        || String::from_utf8_lossy(&site.gatepost.command(&["user", "list"]).expect("gatepost").stdout).into_owned();
    let line = |user: &str| listed().lines().find(|line| line.starts_with(user)).map(str::to_owned);
    assert!(
        line("max")
            .is_some_and(|line| line.contains('b') && line.contains("only imap") && !line.contains("no password"))
    );
    site.fill("#name", "max");
    site.fill("#state", "disable");
    site.click("button[value=set]");
    wait_for(|| line("max").is_some_and(|line| line.contains("disabled"))).expect("it is written");
    site.fill("input[name=user]", "noa");
    site.click(".filter button");
    site.sees("1 users");
    site.click("button[value=remove]");
    site.sees("Removed.");
    assert!(line("noa").is_none() && line("max").is_some());
    let log = site.gatepost.log();
    assert!(!log.contains("a secret of max") && !log.contains("ARGON2") && log.contains("set-user"), "{log}");
}

#[test]
fn what_a_directory_needs_is_set_in_forms_of_its_type() {
    let site = Site::new();
    site.bed.write("password", "a secret of Gatepost's");
    let file = site.file()
        + "[directory.people]\ntype = \"ldap\"\nurls = [\"ldap://127.0.0.1:1\"]\nbase = \"dc=example\"\nfilter = \"(uid=%u)\"\n";
    site.gatepost.reload(&file).expect("a reload");
    site.go("/map");
    let is_there = |name: &str| {
        let script = format!("document.querySelector(\"[name='{name}']\") !== null");
        site.browser.evaluate(&script).expect("a truth") == true
    };
    assert!(is_there("v|directory/people/bind|dn") && is_there("v|directory/people/fields|login"));
    assert!(!is_there("v|directory/people/client|id") && !is_there("v|directory/file/bind|dn"));
    site.browser.evaluate("document.querySelectorAll('details').forEach((part) => part.open = true)").expect("a page");
    site.fill("[name='v|directory/people/bind|dn']", "cn=gatepost,dc=example");
    site.fill("[name='v|directory/people/bind|password_file']", "password");
    site.fill("[name='v|directory/people/fields|login']", "uid");
    site.click("form.settings button.main");
    site.sees("Look at the change");
    site.sees("+dn = \"cn=gatepost,dc=example\"");
    site.click("button.main");
    site.sees("The change is in force and in the file.");
    let file = site.file();
    assert!(file.contains("[directory.people.bind]\ndn = \"cn=gatepost,dc=example\""), "{file}");
    assert!(file.contains("[directory.people.fields]\nlogin = \"uid\""), "{file}");
    // It is taken away as a whole.
    site.browser.evaluate("document.querySelectorAll('details').forEach((part) => part.open = true)").expect("a page");
    site.click("[name='r|directory/people/bind']");
    site.click("form.settings button.main");
    site.sees("Look at the change");
    site.click("button.main");
    site.sees("The change is in force and in the file.");
    assert!(!site.file().contains("people.bind"), "{}", site.file());
}

#[test]
fn networks_are_banned_and_the_log_is_followed() {
    let site = Site::new();
    site.go("/bans");
    site.fill("input[name=network]", "192.0.2.0/24");
    site.click("button.danger");
    site.sees("is turned away");
    site.sees("192.0.2.0/24");
    site.click("tbody button");
    site.sees("Nobody is banned.");
    site.go("/log");
    site.sees("following");
    // What a client calls itself is text here, whatever it looks like.
    let mut stranger = site.bed.secure();
    stranger.verdict("LOGIN \"<script>alert(1)</script>\" wrong");
    site.sees("Aborted login");
    site.sees("user=<\\u{3c}script\\u{3e}");
    let scripts = site.browser.evaluate("document.querySelectorAll('main script').length").expect("a number");
    assert_eq!(scripts, 0);
    site.go("/map?user=%3Cscript%3Ealert(1)%3C/script%3E");
    site.sees("<script>alert(1)</script>");
}

#[test]
fn who_may_only_look_sees_no_way_to_change_anything_and_has_none() {
    let site = Site::new();
    site.go("/administrators");
    site.fill("form:has(input[name=password]) input[name=name]", "viv");
    site.fill("input[name=password]", PASSWORD);
    site.fill("form:has(input[name=password]) select[name=role]", "viewer");
    site.click("button[value=person]");
    site.sees("Added, or changed.");
    site.go("/administrators");
    site.fill("section:last-of-type input[name=name]", "grafana");
    site.click("button[value=token]");
    site.sees("It is shown this once.");
    site.click(".who button");
    site.sees("Log in");
    site.fill("input[name=name]", "viv");
    site.fill("input[name=password]", "wrong and wrong");
    site.click("button.main");
    site.sees("the name or the password is wrong");
    site.fill("input[name=name]", "viv");
    site.fill("input[name=password]", PASSWORD);
    site.click("button.main");
    site.sees("Overview");
    for page in PAGES.iter().filter(|page| **page != "/administrators") {
        site.go(page);
        let forms = site.browser.evaluate("document.querySelectorAll('main form[method=post] button').length");
        assert_eq!(forms.expect("a number"), 0, "{page}");
    }
    site.go("/administrators");
    site.sees("this needs the role admin");
    // With the log-in taken away, the next page is the log-in page.
    let output = site.gatepost.command(&["admin", "remove", "viv"]).expect("gatepost");
    assert!(output.status.success());
    site.go("/sessions");
    site.sees("Log in");
}
