//! The documents say what the code does. `CAUCE_WRITE_DOCS=1` writes what can be written.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

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

/// Names of all tests in the source files below a folder. Those that are ignored do not count: something else must run them.
fn tests_below(folder: &Path, names: &mut HashSet<String>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            tests_below(&path, names);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
            names.extend(tests_in(&text));
        }
    }
}

/// Functions that stand right below a test's attribute.
fn tests_in(text: &str) -> Vec<String> {
    let (mut names, mut is_test) = (Vec::new(), false);
    for line in text.lines().map(str::trim) {
        if line == "#[test]" || line.starts_with("#[tokio::test") {
            is_test = true;
        } else if line.starts_with("#[ignore") {
            is_test = false;
        } else if let Some((_, rest)) = line.split_once("fn ")
            && std::mem::take(&mut is_test)
        {
            names.extend(rest.split_once('(').map(|(name, _)| name.to_owned()));
        }
    }
    names
}

#[test]
fn tests_are_found_by_their_attributes() {
    let text = "#[test]\nfn one() {}\n fn helper() {}\n#[tokio::test(flavor = \"x\")]\nasync fn two() {}\n\
        #[test]\n#[ignore = \"run by another\"]\nfn child() {}\n#[test]\n/// Why.\nfn three(n in 0..4) {}";
    assert_eq!(tests_in(text), ["one", "two", "three"]);
}

/// A promise and the tests that it names.
fn read_promise(item: &str) -> Result<(&str, Vec<&str>), &'static str> {
    let (sentence, rest) = item.rsplit_once(" (`").ok_or("no test is named behind it")?;
    let names = rest
        .strip_suffix("`)")
        .ok_or("what is in brackets at its end are no names of tests")?;
    let names: Vec<_> = names.split("`, `").collect();
    let are_names = names.iter().all(|name| {
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    });
    match (sentence.strip_suffix('.'), are_names) {
        (_, false) => Err("what is in brackets at its end are no names of tests"),
        (Some(inner), true) if !inner.contains(". ") => Ok((sentence, names)),
        _ => Err("a promise is one sentence"),
    }
}

#[test]
fn every_promise_is_one_sentence_and_names_tests_that_exist() {
    let (_, text) = document("GUARANTEES.md");
    let (begin, end) = ("<!-- promises -->", "<!-- end of promises -->");
    let start = text.find(begin).expect("the mark is there") + begin.len();
    let stop = text.find(end).expect("the mark is there");
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut tests = HashSet::new();
    for folder in [
        "broker/src",
        "broker/tests",
        "broker/cli",
        "clients/rust",
        "protocol/src",
        "protocol/tests",
    ] {
        tests_below(&root.join(folder), &mut tests);
    }
    let (mut promises, mut faults) = (0, Vec::new());
    for block in text[start..stop].split("\n\n").map(str::trim) {
        if block.is_empty() || block.starts_with("## ") && !block.contains('\n') {
            continue;
        }
        for item in format!("\n{block}").split("\n- ").skip(1) {
            promises += 1;
            let item = item.split_whitespace().collect::<Vec<_>>().join(" ");
            match read_promise(&item) {
                Err(fault) => faults.push(format!("{fault}: {item}")),
                Ok((sentence, names)) => {
                    let missing = names.into_iter().filter(|name| !tests.contains(*name));
                    faults.extend(missing.map(|name| format!("there is no test {name}: {sentence}")));
                }
            }
        }
        if !block.starts_with("- ") {
            faults.push(format!("only headings and promises stand here: {block}"));
        }
    }
    assert!(promises > 80, "{promises} promises were found");
    assert!(faults.is_empty(), "docs/GUARANTEES.md\n{}", faults.join("\n"));
}

#[test]
fn the_room_classes_on_the_page_for_operators_are_room_classes() {
    let (_, text) = document("OPERATING.md");
    let begin = "```json room-classes\n";
    let start = text.find(begin).expect("the example is there") + begin.len();
    let example = &text[start..][..text[start..].find("```").expect("it ends")];
    let classes: Vec<serde_json::Value> = serde_json::from_str(example).expect("JSON");
    let classes = cauce_broker::admin::read_classes(classes).unwrap_or_else(|e| panic!("{e}"));
    assert!(classes[0].durable && classes[0].rate.is_some() && classes[0].schemas.len() == 1);
}
