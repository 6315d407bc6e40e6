//! Files of the host, with errors that name them, and results that appear whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{Error, Result};

/// Says what was tried on which path.
pub fn context<T>(result: io::Result<T>, action: &'static str, path: &Path) -> Result<T> {
    result.map_err(|cause| Error::File {
        action,
        path: path.to_path_buf(),
        cause,
    })
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    context(fs::read(path), "read", path)
}

/// Makes a folder and those above it.
pub fn create_folder(path: &Path) -> Result<()> {
    context(fs::create_dir_all(path), "create the folder", path)
}

/// Writes a file by way of a temporary one beside it, so that no half of it is ever seen.
pub fn write(path: &Path, content: &[u8]) -> Result<()> {
    make_file(path, |temporary| {
        context(fs::write(temporary, content), "write", temporary)
    })
}

/// Lets `make` write a temporary file, which then takes the place of `path`.
pub fn make_file(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let temporary = beside(path)?;
    make(&temporary).inspect_err(|_| {
        let _ = fs::remove_file(&temporary);
    })?;
    context(fs::rename(&temporary, path), "write", path)
}

/// Lets `make` fill a temporary folder, which then becomes `path`; does nothing where that is there already.
pub fn make_folder(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let temporary = beside(path)?;
    let _ = fs::remove_dir_all(&temporary);
    create_folder(&temporary)?;
    make(&temporary).inspect_err(|_| {
        let _ = fs::remove_dir_all(&temporary);
    })?;
    context(fs::rename(&temporary, path), "create", path)
}

fn beside(path: &Path) -> Result<PathBuf> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_folder(folder)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    Ok(folder.join(format!(".{name}.{}", std::process::id())))
}

/// Sixteen hex digits that stand for a content.
pub fn fingerprint(content: &[u8]) -> String {
    blake3::hash(content).to_hex()[..16].to_string()
}
