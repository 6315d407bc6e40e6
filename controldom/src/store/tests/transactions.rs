//! Isolation and conflicts.

use super::*;

fn set(store: &mut Store, transaction: u32, path: &str, value: &str) {
    let payload = format!("{path}\0{value}");
    assert_eq!(
        within(store, GUEST, transaction, XS_WRITE, payload.as_bytes()),
        Ok(b"OK\0".into())
    );
}

fn get(store: &mut Store, transaction: u32, path: &str) -> Result<String, String> {
    let reply = within(store, GUEST, transaction, XS_READ, format!("{path}\0").as_bytes());
    reply.map(|value| String::from_utf8(value).unwrap())
}

#[test]
fn sees_its_own_changes_and_nobody_elses() {
    let mut store = store();
    set(&mut store, 0, "data/a", "old");
    let transaction = begin(&mut store, GUEST);
    set(&mut store, transaction, "data/a", "new");
    set(&mut store, transaction, "data/b", "new");
    set(&mut store, 0, "data/c", "outside");
    assert_eq!(get(&mut store, transaction, "data/a"), Ok("new".into()));
    assert_eq!(get(&mut store, 0, "data/a"), Ok("old".into()));
    assert_eq!(get(&mut store, 0, "data/b"), error("ENOENT"));
    assert_eq!(get(&mut store, transaction, "data/c"), error("ENOENT"));
}

#[test]
fn changes_happen_at_the_end_with_their_events() {
    let mut store = store();
    send(&mut store, GUEST, XS_WATCH, "data\0t\0").unwrap();
    store.take_notifications();
    let transaction = begin(&mut store, GUEST);
    set(&mut store, transaction, "data/a", "1");
    set(&mut store, transaction, "data/b", "2");
    assert_eq!(events(&mut store, GUEST), [""; 0]);
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
    assert_eq!(events(&mut store, GUEST), ["data/a|t", "data/b|t"]);
    assert_eq!(get(&mut store, 0, "data/b"), Ok("2".into()));
    assert_eq!(end(&mut store, GUEST, transaction, true), error("ENOENT"));
    let transaction = begin(&mut store, GUEST);
    set(&mut store, transaction, "data/a", "3");
    assert_eq!(end(&mut store, GUEST, transaction, false), Ok(()));
    assert_eq!(
        (get(&mut store, 0, "data/a"), events(&mut store, GUEST)),
        (Ok("1".into()), vec![])
    );
}

/// Runs `inside` in a transaction, `outside` besides it, and says how the transaction ended.
fn race(inside: &[(u32, &str)], outside: &[(u32, &str)]) -> Result<(), String> {
    let mut store = store();
    for path in ["data/a", "data/b", "data/dir/x", "data/dir/deep/y"] {
        set(&mut store, 0, path, "0");
    }
    let transaction = begin(&mut store, GUEST);
    for (kind, payload) in inside {
        let _ = within(&mut store, GUEST, transaction, *kind, payload.as_bytes());
    }
    for (kind, payload) in outside {
        send(&mut store, GUEST, *kind, payload).unwrap();
    }
    end(&mut store, GUEST, transaction, true)
}

