//! The backend's end of a ring.

use core::marker::PhantomData;
use core::sync::atomic::{Ordering, fence};

use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::{REQ_EVENT, REQ_PROD, RSP_EVENT, RSP_PROD, RingError, Shape};
use crate::memory::SharedMemory;

/// Takes requests `Q` off a ring and puts responses `P` on.
#[derive(Debug)]
pub struct BackRing<Q, P> {
    shape: Shape,
    /// The next request to take.
    req_cons: u32,
    /// The last `req_prod` that was read and found sane.
    req_prod: u32,
    /// The next response to put.
    rsp_prod: u32,
    /// What the shared `rsp_prod` says.
    published: u32,
    types: PhantomData<fn(Q) -> P>,
}

impl<Q: FromBytes, P: IntoBytes + Immutable> BackRing<Q, P> {
    /// Takes a ring over from its shared indices: every request that has no response yet will be seen (again). A fresh
    /// ring, whose indices are 0, is the same case.
    ///
    /// For rings whose requests are answered in order, this is all that a rebuilt backend needs. A predecessor may have died
    /// before it notified the frontend of its last responses, or while it had asked for no notification: so notify
    /// once, and serve the ring up to a [`final_check`](Self::final_check) without waiting for an event.
    pub fn attach(memory: SharedMemory) -> Result<Self, RingError> {
        let shape = Shape::new(memory, size_of::<Q>().max(size_of::<P>()))?;
        let start = shape.memory.load(RSP_PROD)?;
        let mut ring = Self {
            shape,
            req_cons: start,
            req_prod: start,
            rsp_prod: start,
            published: start,
            types: PhantomData,
        };
        ring.refresh()?;
        Ok(ring)
    }

    /// The number of entries.
    pub fn capacity(&self) -> u32 {
        self.shape.capacity
    }

    /// How many requests have been taken and not been answered.
    pub fn outstanding(&self) -> u32 {
        self.req_cons.wrapping_sub(self.rsp_prod)
    }

    /// How many requests can be taken now.
    pub fn available(&mut self) -> Result<u32, RingError> {
        self.refresh()?;
        Ok(self.known())
    }

    /// The index that the next response has.
    pub fn answered(&self) -> u32 {
        self.rsp_prod
    }

    /// The index that the next request has. Together with [`skip_to`](Self::skip_to) it lets a keep region
    /// remember what was taken.
    pub fn consumed(&self) -> u32 {
        self.req_cons
    }

    /// Leaves out the requests before `index`, which a predecessor has taken and its in-flight table knows. Refuses an
    /// index that lies outside of what the frontend has published.
    pub fn skip_to(&mut self, index: u32) -> Result<(), RingError> {
        self.refresh()?;
        let ahead = index.wrapping_sub(self.req_cons);
        if ahead > self.known() {
            return Err(RingError::Index {
                claimed: ahead,
                capacity: self.shape.capacity,
            });
        }
        self.req_cons = index;
        Ok(())
    }

    /// Copies the next request out, if there is one.
    pub fn pop(&mut self) -> Result<Option<Q>, RingError> {
        if self.known() == 0 {
            self.refresh()?;
        }
        if self.known() == 0 {
            return Ok(None);
        }
        let request = self.shape.memory.read(self.shape.offset(self.req_cons))?;
        self.req_cons = self.req_cons.wrapping_add(1);
        Ok(Some(request))
    }

    /// Puts a response on; the frontend sees it after [`publish`](Self::publish). There can be no more responses than
    /// requests were taken.
    pub fn push(&mut self, response: &P) -> Result<(), RingError> {
        if self.outstanding() == 0 {
            return Err(RingError::Full {
                capacity: self.shape.capacity,
            });
        }
        self.shape
            .memory
            .write(self.shape.offset(self.rsp_prod), response)?;
        self.rsp_prod = self.rsp_prod.wrapping_add(1);
        Ok(())
    }

    /// Shows the frontend what was pushed. Answers whether it wants to be notified.
    #[must_use = "a frontend that is not notified may sleep for ever"]
    pub fn publish(&mut self) -> Result<bool, RingError> {
        let notify = self
            .shape
            .publish(RSP_PROD, RSP_EVENT, self.published, self.rsp_prod)?;
        self.published = self.rsp_prod;
        Ok(notify)
    }

    /// Before waiting for an event: asks to be notified of the next request, and answers whether one has come
    /// meanwhile (then there is work, and no notification need come).
    pub fn final_check(&mut self) -> Result<bool, RingError> {
        self.final_check_for(1)
    }

    /// The same for who can do nothing with fewer than `count` requests: as long as fewer are there, the next one is announced.
    pub fn final_check_for(&mut self, count: u32) -> Result<bool, RingError> {
        if self.available()? >= count {
            return Ok(true);
        }
        self.shape
            .memory
            .store(REQ_EVENT, self.req_prod.wrapping_add(1))?;
        fence(Ordering::SeqCst);
        Ok(self.available()? >= count)
    }

    fn known(&self) -> u32 {
        self.req_prod.wrapping_sub(self.req_cons)
    }

    /// Reads the frontend's index, and believes it if the ring can hold that many.
    fn refresh(&mut self) -> Result<(), RingError> {
        let claimed = self.shape.memory.load(REQ_PROD)?;
        let occupied = claimed.wrapping_sub(self.rsp_prod);
        // It must not go back behind what was taken, either.
        if occupied > self.shape.capacity || occupied < self.outstanding() {
            return Err(RingError::Index {
                claimed: occupied,
                capacity: self.shape.capacity,
            });
        }
        self.req_prod = claimed;
        Ok(())
    }
}
