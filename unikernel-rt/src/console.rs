//! The domain's own PV console as a byte stream: what an operator types when attached to it, and what the domain answers.
//! (Log lines go another way: the crate `log`, straight to the hypervisor.)

use core::fmt;

use embedded_io::{ErrorType, Read, ReadReady, Write, WriteReady};

use crate::event::Channel;
use crate::ring::RingError;
use crate::ring::bytes::ByteChannel;

/// The frontend of the console ring. The blocking calls of `embedded-io` wait for the console domain; the `*_ready` calls
/// let an event loop avoid that.
#[derive(Debug)]
pub struct Console {
    ring: ByteChannel,
    channel: Channel,
}

impl Console {
    /// Puts a console together: its page, mapped, and its port.
    pub fn new(ring: ByteChannel, channel: Channel) -> Self {
        Self { ring, channel }
    }

    /// The event channel that fires when there is input or room for output.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Tries until something could be moved, and notifies the console domain of it.
    fn until(&self, mut action: impl FnMut() -> Result<usize, RingError>) -> Result<usize, RingError> {
        let events = self.channel.events();
        let mut waited = false;
        loop {
            let length = action()?;
            if length > 0 {
                self.channel.notify();
                if waited {
                    // The port may have fired for the other direction as well.
                    events.remember(self.channel.port());
                }
                return Ok(length);
            }
            events.wait_for(self.channel.port(), None);
            waited = true;
        }
    }
}

impl ErrorType for Console {
    type Error = RingError;
}

impl Read for Console {
    fn read(&mut self, target: &mut [u8]) -> Result<usize, RingError> {
        if target.is_empty() {
            return Ok(0);
        }
        self.until(|| self.ring.read(target))
    }
}

impl ReadReady for Console {
    fn read_ready(&mut self) -> Result<bool, RingError> {
        Ok(self.ring.readable()? > 0)
    }
}

impl Write for Console {
    fn write(&mut self, source: &[u8]) -> Result<usize, RingError> {
        if source.is_empty() {
            return Ok(0);
        }
        self.until(|| self.ring.write(source))
    }

    fn flush(&mut self) -> Result<(), RingError> {
        // Bytes in the ring are with the console domain already; it may take its time, or be rebuilt, without loss.
        Ok(())
    }
}

impl WriteReady for Console {
    fn write_ready(&mut self) -> Result<bool, RingError> {
        Ok(self.ring.writable()? > 0)
    }
}

impl fmt::Write for Console {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.write_all(text.as_bytes()).map_err(|_| fmt::Error)
    }
}
