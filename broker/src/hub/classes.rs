//! Room classes: what a tenant says of its rooms by pattern of their names.
//!
//! What must stay true: the first class whose pattern matches a room's name is the room's class; where none matches, the
//! node's default holds.

use std::sync::Arc;

use crate::auth::Pattern;
use crate::rooms::RoomClass;

/// A tenant's classes in their order.
#[derive(Clone, Debug, Default)]
pub struct RoomClasses {
    classes: Arc<[(Pattern, Arc<RoomClass>)]>,
    default: Arc<RoomClass>,
}

impl RoomClasses {
    pub fn new(classes: Vec<(Pattern, Arc<RoomClass>)>, default: Arc<RoomClass>) -> Self {
        Self {
            classes: classes.into(),
            default,
        }
    }

    /// The class of a room of this name.
    pub fn of(&self, room: &str) -> Arc<RoomClass> {
        self.classes
            .iter()
            .find(|(pattern, _)| pattern.matches(room))
            .map_or(&self.default, |(_, class)| class)
            .clone()
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = &(Pattern, Arc<RoomClass>)> {
        self.classes.iter()
    }
}
