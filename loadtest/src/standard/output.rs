//! Where the findings go. Everything is checked before the first run and written after the last.

use std::path::{Path, PathBuf};

use super::link;
use crate::report::marked::{Part, replaced, write_whole};
use crate::report::standard::Standard;

/// Where to write.
#[derive(Clone, Debug, Default, clap::Args)]
#[group(skip)]
pub(super) struct Where {
    /// JSON to a file, or to the standard output with - instead of the table.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// One page with the table and the plots.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// A directory for standard.json, index.html and each plot as SVG.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write the table into this document between <!-- bench:begin --> and <!-- bench:end -->. Its plots are those in --out, which must
    /// lie beside it or below.
    #[arg(long, value_name = "FILE", requires = "out")]
    document: Option<PathBuf>,
}

/// The same, checked.
#[derive(Debug)]
pub(super) struct Output {
    to: Where,
    /// From the document to the plots.
    plots: String,
}

impl Output {
    /// # Errors
    /// If something could not be written in the end; in words for people.
    pub(super) fn prepare(to: &Where) -> Result<Self, String> {
        let mut plots = ".".to_owned();
        if let (Some(document), Some(out)) = (&to.document, &to.out) {
            replaced(&read(document)?, Part::Standard, "")
                .map_err(|e| format!("{}: {e}", document.display()))?;
            plots = link(document, out).ok_or_else(|| {
                format!(
                    "{} must lie beside {} or below",
                    out.display(),
                    document.display()
                )
            })?;
        }
        if let Some(out) = &to.out {
            std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
        }
        Ok(Self {
            to: to.clone(),
            plots,
        })
    }

    /// # Errors
    /// If something cannot be written; in words for people.
    pub(super) fn write(&self, standard: &Standard) -> Result<(), String> {
        let json = serde_json::to_string_pretty(standard).map_err(|e| e.to_string())?;
        match self.to.json.as_deref() {
            Some(path) if path == Path::new("-") => println!("{json}"),
            path => {
                println!("{}", standard.markdown(&self.plots));
                if let Some(path) = path {
                    write_whole(path, &json)?;
                }
            }
        }
        if let Some(path) = &self.to.html {
            write_whole(path, &standard.page())?;
        }
        if let Some(out) = &self.to.out {
            write_whole(&out.join("standard.json"), &json)?;
            write_whole(&out.join("index.html"), &standard.page())?;
            for (name, svg) in standard.files() {
                write_whole(&out.join(name), &svg)?;
            }
        }
        // Last: it shows the files.
        if let Some(document) = &self.to.document {
            let markdown = standard.markdown(&self.plots);
            let text = replaced(&read(document)?, Part::Standard, &markdown)
                .map_err(|e| format!("{}: {e}", document.display()))?;
            write_whole(document, &text)?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::standard::Curve;

    #[test]
    fn what_cannot_be_written_in_the_end_is_refused_at_the_beginning() {
        let dir = std::env::temp_dir().join(format!("output-{}", std::process::id()));
        let docs = dir.join("docs");
        std::fs::create_dir_all(&docs).unwrap();
        let document = docs.join("page.md");
        let to = |out: &Path| Where {
            document: Some(document.clone()),
            out: Some(out.to_owned()),
            ..Where::default()
        };
        assert!(Output::prepare(&to(&docs.join("bench"))).is_err(), "no document");
        std::fs::write(&document, "no marks").unwrap();
        assert!(
            Output::prepare(&to(&docs.join("bench")))
                .unwrap_err()
                .contains("bench:begin")
        );
        let text = "before <!-- bench:begin --><!-- bench:end --> behind";
        std::fs::write(&document, text).unwrap();
        assert!(
            Output::prepare(&to(&dir.join("elsewhere")))
                .unwrap_err()
                .contains("below")
        );
        let output = Output::prepare(&to(&docs.join("bench"))).unwrap();
        assert_eq!(std::fs::read_to_string(&document).unwrap(), text);
        let standard = Standard {
            memory: vec![Curve {
                name: "idle".to_owned(),
                points: vec![(0.0, 1.0), (1.0, 2.0)],
            }],
            ..Standard::default()
        };
        output.write(&standard).unwrap();
        let written = std::fs::read_to_string(&document).unwrap();
        assert!(
            written.starts_with("before ") && written.contains("(bench/memory.svg)"),
            "{written}"
        );
        for file in ["memory.svg", "standard.json", "index.html"] {
            assert!(docs.join("bench").join(file).exists(), "{file}");
        }
        std::fs::remove_dir_all(dir).unwrap();
    }
}
