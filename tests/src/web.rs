//! A web server on the host's loopback, which guests reach through the emulator's network.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener},
    process::{Command, Stdio},
    sync::Arc,
    thread,
};

/// Serves one content to whoever asks, for as long as the test program runs.
pub struct Web {
    port: u16,
    content: Arc<[u8]>,
}

impl Web {
    /// Serves `length` bytes that do not repeat.
    pub fn serve(length: usize) -> Self {
        let content: Arc<[u8]> = noise(length).into();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port of the loopback is free");
        let port = listener.local_addr().expect("it listens").port();
        let served = content.clone();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let content = served.clone();
                thread::spawn(move || {
                    let request = BufReader::new(stream.try_clone()?.take(16384));
                    // The request ends with an empty line; what it asks for does not matter.
                    request
                        .lines()
                        .map_while(Result::ok)
                        .find(|line| line.trim().is_empty());
                    write!(
                        stream,
                        "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n",
                        content.len()
                    )?;
                    stream.write_all(&content)
                });
            }
        });
        Self { port, content }
    }

    /// Its address as guests see it.
    pub fn address(&self) -> String {
        format!("http://10.0.2.2:{}/", self.port)
    }

    /// SHA-256 of the content, in hex.
    pub fn sha256(&self) -> String {
        sha256(&self.content)
    }
}

/// Bytes that look random and are the same every time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let word = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    let mut bytes: Vec<u8> = (0..length.div_ceil(8)).flat_map(word).collect();
    bytes.truncate(length);
    bytes
}

/// SHA-256 of some bytes, in hex.
pub fn sha256(bytes: &[u8]) -> String {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sha256sum is part of every Debian");
    child
        .stdin
        .take()
        .expect("it is piped")
        .write_all(bytes)
        .expect("sha256sum reads");
    let output = child.wait_with_output().expect("sha256sum ends");
    String::from_utf8_lossy(&output.stdout)
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn serves_its_content() {
        let web = Web::serve(100_000);
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, web.port)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        assert!(answer.starts_with(b"HTTP/1.0 200 OK\r\nContent-Length: 100000\r\n"));
        assert_eq!(sha256(&answer[answer.len() - 100_000..]), web.sha256());
    }

    #[test]
    fn knows_a_checksum() {
        assert_eq!(
            sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
