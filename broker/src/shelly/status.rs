//! The merged status of a device, and what changed by each merge.
//!
//! What must stay true of [`State`]:
//! - No object in it holds a null: null means "no longer known" and is stored as absence. (Nulls inside arrays stay.)
//! - `nodes` and `bytes` are exactly what [`weigh`] says of the tree, and never above the bounds.
//! - A [`Merged::delta`], applied as a JSON Merge Patch (RFC 7396) to the state before, gives the state after.
//!   So a number that only changed its spelling (`0`, `0.0`) is no change, and keeps its old spelling.

use serde_json::{Map, Value};

/// A JSON object.
pub type Object = Map<String, Value>;

/// Most top-level components kept of a device. Real ones have at most 20; gateways with many sensors below 200.
pub const COMPONENTS_MAX: usize = 256;

/// Longest key kept, in bytes.
pub const KEY_BYTES_MAX: usize = 128;

/// Largest state, in bytes of JSON (an upper estimate: every number counts as its longest spelling). Real ones have
/// 1 to 4 kB.
pub const STATE_BYTES_MAX: usize = 64 * 1024;

/// Most members and elements in a state. Bounds memory where bytes do not: an element costs 2 bytes of JSON and
/// some 50 of memory. Real states have at most 140.
pub const STATE_NODES_MAX: usize = 2_048;

/// Longest spelling of a JSON number: `-1.7976931348623157e308`. Counting all numbers so keeps the count independent
/// of spelling, and a state's size from creeping.
const NUMBER_BYTES: usize = 24;

/// Fields below component level that are objects, so that an empty array in their place is PHP's empty object.
const OBJECT_FIELDS: &[&str] = &[
    "aenergy",
    "available_updates",
    "battery",
    "beta",
    "counts",
    "external",
    "ret_aenergy",
    "stable",
    "temperature",
    "wakeup_reason",
];

/// A device's components by key, merged from all it said.
#[derive(Clone, Debug, Default)]
pub struct State {
    root: Object,
    room: Room,
}

/// What a merge did.
#[derive(Debug, Default)]
pub struct Merged {
    /// The changed leaves, null for what is gone; empty if nothing changed. A JSON Merge Patch.
    pub delta: Object,
    /// Keys and values not taken because the state is full. What was known before stays.
    pub refused: u32,
}

impl State {
    /// A state holding `full`, as far as it fits.
    pub fn new(full: Object) -> Self {
        let mut room = Room::default();
        let root = room.admit_object(full, Level::Root);
        room.refused = 0;
        Self { root, room }
    }

    /// Lays a partial status over the state: objects merge, arrays and scalars replace, null removes.
    pub fn overlay(&mut self, partial: Object) -> Merged {
        let delta = self.room.overlay(&mut self.root, partial, Level::Root);
        Merged {
            delta,
            refused: std::mem::take(&mut self.room.refused),
        }
    }

    /// Replaces the state: what `full` does not mention is gone.
    pub fn replace(&mut self, full: Object) -> Merged {
        let mut room = Room::default();
        let root = room.admit_object(full, Level::Root);
        let refused = std::mem::take(&mut room.refused);
        let before = std::mem::replace(&mut self.root, root);
        self.room = room;
        Merged {
            delta: difference(before, &mut self.root),
            refused,
        }
    }

    /// The components.
    pub fn components(&self) -> &Object {
        &self.root
    }

    /// Members and elements in the whole tree.
    pub fn nodes(&self) -> usize {
        self.room.nodes
    }

    /// Upper estimate of the state's length as JSON, in bytes.
    pub fn bytes(&self) -> usize {
        self.room.bytes + 2
    }
}

/// Where in the tree a key stands: a component is always an object, a field of one only by name.
#[derive(Clone, Copy, PartialEq)]
enum Level {
    Root,
    Below,
}

/// What the tree takes so far, without the braces of its root.
#[derive(Clone, Copy, Debug, Default)]
struct Room {
    nodes: usize,
    bytes: usize,
    refused: u32,
}

impl Room {
    fn overlay(&mut self, target: &mut Object, patch: Object, level: Level) -> Object {
        let mut delta = Object::new();
        for (key, value) in patch {
            if value.is_null() {
                if let Some(gone) = target.remove(&key) {
                    self.release(Weight::of_member(&key, &gone));
                    delta.insert(key, Value::Null);
                }
                continue;
            }
            let Some(known) = target.get_mut(&key) else {
                if let Some(value) = self.admit_member(target.len(), &key, value, level) {
                    delta.insert(key.clone(), value.clone());
                    target.insert(key, value);
                }
                continue;
            };
            match (known, value) {
                (Value::Object(known), Value::Object(patch)) => {
                    let changed = self.overlay(known, patch, Level::Below);
                    if !changed.is_empty() {
                        delta.insert(key, Value::Object(changed));
                    }
                }
                // PHP's way to write an empty object, which as an overlay says nothing.
                (Value::Object(_), Value::Array(items)) if items.is_empty() => {}
                (known, value) => {
                    if same(known, &value) {
                        continue;
                    }
                    let old = Weight::of(known);
                    self.release(old);
                    if let Some(value) = self.admit(&key, value, level) {
                        delta.insert(key, value.clone());
                        *known = value;
                    } else {
                        // It held the old value before, so it has room for it now.
                        self.charge(old);
                    }
                }
            }
        }
        delta
    }

