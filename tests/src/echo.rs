//! A server on the host's loopback that sends everything back: one connection that lasts for as long as a guest wants.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
};

/// Serves for as long as the test program runs.
pub struct Echo {
    port: u16,
}

impl Echo {
    /// Begins to.
    pub fn serve() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
        let port = listener.local_addr().expect("it listens").port();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || echo(stream));
            }
        });
        Self { port }
    }

    /// Its address as guests see it, and its port.
    pub fn address(&self) -> String {
        format!("10.0.2.2 {}", self.port)
    }
}

/// What waits to be sent back is not bounded: a guest that only writes for a while must not come to wait for us, who wait for it.
fn echo(stream: TcpStream) -> std::io::Result<()> {
    let (queue, waiting) = mpsc::channel::<Vec<u8>>();
    let mut back = stream.try_clone()?;
    let writer = thread::spawn(move || {
        for bytes in waiting {
            if back.write_all(&bytes).is_err() {
                break;
            }
        }
        back.shutdown(Shutdown::Write)
    });
    let mut stream = stream;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 || queue.send(buffer[..read].to_vec()).is_err() {
            break;
        }
    }
    drop(queue);
    writer
        .join()
        .map_err(|_| std::io::Error::other("the writer panicked"))?
}
