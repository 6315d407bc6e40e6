//! Where things are: the checkout, what it builds, and what it keeps.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use crate::{Error, Result, files};

/// The crates that run on the bare machine.
pub const BARE_CRATES: [&str; 8] = [
    "hypervisor",
    "unikernel-rt",
    "controldom",
    "consoledom",
    "diskdom",
    "netdom",
    "probe",
    "realtimedom",
];

/// A checkout of the project.
#[derive(Clone, Debug)]
pub struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    /// The checkout around the package that cargo runs, or else around the current folder.
    pub fn find() -> Result<Self> {
        let start = match env::var_os("CARGO_MANIFEST_DIR") {
            Some(folder) => PathBuf::from(folder),
            None => files::context(env::current_dir(), "find", Path::new("."))?,
        };
        let is_root =
            |folder: &&Path| folder.join("appliances").is_dir() && folder.join("Cargo.lock").is_file();
        let root = start.ancestors().find(is_root).ok_or_else(|| {
            Error::other(
                format!("{} is not inside a checkout of Atoll", start.display()),
                "run this from the folder that has appliances/",
            )
        })?;
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |folder| root.join(folder));
        Ok(Self {
            root: root.to_path_buf(),
            target,
        })
    }

    /// The checkout's folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo puts what it builds.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Where images go.
    pub fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    /// A folder for what is kept between builds.
    pub fn cache(&self, kind: &str) -> Result<PathBuf> {
        let folder = self.build().join("cache").join(kind);
        files::create_folder(&folder)?;
        Ok(folder)
    }

    /// The source of an appliance: one of those below `appliances/`, or the path of another.
    pub fn source(&self, name: &str) -> Result<PathBuf> {
        if name.ends_with(".toml") {
            return Ok(PathBuf::from(name));
        }
        let path = self.root.join("appliances").join(name).join("appliance.toml");
        if path.is_file() {
            return Ok(path);
        }
        let names = fs::read_dir(self.root.join("appliances"))
            .into_iter()
            .flatten()
            .flatten();
        let mut names: Vec<String> = names
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        Err(Error::other(
            format!("there is no appliance {name}"),
            format!("the appliances are {}", names.join(", ")),
        ))
    }

    /// Waits until no other run of this tool builds in this checkout, and keeps others waiting while the result lives.
    pub fn lock(&self) -> Result<fs::File> {
        let path = self.build().join(".lock");
        files::create_folder(&self.build())?;
        let file = files::context(fs::File::create(&path), "create", &path)?;
        files::context(file.lock(), "lock", &path)?;
        Ok(file)
    }
}
