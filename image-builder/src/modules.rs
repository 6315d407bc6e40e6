//! Kernel modules: which files a guest needs, in the order in which they load. Debian's packages have no `modules.dep`, which is made
//! on installation, so the modules themselves say what they depend on.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use elf::{ElfBytes, endian::LittleEndian};

use crate::{Error, Progress, Result, files, kernel};

/// A module, ready to be loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its file name, such as `xen-blkfront.ko`.
    pub file: String,
    /// Its content, uncompressed.
    pub content: Vec<u8>,
}

/// The modules of a kernel.
pub struct Tree {
    files: BTreeMap<String, PathBuf>,
    built_in: BTreeSet<String>,
    progress: Progress,
}

impl Tree {
    /// Finds the modules below the unpacked packages of a kernel.
    pub fn find(packages: &[PathBuf], progress: Progress) -> Self {
        let mut tree = Self {
            files: BTreeMap::new(),
            built_in: BTreeSet::new(),
            progress,
        };
        for package in packages {
            for place in ["lib/modules", "usr/lib/modules"] {
                for version in package.join(place).read_dir().into_iter().flatten().flatten() {
                    let list = fs::read_to_string(version.path().join("modules.builtin")).unwrap_or_default();
                    tree.built_in
                        .extend(list.lines().map(|line| module_name(Path::new(line))));
                    tree.collect(&version.path());
                }
            }
        }
        tree
    }

    fn collect(&mut self, folder: &Path) {
        for entry in folder.read_dir().into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                self.collect(&path);
            } else if path
                .file_name()
                .is_some_and(|name| name.to_string_lossy().contains(".ko"))
            {
                self.files.insert(module_name(&path), path);
            }
        }
    }

    /// The modules of these names and those that they depend on, each after those.
    pub fn resolve(&self, names: &[String]) -> Result<Vec<Module>> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        for name in names {
            self.add(name, true, &mut order, &mut seen)?;
        }
        Ok(order)
    }

    fn add(
        &self,
        name: &str,
        needed: bool,
        order: &mut Vec<Module>,
        seen: &mut BTreeSet<String>,
    ) -> Result<()> {
        let name = name.replace('-', "_");
        if self.built_in.contains(&name) || !seen.insert(name.clone()) {
            return Ok(());
        }
        let Some(path) = self.files.get(&name) else {
            let message = format!("the kernel has no module {name}");
            let help = "check its name, or take linux-image-amd64, which has more of them";
            return if needed {
                Err(Error::other(message, help))
            } else {
                Ok(())
            };
        };
        let content = kernel::decompress(&path.display().to_string(), &files::read(path)?, self.progress)?;
        let (hard, soft) = dependencies(&content);
        for name in soft {
            self.add(&name, false, order, seen)?;
        }
        for name in hard {
            self.add(&name, true, order, seen)?;
        }
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let file = file.split(".ko").next().unwrap_or_default();
        order.push(Module {
            file: format!("{file}.ko"),
            content,
        });
        Ok(())
    }
}

/// The name of a module by its file: without folder and endings, dashes as underscores.
fn module_name(path: &Path) -> String {
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

/// The modules that a module needs, and those that it would like to have before it.
fn dependencies(content: &[u8]) -> (Vec<String>, Vec<String>) {
    let information = ElfBytes::<LittleEndian>::minimal_parse(content)
        .ok()
        .and_then(|file| {
            let section = file.section_header_by_name(".modinfo").ok()??;
            Some(file.section_data(&section).ok()?.0.to_vec())
        })
        .unwrap_or_default();
    read_information(&information)
}

fn read_information(information: &[u8]) -> (Vec<String>, Vec<String>) {
    let (mut hard, mut soft) = (Vec::new(), Vec::new());
    for field in information.split(|byte| *byte == 0) {
        let field = String::from_utf8_lossy(field);
        if let Some(list) = field.strip_prefix("depends=") {
            hard.extend(
                list.split(',')
                    .filter(|name| !name.is_empty())
                    .map(str::to_string),
            );
        } else if let Some(list) = field.strip_prefix("softdep=pre:") {
            soft.extend(
                list.split_whitespace()
                    .take_while(|word| *word != "post:")
                    .map(str::to_string),
            );
        }
    }
    (hard, soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_a_module_says() {
        let (hard, soft) =
            read_information(b"license=GPL\0softdep=pre: crc32c post: x\0depends=mbcache,jbd2\0depends=\0");
        assert_eq!(hard, ["mbcache", "jbd2"]);
        assert_eq!(soft, ["crc32c"]);
        assert_eq!(dependencies(b"not an ELF file"), (vec![], vec![]));
    }

    #[test]
    fn knows_files_by_module_names() {
        let package = tempfile::tempdir().unwrap();
        let folder = package.path().join("lib/modules/6.1/kernel/drivers");
        fs::create_dir_all(&folder).unwrap();
        fs::write(
            package.path().join("lib/modules/6.1/modules.builtin"),
            "kernel/fs/ext4/ext4.ko\n",
        )
        .unwrap();
        fs::write(folder.join("xen-blkfront.ko"), "content").unwrap();
        let tree = Tree::find(&[package.path().to_path_buf()], Progress::hidden());
        let modules = tree
            .resolve(&["xen_blkfront".into(), "ext4".into(), "xen-blkfront".into()])
            .unwrap();
        assert_eq!(
            modules,
            [Module {
                file: "xen-blkfront.ko".into(),
                content: b"content".into()
            }]
        );
        let error = tree.resolve(&["nothing".into()]).unwrap_err();
        assert_eq!(error.to_string(), "the kernel has no module nothing");
    }
}
