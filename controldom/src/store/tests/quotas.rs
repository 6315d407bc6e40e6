//! What a single domain cannot take more of.

use super::*;

#[test]
fn nodes() {
    let mut store = store_with(Quota {
        nodes: 4,
        ..Quota::default()
    });
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/a/b/c\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/d\0"), error("ENOSPC"));
    assert_eq!(send(&mut store, OTHER, XS_WRITE, "data/d\0"), ok());
    assert_eq!(
        send(&mut store, CONTROL, XS_WRITE, "/local/domain/5/data/d\0"),
        ok()
    );
    send(&mut store, GUEST, XS_RM, "data/a\0").unwrap();
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/a/b/c\0"), error("ENOSPC"));
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/a/b\0"), ok());
}

#[test]
fn bytes_and_entries() {
    let mut store = store_with(Quota {
        bytes: 2000,
        entry: 1000,
        ..Quota::default()
    });
    let value = |length: usize| "v".repeat(length);
    assert_eq!(
        send(&mut store, GUEST, XS_WRITE, &format!("data/a\0{}", value(1001))),
        error("ENOSPC")
    );
    assert_eq!(
        send(&mut store, GUEST, XS_WRITE, &format!("data/a\0{}", value(1000))),
        ok()
    );
    assert_eq!(
        send(&mut store, GUEST, XS_WRITE, &format!("data/b\0{}", value(500))),
        error("ENOSPC")
    );
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/b\0"), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_WRITE, &format!("data/b\0{}", value(500))),
        error("ENOSPC")
    );
    assert_eq!(send(&mut store, GUEST, XS_WRITE, "data/a\0"), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_WRITE, &format!("data/b\0{}", value(500))),
        ok()
    );
}

#[test]
fn names_of_children_count_in_their_parent() {
    let mut store = store_with(Quota {
        entry: 20,
        ..Quota::default()
    });
    assert_eq!(send(&mut store, GUEST, XS_MKDIR, "data/0123456789\0"), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_MKDIR, "data/012345678\0"),
        error("ENOSPC")
    );
    assert_eq!(send(&mut store, GUEST, XS_MKDIR, "data/01234567\0"), ok());
}

#[test]
fn watches_transactions_and_permissions() {
    let mut store = store_with(Quota {
        watches: 2,
        transactions: 2,
        permissions: 3,
        ..Quota::default()
    });
    for token in ["a", "b"] {
        assert_eq!(
            send(&mut store, GUEST, XS_WATCH, &format!("data\0{token}\0")),
            ok()
        );
    }
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "data\0c\0"), error("E2BIG"));
    assert_eq!(send(&mut store, GUEST, XS_UNWATCH, "data\0a\0"), ok());
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "data\0c\0"), ok());
    let first = begin(&mut store, GUEST);
    begin(&mut store, GUEST);
    assert_eq!(
        send(&mut store, GUEST, XS_TRANSACTION_START, "\0"),
        error("ENOSPC")
    );
    end(&mut store, GUEST, first, false).unwrap();
    begin(&mut store, GUEST);
    assert_eq!(send(&mut store, GUEST, XS_SET_PERMS, "data\0n5\0r6\0r7\0"), ok());
    assert_eq!(
        send(&mut store, GUEST, XS_SET_PERMS, "data\0n5\0r6\0r7\0r8\0"),
        error("ENOSPC")
    );
}

#[test]
fn what_one_transaction_may_use() {
    let mut store = store_with(Quota {
        transaction_paths: 8,
        transaction_bytes: 100,
        ..Quota::default()
    });
    let transaction = begin(&mut store, GUEST);
    let mut read = |name: &str| {
        within(
            &mut store,
            GUEST,
            transaction,
            XS_READ,
            format!("data/{name}\0").as_bytes(),
        )
    };
    for name in ["a", "b", "c", "d", "e", "f", "g"] {
        assert_eq!(read(name), error("ENOENT"));
    }
    assert_eq!(read("h"), error("ENOSPC"));
    assert_eq!(read("a"), error("ENOENT"));
    let transaction = begin(&mut store, GUEST);
    let write = format!("data/a\0{}", "v".repeat(100));
    assert_eq!(
        within(&mut store, GUEST, transaction, XS_WRITE, write.as_bytes()),
        error("ENOSPC")
    );
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
}

