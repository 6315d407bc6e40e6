//! Reads the crate's sources to find what ought to be compared. It relies on their being formatted by rustfmt.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Every public structure with its public fields, those of padding left out.
pub(crate) fn structures() -> Vec<(String, Vec<String>)> {
    let mut structures = Vec::new();
    for (_, text) in sources() {
        let mut open: Option<(String, Vec<String>)> = None;
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("pub struct ") {
                open = Some((identifier(rest), Vec::new()));
            } else if line == "}" {
                structures.extend(open.take());
            } else if let (Some((_, fields)), Some(rest)) = (&mut open, line.strip_prefix("    pub "))
                && !rest.starts_with('_')
            {
                fields.push(identifier(rest.strip_prefix("r#").unwrap_or(rest)));
            }
        }
    }
    assert!(
        structures.len() > 100,
        "only {} structures were found",
        structures.len()
    );
    structures
}

/// The paths of all modules that define constants by the crate's macros.
pub(crate) fn modules_with_constants() -> BTreeSet<String> {
    sources()
        .into_iter()
        .filter(|(_, text)| {
            text.lines()
                .any(|line| line == "consts! {" || line == "strings! {")
        })
        .map(|(path, _)| {
            path.with_extension("")
                .iter()
                .map(|part| format!("::{}", part.to_string_lossy()))
                .collect::<String>()
        })
        .collect()
}

fn identifier(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// The sources that mirror Xen's headers, with their paths below `src`. `atoll.rs` and what is below it are the project's own interface.
fn sources() -> Vec<(PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the sources can be read") {
            let path = entry.expect("the sources can be read").path();
            if path.is_dir() {
                if !path.ends_with("atoll") {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs")
                && !path.ends_with("atoll.rs")
            {
                let text = std::fs::read_to_string(&path).expect("the sources can be read");
                sources.push((
                    path.strip_prefix(&root)
                        .expect("it is below the root")
                        .to_path_buf(),
                    text,
                ));
            }
        }
    }
    sources
}
