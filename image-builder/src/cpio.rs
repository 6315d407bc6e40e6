//! The archive that a kernel unpacks into its first file system: cpio in the "newc" form.

const FOLDER: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making. Folders have to come before what is in them.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.add(path, FOLDER | 0o755, (0, 0), b"");
    }

    /// Adds a file with these permission bits.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.add(path, FILE | permissions & 0o7777, (0, 0), content);
    }

    /// Adds a symbolic link.
    pub fn link(&mut self, path: &str, target: &str) {
        self.add(path, LINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a character device.
    pub fn character_device(&mut self, path: &str, major: u32, minor: u32) {
        self.add(path, CHARACTER_DEVICE | 0o600, (major, minor), b"");
    }

    /// Ends the archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, (0, 0), b"");
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn add(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), content: &[u8]) {
        self.entries += 1;
        let name = path.trim_start_matches('/');
        let fields = [
            self.entries,
            mode,
            0,
            0,
            1,
            0,
            content.len() as u32,
            0,
            0,
            major,
            minor,
            name.len() as u32 + 1,
            0,
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_form_that_kernels_read() {
        let mut archive = Archive::default();
        archive.folder("bin");
        archive.file("bin/sh", 0o755, b"hello");
        archive.link("/bin/ash", "sh");
        archive.character_device("dev/console", 5, 1);
        let bytes = archive.finish();
        assert_eq!(bytes.len() % 512, 0);
        let mut rest = &bytes[..];
        let mut names = Vec::new();
        while names.last().is_none_or(|name| name != "TRAILER!!!") {
            assert_eq!(&rest[..6], b"070701");
            let field = |index: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * index..14 + 8 * index]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (length, name_length) = (field(6), field(11));
            names.push(String::from_utf8(rest[110..109 + name_length].to_vec()).unwrap());
            let content = (110 + name_length).next_multiple_of(4);
            if names.last().unwrap() == "bin/sh" {
                assert_eq!(
                    (field(1), &rest[content..content + length]),
                    (0o100_755, &b"hello"[..])
                );
            }
            rest = &rest[(content + length).next_multiple_of(4)..];
        }
        assert_eq!(names, ["bin", "bin/sh", "bin/ash", "dev/console", "TRAILER!!!"]);
    }
}
