//! The bootable ISO: GRUB, the hypervisor, and the bundle as its module. It boots from a disc or a stick, by BIOS or UEFI.

use std::path::Path;

use crate::{Progress, Result, command, files, program};

/// Writes the ISO of an appliance.
pub fn write(iso: &Path, name: &str, hypervisor: &[u8], bundle: &[u8], progress: Progress) -> Result<()> {
    program::ensure(program::ISO, progress)?;
    let step = progress.step("writing the ISO");
    let folder = files::context(tempfile::tempdir(), "create a folder for", iso)?;
    let boot = folder.path().join("boot");
    files::write(&boot.join("hypervisor"), hypervisor)?;
    files::write(&boot.join(format!("{name}.bundle")), bundle)?;
    files::write(&boot.join("grub/grub.cfg"), configuration(name).as_bytes())?;
    files::make_file(iso, |iso| {
        let mut command = program::new("grub-mkrescue");
        command.arg("-o").arg(iso).arg(folder.path());
        command::run(command.args(["--", "-volid", "ATOLL"]))
    })?;
    step.done();
    Ok(())
}

/// What GRUB does: it starts the appliance at once, and shows what goes wrong on the screen and on the serial line.
fn configuration(name: &str) -> String {
    format!(
        "set timeout=0\n\
         if serial --unit=0 --speed=115200; then\n  terminal_input --append serial\n  terminal_output --append serial\nfi\n\
         menuentry \"Atoll: {name}\" {{\n  multiboot2 /boot/hypervisor\n  module2 /boot/{name}.bundle {name}.bundle\n}}\n"
    )
}
