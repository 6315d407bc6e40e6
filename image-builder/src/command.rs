//! Programs of the host: run, waited for, and quoted when they fail.

use std::process::{Command, Output, Stdio};

use crate::{Error, Result};

/// Lines of a failed program's output that are shown.
const SHOWN_LINES: usize = 30;

/// Runs a program to its end and returns what it wrote to its standard output.
pub fn output(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output();
    check(command, output.map_err(|cause| not_started(command, &cause))?)
}

/// The same as text.
pub fn text(command: &mut Command) -> Result<String> {
    Ok(String::from_utf8_lossy(&output(command)?).into_owned())
}

/// Runs a program to its end for what it does.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(drop)
}

/// Runs a program to its end with the terminal as its own.
pub fn run_visibly(command: &mut Command) -> Result<()> {
    let status = command.status().map_err(|cause| not_started(command, &cause))?;
    check(
        command,
        Output {
            status,
            stdout: Vec::new(),
            stderr: Vec::new(),
        },
    )
    .map(drop)
}

/// Passes a successful program's output, and quotes a failed one's.
pub fn check(command: &Command, output: Output) -> Result<Vec<u8>> {
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    let lines: Vec<&str> = text.lines().collect();
    Err(Error::Command {
        program: name(command),
        status: output.status.to_string(),
        output: lines[lines.len().saturating_sub(SHOWN_LINES)..].join("\n"),
        command: show(command),
    })
}

/// The error of a program that did not start.
pub fn not_started(command: &Command, cause: &std::io::Error) -> Error {
    Error::other(
        format!("{} cannot be started: {cause}", name(command)),
        format!("the command was: {}", show(command)),
    )
}

/// The command line as a person would type it.
pub fn show(command: &Command) -> String {
    let quote = |word: &str| {
        let plain = |character: char| character.is_ascii_alphanumeric() || "-_=./,:+@%".contains(character);
        if !word.is_empty() && word.chars().all(plain) {
            word.to_string()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| quote(&word.to_string_lossy()))
        .collect::<Vec<_>>()
        .join(" ")
}

fn name(command: &Command) -> String {
    let program = command.get_program().to_string_lossy();
    program.rsplit('/').next().unwrap_or_default().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_would_be_typed() {
        assert_eq!(
            show(Command::new("qemu").args(["-m", "1G", "it's", ""])),
            r"qemu -m 1G 'it'\''s' ''"
        );
    }

    #[test]
    fn quotes_a_failed_program() {
        let error = output(Command::new("sh").args(["-c", "echo no such thing >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("sh failed") && text.contains("no such thing") && text.contains('3'),
            "{text}"
        );
    }

    #[test]
    fn names_a_program_that_is_not_there() {
        let error = run(&mut Command::new("/nonexistent/program")).unwrap_err();
        assert!(
            error.to_string().starts_with("program cannot be started"),
            "{error}"
        );
    }
}
