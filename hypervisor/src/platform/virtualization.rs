//! Whether this processor can run guests, and if not, what its owner can do.
#![allow(unsafe_code)] // Reads a model-specific register.

use alloc::string::String;

use super::cpu::{self, Features};

const VM_CR: u32 = 0xc001_0114;
const VM_CR_SVM_DISABLED: u64 = 1 << 4;

/// What is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Missing {
    /// An Intel processor.
    #[error(
        "this processor ({0}) has Intel VT-x, which this version of Atoll does not use yet; boot it on an AMD machine, or under QEMU with -cpu EPYC"
    )]
    OnlyVmx(String),
    /// No extension at all.
    #[error(
        "this processor ({0}) shows no AMD-V (SVM), which Atoll needs to run domains; on an AMD machine turn on \"SVM Mode\" in the firmware's set-up, in a virtual machine turn on nested virtualization, or under QEMU use -cpu EPYC"
    )]
    NoSvm(String),
    /// There, and locked off.
    #[error(
        "the firmware has turned AMD-V (SVM) off; turn on \"SVM Mode\" or \"Virtualization\" in the firmware's set-up, and start again"
    )]
    TurnedOff,
    /// An early AMD-V.
    #[error(
        "this processor ({0}) has AMD-V without nested paging, which Atoll needs; it is from before 2007 or hides the feature"
    )]
    NoNestedPaging(String),
}

/// Checks the running processor.
pub fn check(features: &Features) -> Result<(), Missing> {
    // SAFETY: every processor with SVM has the register.
    judge(features, || unsafe { cpu::read_msr(VM_CR) })
}

fn judge(features: &Features, vm_cr: impl Fn() -> u64) -> Result<(), Missing> {
    let name = || {
        if features.name.is_empty() {
            features.vendor.clone()
        } else {
            features.name.clone()
        }
    };
    match features.svm {
        None if features.vmx => Err(Missing::OnlyVmx(name())),
        None => Err(Missing::NoSvm(name())),
        Some(_) if vm_cr() & VM_CR_SVM_DISABLED != 0 => Err(Missing::TurnedOff),
        Some(svm) if !svm.nested_paging() => Err(Missing::NoNestedPaging(name())),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::cpu::Svm;

    #[test]
    fn says_what_is_missing() {
        let with = |svm, vmx| Features {
            svm,
            vmx,
            vendor: "Vendor".into(),
            ..Features::default()
        };
        let svm = |features| {
            Some(Svm {
                revision: 1,
                identifiers: 16,
                features,
            })
        };
        assert_eq!(judge(&with(svm(1), false), || 0), Ok(()));
        assert_eq!(judge(&with(svm(1), false), || 0x10), Err(Missing::TurnedOff));
        assert_eq!(
            judge(&with(svm(0), false), || 0),
            Err(Missing::NoNestedPaging("Vendor".into()))
        );
        assert_eq!(
            judge(&with(None, false), || panic!("no such register")),
            Err(Missing::NoSvm("Vendor".into()))
        );
        assert_eq!(
            judge(&with(None, true), || 0),
            Err(Missing::OnlyVmx("Vendor".into()))
        );
    }
}
