//! Lets libFuzzer search for bytes that break what reads them: the targets of the crate `fuzz`.
//!
//! The fuzzer wants code that tells where it has been. LLVM puts that in by a pass that stable rustc offers as well; arithmetic overflow and
//! debug assertions are checked besides.

use std::path::{Path, PathBuf};

use crate::{
    Error, Progress, Result, Workspace, command,
    compile::{cargo, rustc},
    files, program,
};

/// What makes rustc instrument code for libFuzzer: counters of edges, their addresses, and the operands of comparisons.
const INSTRUMENTATION: [&str; 6] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];
/// The longest input, in bytes.
const LONGEST: u32 = 16384;

/// When a search ends that finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// After so many inputs, which are the same ones every time.
    Runs(u64),
    /// After so many seconds.
    Seconds(u64),
}

/// The fuzzer, built.
#[derive(Clone, Debug)]
pub struct Fuzzer {
    program: PathBuf,
    corpora: PathBuf,
}

impl Fuzzer {
    /// Builds it.
    pub fn build(workspace: &Workspace, progress: Progress) -> Result<Self> {
        program::ensure(program::FUZZER, progress)?;
        let version = command::text(rustc().arg("-vV"))?;
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        let host =
            host.ok_or_else(|| Error::other("rustc -vV names no host", "use a rustc that rustup installed"))?;
        let flags: Vec<String> = INSTRUMENTATION.iter().map(|flag| format!("{flag:?}")).collect();
        let mut build = cargo();
        // With a target named, build scripts and macros are not instrumented.
        build
            .current_dir(workspace.root())
            .args([
                "build",
                "--package",
                "fuzz",
                "--features",
                "engine",
                "--profile",
                "fuzz",
            ])
            .args(["--target", host, "--target-dir"])
            .arg(workspace.target())
            .arg("--config")
            .arg(format!("target.{host}.rustflags=[{}]", flags.join(", ")));
        if !progress.is_shown() {
            build.arg("--quiet");
        }
        command::run_visibly(&mut build)?;
        Ok(Self {
            program: workspace.target().join(host).join("fuzz/fuzz"),
            corpora: workspace.root().join("fuzz/corpus"),
        })
    }

    /// The targets: each has a corpus.
    pub fn targets(&self) -> Result<Vec<String>> {
        let folders = files::context(std::fs::read_dir(&self.corpora), "read", &self.corpora)?;
        let mut names: Vec<String> = folders
            .flatten()
            .map(|folder| folder.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Ok(names)
    }

    /// Searches for inputs that break a target. It starts from the target's corpus; what it finds on the way is left in `found`, and an input that breaks something, too,
    /// under a name that the error tells.
    pub fn search(&self, target: &str, limit: Limit, found: &Path) -> Result<()> {
        let work = found.join(target);
        files::create_folder(&work)?;
        let limit = match limit {
            Limit::Runs(count) => ["-seed=1".into(), format!("-runs={count}")],
            Limit::Seconds(seconds) => [
                "-print_final_stats=1".into(),
                format!("-max_total_time={seconds}"),
            ],
        };
        let mut search = std::process::Command::new(&self.program);
        search
            .env("ATOLL_FUZZ_TARGET", target)
            .arg(&work)
            .arg(self.corpora.join(target))
            .args(limit)
            .arg(format!("-max_len={LONGEST}"))
            .arg(format!("-artifact_prefix={}/{target}-", found.display()))
            // A hang is a fault, too; seconds, generous for a busy machine.
            .args(["-timeout=60", "-rss_limit_mb=2048"]);
        command::run(&mut search)
    }
}
