//! What Xen's own `test-xenstore` does, from inside a guest whose home has a `xenstore-test` for it.

use super::*;

const DIRECTORY: &str = "xenstore-test/1234";

fn path(index: usize) -> String {
    format!("{DIRECTORY}/{}", (b'a' + index as u8) as char)
}

fn write(store: &mut Store, transaction: u32, path: &str, value: &str) {
    let payload = format!("{path}\0{value}");
    assert_eq!(
        within(store, GUEST, transaction, XS_WRITE, payload.as_bytes()),
        Ok(b"OK\0".into())
    );
}

fn read(store: &mut Store, transaction: u32, path: &str) -> String {
    let reply = within(store, GUEST, transaction, XS_READ, format!("{path}\0").as_bytes());
    String::from_utf8(reply.unwrap()).unwrap()
}

/// Each of its tests begins by removing and making its directory.
fn fresh() -> Store {
    let mut store = store();
    renew(&mut store);
    store
}

fn renew(store: &mut Store) {
    assert_eq!(send(store, GUEST, XS_RM, &format!("{DIRECTORY}\0")), ok());
    write(store, 0, DIRECTORY, "");
}

#[test]
fn reads_and_writes_of_short_and_long_values() {
    let mut store = fresh();
    for length in [1, 2000, 3000, 4000] {
        write(&mut store, 0, &path(0), &"a".repeat(length));
        assert_eq!(read(&mut store, 0, &path(0)), "a".repeat(length));
        renew(&mut store);
    }
}

#[test]
fn directories_and_removal() {
    let mut store = fresh();
    for index in 0..10 {
        write(&mut store, 0, &path(index), "x");
    }
    let listing = send(&mut store, GUEST, XS_DIRECTORY, &format!("{DIRECTORY}\0")).unwrap();
    assert_eq!(listing, "a\0b\0c\0d\0e\0f\0g\0h\0i\0j\0");
    assert_eq!(send(&mut store, GUEST, XS_RM, &format!("{DIRECTORY}\0")), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_DIRECTORY, "xenstore-test\0"),
        Ok("".into())
    );
}

#[test]
fn empty_transactions() {
    let mut store = fresh();
    for commit in [true, false] {
        let transaction = begin(&mut store, GUEST);
        assert_eq!(end(&mut store, GUEST, transaction, commit), Ok(()));
    }
}

#[test]
fn read_modify_write() {
    for (commit, after) in [(true, "b"), (false, "a")] {
        let mut store = fresh();
        write(&mut store, 0, &path(0), "a");
        let transaction = begin(&mut store, GUEST);
        assert_eq!(read(&mut store, transaction, &path(0)), "a");
        write(&mut store, transaction, &path(0), "b");
        assert_eq!(read(&mut store, transaction, &path(0)), "b");
        assert_eq!(read(&mut store, 0, &path(0)), "a");
        assert_eq!(end(&mut store, GUEST, transaction, commit), Ok(()));
        assert_eq!(read(&mut store, 0, &path(0)), after);
    }
}

#[test]
fn conflict() {
    let mut store = fresh();
    write(&mut store, 0, &path(0), "a");
    let transaction = begin(&mut store, GUEST);
    assert_eq!(read(&mut store, transaction, &path(0)), "a");
    write(&mut store, 0, &path(0), "b");
    assert_eq!(read(&mut store, transaction, &path(0)), "a");
    write(&mut store, transaction, &path(0), "c");
    assert_eq!(read(&mut store, transaction, &path(0)), "c");
    assert_eq!(end(&mut store, GUEST, transaction, true), error("EAGAIN"));
    assert_eq!(read(&mut store, 0, &path(0)), "b");
}

#[test]
fn it_can_run_again_after_it_has_cleaned_up() {
    let mut store = fresh();
    send(&mut store, GUEST, XS_RM, &format!("{DIRECTORY}\0")).unwrap();
    let transaction = begin(&mut store, GUEST);
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_DIRECTORY, b"xenstore-test\0"),
        Ok(vec![])
    );
    let _ = within(&mut store, GUEST, transaction, XS_RM, b"xenstore-test\0");
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
    renew(&mut store);
}
