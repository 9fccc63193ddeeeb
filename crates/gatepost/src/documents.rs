//! Documents that are made of the code, and kept with the others.

use std::path::Path;

/// Holds a document to what it should be `today`, made of what it is; with `GATEPOST_WRITE_DOCS=1` it is written anew.
pub(crate) fn keep(name: &str, today: impl FnOnce(&str) -> String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    let today = today(&kept);
    if std::env::var_os("GATEPOST_WRITE_DOCS").is_some() {
        std::fs::write(&path, today).expect("a file");
    } else {
        let how = "GATEPOST_WRITE_DOCS=1 cargo test -p gatepost --lib writes it";
        assert!(kept == today, "docs/{name} is not today's: {how}");
    }
}
