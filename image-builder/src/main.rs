//! The command line of the image builder.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use image_builder::{
    Progress, Result, Workspace, build, command,
    emulator::{self, Machine},
    files,
    fuzz::{Fuzzer, Limit},
    inspect, lint, program,
    target_libraries::Choice,
};
use manifest::source::{self, DiskInterface, Nic};

/// Builds, runs and inspects appliance images.
#[derive(Parser)]
#[command(version, bin_name = "cargo atoll")]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand)]
enum Action {
    /// Build an appliance: build/NAME.bundle and build/NAME.iso
    Build {
        #[command(flatten)]
        image: ImageArguments,
    },
    /// Build an appliance and boot it in the emulator, its serial line on this terminal
    Run {
        #[command(flatten)]
        image: ImageArguments,
        #[command(flatten)]
        machine: MachineArguments,
    },
    /// Make only the guests' kernels and initial RAM disks, in build/NAME
    Guests {
        #[command(flatten)]
        image: ImageArguments,
    },
    /// Check an appliance's source
    Check {
        /// The appliance, a folder below appliances/ (or the path of an appliance.toml)
        #[arg(default_value = "gateway")]
        name: String,
    },
    /// Check formatting and lints of the whole workspace, warnings denied
    Lint {
        /// Where the libraries of the bare target come from
        #[arg(long, value_enum, default_value = "auto", env = "ATOLL_TARGET_LIBRARIES")]
        target_libraries: Choice,
    },
    /// Search for bytes that break what reads them
    Fuzz {
        /// The targets, folders below fuzz/corpus/; all unless said otherwise
        targets: Vec<String>,
        /// Seconds for each target
        #[arg(long, default_value = "60")]
        seconds: u64,
    },
    /// Show what is in an appliance's bundle
    Inspect {
        /// The appliance, or the path of a bundle
        #[arg(default_value = "gateway")]
        name: String,
        /// Write every entry into this folder
        #[arg(long)]
        extract: Option<PathBuf>,
    },
}

#[derive(clap::Args)]
struct ImageArguments {
    /// The appliance, a folder below appliances/ (or the path of an appliance.toml)
    #[arg(default_value = "gateway")]
    name: String,
    /// Where the libraries of the bare target come from
    #[arg(long, value_enum, default_value = "auto", env = "ATOLL_TARGET_LIBRARIES")]
    target_libraries: Choice,
    /// Fetch the lists of Debian packages again
    #[arg(long)]
    update: bool,
}

#[derive(clap::Args)]
struct MachineArguments {
    /// Let the emulator load the hypervisor itself, without ISO, firmware and GRUB
    #[arg(long)]
    direct: bool,
    /// Offer this network interface instead
    #[arg(long, value_enum)]
    nic: Option<NicArgument>,
    /// Attach every disk this way instead
    #[arg(long, value_enum)]
    disk: Option<DiskArgument>,
    /// Memory of the machine, such as 2G
    #[arg(long, value_parser = source::size)]
    memory: Option<u64>,
    /// Processors of the machine
    #[arg(long)]
    cpus: Option<u32>,
    /// The processor's model, in QEMU's words
    #[arg(long)]
    cpu: Option<String>,
    /// Print the emulator's command line instead of running it
    #[arg(long)]
    show: bool,
    /// Further arguments of the emulator
    #[arg(last = true)]
    emulator: Vec<String>,
}

#[derive(Clone, Copy, ValueEnum)]
enum NicArgument {
    E1000e,
    VirtioNet,
    None,
}

#[derive(Clone, Copy, ValueEnum)]
enum DiskArgument {
    Nvme,
    VirtioBlk,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{:?}", miette::Report::new(error));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<()> {
    let workspace = Workspace::find()?;
    let progress = Progress::on_terminal();
    match arguments.action {
        Action::Build { image } => {
            let source = workspace.source(&image.name)?;
            let image = build::image(&workspace, &source, options(&image, true), progress)?;
            println!("{}", image.bundle.display());
            println!("{}", image.iso.display());
        }
        Action::Run { image, machine } => run_machine(&workspace, &image, machine, progress)?,
        Action::Guests { image } => {
            let appliance = source::read(&workspace.source(&image.name)?, Some(workspace.root()))?;
            for path in build::guests(&workspace, &appliance, options(&image, false), progress)? {
                println!("{}", path.display());
            }
        }
        Action::Check { name } => {
            source::read(&workspace.source(&name)?, Some(workspace.root()))?;
        }
        Action::Lint { target_libraries } => lint::run(&workspace, target_libraries, progress)?,
        Action::Fuzz { targets, seconds } => search(&workspace, targets, seconds, progress)?,
        Action::Inspect { name, extract } => {
            let given = PathBuf::from(&name);
            let path = if given.is_file() {
                given
            } else {
                workspace.build().join(format!("{name}.bundle"))
            };
            print!("{}", inspect::describe(&path)?);
            if let Some(folder) = extract {
                files::create_folder(&folder)?;
                inspect::extract(&path, &folder)?;
            }
        }
    }
    Ok(())
}

fn options(arguments: &ImageArguments, iso: bool) -> build::Options {
    build::Options {
        libraries: arguments.target_libraries,
        update: arguments.update,
        iso,
    }
}

fn search(workspace: &Workspace, targets: Vec<String>, seconds: u64, progress: Progress) -> Result<()> {
    let fuzzer = Fuzzer::build(workspace, progress)?;
    let found = workspace.build().join("fuzz");
    let targets = if targets.is_empty() {
        fuzzer.targets()?
    } else {
        targets
    };
    for target in targets {
        println!("{target}: {seconds} s");
        fuzzer.search(&target, Limit::Seconds(seconds), &found)?;
    }
    Ok(())
}

fn run_machine(
    workspace: &Workspace,
    image: &ImageArguments,
    arguments: MachineArguments,
    progress: Progress,
) -> Result<()> {
    let mut appliance = source::read(&workspace.source(&image.name)?, Some(workspace.root()))?;
    match arguments.disk {
        Some(DiskArgument::Nvme) => emulator::attach_disks(&mut appliance, DiskInterface::Nvme),
        Some(DiskArgument::VirtioBlk) => emulator::attach_disks(&mut appliance, DiskInterface::VirtioBlk),
        None => {}
    }
    let image = build::image_of(workspace, appliance, options(image, !arguments.direct), progress)?;
    program::ensure(program::EMULATOR, progress)?;
    let mut machine = Machine::of(workspace, &image, arguments.direct, progress)?;
    match arguments.nic {
        Some(NicArgument::E1000e) => machine.nic = Some(Nic::E1000e),
        Some(NicArgument::VirtioNet) => machine.nic = Some(Nic::VirtioNet),
        Some(NicArgument::None) => machine.nic = None,
        None => {}
    }
    machine.memory = arguments.memory.unwrap_or(machine.memory);
    machine.cpus = arguments.cpus.unwrap_or(machine.cpus);
    machine.processor = arguments.cpu;
    let mut command = machine.command();
    // Ctrl-C goes to the machine; the emulator's own keys start with Ctrl-A.
    command.args(["-chardev", "stdio,id=terminal,mux=on,signal=off"]);
    command
        .args(["-serial", "chardev:terminal", "-mon", "chardev=terminal"])
        .args(arguments.emulator);
    if arguments.show {
        println!("{}", command::show(&command));
        return Ok(());
    }
    if progress.is_shown() {
        eprintln!("The machine starts. Ctrl-A X ends the emulator.");
    }
    command::run_visibly(&mut command)
}
