//! The store through its wire interface, as clients see it.

mod operations;
mod permissions;
mod quotas;
mod random;
mod transactions;
mod watches;
mod xen_test_suite;

use super::*;
use crate::wire::{HEADER_LENGTH, Message};
use xen_abi::io::xs_wire::*;

/// The control domain of these tests.
pub(super) const CONTROL: DomainId = DomainId(1);
/// An ordinary guest with a home, and `data` in it for itself.
pub(super) const GUEST: DomainId = DomainId(5);
/// Another one.
pub(super) const OTHER: DomainId = DomainId(6);

/// A store with the homes of two guests.
pub(super) fn store() -> Store {
    store_with(Quota::default())
}

pub(super) fn store_with(quota: Quota) -> Store {
    let mut store = Store::new(CONTROL, quota);
    for domain in [GUEST, OTHER] {
        let home = Path::home(domain);
        let readable = Permissions::private(CONTROL).and(domain, Access::READ);
        store.put(&home, b"", &readable).unwrap();
        store
            .put(&home.child("name").unwrap(), b"guest", &readable)
            .unwrap();
        store
            .put(&home.child("data").unwrap(), b"", &Permissions::private(domain))
            .unwrap();
        let scratch = Permissions::private(CONTROL).and(domain, Access::BOTH);
        store
            .put(&home.child("xenstore-test").unwrap(), b"", &scratch)
            .unwrap();
        store.introduce(domain);
    }
    store.take_notifications();
    store
}

/// Sends a request within a transaction, and takes the reply apart.
pub(super) fn within(
    store: &mut Store,
    domain: DomainId,
    transaction: u32,
    kind: u32,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    let message = Message {
        kind,
        request: 77,
        transaction,
        payload: payload.into(),
    };
    let reply = store.handle(domain, &message);
    let field = |at: usize| u32::from_le_bytes(reply[at..at + 4].try_into().unwrap());
    assert_eq!(
        (field(4), field(8), field(12) as usize),
        (77, transaction, reply.len() - HEADER_LENGTH)
    );
    let payload = reply[HEADER_LENGTH..].to_vec();
    if field(0) == XS_ERROR {
        Err(String::from_utf8(payload).unwrap().trim_end_matches('\0').into())
    } else {
        assert_eq!(field(0), kind);
        Ok(payload)
    }
}

/// Sends a request outside of transactions.
pub(super) fn send(store: &mut Store, domain: DomainId, kind: u32, payload: &str) -> Result<String, String> {
    within(store, domain, 0, kind, payload.as_bytes()).map(|reply| String::from_utf8(reply).unwrap())
}

/// Begins a transaction.
pub(super) fn begin(store: &mut Store, domain: DomainId) -> u32 {
    let reply = send(store, domain, XS_TRANSACTION_START, "\0").unwrap();
    reply.trim_end_matches('\0').parse().unwrap()
}

/// Ends a transaction.
pub(super) fn end(store: &mut Store, domain: DomainId, transaction: u32, commit: bool) -> Result<(), String> {
    let payload = if commit { b"T\0" } else { b"F\0" };
    within(store, domain, transaction, XS_TRANSACTION_END, payload).map(|reply| assert_eq!(reply, b"OK\0"))
}

/// The watch events that a domain got since the last time, as `path|token`.
pub(super) fn events(store: &mut Store, domain: DomainId) -> Vec<String> {
    let of_domain = store
        .take_notifications()
        .into_iter()
        .filter(|event| event.domain == domain);
    of_domain
        .map(|event| format!("{}|{}", event.path, String::from_utf8_lossy(&event.token)))
        .collect()
}

pub(super) fn ok() -> Result<String, String> {
    Ok("OK\0".into())
}

pub(super) fn error<T>(name: &str) -> Result<T, String> {
    Err(name.into())
}
