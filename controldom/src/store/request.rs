//! The answers to requests, one function a kind, with the errors that Xen's own stores give.

use alloc::{boxed::Box, rc::Rc, string::ToString, vec::Vec};
use xen_abi::io::xs_wire::{
    XS_CONTROL, XS_DIRECTORY, XS_DIRECTORY_PART, XS_GET_DOMAIN_PATH, XS_GET_PERMS, XS_INTRODUCE,
    XS_IS_DOMAIN_INTRODUCED, XS_MKDIR, XS_READ, XS_RELEASE, XS_RESET_WATCHES, XS_RESUME, XS_RM, XS_SET_PERMS,
    XS_SET_TARGET, XS_TRANSACTION_END, XS_TRANSACTION_START, XS_UNWATCH, XS_WATCH, XS_WRITE,
};

use super::{
    Access, Caller, Change, Key, Node, Path, Permissions, Special, Store, StoreError, Target, Transaction,
    Tree, Used, permissions::parse_domain,
};
use crate::{
    DomainId,
    journal::Entry,
    wire::{Message, PAYLOAD_MAX, encode_reply, strings},
};

type Answer = Result<Vec<u8>, StoreError>;

/// What a request is made by and within.
#[derive(Clone, Copy)]
struct Context {
    caller: Caller,
    transaction: u32,
}

impl Context {
    fn key(&self) -> Key {
        (self.caller.domain, self.transaction)
    }
}

impl Store {
    /// Answers a request: the reply's bytes. Watch events gather for [`Store::take_notifications`].
    pub fn handle(&mut self, domain: DomainId, message: &Message) -> Vec<u8> {
        let context = Context {
            caller: self.caller(domain),
            transaction: message.transaction,
        };
        let answer = self.answer(context, message.kind, &message.payload);
        encode_reply(message, answer)
    }

    fn answer(&mut self, context: Context, kind: u32, payload: &[u8]) -> Answer {
        match kind {
            XS_CONTROL => control(context.caller, payload),
            XS_INTRODUCE | XS_RELEASE | XS_RESUME | XS_SET_TARGET => introduce_by_request(context.caller),
            XS_WATCH => self.add_watch(context.caller, payload),
            XS_UNWATCH => self.remove_watch(context.caller, payload),
            XS_RESET_WATCHES => {
                self.reset(context.caller.domain);
                done()
            }
            XS_GET_DOMAIN_PATH => Ok(strings([
                Path::home(parse_domain(one_string(payload)?)?).as_bytes()
            ])),
            XS_IS_DOMAIN_INTRODUCED => {
                let domain = parse_domain(one_string(payload)?)?;
                let introduced = domain == self.control || self.introduced.contains(&domain);
                Ok(strings([if introduced { b"T".as_slice() } else { b"F" }]))
            }
            XS_TRANSACTION_START => self.begin_transaction(context),
            XS_TRANSACTION_END => self.end_transaction(context, payload),
            XS_READ => {
                let node = self.look(context, payload, Access::READ, Used::CONTENT)?;
                Ok(node.value.to_vec())
            }
            XS_DIRECTORY => {
                let node = self.look(context, payload, Access::READ, Used::CHILDREN)?;
                Ok(strings(node.children.keys().map(|name| name.as_bytes())))
            }
            XS_DIRECTORY_PART => self.directory_part(context, payload),
            XS_GET_PERMS => self.get_permissions(context, payload),
            XS_SET_PERMS => self.set_permissions(context, payload),
            XS_WRITE => self.write_node(context, payload),
            XS_MKDIR => self.make_node(context, payload),
            XS_RM => self.remove_node(context, payload),
            _ => Err(StoreError::Unknown),
        }
    }

    fn directory_part(&mut self, context: Context, payload: &[u8]) -> Answer {
        let [name, offset] = some_strings(payload)?;
        let offset = core::str::from_utf8(offset)
            .ok()
            .and_then(|offset| offset.parse::<usize>().ok());
        let mut offset = offset.ok_or(StoreError::Invalid)?;
        let path = Path::parse(context.caller.domain, name)?;
        let node = self.find(context, &path, Access::READ, Used::CHILDREN)?;
        let mut answer = strings([node.generation().to_string().as_bytes()]);
        let mut names = node.children.keys().peekable();
        while let Some(name) = names.next_if(|name| name.len() < offset) {
            offset -= name.len() + 1;
        }
        for name in names {
            let name = &name.as_bytes()[core::mem::take(&mut offset).min(name.len())..];
            // Room for its end, and for the empty name behind the last.
            if answer.len() + name.len() + 2 > PAYLOAD_MAX {
                return Ok(answer);
            }
            answer.extend(strings([name]));
        }
        answer.push(0);
        Ok(answer)
    }

