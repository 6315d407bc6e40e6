//! Compares every constant and every structure of the crate with the C headers: generates a C program that prints their
//! values, sizes and offsets, and looks whether Rust agrees.
//!
//! A constant needs nothing but its place in `consts!` or `strings!`; a structure needs one line in `structs.rs`; anything
//! else is a line in `extras.rs`. A structure, a field or a module that is missing there fails a test, too.

#[path = "c_layout/compiler.rs"]
mod compiler;
#[path = "c_layout/constants.rs"]
mod constants;
#[path = "c_layout/extras.rs"]
mod extras;
#[path = "c_layout/source.rs"]
mod source;
#[path = "c_layout/structs.rs"]
mod structs;

use std::collections::BTreeSet;

/// Something that Rust and C must agree on.
struct Claim {
    /// What to call it when they do not.
    name: String,
    /// The C expression.
    c: String,
    /// Rust's value of it.
    rust: Value,
}

#[derive(Debug, PartialEq)]
enum Value {
    Number(i128),
    Text(String),
}

impl Claim {
    fn number(name: impl Into<String>, c: impl Into<String>, rust: impl TryInto<i128>) -> Self {
        let Ok(rust) = rust.try_into() else {
            panic!("a number of the ABI fits into 128 bits")
        };
        Self {
            name: name.into(),
            c: c.into(),
            rust: Value::Number(rust),
        }
    }

    fn text(name: impl Into<String>, c: impl Into<String>, rust: &str) -> Self {
        Self {
            name: name.into(),
            c: c.into(),
            rust: Value::Text(rust.into()),
        }
    }
}

/// Fails with a list of everything that C sees differently.
fn check(program: &str, claims: &[Claim]) {
    let answers = compiler::evaluate(program, claims);
    let differences: Vec<String> = claims
        .iter()
        .zip(&answers)
        .filter(|(claim, answer)| claim.rust != **answer)
        .map(|(claim, answer)| {
            format!(
                "{}: {:?} in Rust, {answer:?} in C ({})",
                claim.name, claim.rust, claim.c
            )
        })
        .collect();
    assert!(
        differences.is_empty(),
        "{} differences:\n{}",
        differences.len(),
        differences.join("\n")
    );
}

#[test]
fn constants_have_the_values_of_the_headers() {
    let claims = constants::claims();
    assert!(claims.len() > 500, "only {} constants were found", claims.len());
    check("constants", &claims);
}

#[test]
fn structures_have_the_layout_of_the_headers() {
    let structs = structs::all();
    check(
        "structs",
        &structs
            .iter()
            .flat_map(structs::Layout::claims)
            .collect::<Vec<_>>(),
    );
}

#[test]
fn everything_else_agrees_with_the_headers() {
    check("extras", &extras::claims());
}

#[test]
fn a_wrong_value_is_noticed() {
    let claims = [
        Claim::number("one", "VIRQ_DEBUG", 1),
        Claim::number("wrong", "VIRQ_DEBUG", 2),
    ];
    let answers = compiler::evaluate("wrong", &claims);
    assert_eq!(answers, [Value::Number(1), Value::Number(1)]);
}

#[test]
fn every_structure_and_field_is_listed() {
    let listed: BTreeSet<String> = structs::all()
        .iter()
        .flat_map(|layout| {
            layout
                .fields
                .iter()
                .map(|field| format!("{}.{}", layout.name, field.name))
        })
        .collect();
    let missing: Vec<String> = source::structures()
        .into_iter()
        .filter(|(name, _)| !extras::STRUCTURES_WITHOUT_C.contains(&name.as_str()))
        .flat_map(|(name, fields)| fields.into_iter().map(move |field| format!("{name}.{field}")))
        .filter(|field| !listed.contains(field))
        .collect();
    assert!(
        missing.is_empty(),
        "missing in tests/c_layout/structs.rs: {missing:?}"
    );
}

#[test]
fn every_module_with_constants_is_listed() {
    let found = source::modules_with_constants();
    let listed: BTreeSet<String> = constants::MODULES
        .iter()
        .map(|module| module.to_string())
        .collect();
    assert_eq!(found, listed);
}
