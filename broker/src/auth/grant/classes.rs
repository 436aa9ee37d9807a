//! What the classes of a tenant's rooms allow, to everyone or to a role. One table a tenant, shared by all its grants: a
//! grant keeps which of the table's roles its principal has, a bit each, and nothing else.

use std::collections::BTreeMap;
use std::sync::Arc;

use cauce_protocol::Role;

use super::{Actions, GrantError, Pattern, ROLES_WITH_DEFAULTS_MAX, RoleGrants};

/// Roles of a table, a bit each.
pub(super) type RoleBits = u64;

const _: () = assert!(ROLES_WITH_DEFAULTS_MAX <= RoleBits::BITS as usize);

/// What one class allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allow {
    pub everyone: Actions,
    pub roles: BTreeMap<Role, Actions>,
}

/// The classes in their order. As for everything else of a class, the first whose pattern matches a room decides: one that
/// allows nothing there keeps those behind it from doing so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassGrants {
    /// In order of their names; the place of a role is its bit.
    roles: Box<[Role]>,
    classes: Box<[Class]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Class {
    rooms: Pattern,
    everyone: Actions,
    roles: Box<[(RoleBits, Actions)]>,
}

impl ClassGrants {
    /// # Errors
    /// If they speak of more than [`ROLES_WITH_DEFAULTS_MAX`] roles in all.
    pub fn new(classes: Vec<(Pattern, Allow)>) -> Result<Self, GrantError> {
        let names = classes.iter().flat_map(|(_, allow)| allow.roles.keys());
        let mut roles: Vec<Role> = names.cloned().collect();
        roles.sort_unstable();
        roles.dedup();
        if roles.len() > ROLES_WITH_DEFAULTS_MAX {
            return Err(GrantError::TooManyRoles);
        }
        let class = |(rooms, allow): (Pattern, Allow)| Class {
            rooms,
            everyone: allow.everyone,
            roles: allow
                .roles
                .into_iter()
                .map(|(role, actions)| (bit(&roles, &role), actions))
                .collect(),
        };
        Ok(Self {
            classes: classes.into_iter().map(class).collect(),
            roles: roles.into(),
        })
    }

    /// Which of the table's roles are among these.
    pub(super) fn bits(&self, roles: &[Role]) -> RoleBits {
        roles.iter().fold(0, |bits, role| bits | bit(&self.roles, role))
    }

    /// What the class of a room of this name allows to whoever has these roles.
    pub(super) fn at(&self, room: &str, roles: RoleBits) -> Actions {
        let Some(class) = self.classes.iter().find(|class| class.rooms.matches(room)) else {
            return Actions::NONE;
        };
        let held = class.roles.iter().filter(|(bit, _)| roles & bit != 0);
        held.fold(class.everyone, |sum, (_, actions)| sum.union(*actions))
    }
}

/// 0 for a role that is not there.
fn bit(roles: &[Role], role: &Role) -> RoleBits {
    roles.binary_search(role).map_or(0, |at| 1 << at)
}

/// What a tenant allows unless a token says otherwise: by role, and by class of room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    pub roles: Arc<RoleGrants>,
    pub classes: Arc<ClassGrants>,
    /// Which of the tenant's defaults these are; set when they are put in force.
    pub(crate) version: u32,
}

impl Defaults {
    pub fn new(roles: Arc<RoleGrants>, classes: Arc<ClassGrants>) -> Self {
        Self {
            roles,
            classes,
            version: 0,
        }
    }

    /// Whether both allow the same.
    pub fn agrees_with(&self, other: &Self) -> bool {
        self.roles == other.roles && self.classes == other.classes
    }
}

impl From<RoleGrants> for Defaults {
    fn from(roles: RoleGrants) -> Self {
        Self::new(Arc::new(roles), Arc::default())
    }
}