#[test]
fn a_commit_that_runs_out_of_quota_changes_nothing() {
    let mut store = store_with(Quota {
        nodes: 4,
        ..Quota::default()
    });
    let transaction = begin(&mut store, GUEST);
    for path in ["data/a", "data/b"] {
        within(
            &mut store,
            GUEST,
            transaction,
            XS_WRITE,
            format!("{path}\0v").as_bytes(),
        )
        .unwrap();
    }
    send(&mut store, GUEST, XS_MKDIR, "data/x/y\0").unwrap();
    let before = store.tree().usages().clone();
    assert_eq!(end(&mut store, GUEST, transaction, true), error("ENOSPC"));
    assert_eq!(send(&mut store, GUEST, XS_DIRECTORY, "data\0"), Ok("x\0".into()));
    assert_eq!(*store.tree().usages(), before);
}

#[test]
fn what_one_commit_announces() {
    let mut store = store();
    for token in 0..128 {
        assert_eq!(
            send(&mut store, GUEST, XS_WATCH, &format!("data\0{token}\0")),
            ok()
        );
    }
    store.take_notifications();
    let transaction = begin(&mut store, GUEST);
    for number in 0..500 {
        let payload = format!("data/{number}\0");
        within(&mut store, GUEST, transaction, XS_WRITE, payload.as_bytes()).unwrap();
    }
    assert_eq!(end(&mut store, GUEST, transaction, true), Ok(()));
    assert_eq!(store.take_notifications().len(), EVENTS_MAX);
    send(&mut store, GUEST, XS_WRITE, "data/1\0").unwrap();
    assert_eq!(store.take_notifications().len(), 128);
}

#[test]
fn paths_and_tokens_of_watches() {
    let mut store = store_with(Quota {
        watch_bytes: 120,
        ..Quota::default()
    });
    assert_eq!(
        send(
            &mut store,
            GUEST,
            XS_WATCH,
            &format!("data\0{}\0", "t".repeat(100))
        ),
        ok()
    );
    assert_eq!(send(&mut store, GUEST, XS_WATCH, "data\0u\0"), error("E2BIG"));
}

#[test]
fn what_snapshots_keep_alive() {
    let mut store = store_with(Quota {
        transaction_memory: 40 << 10,
        ..Quota::default()
    });
    let write = |store: &mut Store, domain: DomainId, byte: char| {
        let payload = format!("data/x\0{}", byte.to_string().repeat(4000));
        assert_eq!(send(store, domain, XS_WRITE, &payload), ok());
    };
    write(&mut store, GUEST, 'a');
    write(&mut store, OTHER, 'a');
    let modest = begin(&mut store, OTHER);
    assert_eq!(
        within(&mut store, OTHER, modest, XS_WRITE, b"data/y\0v"),
        Ok(b"OK\0".into())
    );
    let greedy: Vec<u32> = (0..10)
        .map(|_| {
            let transaction = begin(&mut store, GUEST);
            write(&mut store, GUEST, 'b');
            transaction
        })
        .collect();
    assert!(store.transactions.held() <= 40 << 10);
    // The greedy one lost its oldest, and learns it as it would learn of a conflict.
    assert_eq!(
        within(&mut store, GUEST, greedy[0], XS_READ, b"data/x\0"),
        error("EAGAIN")
    );
    assert_eq!(end(&mut store, GUEST, greedy[0], true), error("EAGAIN"));
    assert_eq!(end(&mut store, GUEST, greedy[1], false), Ok(()));
    assert!(within(&mut store, GUEST, greedy[9], XS_READ, b"data/x\0").is_ok());
    assert_eq!(end(&mut store, OTHER, modest, true), Ok(()));
    store.reset(GUEST);
    assert_eq!(store.transactions.held(), 0);
}
