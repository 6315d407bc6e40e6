//! `kill NAME`, `hang NAME` and `corrupt-keep NAME`: faults on purpose. What follows is what follows when they happen by themselves. The control domain itself
//! can be hit, too.

use alloc::{format, string::String};
use core::time::Duration;

use unikernel_rt::{atoll::Fault, hypercall::Errno};

use super::{ControlPlane, Hypervisor, RequestError};
use crate::{DomainId, store::Path};

/// The word for a fault.
pub(super) fn word(fault: Fault) -> &'static str {
    match fault {
        Fault::Kill => "kill",
        Fault::Hang => "hang",
        Fault::CorruptKeep => "corrupt-keep",
    }
}

/// Reads `kill NAME [MICROSECONDS]` and its like, as far as the first word is one of them.
pub(super) fn parse(words: &[&str]) -> Option<Result<(Fault, String, Duration), RequestError>> {
    let fault = [Fault::Kill, Fault::Hang, Fault::CorruptKeep]
        .into_iter()
        .find(|fault| words.first() == Some(&word(*fault)))?;
    Some(match *words {
        [_, name] => Ok((fault, name.into(), Duration::ZERO)),
        [_, name, after] if fault != Fault::CorruptKeep => after
            .parse()
            .map(|micros| (fault, name.into(), Duration::from_micros(micros)))
            .map_err(|_| RequestError::Microseconds(after.into())),
        _ => Err(match fault {
            Fault::CorruptKeep => RequestError::Arguments("corrupt-keep", "the name of one domain"),
            fault => RequestError::Arguments(
                word(fault),
                "the name of one domain, and after how many microseconds of its time, if not at once",
            ),
        }),
    })
}

impl<H: Hypervisor> ControlPlane<H> {
    /// Has the hypervisor inject a fault. Where that hits ourselves, the answer is in the ring before.
    pub(super) fn inject_fault(
        &mut self,
        sequence: u64,
        fault: Fault,
        name: &str,
        after: Duration,
    ) -> Result<Option<String>, RequestError> {
        let id = self.named(name)?;
        let reply = format!("{}: {name}", word(fault));
        if id == self.control {
            self.answer(sequence, Ok(reply.clone()));
            self.deliver();
        }
        // What happens on purpose is not held against it.
        if let Some(member) = self.members.iter_mut().find(|member| member.plan.id == id) {
            member.failures = Default::default();
        }
        match self.hypervisor.inject_fault(id, fault, after) {
            Ok(()) => Ok(Some(reply)),
            Err(Errno::EOPNOTSUPP) => Err(RequestError::NoFaults),
            Err(Errno::ESRCH) => Err(RequestError::NotRunning(name.into())),
            Err(error) => Err(RequestError::Fault(name.into(), error)),
        }
    }

    /// Any domain of the manifest.
    fn named(&self, name: &str) -> Result<DomainId, RequestError> {
        let member = self.members.iter().find(|member| member.plan.name == name);
        if let Some(member) = member {
            return Ok(member.plan.id);
        }
        // Only the control domain is in the store and no member.
        let path = Path::absolute(&format!("/atoll/domains/{name}"));
        let known = path.is_ok_and(|path| self.store.read(&path).is_some());
        if known && !name.contains('/') {
            Ok(self.control)
        } else {
            Err(self.no_member(name))
        }
    }
}
