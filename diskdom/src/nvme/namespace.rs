//! A namespace as a disk.

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;

use unikernel_rt::pci::Registers;
use unikernel_rt::time::Instant;

use super::Controller;
use crate::device::{BlockDevice, Completion, Operation, Properties, Request, SubmitError, Tag};

/// One namespace of a controller, which it shares with the others.
pub struct NamespaceDisk<R: Registers> {
    controller: Rc<RefCell<Controller<R>>>,
    number: u32,
    properties: Properties,
}

impl<R: Registers> NamespaceDisk<R> {
    pub(super) fn new(controller: Rc<RefCell<Controller<R>>>, number: u32, properties: Properties) -> Self {
        Self {
            controller,
            number,
            properties,
        }
    }

    /// The namespace's number.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// The controller that it is on.
    pub fn controller(&self) -> &Rc<RefCell<Controller<R>>> {
        &self.controller
    }
}

impl<R: Registers> BlockDevice for NamespaceDisk<R> {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn submit(&mut self, request: &Request<'_>, tag: Tag, now: Instant) -> Result<(), SubmitError> {
        self.properties.check(request)?;
        let request = match request.operation {
            // What was given with a flush means nothing to the controller.
            Operation::Flush => Request {
                operation: Operation::Flush,
                first: 0,
                sectors: 0,
                segments: &[],
            },
            _ => *request,
        };
        self.controller
            .borrow_mut()
            .submit(&request, self.number, tag, now)
    }

    fn kick(&mut self) {
        self.controller.borrow_mut().ring();
    }

    fn poll(&mut self, now: Instant, completions: &mut Vec<Completion>) {
        let mut controller = self.controller.borrow_mut();
        controller.poll(now);
        controller.take_finished(self.number, completions);
    }

    fn outstanding(&self) -> usize {
        // Of all namespaces: it is the controller that must be looked after.
        self.controller.borrow().outstanding()
    }
}