    fn get_permissions(&mut self, context: Context, payload: &[u8]) -> Answer {
        let name = one_string(payload)?;
        let permissions = if name.starts_with(b"@") {
            let permissions = self
                .special
                .get(&Special::parse(name)?)
                .ok_or(StoreError::Missing)?;
            if !permissions.access(context.caller).includes(Access::READ) {
                return Err(StoreError::Access);
            }
            Rc::new(permissions.clone())
        } else {
            self.look(context, payload, Access::READ, Used::CONTENT)?
                .permissions
                .clone()
        };
        let entries: Vec<_> = permissions.entries().collect();
        Ok(strings(entries.iter().map(|entry| entry.as_bytes())))
    }

    fn set_permissions(&mut self, context: Context, payload: &[u8]) -> Answer {
        let payload = payload.strip_suffix(&[0]).ok_or(StoreError::Invalid)?;
        let mut parts = payload.split(|byte| *byte == 0);
        let name = parts.next().ok_or(StoreError::Invalid)?;
        let permissions = Permissions::parse(parts)?;
        if name.starts_with(b"@") {
            let special = Special::parse(name)?;
            if !context.caller.privileged {
                return Err(StoreError::Access);
            }
            self.batch
                .note(|| Entry::Special(special.name().into(), permissions.rights()));
            self.special.insert(special, permissions);
            return done();
        }
        let path = Path::parse(context.caller.domain, name)?;
        let node = self.find(context, &path, Access::WRITE, Used::CONTENT)?;
        if !node.permissions.owned_by(context.caller) {
            return Err(StoreError::Access);
        }
        if !context.caller.privileged && permissions.owner != node.permissions.owner {
            return Err(StoreError::NotOwner);
        }
        self.apply(context, Change::Permit(path, Rc::new(permissions)))
    }

    fn write_node(&mut self, context: Context, payload: &[u8]) -> Answer {
        let end = payload
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(StoreError::Invalid)?;
        let path = Path::parse(context.caller.domain, &payload[..end])?;
        match self.find(context, &path, Access::WRITE, Used::CONTENT) {
            Ok(_) | Err(StoreError::Missing) => {}
            Err(error) => return Err(error),
        }
        self.apply(context, Change::Write(path, payload[end + 1..].into()))
    }

    fn make_node(&mut self, context: Context, payload: &[u8]) -> Answer {
        let path = Path::parse(context.caller.domain, one_string(payload)?)?;
        match self.find(context, &path, Access::WRITE, Used::CONTENT) {
            Ok(_) => done(),
            Err(StoreError::Missing) => self.apply(context, Change::Make(path)),
            Err(error) => Err(error),
        }
    }

    fn remove_node(&mut self, context: Context, payload: &[u8]) -> Answer {
        let path = Path::parse(context.caller.domain, one_string(payload)?)?;
        let parent = path.parent().ok_or(StoreError::Invalid)?;
        match self.find(context, &path, Access::WRITE, Used::SUBTREE) {
            Ok(node) => {
                // Whoever may only write to a node given to it, as `data` of a guest, cannot take it away.
                let owned = node.permissions.owned_by(context.caller);
                if !owned && self.find(context, &parent, Access::WRITE, Used::CONTENT).is_err() {
                    return Err(StoreError::Access);
                }
                self.apply(context, Change::Remove(path))
            }
            // It is no error that a node is gone already, but it is one that its parent is.
            Err(StoreError::Missing) if self.tree_of(context)?.get(&parent).is_some() => done(),
            Err(error) => Err(error),
        }
    }

    fn begin_transaction(&mut self, context: Context) -> Answer {
        let domain = context.caller.domain;
        if context.transaction != 0 {
            let known = self.transactions.contains(context.key());
            return Err(if known {
                StoreError::Busy
            } else {
                StoreError::Missing
            });
        }
        if !context.caller.privileged && self.transactions.count(domain) >= self.quota.transactions {
            return Err(StoreError::NoSpace);
        }
        let id = self.transactions.begin(domain, &mut self.tree);
        self.batch.note(|| Entry::Begun(domain.0, id));
        Ok(strings([id.to_string().as_bytes()]))
    }

    fn end_transaction(&mut self, context: Context, payload: &[u8]) -> Answer {
        if !self.transactions.contains(context.key()) {
            return Err(StoreError::Missing);
        }
        let commit = match one_string(payload)? {
            b"T" => true,
            b"F" => false,
            _ => return Err(StoreError::Invalid),
        };
        let transaction = self.transactions.end(context.key())?;
        let (domain, id) = context.key();
        self.batch.note(|| Entry::Ended(domain.0, id));
        if commit {
            self.commit(context.caller, transaction.ok_or(StoreError::Conflict)?)?;
        }
        done()
    }