#[test]
fn what_was_used_and_changed_elsewhere_conflicts() {
    let conflict = error("EAGAIN");
    let write_b = (XS_WRITE, "data/b\x001");
    assert_eq!(
        race(&[(XS_READ, "data/a\0"), write_b], &[(XS_WRITE, "data/a\x002")]),
        conflict
    );
    assert_eq!(
        race(
            &[(XS_GET_PERMS, "data/a\0"), write_b],
            &[(XS_SET_PERMS, "data/a\0r5\0")]
        ),
        conflict
    );
    assert_eq!(
        race(&[(XS_WRITE, "data/a\x001")], &[(XS_WRITE, "data/a\x002")]),
        conflict
    );
    assert_eq!(
        race(&[(XS_WRITE, "data/a\x001")], &[(XS_RM, "data/a\0")]),
        conflict
    );
    assert_eq!(
        race(
            &[(XS_DIRECTORY, "data/dir\0"), write_b],
            &[(XS_MKDIR, "data/dir/z\0")]
        ),
        conflict
    );
    assert_eq!(
        race(
            &[(XS_DIRECTORY, "data/dir\0"), write_b],
            &[(XS_RM, "data/dir/x\0")]
        ),
        conflict
    );
    assert_eq!(
        race(&[(XS_READ, "data/new\0"), write_b], &[(XS_MKDIR, "data/new\0")]),
        conflict
    );
    assert_eq!(
        race(
            &[(XS_READ, "data/new/n\0"), write_b],
            &[(XS_MKDIR, "data/new/n\0")]
        ),
        conflict
    );
    assert_eq!(
        race(&[(XS_WRITE, "data/new/n\x001")], &[(XS_MKDIR, "data/new\0")]),
        conflict
    );
    assert_eq!(
        race(
            &[(XS_WRITE, "data/dir/n\x001")],
            &[(XS_SET_PERMS, "data/dir\0r5\0")]
        ),
        conflict
    );
    assert_eq!(
        race(&[(XS_RM, "data/dir\0")], &[(XS_WRITE, "data/dir/deep/y\x001")]),
        conflict
    );
    assert_eq!(
        race(&[(XS_RM, "data/dir\0")], &[(XS_MKDIR, "data/dir/deep/z\0")]),
        conflict
    );
}

#[test]
fn what_was_not_used_does_not() {
    let write_b = (XS_WRITE, "data/b\x001");
    assert_eq!(
        race(&[(XS_READ, "data/a\0"), write_b], &[(XS_WRITE, "data/c\x002")]),
        Ok(())
    );
    assert_eq!(
        race(&[(XS_READ, "data/dir\0"), write_b], &[(XS_MKDIR, "data/dir/z\0")]),
        Ok(())
    );
    assert_eq!(
        race(&[(XS_MKDIR, "data/dir/n\0")], &[(XS_MKDIR, "data/dir/m\0")]),
        Ok(())
    );
    assert_eq!(
        race(
            &[(XS_DIRECTORY, "data/dir\0"), write_b],
            &[(XS_WRITE, "data/dir/x\x001")]
        ),
        Ok(())
    );
    // Whoever only reads saw a state that did exist.
    assert_eq!(
        race(&[(XS_READ, "data/a\0")], &[(XS_WRITE, "data/a\x002")]),
        Ok(())
    );
    // A request that failed in its form has used nothing.
    assert_eq!(
        race(&[(XS_READ, "data/a"), write_b], &[(XS_WRITE, "data/a\x002")]),
        Ok(())
    );
}

#[test]
fn the_ids_belong_to_their_domain() {
    let mut store = store();
    let transaction = begin(&mut store, GUEST);
    assert_eq!(end(&mut store, OTHER, transaction, true), error("ENOENT"));
    assert_eq!(
        within(&mut store, OTHER, transaction, XS_READ, b"name\0"),
        error("ENOENT")
    );
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_TRANSACTION_START, b"\0"),
        error("EBUSY")
    );
    assert_eq!(
        within(&mut store, GUEST, 4711, XS_TRANSACTION_START, b"\0"),
        error("ENOENT")
    );
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_TRANSACTION_END, b"X\0"),
        error("EINVAL")
    );
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_TRANSACTION_END, b"T"),
        error("EINVAL")
    );
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
    assert_eq!(end(&mut store, GUEST, 0, true), error("ENOENT"));
}

#[test]
fn watches_do_not_care_about_transactions() {
    let mut store = store();
    let transaction = begin(&mut store, GUEST);
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_WATCH, b"data\0t\0"),
        Ok(b"OK\0".into())
    );
    assert_eq!(
        within(&mut store, GUEST, 4711, XS_UNWATCH, b"data\0t\0"),
        Ok(b"OK\0".into())
    );
}

#[test]
fn permissions_bind_inside_too() {
    let mut store = store();
    let transaction = begin(&mut store, GUEST);
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_WRITE, b"name\0x"),
        error("EACCES")
    );
    within(&mut store, GUEST, transaction, XS_SET_PERMS, b"data\0r5\0").unwrap();
    within(&mut store, GUEST, transaction, XS_RM, b"data\0").unwrap();
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_WRITE, b"data\0x"),
        error("EACCES")
    );
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
    assert_eq!(send(&mut store, GUEST, XS_READ, "data\0"), error("ENOENT"));
}
