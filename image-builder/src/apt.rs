//! Debian packages, by the system's own apt tools and from the mirrors that the system names, with package lists of our own: neither the
//! lists nor the packages of the host are touched, and no privilege is needed. What was fetched once is not fetched again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Error, Progress, Result, Workspace, command, files, program};

/// A package that can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Package {
    name: String,
    /// Name of its file, which has name and version in it.
    file: String,
    size: u64,
}

/// The package manager, with lists and packages below `build/cache`.
pub struct Apt {
    state: PathBuf,
    /// The source list to use instead of the system's.
    sources: Option<PathBuf>,
    packages: PathBuf,
    unpacked: PathBuf,
    progress: Progress,
}

impl Apt {
    /// The packages of the system's own release. Their lists are fetched at the first use only.
    pub fn open(workspace: &Workspace, progress: Progress) -> Result<Self> {
        Self::with_sources(workspace, "lists", None, progress)
    }

    /// The packages of the release that `line`, a line of a source list, names.
    pub fn of_release(workspace: &Workspace, release: &str, line: &str, progress: Progress) -> Result<Self> {
        let list = workspace.cache("apt")?.join(format!("{release}.list"));
        files::write(&list, line.as_bytes())?;
        Self::with_sources(workspace, release, Some(list), progress)
    }

    fn with_sources(
        workspace: &Workspace,
        name: &str,
        sources: Option<PathBuf>,
        progress: Progress,
    ) -> Result<Self> {
        program::ensure(program::PACKAGES, progress)?;
        let state = workspace.cache("apt")?.join(name);
        files::create_folder(&state)?;
        let apt = Self {
            state,
            sources,
            packages: workspace.cache("packages")?,
            unpacked: workspace.cache("unpacked")?,
            progress,
        };
        if !apt.state.join("complete").is_file() {
            apt.update()?;
        }
        Ok(apt)
    }

    /// Fetches the package lists again.
    pub fn update(&self) -> Result<()> {
        let step = self.progress.step("fetching the package lists");
        for folder in ["lists/partial", "cache/archives/partial"] {
            files::create_folder(&self.state.join(folder))?;
        }
        files::write(&self.state.join("status"), b"")?;
        // A source that does not answer matters only if a package is missing for it, which is reported then.
        let outcome = command::run(self.command("apt-get").args(["update", "--quiet"]));
        let lists = fs::read_dir(self.state.join("lists"))
            .into_iter()
            .flatten()
            .flatten();
        let found = lists
            .filter(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
            .count();
        if found == 0 {
            outcome?;
            return Err(Error::other(
                "the system's package sources give no package list",
                "check /etc/apt/sources.list and the network",
            ));
        }
        files::write(&self.state.join("complete"), b"")?;
        step.done();
        Ok(())
    }

    /// Fetches and unpacks packages; the folders, in the order of the names.
    pub fn obtain(&self, names: &[String]) -> Result<Vec<PathBuf>> {
        let obtain = || -> Result<Vec<PathBuf>> {
            self.resolve(names)?
                .iter()
                .map(|package| self.unpack(package))
                .collect()
        };
        // A mirror forgets old versions, so an old list names files that are gone.
        obtain().or_else(|error| self.update().and_then(|()| obtain()).map_err(|_| error))
    }

    /// The names of these packages and of all that they depend on.
    pub fn closure(&self, names: &[String]) -> Result<Vec<String>> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = self.command("apt-get");
        command
            .args(["install", "--simulate", "--no-install-recommends"])
            .args(names);
        let plan = command::text(&mut command)?;
        let installed = plan
            .lines()
            .filter_map(|line| line.strip_prefix("Inst ")?.split_whitespace().next());
        Ok(installed
            .map(|name| name.split(':').next().unwrap_or(name).to_string())
            .collect())
    }

    /// The packages that make up a kernel: its image and what belongs to it, without the tools that install it.
    pub fn kernel_packages(&self, name: &str) -> Result<Vec<String>> {
        let belongs = |name: &str| {
            ["linux-image-", "linux-binary-", "linux-modules-"]
                .iter()
                .any(|kind| name.starts_with(kind))
        };
        let mut found = BTreeSet::new();
        let mut open = vec![name.to_string()];
        while let Some(name) = open.pop() {
            let text = command::text(self.command("apt-cache").args(["depends", "--important", &name]))?;
            let depends = text
                .lines()
                .filter_map(|line| line.trim().strip_prefix("Depends: "));
            open.extend(
                depends
                    .filter(|name| belongs(name) && !found.contains(*name))
                    .map(str::to_string),
            );
            found.insert(name);
        }
        Ok(found.into_iter().collect())
    }

    /// The versions of a package that the lists have.
    pub fn versions(&self, name: &str) -> Result<Vec<String>> {
        let text = command::text(self.command("apt-cache").args(["madison", name]))?;
        Ok(text
            .lines()
            .filter_map(|line| Some(line.split('|').nth(1)?.trim().to_string()))
            .collect())
    }

    /// The names of the packages that start like this.
    pub fn names(&self, start: &str) -> Result<Vec<String>> {
        let text = command::text(self.command("apt-cache").args(["pkgnames", start]))?;
        let mut names: Vec<String> = text.lines().map(str::to_string).collect();
        names.sort();
        Ok(names)
    }

    /// Where Debian itself (and not its security updates, nor anyone else) is fetched from, as the system's sources say.
    pub fn mirror(&self) -> Result<Option<String>> {
        let mut command = self.command("apt-get");
        command.args([
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ]);
        Ok(command::text(&mut command)?.lines().next().map(str::to_string))
    }

