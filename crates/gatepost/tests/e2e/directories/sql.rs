//! SQL databases, with real `PostgreSQL` and `MariaDB` servers and `SQLite` files.

use std::time::{Duration, Instant};

use gatepost_lab::{DATABASE_PASSWORD, Database, DatabaseKind, Mailbox};

use super::{REFUSED, UNAVAILABLE};
use crate::bed::{Bed, KIM, LEE};

/// kim with a hash, lee disabled, max twice.
fn tables() -> String {
    let hash = "{SSHA}O9TyzEN9oWiQ/ZGknVFdVHGPf1Y4twRb"; // of "secret"
    format!(
        "CREATE TABLE people (name varchar(100), hash varchar(200), off boolean, store varchar(50), port smallint); \
         INSERT INTO people VALUES ('kim@example.org', '{hash}', false, 'store', NULL), \
         ('lee@example.org', '{hash}', true, 'store', NULL), ('max@example.org', '{hash}', false, 'store', NULL), \
         ('max@example.org', '{hash}', false, 'store', NULL);"
    )
}

const QUERY: &str = "SELECT hash AS password, off AS disabled, store AS backend, port FROM people WHERE name = :user AND ':x' <> :local";

/// The store takes whatever password the directory has found right.
const KIM_AT_STORE: Mailbox<'_> = Mailbox { user: "kim@example.org", password: "secret" };

fn configuration(bed: &Bed, store: u16, directory: &str) -> String {
    bed.configuration(&format!(
        "authenticate = \"proxy\"\ndirectory = \"people\"\n[imap.backend]\ntls = \"none\"\n\
         [map]\ndirectories = [\"people\"]\ndomain = \"example.org\"\n\
         [backend.store]\nhost = \"127.0.0.1\"\nimap = {{ port = {store} }}\n\
         [directory.people]\ntype = \"sql\"\n{directory}\n"
    ))
}

/// What every database must do alike.
fn serves_accounts(kind: DatabaseKind, scheme: &str) {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM_AT_STORE]);
    let mut database = Database::start(kind, &bed.path("db"), &bed.store, &tables()).expect("a database");
    bed.write("db.secret", DATABASE_PASSWORD);
    let directory = format!(
        "url = \"{scheme}://gatepost@localhost:{}/gatepost\"\npassword_file = \"db.secret\"\ntls = \"required\"\nca = \"ca.pem\"\n\
         timeout = \"2s\"\nquery = \"{QUERY}\"",
        database.port
    );
    let configuration = configuration(&bed, store.imap, &directory);
    let gatepost = bed.gatepost(&configuration);
    let log_in = |user, password| bed.secure().try_log_in(Mailbox { user, password });
    assert!(log_in("kim", "secret").starts_with("OK "), "{}", gatepost.log());
    assert_eq!(log_in("kim", "wrong"), REFUSED);
    assert_eq!(log_in("nobody", "secret"), REFUSED);
    assert_eq!(log_in("lee", "wrong"), REFUSED);
    assert_eq!(log_in("lee", "secret"), "NO [CONTACTADMIN] This account is disabled.");
    assert_eq!(log_in("max", "secret"), UNAVAILABLE);
    gatepost.wait_for_log("several rows match").expect("the reason");
    for name in ["kim@example.org'--", "' OR '1'='1", "k%", "kim@example.org\\\\", ":user"] {
        assert_eq!(bed.secure().verdict(&format!("LOGIN \"{name}\" secret")), REFUSED, "{name}");
    }
    let explained = gatepost.command(&["explain", "kim"]).expect("an answer");
    assert!(explained.status.success(), "{}", String::from_utf8_lossy(&explained.stdout));

    database.server.kill().expect("an end");
    assert_eq!(log_in("kim", "secret"), UNAVAILABLE);
    database.resume().expect("a start");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !log_in("kim", "secret").starts_with("OK ") {
        assert!(Instant::now() < deadline, "{}", gatepost.log());
    }
    let log = gatepost.log();
    assert!(!log.contains(DATABASE_PASSWORD), "{log}");

    // A certificate that nobody vouches for ends it.
    let stranger = Bed::new();
    let other = stranger.authority.certificate.display().to_string();
    gatepost.reload(&configuration.replace("ca = \"ca.pem\"", &format!("ca = {other:?}"))).expect("a reload");
    assert_eq!(log_in("kim", "secret"), UNAVAILABLE);
}