    /// The object's members as far as they fit, normalised.
    fn admit_object(&mut self, object: Object, level: Level) -> Object {
        let mut kept = Object::new();
        for (key, value) in object {
            if let Some(value) = self.admit_member(kept.len(), &key, value, level) {
                kept.insert(key, value);
            }
        }
        kept
    }

    /// A new member's value if it fits beside `siblings` others. Null is absence and fits nowhere.
    fn admit_member(&mut self, siblings: usize, key: &str, value: Value, level: Level) -> Option<Value> {
        if value.is_null() {
            return None;
        }
        if key.len() > KEY_BYTES_MAX || (level == Level::Root && siblings >= COMPONENTS_MAX) {
            self.refuse();
            return None;
        }
        let weight = Weight::of_key(key);
        if !self.fits(weight) {
            self.refuse();
            return None;
        }
        self.charge(weight);
        let admitted = self.admit(key, value, level);
        if admitted.is_none() {
            self.release(weight);
        }
        admitted
    }

    /// A value if it fits: objects as far as their members do, everything else whole or not at all.
    fn admit(&mut self, key: &str, value: Value, level: Level) -> Option<Value> {
        let value = match value {
            Value::Array(items) if items.is_empty() && expects_object(key, level) => {
                Value::Object(Object::new())
            }
            other => other,
        };
        let weight = match &value {
            Value::Object(_) => Weight::BRACES,
            leaf => Weight::of(leaf),
        };
        if !self.fits(weight) {
            self.refuse();
            return None;
        }
        self.charge(weight);
        Some(match value {
            Value::Object(members) => Value::Object(self.admit_object(members, Level::Below)),
            leaf => leaf,
        })
    }

    fn fits(&self, more: Weight) -> bool {
        self.nodes + more.nodes <= STATE_NODES_MAX && self.bytes + 2 + more.bytes <= STATE_BYTES_MAX
    }

    fn charge(&mut self, more: Weight) {
        self.nodes += more.nodes;
        self.bytes += more.bytes;
    }

    fn release(&mut self, less: Weight) {
        self.nodes -= less.nodes;
        self.bytes -= less.bytes;
    }

    fn refuse(&mut self) {
        self.refused = self.refused.saturating_add(1);
    }
}

/// What a piece of the tree takes.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Weight {
    nodes: usize,
    bytes: usize,
}

impl Weight {
    const BRACES: Self = Self { nodes: 0, bytes: 2 };

    /// A member's key with its quotes, colon and comma, as one node.
    fn of_key(key: &str) -> Self {
        Self {
            nodes: 1,
            bytes: escaped_bytes(key) + 4,
        }
    }

    fn of_member(key: &str, value: &Value) -> Self {
        Self::of_key(key).and(Self::of(value))
    }

    /// Recursion is bounded by the depth of a frame.
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self { nodes: 0, bytes: 4 },
            Value::Bool(_) => Self { nodes: 0, bytes: 5 },
            Value::Number(_) => Self {
                nodes: 0,
                bytes: NUMBER_BYTES,
            },
            Value::String(text) => Self {
                nodes: 0,
                bytes: escaped_bytes(text) + 2,
            },
            Value::Array(items) => items.iter().fold(Self::BRACES, |sum, item| {
                sum.and(Self::of(item)).and(Self { nodes: 1, bytes: 1 })
            }),
            Value::Object(members) => members.iter().fold(Self::BRACES, |sum, (key, value)| {
                sum.and(Self::of_member(key, value))
            }),
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            nodes: self.nodes + other.nodes,
            bytes: self.bytes + other.bytes,
        }
    }
}

/// Nodes and bytes of a whole tree, counted afresh: what [`State::nodes`] and [`State::bytes`] must equal.
pub(super) fn weigh(root: &Object) -> (usize, usize) {
    let sum = root.iter().fold(Weight::BRACES, |sum, (key, value)| {
        sum.and(Weight::of_member(key, value))
    });
    (sum.nodes, sum.bytes)
}

/// Equal in meaning: numbers by value, whatever their spelling.
pub(super) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        // Only across spellings through floats: two large integers may share one.
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() != b.is_f64() && a.as_f64() == b.as_f64())
        }
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

/// The merge patch from `before` to `after`. Values equal in meaning keep their old spelling in `after`.
fn difference(before: Object, after: &mut Object) -> Object {
    let mut delta: Object = after
        .iter()
        .filter(|(key, _)| !before.contains_key(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    for (key, old) in before {
        let Some(new) = after.get_mut(&key) else {
            delta.insert(key, Value::Null);
            continue;
        };
        match (old, new) {
            (Value::Object(old), Value::Object(new)) => {
                let changed = difference(old, new);
                if !changed.is_empty() {
                    delta.insert(key, Value::Object(changed));
                }
            }
            (old, new) if same(&old, new) => *new = old,
            (_, new) => {
                delta.insert(key, new.clone());
            }
        }
    }
    delta
}

/// Whether an empty array at `key` stands for an empty object.
fn expects_object(key: &str, level: Level) -> bool {
    level == Level::Root || OBJECT_FIELDS.contains(&key)
}

/// Bytes of a string within its quotes, as JSON.
fn escaped_bytes(text: &str) -> usize {
    text.bytes()
        .map(|byte| match byte {
            b'"' | b'\\' => 2,
            0..0x20 => 6,
            _ => 1,
        })
        .sum()
}