    fn command(&self, name: &str) -> Command {
        let mut command = program::new(name);
        let mut option = |key: &str, value: &str| {
            command.arg("-o").arg(format!("{key}={value}"));
        };
        let state = self.state.display();
        option("Dir::State", &format!("{state}"));
        option("Dir::State::lists", &format!("{state}/lists"));
        option("Dir::State::status", &format!("{state}/status"));
        option("Dir::Cache", &format!("{state}/cache"));
        option("Dir::Cache::archives", &format!("{state}/cache/archives"));
        // Container images switch the index of the lists off, which makes every call take a second.
        option("Dir::Cache::pkgcache", "packages.bin");
        option("Dir::Cache::srcpkgcache", "sources.bin");
        option("APT::Architecture", "amd64");
        option("APT::Architectures", "amd64");
        option("Acquire::Languages", "none");
        option(
            "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled",
            "false",
        );
        option("Acquire::IndexTargets::deb::DEP-11::DefaultEnabled", "false");
        if program::is_root() {
            option("APT::Sandbox::User", "root");
        }
        if let Some(sources) = &self.sources {
            option("Dir::Etc::sourcelist", &sources.display().to_string());
            option("Dir::Etc::sourceparts", "-");
        }
        command.env("LC_ALL", "C");
        command
    }

    fn resolve(&self, names: &[String]) -> Result<Vec<Package>> {
        names.iter().map(|name| self.resolve_one(name)).collect()
    }

    fn resolve_one(&self, name: &str) -> Result<Package> {
        let text = command::text(
            self.command("apt-get")
                .args(["download", "--print-uris", "--quiet", name]),
        );
        let found = text
            .ok()
            .and_then(|text| text.lines().find_map(|line| parse_uri(name, line)));
        found.ok_or_else(|| {
            Error::other(
                format!("the system's package sources have no package {name}"),
                "check its name, and that /etc/apt names a release that has it",
            )
        })
    }

    fn unpack(&self, package: &Package) -> Result<PathBuf> {
        let folder = self.unpacked.join(package.file.trim_end_matches(".deb"));
        files::make_folder(&folder, |folder| {
            let file = self.fetch(package)?;
            let step = self.progress.step(format!("unpacking {}", package.name));
            command::run(program::new("dpkg-deb").arg("-x").arg(file).arg(folder))?;
            step.done();
            Ok(())
        })?;
        Ok(folder)
    }

    fn fetch(&self, package: &Package) -> Result<PathBuf> {
        let file = self.packages.join(&package.file);
        if file.is_file() {
            return Ok(file);
        }
        let step = self
            .progress
            .bytes(format!("fetching {}", package.name), package.size);
        let folder = files::context(
            tempfile::tempdir_in(&self.packages),
            "create a folder in",
            &self.packages,
        )?;
        let fetched = folder.path().join(&package.file);
        let mut command = self.command("apt-get");
        command
            .args(["download", "--quiet", &package.name])
            .current_dir(folder.path())
            .stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command
            .spawn()
            .map_err(|cause| command::not_started(&command, &cause))?;
        watch(child, &command, || step.set_to_length_of(&fetched))?;
        files::context(fs::rename(&fetched, &file), "keep the package", &file)?;
        step.done();
        Ok(file)
    }
}

/// Looks at a running program ten times a second until it ends. Its output has to be short.
fn watch(mut child: Child, command: &Command, mut look: impl FnMut()) -> Result<()> {
    while matches!(child.try_wait(), Ok(None)) {
        look();
        thread::sleep(Duration::from_millis(100));
    }
    let output = child
        .wait_with_output()
        .map_err(|cause| command::not_started(command, &cause))?;
    command::check(command, output).map(drop)
}

/// Reads a line such as `'URI' FILE SIZE HASH`.
fn parse_uri(name: &str, line: &str) -> Option<Package> {
    let mut words = line.strip_prefix('\'')?.split_once("' ")?.1.split_whitespace();
    let file = words.next().filter(|file| file.ends_with(".deb"))?;
    Some(Package {
        name: name.into(),
        file: file.into(),
        size: words.next()?.parse().ok()?,
    })
}

/// The first of `folders` that has `path`, which starts with a slash; the paths of merged and of old file systems are the same.
pub fn locate(folders: &[PathBuf], path: &str) -> Option<PathBuf> {
    let path = path.trim_start_matches('/');
    let other = match path.strip_prefix("usr/") {
        Some(rest) => rest.to_string(),
        None => format!("usr/{path}"),
    };
    let there = |path: &PathBuf| path.exists();
    let candidates = folders
        .iter()
        .flat_map(|folder: &PathBuf| [folder.join(path), folder.join(Path::new(&other))]);
    candidates.into_iter().find(there)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_apt_prints() {
        let line = "'http://mirror/pool/b/busybox-static_1.35.deb' busybox-static_1%3a1.35_amd64.deb 928188 SHA256:3d3f";
        let package = parse_uri("busybox-static", line).unwrap();
        assert_eq!(
            (package.file.as_str(), package.size),
            ("busybox-static_1%3a1.35_amd64.deb", 928_188)
        );
        assert_eq!(parse_uri("x", "E: Unable to locate package x"), None);
    }

    #[test]
    fn finds_a_file_in_merged_and_old_file_systems() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("usr/bin")).unwrap();
        fs::write(folder.path().join("usr/bin/busybox"), "").unwrap();
        let folders = [folder.path().to_path_buf()];
        assert_eq!(
            locate(&folders, "/bin/busybox"),
            Some(folder.path().join("usr/bin/busybox"))
        );
        assert_eq!(
            locate(&folders, "/usr/bin/busybox"),
            Some(folder.path().join("usr/bin/busybox"))
        );
        assert_eq!(locate(&folders, "/bin/other"), None);
    }
}
