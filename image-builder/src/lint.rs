//! The checks that code has to pass: formatting, and lints with warnings denied, on the host and for the bare machine.

use crate::{
    Result, Workspace, command,
    compile::{TARGET, cargo},
    workspace::BARE_CRATES,
};

/// Runs every check, each with its output on the terminal.
pub fn run(workspace: &Workspace) -> Result<()> {
    let mut format = cargo();
    command::run_visibly(
        format
            .args(["fmt", "--all", "--check"])
            .current_dir(workspace.root()),
    )?;
    clippy(workspace, &["--workspace", "--all-targets"])?;
    let mut bare = vec!["--target", TARGET];
    for name in BARE_CRATES {
        bare.extend(["--package", name]);
    }
    clippy(workspace, &bare)
}

fn clippy(workspace: &Workspace, what: &[&str]) -> Result<()> {
    let mut clippy = cargo();
    clippy
        .arg("clippy")
        .args(what)
        .arg("--target-dir")
        .arg(workspace.target())
        .current_dir(workspace.root());
    command::run_visibly(clippy.args(["--", "-D", "warnings"]))
}
