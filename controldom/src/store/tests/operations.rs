//! Reading, writing, listing, removing: replies and errors.

use super::*;

#[test]
fn writes_and_reads_any_bytes_relative_and_absolute() {
    let mut store = store();
    assert_eq!(
        within(&mut store, GUEST, 0, XS_WRITE, b"data/a/b\0\0\xff\0x"),
        Ok(b"OK\0".into())
    );
    assert_eq!(
        within(&mut store, GUEST, 0, XS_READ, b"/local/domain/5/data/a/b\0"),
        Ok(b"\0\xff\0x".into())
    );
    assert_eq!(send(&mut store, GUEST, XS_READ, "data/a\0"), Ok("".into()));
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/a\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_DIRECTORY, "data\0"), Ok("a\0".into()));
    assert_eq!(send(&mut store, GUEST, XS_DIRECTORY, "data/a/b\0"), Ok("".into()));
}

#[test]
fn making_is_idempotent_and_keeps_the_value() {
    let mut store = store();
    assert_eq!(send(&mut store, GUEST, XS_MKDIR, "data/x/y\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/x/y\0v"), ok());
    assert_eq!(send(&mut store, GUEST, XS_MKDIR, "data/x/y\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_READ, "data/x/y\0"), Ok("v".into()));
}

#[test]
fn removing_takes_everything_below_and_forgives_a_node_that_is_gone() {
    let mut store = store();
    let before = store.tree().usages().of(GUEST);
    send(&mut store, GUEST, XS_WRITE, "data/x/y/z\0v").unwrap();
    assert_eq!(send(&mut store, GUEST, XS_RM, "data/x\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_READ, "data/x/y/z\0"), error("ENOENT"));
    assert_eq!(send(&mut store, GUEST, XS_RM, "data/x\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_RM, "data/x/y\0"), error("ENOENT"));
    assert_eq!(send(&mut store, CONTROL, XS_RM, "/\0"), error("EINVAL"));
    assert_eq!(store.tree().usages().of(GUEST), before);
}

#[test]
fn refuses_malformed_requests() {
    let mut store = store();
    for (kind, payload) in [
        (XS_READ, ""),
        (XS_READ, "data"),
        (XS_READ, "data\0x\0"),
        (XS_READ, "\0"),
        (XS_READ, "data/\0"),
        (XS_READ, "/a//b\0"),
        (XS_WRITE, "data"),
        (XS_WRITE, "da ta\0x"),
        (XS_RM, "data"),
        (XS_WATCH, "data\0"),
        (XS_WATCH, "@nothing\0t\0"),
        (XS_UNWATCH, "data\0t"),
        (XS_SET_PERMS, "data\0"),
        (XS_SET_PERMS, "data\0q5\0"),
        (XS_DIRECTORY_PART, "data\0"),
        (XS_DIRECTORY_PART, "data\0x\0"),
        (XS_GET_DOMAIN_PATH, "five\0"),
        (XS_IS_DOMAIN_INTRODUCED, "70000\0"),
    ] {
        assert_eq!(
            send(&mut store, GUEST, kind, payload),
            error("EINVAL"),
            "{kind} {payload:?}"
        );
    }
    for kind in [XS_WATCH_EVENT, XS_ERROR, 20, XS_TYPE_COUNT, XS_INVALID, u32::MAX] {
        assert_eq!(send(&mut store, GUEST, kind, "data\0"), error("ENOSYS"), "{kind}");
    }
}

#[test]
fn privileged_requests_are_for_the_control_domain() {
    let mut store = store();
    for (kind, payload) in [
        (XS_INTRODUCE, "7\x001\x001\0"),
        (XS_RELEASE, "6\0"),
        (XS_RESUME, "6\0"),
        (XS_SET_TARGET, "5\x006\0"),
        (XS_CONTROL, "help\0"),
        (XS_DEBUG, "print\0x\0"),
    ] {
        assert_eq!(send(&mut store, GUEST, kind, payload), error("EACCES"), "{kind}");
    }
    assert!(
        send(&mut store, CONTROL, XS_CONTROL, "help\0")
            .unwrap()
            .starts_with("help")
    );
}

#[test]
fn tells_about_domains() {
    let mut store = store();
    assert_eq!(
        send(&mut store, GUEST, XS_GET_DOMAIN_PATH, "6\0"),
        Ok("/local/domain/6\0".into())
    );
    assert_eq!(
        send(&mut store, GUEST, XS_GET_DOMAIN_PATH, "007\0"),
        Ok("/local/domain/7\0".into())
    );
    assert_eq!(
        send(&mut store, GUEST, XS_IS_DOMAIN_INTRODUCED, "6\0"),
        Ok("T\0".into())
    );
    assert_eq!(
        send(&mut store, GUEST, XS_IS_DOMAIN_INTRODUCED, "9\0"),
        Ok("F\0".into())
    );
    store.forget(OTHER);
    assert_eq!(
        send(&mut store, GUEST, XS_IS_DOMAIN_INTRODUCED, "6\0"),
        Ok("F\0".into())
    );
}

#[test]
fn lists_long_directories_in_parts() {
    let mut store = store();
    let names: Vec<String> = (0..600).map(|number| format!("child-{number:04}")).collect();
    for name in &names {
        send(
            &mut store,
            CONTROL,
            XS_MKDIR,
            &format!("/local/domain/5/data/{name}\0"),
        )
        .unwrap();
    }
    assert_eq!(send(&mut store, GUEST, XS_DIRECTORY, "data\0"), error("E2BIG"));
    // As libxenstore does it: parts until one ends with an empty name.
    let (mut listing, mut generation) = (String::new(), None);
    loop {
        let part = send(
            &mut store,
            GUEST,
            XS_DIRECTORY_PART,
            &format!("data\0{}\0", listing.len()),
        )
        .unwrap();
        assert!(part.len() <= 4096);
        let (count, names) = part.split_once('\0').unwrap();
        assert_eq!(*generation.get_or_insert(count.to_string()), count);
        if let Some(last) = names.strip_suffix("\0\0") {
            listing.push_str(last);
            break;
        }
        listing.push_str(names);
    }
    assert_eq!(listing.split('\0').collect::<Vec<_>>(), names);
    let beyond = send(&mut store, GUEST, XS_DIRECTORY_PART, "data\0999999\0").unwrap();
    assert!(
        beyond.ends_with("\0\0") && beyond.matches('\0').count() == 2,
        "{beyond:?}"
    );
    send(&mut store, GUEST, XS_RM, "data/child-0000\0").unwrap();
    let after = send(&mut store, GUEST, XS_DIRECTORY_PART, "data\x000\0").unwrap();
    assert_ne!(
        after.split_once('\0').map(|(count, _)| count.to_string()),
        generation
    );
}

#[test]
fn an_offset_inside_a_name_gives_the_rest_of_it() {
    let mut store = store();
    for name in ["abc", "def"] {
        send(&mut store, GUEST, XS_MKDIR, &format!("data/{name}\0")).unwrap();
    }
    let mut from = |offset: usize| {
        let part = send(&mut store, GUEST, XS_DIRECTORY_PART, &format!("data\0{offset}\0")).unwrap();
        part.split_once('\0').unwrap().1.to_string()
    };
    assert_eq!(from(0), "abc\0def\0\0");
    assert_eq!(from(1), "bc\0def\0\0");
    assert_eq!(from(3), "\0def\0\0");
    assert_eq!(from(4), "def\0\0");
    assert_eq!(from(8), "\0");
}
