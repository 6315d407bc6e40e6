//! The initial RAM disk of a general Linux guest: busybox, the modules of Xen's frontends, our init script, and what the appliance adds.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use manifest::source::{Guest, GuestFileOrigin};

use crate::{Error, Progress, Result, apt, apt::Apt, command, cpio::Archive, files, modules::Tree};

/// Modules that every guest gets where its kernel has them apart.
const MODULES: [&str; 5] = ["xen-blkfront", "xen-netfront", "ext4", "xenfs", "xen-evtchn"];
/// Parts of packages that a guest has no use for.
const LEFT_OUT: [&str; 8] = [
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/lintian",
    "usr/share/bash-completion",
    "usr/lib/x86_64-linux-gnu/gconv",
    "usr/share/bug",
];
/// Folders that are links in a merged file system.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];
const FOLDERS: [&str; 13] = [
    "data", "dev", "etc", "mnt", "proc", "root", "run", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var",
];

/// Ours: what is run has the permissions of a program.
const SCRIPTS: [(&str, u32, &[u8]); 7] = [
    ("etc/inittab", 0o644, include_bytes!("../guest/inittab")),
    ("etc/profile", 0o644, include_bytes!("../guest/profile")),
    ("etc/atoll/start", 0o755, include_bytes!("../guest/start")),
    ("etc/atoll/shell", 0o755, include_bytes!("../guest/shell")),
    ("etc/atoll/stop", 0o755, include_bytes!("../guest/stop")),
    ("etc/atoll/hotplug", 0o755, include_bytes!("../guest/hotplug")),
    ("etc/atoll/lease", 0o755, include_bytes!("../guest/lease")),
];
const SETTINGS: [(&str, &[u8]); 3] = [
    ("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n"),
    ("etc/group", b"root:x:0:\n"),
    ("etc/hosts", b"127.0.0.1 localhost\n"),
];

enum Node {
    Folder,
    File { permissions: u32, content: Vec<u8> },
    Link(String),
}

/// Files by their paths, without a leading slash, in a merged file system.
#[derive(Default)]
struct Root {
    nodes: BTreeMap<String, Node>,
}

/// Puts an initial RAM disk together.
pub fn initrd(apt: &Apt, guest: &Guest, progress: Progress) -> Result<Vec<u8>> {
    let mut root = Root::default();
    for folder in FOLDERS {
        root.nodes.insert(folder.into(), Node::Folder);
    }
    for link in MERGED {
        root.nodes.insert(link.into(), Node::Link(format!("usr/{link}")));
        root.nodes.insert(format!("usr/{link}"), Node::Folder);
    }
    for package in apt.obtain(&apt.closure(&guest.packages)?)? {
        root.add_folder(&package, "")?;
    }
    let busybox = apt.obtain(&["busybox-static".into()])?;
    root.add_busybox(&busybox)?;
    for (path, content) in SETTINGS {
        root.add(
            path,
            Node::File {
                permissions: 0o644,
                content: content.into(),
            },
        );
    }
    for (path, permissions, content) in SCRIPTS {
        root.add(
            path,
            Node::File {
                permissions,
                content: content.into(),
            },
        );
    }
    root.add("init", Node::Link("bin/busybox".into()));
    root.add_modules(apt, guest, progress)?;
    for file in &guest.files {
        let (source, name) = match &file.origin {
            GuestFileOrigin::Path(path) => (Some(path.clone()), path.display().to_string()),
            GuestFileOrigin::Debian { package, path } => (
                apt::locate(&apt.obtain(std::slice::from_ref(package))?, path),
                format!("{path} in the package {package}"),
            ),
        };
        let help = "dpkg -L or packages.debian.org shows what a package has";
        let source = source.ok_or_else(|| Error::other(format!("there is no {name}"), help))?;
        root.add_file(&file.path, &source)?;
    }
    Ok(root.archive())
}

impl Root {
    fn add(&mut self, path: &str, node: Node) {
        let path = canonical(path);
        let above: Vec<&str> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        for folder in above {
            self.nodes.entry(folder.into()).or_insert(Node::Folder);
        }
        let both_folders = matches!(
            (&node, self.nodes.get(&path)),
            (Node::Folder, Some(Node::Folder | Node::Link(_)))
        );
        if !both_folders {
            self.nodes.insert(path, node);
        }
    }

    fn add_file(&mut self, path: &str, source: &Path) -> Result<()> {
        let data = files::context(fs::metadata(source), "read", source)?;
        let node = Node::File {
            permissions: data.permissions().mode() & 0o777,
            content: files::read(source)?,
        };
        self.add(path, node);
        Ok(())
    }

