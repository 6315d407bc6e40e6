//! What a chaosdom is to do: the words of its command line.

/// A class of hostile operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Every hypercall with every operation, on wild pointers, lengths and counts.
    Hypercalls,
    /// Grants: mapping, copying, unmapping, revoking, in any order and of anybody's.
    Grants,
    /// PCI configuration space, ports, model-specific registers, CPUID, memory that is not there.
    Hardware,
    /// What needs a capability.
    Privileged,
}

/// The classes by their names.
pub const CLASSES: [(&str, Class); 4] = [
    ("hypercalls", Class::Hypercalls),
    ("grants", Class::Grants),
    ("hardware", Class::Hardware),
    ("privileged", Class::Privileged),
];

/// The whole command line: `class=NAME [seed=N] [count=N] [peer=ID]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What is done.
    pub class: Class,
    /// What chance follows from.
    pub seed: u64,
    /// How many operations.
    pub count: u64,
    /// A domain that does the same, and lets itself be used.
    pub peer: u16,
}

/// Why a command line is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} must be given on the command line, and make sense")]
pub struct Unclear(&'static str);

impl Plan {
    /// Reads a command line.
    pub fn parse(line: &str) -> Result<Self, Unclear> {
        let given = |name: &str| {
            let mut words = line.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
        };
        let number = |name: &'static str, usual: u64| match given(name) {
            Some(text) => text.parse().map_err(|_| Unclear(name)),
            None => Ok(usual),
        };
        let class = given("class").ok_or(Unclear("class"))?;
        let class = CLASSES.iter().find(|(name, _)| *name == class);
        Ok(Self {
            class: class.ok_or(Unclear("class"))?.1,
            seed: number("seed", 1)?,
            count: number("count", 10_000)?,
            peer: u16::try_from(number("peer", 0)?).map_err(|_| Unclear("peer"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_its_line() {
        let plan = Plan::parse("class=grants seed=7 count=9 peer=6").unwrap();
        assert_eq!(
            (plan.class, plan.seed, plan.count, plan.peer),
            (Class::Grants, 7, 9, 6)
        );
        assert_eq!(Plan::parse("class=hardware").unwrap().seed, 1);
        assert_eq!(Plan::parse("seed=1"), Err(Unclear("class")));
        assert_eq!(Plan::parse("class=none"), Err(Unclear("class")));
        assert_eq!(Plan::parse("class=grants count=x"), Err(Unclear("count")));
    }
}
