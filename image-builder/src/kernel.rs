//! Kernels: a compressed bzImage becomes the `vmlinux` in it, so that nothing is unpacked while the machine starts.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    thread,
};

use crate::{
    Error, Progress, Result, Workspace, apt::Apt, command, executable::Executable, files, program,
    program::Need,
};

/// A compressed form, by its first bytes, and the program that reads it.
struct Form {
    magic: &'static [u8],
    program: Need,
    arguments: &'static [&'static str],
}

const fn form(
    magic: &'static [u8],
    what: &'static str,
    package: &'static str,
    arguments: &'static [&'static str],
) -> Form {
    Form {
        magic,
        program: Need { what, package },
        arguments,
    }
}

const FORMS: [Form; 6] = [
    form(b"\x1f\x8b", "gzip", "gzip", &["-dc"]),
    form(b"\xfd7zXZ\0", "xz", "xz-utils", &["-dc", "--single-stream"]),
    form(b"\x28\xb5\x2f\xfd", "zstd", "zstd", &["-dcq"]),
    // The older of the two frames of lz4, which kernels use.
    form(b"\x02\x21\x4c\x18", "lz4", "lz4", &["-dcq"]),
    form(b"BZh", "bzip2", "bzip2", &["-dc"]),
    form(b"\x5d\0\0", "xz", "xz-utils", &["-dc", "--format=lzma"]),
];

/// Unpacks what is compressed in one of the forms that kernels use; anything else stays as it is.
pub fn decompress(name: &str, bytes: &[u8], progress: Progress) -> Result<Vec<u8>> {
    let Some(form) = FORMS.iter().find(|form| bytes.starts_with(form.magic)) else {
        return Ok(bytes.to_vec());
    };
    program::ensure(&[form.program], progress)?;
    let mut command = program::new(form.program.what);
    command
        .args(form.arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command
        .spawn()
        .map_err(|cause| command::not_started(&command, &cause))?;
    let mut input = child.stdin.take().expect("standard input is piped");
    let output = thread::scope(|scope| {
        // A program that fails closes its input; its own message says why.
        scope.spawn(move || input.write_all(bytes));
        child.wait_with_output()
    });
    let output = output.map_err(|cause| command::not_started(&command, &cause))?;
    command::check(&command, output).map_err(|error| {
        Error::other(
            format!("{name} cannot be decompressed: {error}"),
            "take another copy of it",
        )
    })
}

/// The `vmlinux` of a kernel file, compact. `name` stands for it in messages.
pub fn unpack(name: &str, bytes: &[u8], progress: Progress) -> Result<Vec<u8>> {
    let unpacked = match payload(bytes) {
        Some(payload) => decompress(name, payload, progress)?,
        None => bytes.to_vec(),
    };
    let executable = Executable::parse(name, &unpacked)?;
    if !executable.has_pvh_entry() {
        return Err(Error::other(
            format!("{name} has no PVH entry"),
            "take a kernel that is configured with CONFIG_PVH=y, as Debian's are",
        ));
    }
    Ok(executable.compact())
}

/// The compressed part of a bzImage (boot protocol 2.08 and later).
fn payload(bytes: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?) as usize);
    let is_bzimage = bytes.get(0x202..0x206)? == b"HdrS" && bytes.get(0x206..0x208)? >= &[8, 2][..];
    if !is_bzimage {
        return None;
    }
    let setup_sectors = match *bytes.get(0x1f1)? {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = ((setup_sectors + 1) * 512).checked_add(word(0x248)?)?;
    let payload = bytes.get(start..start.checked_add(word(0x24c)?)?)?;
    // The length of the unpacked kernel follows; gzip has it inside.
    let tail = if payload.starts_with(b"\x1f\x8b") { 0 } else { 4 };
    payload.get(..payload.len().checked_sub(tail)?)
}

/// The kernel of a Debian package, unpacked once and kept.
pub fn of_package(workspace: &Workspace, apt: &Apt, package: &str, progress: Progress) -> Result<Vec<u8>> {
    let folders = apt.obtain(&apt.kernel_packages(package)?)?;
    let missing = || {
        let help = "name one such as linux-image-cloud-amd64, or a file of your own";
        Error::other(format!("the package {package} brings no kernel"), help)
    };
    let file = folders
        .iter()
        .find_map(|folder| find_kernel(folder))
        .ok_or_else(missing)?;
    unpack_file(workspace, &file, progress)
}

/// The `vmlinux` of a kernel file, unpacked once and kept.
pub fn unpack_file(workspace: &Workspace, file: &Path, progress: Progress) -> Result<Vec<u8>> {
    let packed = files::read(file)?;
    let kept = workspace.cache("kernels")?.join(files::fingerprint(&packed));
    if !kept.is_file() {
        let step = progress.step(format!("unpacking {}", file.display()));
        files::write(&kept, &unpack(&file.display().to_string(), &packed, progress)?)?;
        step.done();
    }
    files::read(&kept)
}

fn find_kernel(folder: &Path) -> Option<PathBuf> {
    let entries = folder.join("boot").read_dir().ok()?.flatten();
    let mut kernels: Vec<_> = entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("vmlinuz"))
        .collect();
    kernels.sort_by_key(std::fs::DirEntry::file_name);
    Some(kernels.pop()?.path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_compressed() {
        let mut command = program::new("sh");
        let packed = command::output(command.args(["-c", "printf hello | gzip -c"])).unwrap();
        assert_eq!(
            decompress("sample", &packed, Progress::hidden()).unwrap(),
            b"hello"
        );
        assert_eq!(
            decompress("sample", b"hello", Progress::hidden()).unwrap(),
            b"hello"
        );
        let error = decompress("sample", &packed[..packed.len() - 4], Progress::hidden()).unwrap_err();
        assert!(
            error.to_string().starts_with("sample cannot be decompressed"),
            "{error}"
        );
    }

    #[test]
    fn finds_the_compressed_part() {
        let mut image = vec![0; 0x400 + 5 * 512];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x206..0x208].copy_from_slice(&[15, 2]);
        image[0x248..0x24c].copy_from_slice(&16u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&12u32.to_le_bytes());
        image[0x410..0x418].copy_from_slice(b"compress");
        assert_eq!(payload(&image), Some(&b"compress"[..]));
        image[0x24c..0x250].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(payload(&image), None);
        assert_eq!(payload(b"\x7fELF"), None);
    }

    #[test]
    fn names_a_kernel_that_is_none() {
        let error = unpack("vmlinuz", b"nothing", Progress::hidden()).unwrap_err();
        assert!(
            error.to_string().starts_with("vmlinuz cannot be loaded"),
            "{error}"
        );
    }
}
