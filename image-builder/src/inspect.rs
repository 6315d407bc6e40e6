//! What is in a bundle.

use std::{fmt::Write, path::Path};

use manifest::{Class, Domain, Kind, bundle::Bundle};

use crate::{Error, Result, files};

/// A description of the bundle at `path` for people. Every content is checked against its hash.
pub fn describe(path: &Path) -> Result<String> {
    let bytes = files::read(path)?;
    let bundle = Bundle::parse(&bytes).map_err(|error| refuse(path, &error))?;
    let manifest = bundle.manifest().map_err(|error| refuse(path, &error))?;
    let mut text = format!(
        "{}: appliance {}, {} bytes\n\n",
        path.display(),
        manifest.name,
        bytes.len()
    );
    let _ = writeln!(text, "{:>12}  {:<16}  entry", "bytes", "BLAKE3");
    for entry in bundle.entries() {
        bundle
            .content(&entry.name)
            .map_err(|error| refuse(path, &error))?;
        let hash: String = entry.hash[..8].iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(text, "{:>12}  {hash}  {}", entry.length, entry.name);
    }
    let _ = writeln!(
        text,
        "\n{:>4}  {:<16} {:>7}  {:>5}  {:<12} runs",
        "id", "domain", "memory", "vcpus", "class"
    );
    for (index, domain) in manifest.domains.iter().enumerate() {
        let class = match domain.scheduling.class {
            Class::Realtime { priority, .. } => format!("realtime {priority}"),
            Class::Interactive => "interactive".to_string(),
            Class::Shared { weight } => format!("weight {weight}"),
        };
        let (name, memory, vcpus) = (&domain.name, domain.memory >> 20, domain.vcpus);
        let _ = writeln!(
            text,
            "{:>4}  {name:<16} {memory:>6}M  {vcpus:>5}  {class:<12} {}",
            index + 1,
            runs(domain)
        );
    }
    Ok(text)
}

fn runs(domain: &Domain) -> String {
    let (file, command_line) = match &domain.kind {
        Kind::Unikernel { image, command_line } => (image.clone(), command_line),
        Kind::Linux {
            kernel,
            initrd: Some(initrd),
            command_line,
        } => (format!("{kernel} + {initrd}"), command_line),
        Kind::Linux {
            kernel,
            initrd: None,
            command_line,
        } => (kernel.clone(), command_line),
    };
    if command_line.is_empty() {
        file
    } else {
        format!("{file} ({command_line})")
    }
}

/// Writes every entry of the bundle at `path` into a file of `folder`.
pub fn extract(path: &Path, folder: &Path) -> Result<()> {
    let bytes = files::read(path)?;
    let bundle = Bundle::parse(&bytes).map_err(|error| refuse(path, &error))?;
    for entry in bundle.entries() {
        let content = bundle
            .content(&entry.name)
            .map_err(|error| refuse(path, &error))?;
        let name = entry.name.replace('/', "-");
        files::write(&folder.join(name), content)?;
    }
    Ok(())
}

fn refuse(path: &Path, error: &manifest::bundle::Error) -> Error {
    Error::other(format!("{}: {error}", path.display()), "build the image again")
}
