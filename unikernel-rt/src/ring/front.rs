//! The frontend's end of a ring.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{ENTRIES, REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingError, Shape};
use crate::memory::SharedMemory;

/// Puts requests `Q` on a ring and takes responses `P` off.
#[derive(Debug)]
pub struct FrontRing<Q, P> {
    shape: Shape,
    /// The next request to put.
    req_prod: u32,
    /// What the shared `req_prod` says.
    published: u32,
    /// The next response to take.
    rsp_cons: u32,
    /// The last `rsp_prod` that was read and found sane.
    rsp_prod: u32,
    types: PhantomData<fn(Q) -> P>,
}

impl<Q: IntoBytes + Immutable, P: FromBytes> FrontRing<Q, P> {
    /// Makes a fresh ring of the memory, which is cleared.
    pub fn create(memory: SharedMemory) -> Result<Self, RingError> {
        let shape = Shape::new(memory, size_of::<Q>().max(size_of::<P>()))?;
        shape.memory.fill(0, ENTRIES, 0)?;
        shape.memory.store(REQ_EVENT, 1)?;
        shape.memory.store(RSP_EVENT, 1)?;
        Ok(Self {
            shape,
            req_prod: 0,
            published: 0,
            rsp_cons: 0,
            rsp_prod: 0,
            types: PhantomData,
        })
    }

    /// Has all indices begin somewhere else than at 0, so that a test sees them wrap.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, index: u32) {
        for offset in [REQ_PROD, RSP_PROD] {
            self.shape
                .memory
                .store(offset, index)
                .expect("the head lies in the memory");
        }
        (self.req_prod, self.published, self.rsp_cons, self.rsp_prod) = (index, index, index, index);
    }

    /// The number of entries.
    pub fn capacity(&self) -> u32 {
        self.shape.capacity
    }

    /// How many requests can be pushed now.
    pub fn free(&self) -> u32 {
        self.shape.capacity - self.req_prod.wrapping_sub(self.rsp_cons)
    }

    /// Puts a request on; the backend sees it after [`publish`](Self::publish).
    pub fn push(&mut self, request: &Q) -> Result<(), RingError> {
        if self.free() == 0 {
            return Err(RingError::Full {
                capacity: self.shape.capacity,
            });
        }
        self.shape
            .memory
            .write(self.shape.offset(self.req_prod), request)?;
        self.req_prod = self.req_prod.wrapping_add(1);
        Ok(())
    }

    /// Shows the backend what was pushed. Answers whether it wants to be notified.
    #[must_use = "a backend that is not notified may sleep for ever"]
    pub fn publish(&mut self) -> Result<bool, RingError> {
        let notify = self
            .shape
            .publish(REQ_PROD, REQ_EVENT, self.published, self.req_prod)?;
        self.published = self.req_prod;
        Ok(notify)
    }

    /// How many responses can be taken now.
    pub fn available(&mut self) -> Result<u32, RingError> {
        self.refresh()?;
        Ok(self.known())
    }

    /// Copies the next response out, if there is one.
    pub fn pop(&mut self) -> Result<Option<P>, RingError> {
        if self.known() == 0 {
            self.refresh()?;
        }
        if self.known() == 0 {
            return Ok(None);
        }
        let response = self.shape.memory.read(self.shape.offset(self.rsp_cons))?;
        self.rsp_cons = self.rsp_cons.wrapping_add(1);
        Ok(Some(response))
    }

    /// Before waiting for an event: asks to be notified of the next response, and answers whether one has come meanwhile.
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        if self.available()? > 0 {
            return Ok(true);
        }
        self.shape
            .memory
            .store(RSP_EVENT, self.rsp_cons.wrapping_add(1))?;
        fence(Ordering::SeqCst);
        Ok(self.available()? > 0)
    }

    fn known(&self) -> u32 {
        self.rsp_prod.wrapping_sub(self.rsp_cons)
    }

    /// Reads the backend's index, and believes it if that many requests were published.
    fn refresh(&mut self) -> Result<(), RingError> {
        let claimed = self.shape.memory.load(RSP_PROD)?.wrapping_sub(self.rsp_cons);
        if claimed > self.published.wrapping_sub(self.rsp_cons) || claimed < self.known() {
            return Err(RingError::Index {
                claimed,
                capacity: self.shape.capacity,
            });
        }
        self.rsp_prod = self.rsp_cons.wrapping_add(claimed);
        Ok(())
    }
}
