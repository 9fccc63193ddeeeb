//! House rules that can be tests.

use std::path::{Path, PathBuf};

/// No file is longer than one can keep in view.
const LINES_MAX: usize = 600;

/// Modules from the top of the house to the ground; each may use only those below it. Those in one
/// group may use each other.
const LAYERS: [&[&str]; 17] = [
    &["cli"],
    &["control"],
    &["explain"],
    &["admin"],
    &["acceptor"],
    &["worker"],
    &["world"],
    &["service"],
    &["story"],
    &["map"],
    &["backend", "auth"],
    &["defence"],
    &["ledger", "directory", "whole_file", "cache", "overrides", "reports", "rendezvous", "sliding", "stamp"],
    &["log", "traces"],
    &["net", "metrics", "secret_file"],
    &["config"],
    &["documents"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() && name != "target" && name != "corpus" {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn all_sources() -> Vec<PathBuf> {
    ["crates", "xtask", "fuzz"].iter().flat_map(|name| sources(&root().join(name))).collect()
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a file")
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let layer = |module: &str| LAYERS.iter().position(|group| group.contains(&module));
    let src = root().join("crates/gatepost/src");
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).expect("a file of ours");
        let module =
            inside.iter().next().and_then(|first| first.to_str()).expect("a name").trim_end_matches(".rs").to_owned();
        if ["main", "lib", "fuzzing"].contains(&module.as_str()) {
            continue;
        }
        let own = layer(&module).unwrap_or_else(|| panic!("{module} stands in no layer"));
        for (number, line) in text(&path).lines().enumerate() {
            assert!(!line.contains("crate::{"), "{}:{}: a module a line", path.display(), number + 1);
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect();
                let Some(other) = layer(&used) else { continue };
                assert!(other >= own, "{}:{}: {module} reaches up to {used}", path.display(), number + 1);
            }
        }
    }
}

#[test]
fn files_begin_with_what_they_are_and_end_in_view() {
    for path in all_sources() {
        let text = text(&path);
        assert!(text.starts_with("//! "), "{} does not say what it is", path.display());
        let lines = text.lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines", path.display());
    }
}

#[test]
fn nothing_unfinished_or_banned_is_left() {
    // Put together here, so that this file doesn't hold what it looks for.
    let banned = [
        ["todo", "!("].concat(),
        ["unimplemented", "!("].concat(),
        ["dbg", "!("].concat(),
        ["FIX", "ME"].concat(),
        ["un", "safe {"].concat(),
    ];
    for path in all_sources() {
        let text = text(&path);
        for word in &banned {
            assert!(!text.contains(word.as_str()), "{} has {word}", path.display());
        }
    }
    // A session's way has no place where a peer could make it panic.
    for path in sources(&root().join("crates/wire/src")) {
        let text = text(&path);
        let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
        assert!(
            !code.contains(".expect(\"") && !code.contains(".unwrap()") && !code.contains("panic!("),
            "{} can panic",
            path.display()
        );
    }
}

/// Words that may stand in few places.
struct Kept {
    words: &'static [&'static str],
    /// A folder below `crates`, in which they may not stand,
    out_of: &'static str,
    /// but for these of its folders and files.
    but: &'static [&'static str],
    why: &'static str,
}

const KEPT: &[Kept] = &[
    Kept {
        words: &["Instant::now", "SystemTime::now", "std::net::Tcp", "std::fs", "std::env", "println!"],
        out_of: "wire/src",
        but: &[],
        why: "no I/O, no clock",
    },
    Kept {
        words: &[" println!", "process::exit"],
        out_of: "gatepost/src",
        but: &["cli"],
        why: "the command line alone prints and exits",
    },
    Kept { words: &["eprintln!"], out_of: "gatepost/src", but: &["cli", "log"], why: "what is said goes to the log" },
    Kept {
        words: &["thread::sleep"],
        out_of: "gatepost/src",
        but: &["cli", "log", "control/upgrade.rs"],
        why: "only threads of their own, and a process at its end, may wait so",
    },
    Kept { words: &["std::fs"], out_of: "gatepost/src/service", but: &[], why: "a session opens no file" },
    Kept {
        words: &["\"gatepost_"],
        out_of: "gatepost/src",
        // API tokens begin so too.
        but: &["metrics/families.rs", "admin/accounts.rs"],
        why: "each metric begins in one place",
    },
    Kept {
        words: &[
            "Reply::ours(",
            "[AUTHENTICATIONFAILED]",
            "[CLIENTBUG]",
            "[UNAVAILABLE]",
            "[CONTACTADMIN]",
            "[SYS/",
            " 4.4.2 ",
            " 5.5.1 ",
        ],
        out_of: "gatepost/src",
        but: &[],
        why: "what a client is told stands in wire, a place for each protocol",
    },
];

#[test]
fn what_has_few_places_stands_nowhere_else() {
    let crates = root().join("crates");
    for Kept { words, out_of, but, why } in KEPT {
        let folder = crates.join(out_of);
        let mut used = vec![false; but.len()];
        for path in sources(&folder) {
            let text = text(&path);
            let code = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
            let Some(word) = words.iter().find(|word| code.contains(**word)) else { continue };
            let place = but.iter().position(|place| path.starts_with(folder.join(place)));
            let place = place.unwrap_or_else(|| panic!("{} has {word}: {why}", path.display()));
            used[place] = true;
        }
        // An exception that nothing needs any more goes.
        assert!(used.iter().all(|used| *used), "{words:?} stand no more in all of {but:?}");
    }
}

