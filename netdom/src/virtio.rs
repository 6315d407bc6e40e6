//! virtio network cards, through the crate `virtio-drivers`.
//!
//! The crate's driver takes frames in one piece behind a header of its own and knows no offloads, so a frame is copied once into a page on its way
//! out; received ones stay where they are.
#![allow(unsafe_code)] // The crate's calls that do not wait are unsafe: they leave buffers with the device.

use alloc::vec::Vec;

use unikernel_rt::memory::PAGE_SIZE;
use virtio_drivers::{Hal, device::net::VirtIONetRaw, transport::Transport};

use crate::{
    frame::{Frame, MOST_PIECES, Offload, Piece},
    nic::{LONGEST, Nic, Offloads},
    pool::{Page, Pool},
};

/// Descriptors of each queue.
const QUEUE: usize = 128;
/// Bytes of a page that the device may fill: the longest frame, and the crate's header.
const BUFFER: usize = 2048;
/// Room for the crate's header, of either form.
const HEADER: usize = 12;

/// A card in use.
pub struct VirtioNet<H: Hal, T: Transport> {
    driver: VirtIONetRaw<H, T, QUEUE>,
    /// The page that each token's buffer lies in, and the buffer's length.
    sending: Vec<Option<(Page, usize)>>,
    receiving: Vec<Option<Page>>,
    lent: usize,
}

impl<H: Hal, T: Transport> VirtioNet<H, T> {
    /// Wraps the crate's driver; [`Nic::refill`] starts it.
    pub fn new(driver: VirtIONetRaw<H, T, QUEUE>) -> Self {
        Self {
            driver,
            sending: (0..QUEUE).map(|_| None).collect(),
            receiving: (0..QUEUE).map(|_| None).collect(),
            lent: 0,
        }
    }

    /// A page's first bytes as the crate wants them.
    ///
    /// # Safety
    /// The page is the caller's, and nothing else refers to it while the slice lives.
    #[allow(clippy::mut_from_ref)] // The pool hands pages out; the page's owner is the one who may write it.
    unsafe fn bytes<'a>(pool: &'a Pool, page: &Page, length: usize) -> &'a mut [u8] {
        match pool.memory().address(pool.offset(page)) {
            // SAFETY: `length` is at most a page of the pool, which is mapped as long as the pool lives; exclusive by this function's contract.
            Ok(address) => unsafe {
                core::slice::from_raw_parts_mut(address.as_ptr(), length.min(PAGE_SIZE))
            },
            Err(_) => &mut [],
        }
    }
}

impl<H: Hal, T: Transport> Nic for VirtioNet<H, T> {
    fn address(&self) -> [u8; 6] {
        self.driver.mac_address()
    }

    fn link_up(&mut self) -> bool {
        true
    }

    fn offloads(&self) -> Offloads {
        Offloads::default()
    }

    fn transmit(&mut self, frame: Frame, pool: &mut Pool) -> Result<(), Frame> {
        let length = frame.length();
        if length > LONGEST {
            log::debug!("a frame of {length} bytes is too long for the card");
            frame.release(pool);
            return Ok(());
        }
        if !self.driver.can_send() {
            self.reclaim(pool);
        }
        let Some(page) = pool.allocate().filter(|_| self.driver.can_send()) else {
            return Err(frame);
        };
        // SAFETY: the page was just taken from the pool, and is in no table of ours yet.
        let buffer = unsafe { Self::bytes(pool, &page, HEADER + length) };
        let sent = self.driver.fill_buffer_header(buffer).and_then(|header| {
            frame.copy_out(pool, &mut buffer[header..header + length]);
            // SAFETY: the page stays in `sending`, untouched, until the device is done with it.
            unsafe { self.driver.transmit_begin(&buffer[..header + length]) }
                .map(|token| (token, header + length))
        });
        match sent {
            Ok((token, length)) => self.sending[usize::from(token) % QUEUE] = Some((page, length)),
            Err(error) => {
                log::debug!("the card does not take a frame: {error}");
                pool.free(page);
            }
        }
        frame.release(pool);
        Ok(())
    }

    fn kick(&mut self) {}

    fn reclaim(&mut self, pool: &mut Pool) {
        while let Some(token) = self.driver.poll_transmit() {
            let Some((page, length)) = self.sending.get_mut(usize::from(token)).and_then(Option::take) else {
                return;
            };
            // SAFETY: the table says that this token's buffer is the start of this page, with this length.
            let done = unsafe {
                self.driver
                    .transmit_complete(token, Self::bytes(pool, &page, length))
            };
            if let Err(error) = done {
                log::debug!("the card failed to send: {error}");
            }
            pool.free(page);
        }
    }

    fn receive(&mut self, pool: &mut Pool) -> Option<Frame> {
        while let Some(token) = self.driver.poll_receive() {
            let page = self
                .receiving
                .get_mut(usize::from(token))
                .and_then(Option::take)?;
            self.lent -= 1;
            // SAFETY: the table says that this token's buffer is the start of this page, always of this length.
            let received = unsafe {
                self.driver
                    .receive_complete(token, Self::bytes(pool, &page, BUFFER))
            };
            let Ok((header, length)) = received else {
                pool.free(page);
                continue;
            };
            if length < 14 || header + length > BUFFER {
                pool.free(page);
                continue;
            }
            let mut pieces = heapless::Vec::<Piece, MOST_PIECES>::new();
            if let Err(piece) = pieces.push(Piece {
                page,
                offset: header as u16,
                length: length as u16,
            }) {
                pool.free(piece.page);
                continue;
            }
            return Some(Frame {
                pieces,
                offload: Offload::default(),
            });
        }
        None
    }

    fn refill(&mut self, pool: &mut Pool) {
        while self.lent < QUEUE && pool.available() > pool.size() / 4 {
            let Some(page) = pool.allocate() else { return };
            // SAFETY: the page was just taken, and stays in `receiving`, untouched, until the device is done with it.
            match unsafe { self.driver.receive_begin(Self::bytes(pool, &page, BUFFER)) } {
                Ok(token) => {
                    self.receiving[usize::from(token) % QUEUE] = Some(page);
                    self.lent += 1;
                }
                Err(_) => {
                    pool.free(page);
                    return;
                }
            }
        }
    }

    fn rearm(&mut self) {
        self.driver.enable_interrupts();
    }
}
