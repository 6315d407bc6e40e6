//! Stands in for the methods of the same names that the builder of domains will have; they take precedence once they exist.

use crate::{
    Hypervisor,
    domain::{DomainId, State, VcpuStatus},
    errno::Errno,
};

pub(super) enum Progress {
    Done,
    #[allow(dead_code)]
    Again,
}

pub(super) trait Lifecycle {
    fn start_domain(&mut self, id: DomainId) -> Result<Progress, Errno>;
    fn stop_domain(&mut self, id: DomainId, reason: u32);
    fn destroy_domain(&mut self, id: DomainId);
}

impl Lifecycle for Hypervisor {
    fn start_domain(&mut self, id: DomainId) -> Result<Progress, Errno> {
        self.domain_mut(id).ok_or(Errno::SRCH)?.state = State::Running;
        Ok(Progress::Done)
    }

    fn stop_domain(&mut self, id: DomainId, reason: u32) {
        let Some(domain) = self.domain_mut(id) else { return };
        domain.state = State::Stopped { reason };
        if let Some(body) = &mut domain.body {
            body.vcpus
                .iter_mut()
                .for_each(|vcpu| vcpu.status = VcpuStatus::Offline);
        }
    }

    fn destroy_domain(&mut self, id: DomainId) {
        crate::event::unbind_all(self, id);
        crate::grant::release_all(self, id);
        if let Some(domain) = self.domain_mut(id) {
            domain.state = State::Absent;
        }
    }
}
