//! The documents say what the code does. `CAUCE_WRITE_DOCS=1` writes what can be written.

use std::path::PathBuf;

fn document(name: &str) -> (PathBuf, String) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path, text)
}

#[test]
fn every_setting_is_on_the_page_for_operators_with_its_own_words() {
    let (path, text) = document("OPERATING.md");
    let (begin, end) = (
        "<!-- settings: written by the test broker/tests/documents.rs -->\n",
        "<!-- end of settings -->",
    );
    let start = text.find(begin).expect("the mark is there") + begin.len();
    let stop = text.find(end).expect("the mark is there");
    let expected = cauce_broker::config::markdown();
    if std::env::var_os("CAUCE_WRITE_DOCS").is_some() {
        std::fs::write(&path, format!("{}{expected}{}", &text[..start], &text[stop..]))
            .expect("the page can be written");
        return;
    }
    assert!(
        text[start..stop] == expected,
        "run CAUCE_WRITE_DOCS=1 cargo test -p cauce-broker --test documents"
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let readme = docs.join("../README.md");
    let pages = std::fs::read_dir(&docs)
        .expect("the folder is there")
        .filter_map(|e| Some(e.ok()?.path()));
    for page in pages
        .filter(|p| p.extension().is_some_and(|e| e == "md"))
        .chain([readme])
    {
        let text = std::fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let target = link.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let path = page.parent().expect("a page lies somewhere").join(target);
            assert!(path.exists(), "{}: {link} leads nowhere", page.display());
        }
    }
}
