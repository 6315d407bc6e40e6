//! Random requests: the store never panics, and its transactions behave as those of a model that copies everything.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

type Model = BTreeMap<String, String>;

#[derive(Clone, Debug)]
enum Step {
    Begin,
    End { which: usize, commit: bool },
    Write { which: usize, path: String, value: u8 },
    Make { which: usize, path: String },
    Remove { which: usize, path: String },
    Read { which: usize, path: String },
    List { which: usize, path: String },
}

/// One of the model's transactions.
struct Twin {
    id: u32,
    /// What it saw at its start, and what it sees.
    base: Model,
    tree: Model,
    /// Whether it changed anything, and whether anyone else did since its start.
    changed: bool,
    overtaken: bool,
    did: Vec<Step>,
}

fn paths() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..4)
        .prop_map(|parts| format!("data/{}", parts.join("/")))
}

fn steps() -> impl Strategy<Value = Step> {
    let which = 0usize..4;
    prop_oneof![
        2 => Just(Step::Begin),
        2 => (which.clone(), prop::bool::weighted(0.8)).prop_map(|(which, commit)| Step::End { which, commit }),
        4 => (which.clone(), paths(), 0u8..4).prop_map(|(which, path, value)| Step::Write { which, path, value }),
        2 => (which.clone(), paths()).prop_map(|(which, path)| Step::Make { which, path }),
        2 => (which.clone(), paths()).prop_map(|(which, path)| Step::Remove { which, path }),
        3 => (which.clone(), paths()).prop_map(|(which, path)| Step::Read { which, path }),
        2 => (which, paths()).prop_map(|(which, path)| Step::List { which, path }),
    ]
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn create(tree: &mut Model, path: &str) {
    if path != "data" && !tree.contains_key(path) {
        create(tree, parent(path));
        tree.insert(path.into(), String::new());
    }
}

/// Does a step to a tree of the model, and says what the store would answer.
fn model(tree: &mut Model, step: &Step) -> Result<String, String> {
    let exists = |tree: &Model, path: &str| path == "data" || tree.contains_key(path);
    match step {
        Step::Write { path, value, .. } => {
            create(tree, path);
            tree.insert(path.clone(), value.to_string());
            ok()
        }
        Step::Make { path, .. } => {
            create(tree, path);
            ok()
        }
        Step::Remove { path, .. } => {
            if !exists(tree, parent(path)) {
                return error("ENOENT");
            }
            let below = format!("{path}/");
            tree.retain(|name, _| name != path && !name.starts_with(&below));
            ok()
        }
        Step::Read { path, .. } => tree.get(path).cloned().ok_or("ENOENT".into()),
        Step::List { path, .. } => {
            if !exists(tree, path) {
                return error("ENOENT");
            }
            let children = tree.keys().filter(|name| parent(name) == path);
            Ok(children
                .map(|name| format!("{}\0", name.rsplit('/').next().unwrap()))
                .collect())
        }
        Step::Begin | Step::End { .. } => unreachable!("these are not done to a tree"),
    }
}

fn request(step: &Step) -> (u32, String) {
    match step {
        Step::Write { path, value, .. } => (XS_WRITE, format!("{path}\0{value}")),
        Step::Make { path, .. } => (XS_MKDIR, format!("{path}\0")),
        Step::Remove { path, .. } => (XS_RM, format!("{path}\0")),
        Step::Read { path, .. } => (XS_READ, format!("{path}\0")),
        Step::List { path, .. } => (XS_DIRECTORY, format!("{path}\0")),
        Step::Begin | Step::End { .. } => unreachable!("these have their own requests"),
    }
}

fn dump(store: &mut Store) -> Model {
    fn walk(node: &Node, path: &str, into: &mut Model) {
        for (name, child) in &node.children {
            let path = format!("{path}/{name}");
            into.insert(path.clone(), String::from_utf8(child.value.to_vec()).unwrap());
            walk(child, &path, into);
        }
    }
    let mut tree = Model::new();
    let data = store
        .tree()
        .get(&Path::absolute("/local/domain/5/data").unwrap())
        .unwrap()
        .clone();
    walk(&data, "data", &mut tree);
    tree
}

fn has_effect(tree: &Model, step: &Step) -> bool {
    match step {
        Step::Write { .. } => true,
        Step::Make { path, .. } => !tree.contains_key(path),
        Step::Remove { path, .. } => tree.contains_key(path),
        _ => false,
    }
}

/// Whether what decides about a step's answer is the same in two trees.
fn sees_the_same(one: &Model, other: &Model, step: &Step) -> bool {
    match step {
        Step::List { path, .. } => {
            model(&mut one.clone(), step) == model(&mut other.clone(), step)
                && one.contains_key(path) == other.contains_key(path)
        }
        Step::Remove { path, .. } => {
            let below = |tree: &Model| -> Vec<_> {
                tree.iter()
                    .filter(|(name, _)| name.starts_with(path))
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect()
            };
            // Names here are one letter long, so whatever begins like the path lies below it.
            below(one) == below(other)
        }
        Step::Write { path, .. } | Step::Make { path, .. } | Step::Read { path, .. } => {
            one.get(path) == other.get(path)
        }
        Step::Begin | Step::End { .. } => true,
    }
}

fn is_read_only(step: &Step) -> bool {
    matches!(step, Step::Read { .. } | Step::List { .. })
}

proptest! {
    #[test]
    fn transactions_behave_as_copies(steps in prop::collection::vec(steps(), 1..60)) {
        let mut store = store();
        let mut live = Model::new();
        let mut open: Vec<Twin> = Vec::new();
        for step in steps {
            match step {
                Step::Begin if open.len() < 3 => {
                    let id = begin(&mut store, GUEST);
                    let (base, tree) = (live.clone(), live.clone());
                    open.push(Twin { id, base, tree, changed: false, overtaken: false, did: vec![] });
                }
                Step::Begin => {}
                Step::End { which, commit } if which < open.len() => {
                    let twin = open.remove(which);
                    let outcome = end(&mut store, GUEST, twin.id, commit);
                    match outcome {
                        Ok(()) if commit && twin.changed => {
                            for step in &twin.did {
                                prop_assert!(sees_the_same(&twin.base, &live, step), "committed over a change below {step:?}");
                            }
                            for step in twin.did.iter().filter(|step| !is_read_only(step)) {
                                let _ = model(&mut live, step);
                            }
                            for other in &mut open {
                                other.overtaken = true;
                            }
                        }
                        Ok(()) => {}
                        Err(name) => {
                            prop_assert_eq!(name, "EAGAIN");
                            prop_assert!(commit && twin.changed && twin.overtaken, "conflicted without a reason");
                        }
                    }
                }
                Step::End { .. } => {}
                step => {
                    let (Step::Write { which, .. } | Step::Make { which, .. } | Step::Remove { which, .. }
                        | Step::Read { which, .. } | Step::List { which, .. }) = step else { unreachable!() };
                    let (kind, payload) = request(&step);
                    if let Some(twin) = open.get_mut(which) {
                        let answer = within(&mut store, GUEST, twin.id, kind, payload.as_bytes());
                        twin.changed |= has_effect(&twin.tree, &step);
                        prop_assert_eq!(answer.map(|bytes| String::from_utf8(bytes).unwrap()), model(&mut twin.tree, &step));
                        twin.did.push(step);
                    } else {
                        let effect = has_effect(&live, &step);
                        open.iter_mut().for_each(|twin| twin.overtaken |= effect);
                        prop_assert_eq!(send(&mut store, GUEST, kind, &payload), model(&mut live, &step));
                    }
                }
            }
            prop_assert_eq!(dump(&mut store), live.clone());
        }
        prop_assert_eq!(store.tree().usages().of(GUEST).nodes, live.len() + 1);
    }

    #[test]
    fn a_transaction_alone_never_conflicts(steps in prop::collection::vec(steps(), 1..30)) {
        let mut store = store();
        let (id, mut live) = (begin(&mut store, GUEST), Model::new());
        for step in steps.iter().filter(|step| !matches!(step, Step::Begin | Step::End { .. })) {
            let (kind, payload) = request(step);
            let _ = within(&mut store, GUEST, id, kind, payload.as_bytes());
            let _ = model(&mut live, step);
        }
        prop_assert_eq!(end(&mut store, GUEST, id, true), Ok(()));
        prop_assert_eq!(dump(&mut store), live);
    }

    #[test]
    fn foreign_bytes_never_panic(
        requests in prop::collection::vec((0u32..25, 0u32..3, prop::collection::vec(prop::sample::select(b"/data5\0nrTF@0-x\xff".to_vec()), 0..24)), 1..40),
    ) {
        let mut store = store();
        for (kind, transaction, payload) in requests {
            let message = Message { kind, request: 1, transaction, payload };
            store.handle(GUEST, &message);
            store.handle(CONTROL, &message);
            store.take_notifications();
        }
    }
}
