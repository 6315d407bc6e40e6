//! Asks the C compiler for the values of expressions over the headers.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Claim, Value};

const INCLUDE: &str = "/usr/include";
const ADVICE: &str = "this test needs Xen's public headers and a C compiler: install libxen-dev and gcc";

/// `errno.h` comes first because `xs_wire.h` has its error table only then; `__XEN_TOOLS__` selects the latest
/// interface version.
const PROLOGUE: &str = r#"
#define __XEN_TOOLS__ 1
#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
/* EINTR and ERESTART are numbers of the ABI too, but only the hypervisor's own sources see them. */
#define __XEN__ 1
#include <xen/errno.h>
#undef __XEN__
#include <xen/xen.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>
#include <xen/callback.h>
#include <xen/elfnote.h>
#include <xen/event_channel.h>
#include <xen/features.h>
#include <xen/grant_table.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/memory.h>
#include <xen/physdev.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/version.h>
#include <xen/io/blkif.h>
#include <xen/io/console.h>
#include <xen/io/fbif.h>
#include <xen/io/kbdif.h>
#include <xen/io/netif.h>
#include <xen/io/protocols.h>
#include <xen/io/ring.h>
#include <xen/io/xenbus.h>
#include <xen/io/xs_wire.h>

DEFINE_RING_TYPES(netif_ctrl, struct xen_netif_ctrl_request, struct xen_netif_ctrl_response);

#define NUMBER(x) do { \
    if ((x) < 0) printf("%lld\n", (long long)(x)); \
    else printf("%llu\n", (unsigned long long)(x)); \
} while (0)
#define TEXT(x) printf("%s\n", (x))

int main(void)
{
"#;

/// The C values of the claims, in their order.
pub(crate) fn evaluate(program: &str, claims: &[Claim]) -> Vec<Value> {
    assert!(
        Path::new(INCLUDE).join("xen/xen.h").exists(),
        "{INCLUDE}/xen/xen.h is missing; {ADVICE}"
    );
    let output = run(&compile(program, &generate(claims)));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines.len(),
        claims.len(),
        "the C program answers every claim with a line"
    );
    claims
        .iter()
        .zip(lines)
        .map(|(claim, line)| match claim.rust {
            Value::Number(_) => Value::Number(line.parse().expect("the C program prints a number")),
            Value::Text(_) => Value::Text(line.into()),
        })
        .collect()
}

fn generate(claims: &[Claim]) -> String {
    let mut source = String::from(PROLOGUE);
    for claim in claims {
        let print = match claim.rust {
            Value::Number(_) => "NUMBER",
            Value::Text(_) => "TEXT",
        };
        writeln!(source, "    {print}({});", claim.c).expect("a string can be written to");
    }
    source + "    return 0;\n}\n"
}

/// Compiles a C source text and returns the program's path.
fn compile(name: &str, source: &str) -> PathBuf {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("c_layout_{name}"));
    let source_file = program.with_extension("c");
    std::fs::write(&source_file, source).expect("the target directory can be written to");
    let outcome = Command::new("cc")
        .args(["-std=gnu11", "-m64", "-w", "-I", INCLUDE, "-o"])
        .arg(&program)
        .arg(&source_file)
        .output()
        .unwrap_or_else(|error| panic!("cc cannot be run ({error}); {ADVICE}"));
    assert!(
        outcome.status.success(),
        "{} does not compile; {ADVICE}\n{}",
        source_file.display(),
        String::from_utf8_lossy(&outcome.stderr)
    );
    program
}

fn run(program: &Path) -> String {
    let outcome = Command::new(program).output().expect("the compiled program runs");
    assert!(outcome.status.success(), "{} fails", program.display());
    String::from_utf8(outcome.stdout).expect("the program prints text")
}
