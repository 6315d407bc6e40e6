//! The checks that code has to pass: formatting, and lints with warnings denied, on the host and for the bare machine.

use crate::{
    Progress, Result, Workspace, command,
    compile::{self, cargo},
    target_libraries,
    workspace::BARE_CRATES,
};

/// Runs every check, each with its output on the terminal.
pub fn run(workspace: &Workspace, libraries: target_libraries::Choice, progress: Progress) -> Result<()> {
    let mut format = cargo();
    command::run_visibly(
        format
            .args(["fmt", "--all", "--check"])
            .current_dir(workspace.root()),
    )?;
    clippy(workspace, &["--workspace".into(), "--all-targets".into()])?;
    let mut bare = compile::for_target(workspace, libraries, progress)?;
    for name in BARE_CRATES {
        bare.extend(["--package".into(), name.into()]);
    }
    clippy(workspace, &bare)
}

fn clippy(workspace: &Workspace, what: &[String]) -> Result<()> {
    let mut clippy = cargo();
    clippy
        .arg("clippy")
        .args(what)
        .arg("--target-dir")
        .arg(workspace.target())
        .current_dir(workspace.root());
    command::run_visibly(clippy.args(["--", "-D", "warnings"]))
}
