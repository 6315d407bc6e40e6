//! The tables of `appliance.toml` as they are written. `docs` of the keys are in `docs/`; an unknown key is an error.

use alloc::{collections::BTreeMap, string::String, vec::Vec};
use serde::Deserialize;
use toml::Spanned;

/// The whole file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Source {
    #[serde(default)]
    pub appliance: Appliance,
    #[serde(default)]
    pub hypervisor: Hypervisor,
    #[serde(default)]
    pub domain: Vec<Spanned<Domain>>,
    #[serde(default)]
    pub emulator: Emulator,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Appliance {
    pub description: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Hypervisor {
    pub reboot_on_panic: bool,
    pub fault_injection: bool,
    pub allow_unconfined_dma: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Domain {
    pub name: Spanned<String>,
    pub kind: Spanned<Kind>,
    pub program: Option<Spanned<String>>,
    pub kernel: Option<Spanned<String>>,
    pub initrd: Option<Spanned<String>>,
    #[serde(default)]
    pub command_line: String,
    pub memory: Spanned<String>,
    pub memory_maximum: Option<Spanned<String>>,
    pub vcpus: Option<Spanned<u32>>,
    pub class: Option<Class>,
    pub weight: Option<Spanned<u32>>,
    pub priority: Option<Spanned<u8>>,
    pub budget: Option<Spanned<String>>,
    pub period: Option<Spanned<String>>,
    pub cpus: Option<Spanned<Vec<Spanned<u32>>>>,
    pub exclusive: Option<Spanned<bool>>,
    pub cap: Option<Spanned<u32>>,
    pub poll: Option<Spanned<String>>,
    #[serde(default)]
    pub capabilities: Vec<Spanned<Capability>>,
    #[serde(default)]
    pub devices: Vec<Spanned<String>>,
    pub keep: Option<Spanned<String>>,
    pub restart: Option<Restart>,
    pub restart_limit: Option<Spanned<u32>>,
    pub restart_rest: Option<Spanned<String>>,
    pub restart_longest_rest: Option<Spanned<String>>,
    pub healthy_after: Option<Spanned<String>>,
    pub watchdog: Option<Spanned<String>>,
    #[serde(default)]
    pub options: BTreeMap<Spanned<String>, String>,
    #[serde(default)]
    pub disk: Vec<Disk>,
    #[serde(default)]
    pub network: Vec<Network>,
    pub packages: Option<Spanned<Vec<Spanned<String>>>>,
    pub modules: Option<Spanned<Vec<Spanned<String>>>>,
    pub files: Option<Spanned<BTreeMap<Spanned<String>, Spanned<String>>>>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Kind {
    Unikernel,
    Linux,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Class {
    Realtime,
    Interactive,
    Shared,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Capability {
    Control,
    Observe,
    ConsoleLog,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Restart {
    Always,
    OnFailure,
    Never,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Disk {
    pub name: Spanned<String>,
    pub backend: Spanned<String>,
    pub volume: Spanned<String>,
    #[serde(default)]
    pub mode: Mode,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Mode {
    #[default]
    ReadWrite,
    ReadOnly,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Network {
    pub backend: Spanned<String>,
    pub mac: Option<Spanned<String>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Emulator {
    pub memory: Option<Spanned<String>>,
    pub cpus: Option<Spanned<u32>>,
    pub nic: Nic,
    pub cards: Vec<Nic>,
    pub disk: Vec<EmulatedDisk>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Nic {
    #[default]
    E1000e,
    VirtioNet,
    None,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EmulatedDisk {
    #[serde(default)]
    pub interface: Interface,
    pub size: Spanned<String>,
    #[serde(default)]
    pub partition: Vec<Partition>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Interface {
    #[default]
    Nvme,
    VirtioBlk,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Partition {
    pub name: Spanned<String>,
    pub size: Option<Spanned<String>>,
    pub filesystem: Option<Filesystem>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Filesystem {
    Ext4,
}
