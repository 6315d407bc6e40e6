//! What is known to be hard, and a short search for more.

use std::{fs, path::PathBuf};

use fuzz::TARGETS;
use image_builder::{
    Progress, Workspace,
    fuzz::{Fuzzer, Limit},
};

/// Inputs that each target's search tries beyond its corpus.
const RUNS: u64 = 20_000;

fn corpus(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(name)
}

#[test]
fn every_known_input_is_survived() {
    for target in TARGETS {
        let folder = corpus(target.name);
        let mut files: Vec<PathBuf> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{} has no corpus: {error}", target.name))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "the corpus of {} is empty", target.name);
        for file in &files {
            println!("{}: {}", target.name, file.display());
            (target.run)(&fs::read(file).unwrap());
        }
        println!("{}: {} inputs", target.name, files.len());
    }
}

#[test]
fn corpora_and_targets_are_the_same() {
    let mut folders: Vec<String> = fs::read_dir(corpus(""))
        .unwrap()
        .map(|folder| folder.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    let mut names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    folders.sort();
    names.sort();
    assert_eq!(folders, names);
}

#[test]
fn a_short_search_finds_nothing() {
    let workspace = Workspace::find().unwrap();
    let fuzzer = Fuzzer::build(&workspace, Progress::hidden()).unwrap();
    let found = tempfile::tempdir().unwrap();
    for target in TARGETS {
        fuzzer
            .search(target.name, Limit::Runs(RUNS), found.path())
            .unwrap_or_else(|error| panic!("{}: {:?}", target.name, miette::Report::new(error)));
        println!("{}: {RUNS} inputs tried", target.name);
    }
}
