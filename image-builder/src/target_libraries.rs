//! The libraries `core`, `alloc` and `compiler_builtins` of the bare target. Where they are not installed and rustup cannot fetch them,
//! they are built from Debian's `rust-src` of the very version of the compiler.
//!
//! Building them is the one step that tells the compiler to accept what only the standard libraries may use (`RUSTC_BOOTSTRAP`); nothing
//! of the project itself is compiled that way.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    Error, Progress, Result, Workspace,
    apt::{self, Apt},
    command,
    compile::{TARGET, rustc},
    files, program,
};

/// Releases of Debian that may have the compiler's version.
const RELEASES: [&str; 4] = ["trixie-backports", "forky", "forky-backports", "sid"];

/// Where the target's libraries come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// The installed ones, or those that rustup fetches, or else built from source.
    #[default]
    Auto,
    /// Built from source in any case.
    Source,
}

/// Makes sure that they are there. A path is a sysroot that the compiler has to be told of.
pub fn ensure(workspace: &Workspace, choice: Choice, progress: Progress) -> Result<Option<PathBuf>> {
    if choice == Choice::Auto {
        if installed()? {
            return Ok(None);
        }
        let step = progress.step(format!("fetching the libraries of {TARGET}"));
        let added = program::find("rustup").is_some()
            && command::run(program::new("rustup").args(["target", "add", TARGET])).is_ok();
        if added && installed()? {
            step.done();
            return Ok(None);
        }
    }
    let version = version()?;
    let sysroot = workspace.build().join("sysroot").join(&version);
    files::make_folder(&sysroot, |folder| build(workspace, &version, folder, progress))?;
    Ok(Some(sysroot))
}

fn installed() -> Result<bool> {
    let folder = command::text(rustc().args(["--print", "target-libdir", "--target", TARGET]))?;
    Ok(holds_core(Path::new(folder.trim())))
}

fn holds_core(folder: &Path) -> bool {
    let mut entries = folder.read_dir().into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// The compiler's release, such as `1.95.0`.
fn version() -> Result<String> {
    let text = command::text(rustc().arg("-vV"))?;
    let release = text.lines().find_map(|line| line.strip_prefix("release: "));
    release
        .map(str::to_string)
        .ok_or_else(|| Error::other("rustc does not tell its release", "install Rust by rustup"))
}

fn build(workspace: &Workspace, version: &str, sysroot: &Path, progress: Progress) -> Result<()> {
    let library = source(workspace, version, progress)?;
    let libraries = sysroot.join("lib/rustlib").join(TARGET).join("lib");
    files::create_folder(&libraries)?;
    let step = progress.step(format!("building the libraries of {TARGET}"));
    let builder = Builder {
        library: &library,
        libraries: &libraries,
    };
    builder.compile("core", "core/src/lib.rs", &[], &[])?;
    let builtins = [
        "compiler-builtins/compiler-builtins/src/lib.rs",
        "compiler-builtins/src/lib.rs",
    ];
    let builtins = builtins
        .iter()
        .find(|path| library.join(path).is_file())
        .ok_or_else(|| {
            Error::other(
                "rust-src has no compiler-builtins",
                format!("install the target: rustup target add {TARGET}"),
            )
        })?;
    let features = [
        "feature=\"compiler-builtins\"",
        "feature=\"mem\"",
        "feature=\"unmangled-names\"",
    ];
    builder.compile("compiler_builtins", builtins, &features, &["core"])?;
    builder.compile("alloc", "alloc/src/lib.rs", &[], &["core", "compiler_builtins"])?;
    step.done();
    Ok(())
}

struct Builder<'a> {
    library: &'a Path,
    libraries: &'a Path,
}

impl Builder<'_> {
    fn compile(&self, name: &str, source: &str, settings: &[&str], needs: &[&str]) -> Result<()> {
        let mut command: Command = rustc();
        command.env("RUSTC_BOOTSTRAP", "1").arg(self.library.join(source));
        command.args([
            "--crate-name",
            name,
            "--crate-type",
            "rlib",
            "--edition",
            "2024",
            "--target",
            TARGET,
        ]);
        command.args([
            "-C",
            "opt-level=3",
            "-C",
            "panic=abort",
            "-C",
            "relocation-model=static",
        ]);
        command.args([
            "-C",
            "force-frame-pointers=yes",
            "-C",
            "embed-bitcode=yes",
            "-C",
            "codegen-units=1",
        ]);
        command.args([
            "-Z",
            "force-unstable-if-unmarked",
            "--cap-lints",
            "allow",
            "-C",
            "metadata=atoll",
        ]);
        command.args(["-C", &format!("extra-filename=-{}", "atoll")]);
        for setting in settings {
            command.args(["--cfg", setting]);
        }
        for need in needs {
            let path = self.libraries.join(format!("lib{need}-atoll.rlib"));
            command
                .arg("--extern")
                .arg([OsStr::new(need), path.as_os_str()].join(OsStr::new("=")));
        }
        command.arg("--out-dir").arg(self.libraries);
        command::run(&mut command)
    }
}

/// The folder of the libraries' sources, from the package of the compiler's very version.
fn source(workspace: &Workspace, version: &str, progress: Progress) -> Result<PathBuf> {
    let unavailable = |why: &str| {
        let help = format!("connect to the network and run: rustup target add {TARGET}");
        Error::other(
            format!("the libraries of {TARGET} are not installed, and {why}"),
            help,
        )
    };
    let mirror = Apt::open(workspace, progress)?
        .mirror()?
        .ok_or_else(|| unavailable("no source of Debian is configured"))?;
    let keyring =
        Some("/usr/share/keyrings/debian-archive-keyring.gpg").filter(|path| Path::new(path).is_file());
    let options = keyring
        .map(|path| format!("[signed-by={path}] "))
        .unwrap_or_default();
    for release in RELEASES {
        let line = format!("deb {options}{mirror} {release} main\n");
        let Ok(apt) = Apt::of_release(workspace, release, &line, progress) else {
            continue;
        };
        let is_same = |candidate: &String| candidate.split(['+', '-', '~']).next() == Some(version);
        if let Some(found) = apt.versions("rust-src")?.into_iter().find(is_same) {
            let folders = apt.obtain(&[format!("rust-src={found}")])?;
            let library = apt::locate(&folders, &format!("/usr/src/rustc-{version}/library"));
            return library.ok_or_else(|| unavailable("rust-src has no library sources"));
        }
    }
    Err(unavailable(&format!(
        "no release of Debian has rust-src {version}"
    )))
}
