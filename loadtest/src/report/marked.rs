//! The part of a document that is written by a program, between two marks. What stands around them is people's.

use std::path::Path;

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The standard set's.
    Standard,
    /// That of the benches within the process.
    Micro,
}

impl Part {
    /// Its begin and its end.
    const fn marks(self) -> [&'static str; 2] {
        match self {
            Self::Standard => ["<!-- bench:begin -->", "<!-- bench:end -->"],
            Self::Micro => ["<!-- bench-micro:begin -->", "<!-- bench-micro:end -->"],
        }
    }
}

/// The text with `content` between the part's marks.
///
/// # Errors
/// If there are not exactly one begin and, behind it, one end; in words for people.
pub(crate) fn replaced(text: &str, part: Part, content: &str) -> Result<String, String> {
    let [begin, end] = part.marks();
    let once = |mark: &str| text.matches(mark).count() == 1;
    let parts = text.split_once(begin).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(end)?;
        Some((before, after))
    });
    match parts {
        Some((before, after)) if once(begin) && once(end) => {
            Ok(format!("{before}{begin}\n\n{}\n\n{end}{after}", content.trim()))
        }
        _ => Err(format!(
            "one {begin} and behind it one {end} must say where the figures go"
        )),
    }
}

/// Replaces a file as a whole: whoever reads it finds the old one or the new one.
///
/// # Errors
/// If it cannot be written; in words for people.
pub(crate) fn write_whole(path: &Path, text: &str) -> Result<(), String> {
    let words = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    std::fs::write(&beside, text).map_err(words)?;
    std::fs::rename(&beside, path).map_err(|e| {
        let _ = std::fs::remove_file(&beside);
        words(e)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part::Standard;
    const BEGIN: &str = PART.marks()[0];
    const END: &str = PART.marks()[1];

    #[test]
    fn only_what_stands_between_the_marks_changes_and_a_repeat_changes_nothing() {
        let text = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nand more\n");
        let once = replaced(&text, PART, "| new |\n").unwrap();
        assert_eq!(
            once,
            format!("# Title\n\n{BEGIN}\n\n| new |\n\n{END}\n\nand more\n")
        );
        assert_eq!(replaced(&once, PART, "| new |").unwrap(), once);
    }

    #[test]
    fn a_document_without_its_marks_is_refused() {
        for text in [
            String::new(),
            BEGIN.to_owned(),
            format!("{END}{BEGIN}"),
            format!("{BEGIN}{BEGIN}{END}"),
            format!("{BEGIN}{END}{END}"),
        ] {
            assert!(
                replaced(&text, PART, "x").unwrap_err().contains("bench:begin"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_file_is_replaced_whole_and_nothing_stays_beside_it() {
        let dir = std::env::temp_dir().join(format!("marked-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let file = dir.join("page.md");
        std::fs::write(&file, "old").unwrap();
        write_whole(&file, "new").unwrap();
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        assert!(write_whole(&dir.join("none/page.md"), "new").is_err());
        std::fs::remove_dir_all(dir).unwrap();
    }
}
