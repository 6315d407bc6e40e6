//! Who may read, write, list, remove, and change permissions.

use super::*;

#[test]
fn a_guest_cannot_leave_what_is_its_own() {
    let mut store = store();
    assert_eq!(send(&mut store, GUEST, XS_READ, "name\0"), Ok("guest".into()));
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "name\0x"), error("EACCES"));
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "new\0x"), error("EACCES"));
    assert_eq!(send(&mut store, GUEST, XS_MKDIR, "new\0"), error("EACCES"));
    assert_eq!(send(&mut store, GUEST, XS_RM, "name\0"), error("EACCES"));
    assert_eq!(send(&mut store, GUEST, XS_DIRECTORY, "/\0"), error("EACCES"));
    assert_eq!(
        send(&mut store, GUEST, XS_READ, "/local/domain/6/name\0"),
        error("EACCES")
    );
    // Whether something is missing is not told to those who may not look.
    assert_eq!(
        send(&mut store, GUEST, XS_READ, "/local/domain/6/nothing\0"),
        error("EACCES")
    );
    assert_eq!(send(&mut store, GUEST, XS_READ, "nothing\0"), error("ENOENT"));
}

#[test]
fn a_new_node_inherits_permissions_and_belongs_to_its_maker() {
    let mut store = store();
    send(&mut store, GUEST, XS_SET_PERMS, "data\0n5\0r6\0").unwrap();
    send(&mut store, GUEST, XS_WRITE, "data/a/b\0v").unwrap();
    assert_eq!(
        send(&mut store, GUEST, XS_GET_PERMS, "data/a\0"),
        Ok("n5\0r6\0".into())
    );
    assert_eq!(
        send(&mut store, OTHER, XS_READ, "/local/domain/5/data/a/b\0"),
        Ok("v".into())
    );
    assert_eq!(
        send(&mut store, OTHER, XS_WRITE, "/local/domain/5/data/a/b\0w"),
        error("EACCES")
    );
    send(&mut store, GUEST, XS_SET_PERMS, "data\0n5\0b6\0").unwrap();
    assert_eq!(
        send(&mut store, OTHER, XS_WRITE, "/local/domain/5/data/o\0w"),
        ok()
    );
    assert_eq!(
        send(&mut store, OTHER, XS_GET_PERMS, "/local/domain/5/data/o\0"),
        Ok("n6\0b6\0".into())
    );
    assert_eq!(
        send(&mut store, CONTROL, XS_WRITE, "/local/domain/5/data/c\0w"),
        ok()
    );
    assert_eq!(
        send(&mut store, GUEST, XS_GET_PERMS, "data/c\0"),
        Ok("n5\0b6\0".into())
    );
}

#[test]
fn only_the_owner_changes_permissions_and_only_control_the_owner() {
    let mut store = store();
    send(&mut store, GUEST, XS_SET_PERMS, "data\0b5\0").unwrap();
    assert_eq!(
        send(&mut store, OTHER, XS_SET_PERMS, "/local/domain/5/data\0n6\0"),
        error("EACCES")
    );
    assert_eq!(
        send(&mut store, GUEST, XS_SET_PERMS, "data\0n6\0"),
        error("EPERM")
    );
    assert_eq!(
        send(&mut store, GUEST, XS_SET_PERMS, "name\0b5\0"),
        error("EACCES")
    );
    assert_eq!(
        send(&mut store, GUEST, XS_SET_PERMS, "data/none\0b5\0"),
        error("ENOENT")
    );
    assert_eq!(
        send(&mut store, CONTROL, XS_SET_PERMS, "/local/domain/5/data\0n6\0"),
        ok()
    );
    assert_eq!(send(&mut store, GUEST, XS_READ, "data\0"), error("EACCES"));
    assert_eq!(store.tree().usages().of(OTHER).nodes, 2);
}

#[test]
fn a_node_given_for_writing_cannot_be_taken_away() {
    let mut store = store();
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "xenstore-test/a\0v"), ok());
    assert_eq!(send(&mut store, GUEST, XS_RM, "xenstore-test/a\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_RM, "xenstore-test\0"), error("EACCES"));
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "xenstore-test/a\0v"), ok());
}

#[test]
fn announcements_are_watched_by_those_who_may() {
    let mut store = store();
    assert_eq!(
        send(&mut store, GUEST, XS_WATCH, "@releaseDomain\0t\0"),
        error("EACCES")
    );
    assert_eq!(
        send(&mut store, GUEST, XS_GET_PERMS, "@releaseDomain\0"),
        error("EACCES")
    );
    store.permit_special(Special::ReleaseDomain, GUEST);
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "@releaseDomain\0t\0"), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_GET_PERMS, "@releaseDomain\0"),
        Ok("n1\0r5\0".into())
    );
    assert_eq!(
        send(&mut store, GUEST, XS_SET_PERMS, "@releaseDomain\0b5\0"),
        error("EACCES")
    );
    assert_eq!(
        send(&mut store, CONTROL, XS_SET_PERMS, "@introduceDomain\0r1\0"),
        ok()
    );
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "@introduceDomain\0i\0"), ok());
    store.announce(Special::ReleaseDomain);
    store.introduce(OTHER);
    assert_eq!(
        events(&mut store, GUEST),
        [
            "@releaseDomain|t",
            "@introduceDomain|i",
            "@releaseDomain|t",
            "@introduceDomain|i"
        ]
    );
}
