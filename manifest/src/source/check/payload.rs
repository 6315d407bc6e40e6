//! What runs in a domain, and the bundle entries that it takes.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::ops::Range;
use std::path::Path;

use super::*;

impl Checker<'_> {
    pub(super) fn kind(&mut self, source: &raw::Domain) -> Kind {
        let name = source.name.get_ref();
        let linux = source.kind.get_ref() == &raw::Kind::Linux;
        let strangers: Vec<(&str, Range<usize>)> = if linux {
            source
                .program
                .iter()
                .map(|program| ("program", program.span()))
                .collect()
        } else {
            let single = [("kernel", &source.kernel), ("initrd", &source.initrd)];
            let lists = [("packages", &source.packages), ("modules", &source.modules)];
            let single = single
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
            let lists = lists
                .into_iter()
                .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
            single
                .chain(lists)
                .chain(source.files.iter().map(|files| ("files", files.span())))
                .collect()
        };
        for (key, span) in strangers {
            let (is, wants) = if linux {
                ("linux", "unikernel")
            } else {
                ("unikernel", "linux")
            };
            self.report(
                span,
                format!("{name} is of kind \"{is}\"; {key} belongs to kind \"{wants}\""),
            );
        }
        if linux {
            self.linux(source)
        } else {
            self.unikernel(source)
        }
    }

    fn unikernel(&mut self, source: &raw::Domain) -> Kind {
        let command_line = source.command_line.clone();
        let Some(program) = &source.program else {
            let message = format!("{} has no program", source.name.get_ref());
            let help = "write program = \"NAME\" for a crate of this workspace, or the path of an ELF file";
            self.report_with_help(source.name.span(), message, help);
            return Kind::Unikernel {
                image: String::new(),
                command_line,
            };
        };
        let text = program.get_ref();
        let origin = if text.contains('/') {
            self.path(program).unwrap_or_else(|| Origin::Path(text.into()))
        } else {
            let known = self.place.workspace.is_none_or(|root| is_member(root, text));
            if !known {
                let help =
                    "name a crate of this workspace, or write the path of an ELF file, with a slash in it";
                self.report_with_help(program.span(), format!("there is no program {text}"), help);
            }
            Origin::Program(text.clone())
        };
        Kind::Unikernel {
            image: self.entry(text, origin),
            command_line,
        }
    }

    fn linux(&mut self, source: &raw::Domain) -> Kind {
        let command_line = source.command_line.clone();
        let mut package = None;
        let kernel = match &source.kernel {
            None => {
                let help =
                    "write kernel = \"debian:linux-image-cloud-amd64\", or the path of a vmlinux or bzImage";
                self.report_with_help(
                    source.name.span(),
                    format!("{} has no kernel", source.name.get_ref()),
                    help,
                );
                String::new()
            }
            Some(kernel) => match values::debian(kernel.get_ref()) {
                Some(name) => {
                    let name = name
                        .map_err(|message| self.report(kernel.span(), message))
                        .unwrap_or_default();
                    package = Some(name.clone());
                    self.entry(&name, Origin::DebianKernel(name.clone()))
                }
                None => match self.path(kernel) {
                    Some(origin) => self.entry(kernel.get_ref(), origin),
                    None => String::new(),
                },
            },
        };
        let initrd = match source
            .initrd
            .as_ref()
            .filter(|initrd| initrd.get_ref() != "built")
        {
            Some(path) => {
                self.built_only(source);
                self.path(path).map(|origin| self.entry(path.get_ref(), origin))
            }
            None => {
                let guest = self.guest(source, package);
                Some(self.entry("initrd", Origin::Initrd(guest)))
            }
        };
        Kind::Linux {
            kernel,
            initrd,
            command_line,
        }
    }

    /// What goes into an initial RAM disk is no use to one that is a file already.
    fn built_only(&mut self, source: &raw::Domain) {
        let lists = [("packages", &source.packages), ("modules", &source.modules)];
        let spans = lists
            .into_iter()
            .filter_map(|(key, value)| Some((key, value.as_ref()?.span())));
        let spans: Vec<_> = spans
            .chain(source.files.iter().map(|files| ("files", files.span())))
            .collect();
        for (key, span) in spans {
            self.report(
                span,
                format!("{key} needs initrd = \"built\"; the one that initrd names is taken as it is"),
            );
        }
    }

    fn guest(&mut self, source: &raw::Domain, kernel: Option<String>) -> Guest {
        let list =
            |value: &Option<Spanned<Vec<Spanned<String>>>>| value.as_ref().map(|list| list.get_ref().clone());
        let packages = list(&source.packages).unwrap_or_default();
        for package in &packages {
            self.read(package, |name| values::package_name(name));
        }
        let modules = list(&source.modules).unwrap_or_default();
        let files = source.files.iter().flat_map(|files| files.get_ref());
        let files = files
            .filter_map(|(path, from)| self.guest_file(path, from))
            .collect();
        let names = |list: Vec<Spanned<String>>| list.into_iter().map(Spanned::into_inner).collect();
        Guest {
            kernel,
            packages: names(packages),
            modules: names(modules),
            files,
        }
    }

    fn guest_file(&mut self, path: &Spanned<String>, from: &Spanned<String>) -> Option<GuestFile> {
        let clean =
            |path: &str| path.len() > 1 && path.starts_with('/') && !path.split('/').any(|part| part == "..");
        if !clean(path.get_ref()) {
            self.report(
                path.span(),
                format!("\"{}\" is no absolute path of the guest", path.get_ref()),
            );
        }
        let origin = match from.get_ref().strip_prefix("debian:") {
            Some(rest) => {
                let parts = rest.split_once(':').filter(|(_, path)| clean(path));
                let Some((package, path)) = parts else {
                    self.report(
                        from.span(),
                        "a file of a package is written as \"debian:PACKAGE:/PATH\"",
                    );
                    return None;
                };
                values::package_name(package)
                    .map_err(|message| self.report(from.span(), message))
                    .ok()?;
                GuestFileOrigin::Debian {
                    package: package.into(),
                    path: path.into(),
                }
            }
            None => match self.path(from)? {
                Origin::Path(path) => GuestFileOrigin::Path(path),
                _ => return None,
            },
        };
        Some(GuestFile {
            path: path.get_ref().clone(),
            origin,
        })
    }

    /// A file of the user, which has to be there.
    fn path(&mut self, value: &Spanned<String>) -> Option<Origin> {
        let path = self.place.folder.join(value.get_ref());
        if path.is_file() {
            return Some(Origin::Path(path));
        }
        let help = "paths start at the folder of appliance.toml; \"debian:PACKAGE\" takes the file from a Debian package";
        self.report_with_help(value.span(), format!("there is no file {}", path.display()), help);
        None
    }

    /// The name of the entry that holds what `origin` makes. Two domains with the same origin share it.
    fn entry(&mut self, wish: &str, origin: Origin) -> String {
        if let Some(file) = self.files.iter().find(|file| file.origin == origin) {
            return file.entry.clone();
        }
        let base = wish.rsplit('/').next().unwrap_or(wish);
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let mut names = core::iter::once(base.to_string()).chain(numbered);
        let taken = |name: &String| {
            name == crate::bundle::MANIFEST_ENTRY || self.files.iter().any(|file| file.entry == *name)
        };
        let entry = names.find(|name| !taken(name)).expect("the numbers do not end");
        self.files.push(File {
            entry: entry.clone(),
            origin,
        });
        entry
    }
}

/// Whether a workspace has a member in a folder of that name.
fn is_member(root: &Path, name: &str) -> bool {
    let members = || {
        let text = std::fs::read_to_string(root.join("Cargo.toml")).ok()?;
        let workspace: toml::Table = text.parse().ok()?;
        workspace.get("workspace")?.get("members")?.as_array().cloned()
    };
    let members = members().unwrap_or_default();
    let mut folders = members.iter().filter_map(|member| member.as_str().map(Path::new));
    folders.any(|folder| folder.ends_with(name) && root.join(folder).join("Cargo.toml").is_file())
}
