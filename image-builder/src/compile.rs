//! Compiles the hypervisor and the unikernels for the bare machine, in one call of cargo.

use std::{
    collections::BTreeMap,
    env,
    process::{Command, Stdio},
};

use crate::{Progress, Result, Workspace, command, executable::Executable, files, target_libraries};

/// The target that everything on the bare machine is built for.
pub const TARGET: &str = "x86_64-unknown-none";

/// Compiles the binaries of these crates; their contents by name, without sections that only tools read.
pub fn programs(
    workspace: &Workspace,
    names: &[&str],
    libraries: target_libraries::Choice,
    progress: Progress,
) -> Result<BTreeMap<String, Vec<u8>>> {
    let libraries = target_libraries::ensure(workspace, libraries, progress)?;
    let mut command = cargo();
    command
        .current_dir(workspace.root())
        .args(["build", "--release", "--target", TARGET]);
    command.arg("--target-dir").arg(workspace.target());
    if let Some(sysroot) = libraries {
        let flags = format!("[\"--sysroot\", \"{}\"]", sysroot.display());
        command
            .arg("--config")
            .arg(format!("target.{TARGET}.rustflags={flags}"));
    }
    for name in names {
        command.args(["--package", name, "--bin", name]);
    }
    // Cargo has a progress bar of its own; without a terminal it says only what is wrong.
    if !progress.is_shown() {
        command.arg("--quiet");
    }
    command::run_visibly(command.stdin(Stdio::null()))?;
    let folder = workspace.target().join(TARGET).join("release");
    let read = |name: &&str| {
        let bytes = files::read(&folder.join(name))?;
        Ok((name.to_string(), Executable::parse(name, &bytes)?.compact()))
    };
    names.iter().map(read).collect()
}

/// Arguments that make cargo build for the bare machine, whose libraries are there afterwards.
pub fn for_target(
    workspace: &Workspace,
    libraries: target_libraries::Choice,
    progress: Progress,
) -> Result<Vec<String>> {
    let mut arguments = vec!["--target".to_string(), TARGET.to_string()];
    if let Some(sysroot) = target_libraries::ensure(workspace, libraries, progress)? {
        let flags = format!("[\"--sysroot\", \"{}\"]", sysroot.display());
        arguments.extend([
            "--config".to_string(),
            format!("target.{TARGET}.rustflags={flags}"),
        ]);
    }
    Ok(arguments)
}

/// Cargo, without what this process inherited for its own compilation: flags in the environment would replace those of the target.
pub fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    clean(&mut command);
    command
}

/// The compiler that cargo uses.
pub fn rustc() -> Command {
    let mut command = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    clean(&mut command);
    command
}

fn clean(command: &mut Command) {
    for name in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "CARGO_BUILD_TARGET",
    ] {
        command.env_remove(name);
    }
}
