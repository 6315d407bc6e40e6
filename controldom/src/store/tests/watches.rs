//! Who hears of what, and under which path.

use super::*;

fn watch(store: &mut Store, domain: DomainId, path: &str, token: &str) {
    assert_eq!(send(store, domain, XS_WATCH, &format!("{path}\0{token}\0")), ok());
    assert_eq!(events(store, domain), [format!("{path}|{token}")]);
}

#[test]
fn the_first_event_comes_at_once_even_if_there_is_nothing() {
    let mut store = store();
    watch(&mut store, GUEST, "data/none", "t");
    watch(&mut store, GUEST, "/local/domain/5/data", "t");
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "data\0t\0"), error("EEXIST"));
}

#[test]
fn events_are_relative_if_the_watch_is() {
    let mut store = store();
    watch(&mut store, GUEST, "data", "relative");
    watch(&mut store, GUEST, "/local/domain/5/data", "absolute");
    send(&mut store, GUEST, XS_WRITE, "data/a/b\0v").unwrap();
    assert_eq!(
        events(&mut store, GUEST),
        ["data/a/b|relative", "/local/domain/5/data/a/b|absolute"]
    );
    send(&mut store, GUEST, XS_MKDIR, "data/a/b\0").unwrap();
    assert_eq!(events(&mut store, GUEST), [""; 0]);
    send(&mut store, GUEST, XS_SET_PERMS, "data/a\0r5\0").unwrap();
    assert_eq!(events(&mut store, GUEST).len(), 2);
}

#[test]
fn removal_reaches_watches_above_and_below() {
    let mut store = store();
    send(&mut store, GUEST, XS_WRITE, "data/a/b/c\0v").unwrap();
    send(&mut store, GUEST, XS_WRITE, "data/a-b\0v").unwrap();
    watch(&mut store, GUEST, "data", "above");
    watch(&mut store, GUEST, "data/a", "itself");
    watch(&mut store, GUEST, "data/a/b/c", "below");
    watch(&mut store, GUEST, "data/a/b/none", "missing");
    watch(&mut store, GUEST, "data/a-b", "sibling");
    watch(&mut store, GUEST, "data/a0", "sibling");
    send(&mut store, GUEST, XS_RM, "data/a\0").unwrap();
    assert_eq!(
        events(&mut store, GUEST),
        ["data/a|above", "data/a|itself", "data/a/b/c|below"]
    );
}

#[test]
fn only_those_who_may_read_hear() {
    let mut store = store();
    watch(&mut store, OTHER, "/local/domain/5/data", "t");
    send(&mut store, GUEST, XS_WRITE, "data/secret\0v").unwrap();
    assert_eq!(events(&mut store, OTHER), [""; 0]);
    send(&mut store, GUEST, XS_SET_PERMS, "data/secret\0n5\0r6\0").unwrap();
    send(&mut store, GUEST, XS_WRITE, "data/secret\0w").unwrap();
    assert_eq!(events(&mut store, OTHER), ["/local/domain/5/data/secret|t"; 2]);
    // Losing the right to read is the last that is heard.
    send(&mut store, GUEST, XS_SET_PERMS, "data/secret\0n5\0").unwrap();
    send(&mut store, GUEST, XS_WRITE, "data/secret\0w").unwrap();
    assert_eq!(events(&mut store, OTHER), ["/local/domain/5/data/secret|t"]);
    send(&mut store, GUEST, XS_SET_PERMS, "data/secret\0r5\0").unwrap();
    store.take_notifications();
    send(&mut store, GUEST, XS_RM, "data/secret\0").unwrap();
    assert_eq!(events(&mut store, OTHER), ["/local/domain/5/data/secret|t"]);
}

#[test]
fn unwatching_and_resetting_end_events() {
    let mut store = store();
    watch(&mut store, GUEST, "data", "a");
    watch(&mut store, GUEST, "data", "b");
    assert_eq!(send(&mut store, GUEST, XS_UNWATCH, "data\0a\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_UNWATCH, "data\0a\0"), error("ENOENT"));
    assert_eq!(
        send(&mut store, OTHER, XS_UNWATCH, "/local/domain/5/data\0b\0"),
        error("ENOENT")
    );
    send(&mut store, GUEST, XS_WRITE, "data\0v").unwrap();
    assert_eq!(events(&mut store, GUEST), ["data|b"]);
    let transaction = begin(&mut store, GUEST);
    assert_eq!(send(&mut store, GUEST, XS_RESET_WATCHES, "\0"), ok());
    send(&mut store, GUEST, XS_WRITE, "data\0w").unwrap();
    assert_eq!(events(&mut store, GUEST), [""; 0]);
    assert_eq!(end(&mut store, GUEST, transaction, true), error("ENOENT"));
}

#[test]
fn a_forgotten_domain_hears_nothing() {
    let mut store = store();
    watch(&mut store, GUEST, "data", "a");
    store
        .write(&Path::absolute("/local/domain/5/data").unwrap(), b"x")
        .unwrap();
    store.forget(GUEST);
    store
        .write(&Path::absolute("/local/domain/5/data").unwrap(), b"y")
        .unwrap();
    assert_eq!(events(&mut store, GUEST), [""; 0]);
}

#[test]
fn the_control_plane_hears_through_the_same_watches() {
    let mut store = store();
    store
        .watch(&Path::absolute("/local/domain/5/data").unwrap(), b"t")
        .unwrap();
    store.take_notifications();
    send(&mut store, GUEST, XS_WRITE, "data/a\0v").unwrap();
    assert_eq!(events(&mut store, CONTROL), ["/local/domain/5/data/a|t"]);
}