#[test]
fn folders_say_what_belongs_there() {
    for folder in ["crates/gatepost/src", "crates/wire/src"] {
        for path in sources(&root().join(folder)).into_iter().filter(|path| path.ends_with("mod.rs")) {
            let text = text(&path);
            let head: String = text.lines().take_while(|line| line.starts_with("//!")).collect();
            assert!(head.contains("belong"), "{} doesn't say what belongs there", path.display());
        }
    }
}

/// Texts that may be called as secrets are, and are none: hashes, names of attributes, and what is on its way to a file or
/// page at once.
const NO_SECRETS: &[(&str, &str)] = &[
    ("admin/http/console", "token"),
    ("admin/mod.rs", "password"),
    ("admin/accounts.rs", "password"),
    ("config/directory/ldap.rs", "password"),
    ("config/directory/ldap.rs", "login_password"),
];

#[test]
fn secrets_are_of_their_own_type() {
    let src = root().join("crates/gatepost/src");
    let mut used = vec![false; NO_SECRETS.len()];
    for path in sources(&src) {
        for (number, line) in text(&path).lines().enumerate() {
            let Some((name, kind)) = line.trim().trim_end_matches(',').split_once(": ") else { continue };
            let name = name.rsplit(' ').next().unwrap_or_default();
            let is_called_so =
                ["password", "secret", "token"].iter().any(|word| name == *word || name.ends_with(&format!("_{word}")));
            // Of a setting, its type stands before its default or its meaning.
            let kind = kind.split([',', '=']).next().unwrap_or_default().trim();
            let is_plain = ["String", "Vec<u8>", "Option<String>", "Option<Vec<u8>>"].contains(&kind);
            if !is_called_so || !is_plain {
                continue;
            }
            let known =
                NO_SECRETS.iter().position(|(place, known)| path.starts_with(src.join(place)) && *known == name);
            used[known.unwrap_or_else(|| panic!("{}:{}: {line}", path.display(), number + 1))] = true;
        }
    }
    assert!(used.iter().all(|used| *used), "some of {NO_SECRETS:?} are no more");
}

#[test]
fn banned_crates_are_not_built() {
    let deny = text(&root().join("deny.toml"));
    let names: Vec<_> =
        deny.lines().filter_map(|line| line.trim().strip_prefix("{ crate = \"")?.split('"').next()).collect();
    assert!(names.len() >= 4, "{names:?}");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = std::process::Command::new(cargo);
    command
        .args(["tree", "--workspace", "--edges", "all", "--prefix", "none", "--locked", "--offline"])
        .current_dir(root());
    let output = command.output().expect("cargo");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(tree.contains("aws-lc-rs v"), "{tree}");
    for name in names {
        assert!(!tree.lines().any(|line| line.starts_with(&format!("{name} v"))), "{name} is banned by deny.toml");
    }
}

/// Gatepost's own commands, over a configuration of the documents with its files in a folder.
struct Documented {
    folder: tempfile::TempDir,
}

impl Documented {
    fn new(toml: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let authority = gatepost_lab::Authority::create(folder.path()).expect("an authority");
        let certificate = authority.issue("mail", &["mail.example.org"]).expect("a certificate");
        assert!(certificate.chain.ends_with("mail.pem") && certificate.key.ends_with("mail.key"));
        let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("a file");
        write("users", "kim:::::::host=store-b\n");
        ["ldap.secret", "db.secret", "auth.key", "store.secret"].into_iter().for_each(|name| write(name, "a secret\n"));
        let toml = toml.replace("/etc/gatepost/", "");
        // Authorities of the system may not be there, nor be needed.
        let has_link = toml.contains("[imap.backend]");
        let toml = if has_link { toml } else { toml.replacen("[imap]", "[imap.backend]\nca = \"ca.pem\"\n[imap]", 1) };
        write("gatepost.toml", &toml);
        Self { folder }
    }

    /// Whether a command succeeds, and what it says.
    fn run(&self, arguments: &[&str]) -> (bool, String) {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gatepost"));
        command.arg("--config").arg(self.folder.path().join("gatepost.toml")).args(arguments);
        let output = command.output().expect("gatepost");
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), said)
    }
}

/// The configurations in a document.
fn configurations(path: &Path) -> Vec<String> {
    let text = text(path);
    text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_readmes_configuration_is_sound() {
    let toml = configurations(&root().join("README.md")).remove(0);
    assert!(toml.lines().filter(|line| !line.trim().is_empty()).count() < 20, "a first configuration fits in 20 lines");
    let documented = Documented::new(&toml);
    let (is_sound, said) = documented.run(&["check"]);
    assert!(is_sound, "{said}");
    let (is_placed, said) = documented.run(&["explain", "kim"]);
    assert!(is_placed && said.contains("imap-b.example.org"), "{said}");
}

#[test]
fn the_documents_configurations_are_sound() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("docs")).expect("documents").flatten() {
        // Parts of a configuration stand in the documents too.
        for toml in configurations(&entry.path()).iter().filter(|toml| toml.starts_with("[[tls.certificate]]")) {
            let (is_sound, said) = Documented::new(toml).run(&["check"]);
            assert!(is_sound, "{}: {said}", entry.path().display());
            count += 1;
        }
    }
    assert!(count >= 6, "{count}");
}
