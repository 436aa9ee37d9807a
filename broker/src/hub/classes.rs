//! Room classes: what a tenant says of its rooms by pattern of their names.
//!
//! What must stay true:
//! - The first class whose pattern matches a room's name is the room's class, in everything; where none matches, the node's
//!   default holds.
//! - Classes are never changed in place: a tenant gets another set, and its open rooms are told.

use std::sync::Arc;

use super::schemas::{Schema, Schemas};
use crate::auth::Pattern;
use crate::rooms::RoomClass;

/// One class of a tenant.
#[derive(Clone, Debug)]
pub struct ClassRule {
    pub rooms: Pattern,
    pub class: Arc<RoomClass>,
    /// What payloads must be like, by event; events that are not here are free.
    pub schemas: Schemas,
}

impl From<(Pattern, Arc<RoomClass>)> for ClassRule {
    fn from((rooms, class): (Pattern, Arc<RoomClass>)) -> Self {
        Self {
            rooms,
            class,
            schemas: Schemas::new(),
        }
    }
}

/// A tenant's classes in their order.
#[derive(Clone, Debug, Default)]
pub struct RoomClasses {
    rules: Arc<[ClassRule]>,
    default: Arc<RoomClass>,
}

impl RoomClasses {
    /// `default` is for rooms that no rule matches.
    pub fn new(rules: Vec<ClassRule>, default: Arc<RoomClass>) -> Self {
        Self {
            rules: rules.into(),
            default,
        }
    }

    /// The class of a room of this name.
    pub fn of(&self, room: &str) -> Arc<RoomClass> {
        self.rule(room).map_or(&self.default, |rule| &rule.class).clone()
    }

    /// What payloads of this event must be like in a room of this name, if that was said.
    pub fn schema(&self, room: &str, event: &str) -> Option<&Schema> {
        self.rule(room)?.schemas.get(event).map(|schema| &**schema)
    }

    /// Whether any class has schemas.
    pub fn has_schemas(&self) -> bool {
        self.rules.iter().any(|rule| !rule.schemas.is_empty())
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &ClassRule> {
        self.rules.iter()
    }

    fn rule(&self, room: &str) -> Option<&ClassRule> {
        self.rules.iter().find(|rule| rule.rooms.matches(room))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{Action, Actions, Allow, ClassGrants, Defaults, Grant};
    use proptest::prelude::*;

    fn class(number: usize) -> Arc<RoomClass> {
        let mut class = RoomClass::default();
        class.history.messages = u32::try_from(number).unwrap();
        Arc::new(class)
    }

    /// Whether a pattern matches, by trying every place for every star.
    fn naive(pattern: &[u8], room: &[u8]) -> bool {
        match (pattern.first(), room.first()) {
            (None, None) => true,
            (Some(b'*'), _) if naive(&pattern[1..], room) => true,
            (Some(b'*'), Some(_)) => naive(pattern, &room[1..]),
            (Some(p), Some(r)) if p == r => naive(&pattern[1..], &room[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn the_first_class_that_matches_holds_for_settings_schemas_and_rights(
            patterns in prop::collection::vec("[ab*$]{1,4}", 0..6), rooms in prop::collection::vec("[ab$]{1,5}", 1..8),
        ) {
            let default = class(99);
            let schema = Arc::new(Schema::compile(&serde_json::json!({})).unwrap());
            let rules = patterns.iter().enumerate().map(|(number, pattern)| ClassRule {
                rooms: Pattern::new(pattern).unwrap(),
                class: class(number),
                schemas: Schemas::from([(format!("event{number}").into(), schema.clone())]),
            });
            let classes = RoomClasses::new(rules.collect(), default);
            // Every other class allows something.
            let allow = |number: usize| Allow {
                everyone: if number.is_multiple_of(2) { Actions::NONE.with(Action::Subscribe) } else { Actions::NONE },
                ..Allow::default()
            };
            let grants = patterns.iter().enumerate();
            let grants = grants.map(|(number, pattern)| (Pattern::new(pattern).unwrap(), allow(number)));
            let defaults = Defaults { classes: Arc::new(ClassGrants::new(grants.collect()).unwrap()), ..Defaults::default() };
            let grant = Grant::new(Default::default(), &defaults, &[]);
            for room in &rooms {
                let expected = patterns.iter().position(|pattern| {
                    naive(pattern.as_bytes(), room.as_bytes()) && (!room.starts_with('$') || pattern.starts_with('$'))
                });
                let number = classes.of(room).history.messages as usize;
                prop_assert_eq!(number, expected.unwrap_or(99), "{} {:?}", room, patterns);
                for event in 0..patterns.len() {
                    let found = classes.schema(room, &format!("event{event}")).is_some();
                    prop_assert_eq!(found, expected == Some(event));
                }
                let allowed = grant.allows(Action::Subscribe, room);
                prop_assert_eq!(allowed, expected.is_some_and(|number| number.is_multiple_of(2)));
            }
        }
    }
}