    fn add_watch(&mut self, caller: Caller, payload: &[u8]) -> Answer {
        let [name, token] = some_strings(payload)?;
        let (target, relative) = target(caller, name)?;
        if let Target::Special(special) = &target {
            let permissions = self.special.get(special).ok_or(StoreError::Missing)?;
            if !permissions.access(caller).includes(Access::READ) {
                return Err(StoreError::Access);
            }
        }
        let (watches, bytes) = self.watches.usage(caller.domain);
        let bytes = bytes + target.length() + token.len();
        let full = watches >= self.quota.watches || bytes > self.quota.watch_bytes;
        if full && !caller.privileged {
            return Err(StoreError::TooBig);
        }
        self.add(caller.domain, target, token, relative)?;
        done()
    }

    fn remove_watch(&mut self, caller: Caller, payload: &[u8]) -> Answer {
        let [name, token] = some_strings(payload)?;
        let (target, _) = target(caller, name)?;
        self.watches.remove(caller.domain, &target, token)?;
        self.batch
            .note(|| Entry::Unwatch(caller.domain.0, target.name().into(), token.into()));
        done()
    }

    fn tree_of(&self, context: Context) -> Result<&Tree, StoreError> {
        if context.transaction == 0 {
            return Ok(&self.tree);
        }
        self.transactions.get(context.key()).map(Transaction::tree)
    }

    /// The node that a payload of one path names, if the caller has the access that it needs.
    fn look(
        &mut self,
        context: Context,
        payload: &[u8],
        needed: Access,
        used: Used,
    ) -> Result<Rc<Node>, StoreError> {
        let path = Path::parse(context.caller.domain, one_string(payload)?)?;
        self.find(context, &path, needed, used)
    }

    /// The node at a path, if the caller has the access that it needs. That it is missing is told only to those who have that
    /// access to the nearest node above.
    fn find(
        &mut self,
        context: Context,
        path: &Path,
        needed: Access,
        used: Used,
    ) -> Result<Rc<Node>, StoreError> {
        let caller = context.caller;
        if context.transaction != 0 {
            let transaction = self.transactions.get_mut(context.key())?;
            transaction.note(path, used, caller, &self.quota)?;
        }
        let reach = self.tree_of(context)?.reach(path);
        if !reach.node.permissions.access(caller).includes(needed) {
            return Err(StoreError::Access);
        }
        if reach.complete {
            Ok(reach.node.clone())
        } else {
            Err(StoreError::Missing)
        }
    }

    fn apply(&mut self, context: Context, change: Change) -> Answer {
        if context.transaction == 0 {
            self.change_as(context.caller, change)?;
        } else {
            self.changes += 1;
            let transaction = self.transactions.get_mut(context.key())?;
            let (domain, id) = context.key();
            let entry = super::replay::entry(domain, &change);
            transaction.apply(context.caller, change, &self.quota, self.changes)?;
            self.batch.note(|| Entry::Within(id, Box::new(entry)));
            self.transactions.keep_within(self.quota.transaction_memory);
        }
        done()
    }
}

fn done() -> Answer {
    Ok(strings([b"OK".as_slice()]))
}

fn control(caller: Caller, payload: &[u8]) -> Answer {
    if !caller.privileged {
        return Err(StoreError::Access);
    }
    match payload.split(|byte| *byte == 0).next() {
        Some(b"help") => Ok(strings([
            b"help: this list; domains are introduced by the manifest".as_slice(),
        ])),
        _ => Err(StoreError::Invalid),
    }
}

/// Domains are introduced when they start, and released when they stop, by the control plane alone.
fn introduce_by_request(caller: Caller) -> Answer {
    Err(if caller.privileged {
        StoreError::Unknown
    } else {
        StoreError::Access
    })
}

fn target(caller: Caller, name: &[u8]) -> Result<(Target, bool), StoreError> {
    if name.starts_with(b"@") {
        return Ok((Target::Special(Special::parse(name)?), false));
    }
    Ok((
        Target::Node(Path::parse(caller.domain, name)?),
        !name.starts_with(b"/"),
    ))
}

/// The payload as exactly one string.
fn one_string(payload: &[u8]) -> Result<&[u8], StoreError> {
    let string = payload.strip_suffix(&[0]).ok_or(StoreError::Invalid)?;
    if string.contains(&0) {
        Err(StoreError::Invalid)
    } else {
        Ok(string)
    }
}

/// The first strings of the payload; what follows them is reserved.
fn some_strings<const COUNT: usize>(payload: &[u8]) -> Result<[&[u8]; COUNT], StoreError> {
    let mut strings = [[].as_slice(); COUNT];
    let mut rest = payload;
    for string in &mut strings {
        let end = rest
            .iter()
            .position(|byte| *byte == 0)
            .ok_or(StoreError::Invalid)?;
        (*string, rest) = (&rest[..end], &rest[end + 1..]);
    }
    Ok(strings)
}