#[test]
fn postgresql_serves_accounts() {
    serves_accounts(DatabaseKind::Postgres, "postgres");
}

#[test]
fn mariadb_serves_accounts() {
    serves_accounts(DatabaseKind::MariaDb, "mysql");
}

#[test]
fn a_sqlite_file_of_ones_own_is_read_and_never_written() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM_AT_STORE]);
    bed.sqlite("own.db", &tables());
    let before = std::fs::read(bed.path("own.db")).expect("a file");
    let _gatepost =
        bed.gatepost(&configuration(&bed, store.imap, &format!("url = \"sqlite://own.db\"\nquery = \"{QUERY}\"")));
    let log_in = |user, password| bed.secure().try_log_in(Mailbox { user, password });
    assert!(log_in("kim", "secret").starts_with("OK "));
    assert_eq!(log_in("lee", "secret"), "NO [CONTACTADMIN] This account is disabled.");
    assert_eq!(log_in("nobody", "secret"), REFUSED);
    assert_eq!(std::fs::read(bed.path("own.db")).expect("a file"), before);
}

#[test]
fn a_password_that_the_directory_holds_is_never_the_users_mistake() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM_AT_STORE]);
    bed.sqlite("own.db", "");
    let query =
        "SELECT '{PLAIN}mine' AS password, 'store' AS backend, 'out of date' AS login_password WHERE :user <> ''";
    let gatepost =
        bed.gatepost(&configuration(&bed, store.imap, &format!("url = \"sqlite://own.db\"\nquery = \"{query}\"")));
    let log_in = |password| bed.secure().try_log_in(Mailbox { user: "kim", password });
    assert_eq!(log_in("mine"), UNAVAILABLE);
    gatepost.wait_for_log("refuses the log-in that the directory holds").expect("the reason");
    assert_eq!(log_in("wrong"), REFUSED);
    assert!(!gatepost.log().contains("out of date"));
    // Another's row is nobody's.
    let query = "SELECT 'lee' AS name, '{PLAIN}mine' AS password, 'store' AS backend WHERE :user <> ''";
    let other = configuration(&bed, store.imap, &format!("url = \"sqlite://own.db\"\nquery = \"{query}\""));
    gatepost.reload(&other).expect("a reload");
    assert_eq!(log_in("mine"), REFUSED);
}

#[test]
fn mistakes_are_said_before_anything_starts() {
    let bed = Bed::new();
    let refusal = |directory: &str| bed.refusal(&configuration(&bed, 143, directory));
    let said = refusal("url = \"postgres://db.example.org/mail\"\nquery = \"SELECT 1\"");
    assert!(said.contains("neither :user nor :local"), "{said}");
    let said = refusal("url = \"postgres://db.example.org/mail\"");
    assert!(said.contains("needs `query`"), "{said}");
    let said = refusal("url = \"postgres:///mail?host=db.example.org&sslmode=disable\"\nquery = \"SELECT :user\"");
    assert!(said.contains("has host behind the question mark") && said.contains("has sslmode"), "{said}");
    let said = refusal("url = \"oracle://db\"\nquery = \"SELECT :user\"");
    assert!(said.contains("expected sqlite:///"), "{said}");
    let said = refusal("url = \"mysql://db/mail\"\nquery = \"SELECT :usr, :user\"");
    assert!(said.contains(":usr, which is no parameter"), "{said}");
}

#[test]
fn a_column_that_means_nothing_is_named() {
    let bed = Bed::new();
    let store = bed.dovecot("store", &[KIM, LEE]);
    bed.sqlite("empty.db", "");
    let query = "SELECT 'store' AS backend, :user AS who";
    let gatepost =
        bed.gatepost(&configuration(&bed, store.imap, &format!("url = \"sqlite://empty.db\"\nquery = \"{query}\"")));
    assert_eq!(bed.secure().try_log_in(KIM), UNAVAILABLE);
    let said = gatepost.wait_for_log("a column who").expect("the reason");
    assert!(said.contains("known are name, backend, port, password"), "{said}");
}
