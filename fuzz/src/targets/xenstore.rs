//! What domains put into their xenstore rings.

use controldom::{
    DomainId,
    connection::{Connection, Link},
    store::{Path, Permissions, Quota, Store},
};
use unikernel_rt::{memory::SharedMemory, ring::bytes::ByteChannel};

use crate::Input;

const CONTROL: DomainId = DomainId(1);
const GUEST: DomainId = DomainId(2);
/// Where the ring's indices lie in its page (io/xs_wire.h).
const INDICES: usize = 2048;

struct Ring(ByteChannel);

impl Link for Ring {
    fn ring(&self) -> &ByteChannel {
        &self.0
    }
    fn notify(&self) {}
}

/// A guest's messages, in pieces, and now and then an index of the ring.
pub(crate) fn server(bytes: &[u8]) {
    let mut store = Store::new(CONTROL, Quota::default());
    let data = Path::absolute("/local/domain/2/data").expect("a path");
    store
        .put(&data, b"", &Permissions::private(GUEST))
        .expect("an empty store takes a node");
    let page = SharedMemory::allocate(1).expect("memory");
    let ring = Ring(ByteChannel::store_server(page.clone()).expect("a page"));
    let mut connection = Connection::open(GUEST, "guest", ring);
    let client = ByteChannel::store_client(page.clone()).expect("a page");

    let mut input = Input(bytes);
    let mut answer = [0; 1024];
    while input.any() {
        match input.byte() {
            0 => {
                let index = INDICES + usize::from(input.byte() % 4) * 4;
                page.store(index, input.word()).expect("it lies in the page");
            }
            // Not reading for a while is a way to be hostile, too.
            1 => {
                let _ = client.read(&mut answer);
            }
            length => {
                let _ = client.write(input.take(length.into()));
            }
        }
        connection.serve(&mut store);
        for notification in store.take_notifications() {
            connection.deliver(&notification);
        }
        connection.flush(&mut store);
    }
}