    /// Adds what is in `folder`, an unpacked package, from `inside` on.
    fn add_folder(&mut self, folder: &Path, inside: &str) -> Result<()> {
        let place = folder.join(inside);
        for entry in files::context(fs::read_dir(&place), "read", &place)? {
            let entry = files::context(entry, "read", &place)?;
            let path = format!("{inside}/{}", entry.file_name().to_string_lossy())
                .trim_start_matches('/')
                .to_string();
            if LEFT_OUT.contains(&canonical(&path).as_str()) {
                continue;
            }
            let kind = files::context(entry.file_type(), "read", &entry.path())?;
            if kind.is_dir() {
                self.add(&path, Node::Folder);
                self.add_folder(folder, &path)?;
            } else if kind.is_symlink() {
                let target = files::context(fs::read_link(entry.path()), "read", &entry.path())?;
                self.add(&path, Node::Link(target.to_string_lossy().into_owned()));
            } else if kind.is_file() {
                self.add_file(&path, &entry.path())?;
            }
        }
        Ok(())
    }

    /// Adds busybox and a link for each of its programs that no package brings.
    fn add_busybox(&mut self, package: &[PathBuf]) -> Result<()> {
        let help = "it comes with the package busybox-static";
        let binary =
            apt::locate(package, "/bin/busybox").ok_or_else(|| Error::other("there is no busybox", help))?;
        self.add_file("usr/bin/busybox", &binary)?;
        // It runs on the host, too, where that has the same architecture; elsewhere the init script makes the links.
        let list = command::text(std::process::Command::new(&binary).arg("--list-full")).unwrap_or_default();
        for path in list.lines() {
            if !self.nodes.contains_key(&canonical(path)) {
                self.add(path, Node::Link("/bin/busybox".into()));
            }
        }
        Ok(())
    }

    /// Adds the modules and the list of them in the order in which they load.
    fn add_modules(&mut self, apt: &Apt, guest: &Guest, progress: Progress) -> Result<()> {
        let mut list = String::new();
        if let Some(kernel) = &guest.kernel {
            let tree = Tree::find(&apt.obtain(&apt.kernel_packages(kernel)?)?, progress);
            let always = MODULES.iter().map(ToString::to_string);
            let names: Vec<String> = always.chain(guest.modules.iter().cloned()).collect();
            for module in tree.resolve(&names)? {
                let path = format!("lib/modules/{}", module.file);
                list.push_str(&format!("/{path}\n"));
                self.add(
                    &path,
                    Node::File {
                        permissions: 0o644,
                        content: module.content,
                    },
                );
            }
        }
        self.add(
            "etc/modules",
            Node::File {
                permissions: 0o644,
                content: list.into_bytes(),
            },
        );
        Ok(())
    }

    fn archive(self) -> Vec<u8> {
        let mut archive = Archive::default();
        // The kernel opens its first console before anything is mounted.
        archive.folder("dev");
        archive.character_device("dev/console", 5, 1);
        archive.character_device("dev/null", 1, 3);
        for (path, node) in self.nodes {
            match node {
                Node::Folder if path == "dev" => {}
                Node::Folder => archive.folder(&path),
                Node::File { permissions, content } => archive.file(&path, permissions, &content),
                Node::Link(target) => archive.link(&path, &target),
            }
        }
        archive.finish()
    }
}

/// The path in a merged file system, without leading `./` or `/`.
fn canonical(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_matches('/');
    match path.split_once('/') {
        Some((first, _)) if MERGED.contains(&first) => format!("usr/{path}"),
        _ => path.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_a_merged_file_system() {
        assert_eq!(canonical("/bin/sh"), "usr/bin/sh");
        assert_eq!(canonical("./lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(canonical("bin"), "bin");
        assert_eq!(canonical("usr/bin/sh"), "usr/bin/sh");
        assert_eq!(canonical("/etc/modules"), "etc/modules");
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_later_files_replace_earlier_ones() {
        let package = tempfile::tempdir().unwrap();
        fs::create_dir_all(package.path().join("lib/x")).unwrap();
        fs::create_dir_all(package.path().join("usr/share/doc/x")).unwrap();
        fs::write(package.path().join("lib/x/library"), "old").unwrap();
        let mut root = Root::default();
        root.add_folder(package.path(), "").unwrap();
        root.add(
            "/usr/lib/x/library",
            Node::File {
                permissions: 0o644,
                content: b"new".into(),
            },
        );
        root.add("/opt/a/b", Node::Link("c".into()));
        let paths: Vec<&str> = root.nodes.keys().map(String::as_str).collect();
        assert_eq!(
            paths,
            [
                "lib",
                "opt",
                "opt/a",
                "opt/a/b",
                "usr",
                "usr/lib",
                "usr/lib/x",
                "usr/lib/x/library",
                "usr/share"
            ]
        );
        assert!(matches!(&root.nodes["usr/lib/x/library"], Node::File { content, .. } if content == b"new"));
    }

    #[test]
    fn scripts_are_scripts() {
        for (path, permissions, content) in SCRIPTS {
            assert!(
                permissions & 0o111 == 0 || content.starts_with(b"#!/bin/busybox sh\n"),
                "{path}"
            );
        }
    }
}
