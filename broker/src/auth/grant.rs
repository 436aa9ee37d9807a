//! Rights: which actions a principal may take in which rooms. Pure.
//!
//! What must stay true:
//! - Nothing is allowed that no rule allows; there are no rules by default.
//! - A `*` never reaches a reserved name (`$…`); a pattern must begin with `$` itself to do so.
//! - No grant, however wide, lets a client publish into a reserved room: those are written by the broker alone.
//! - A token's rules lie over the defaults of its roles and of the room's class: wherever one of them matches a room, they
//!   alone decide, so an issuer can narrow as well as widen. Elsewhere the defaults hold, all of them together.

mod classes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use cauce_protocol::{Code, Refusal, Role};
use serde::{Deserialize, Serialize};

use self::classes::RoleBits;
pub use self::classes::{Allow, ClassGrants, Defaults};

/// Longest pattern, in bytes: as long as the longest room name.
pub const PATTERN_BYTES_MAX: usize = cauce_protocol::limits::NAME_BYTES_MAX;

/// Patterns that one token, or one role, may carry. Every request scans all of them, so they stay few.
pub const PATTERNS_MAX: usize = 64;

/// Roles for which one tenant may set defaults.
pub const ROLES_WITH_DEFAULTS_MAX: usize = 64;

/// One right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Action {
    Subscribe = 1,
    Publish = 2,
    Presence = 4,
    History = 8,
    Call = 16,
}

impl Action {
    pub const ALL: [Self; 5] = [
        Self::Subscribe,
        Self::Publish,
        Self::Presence,
        Self::History,
        Self::Call,
    ];

    /// As written in the `allow` list of a grant.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Presence => "presence",
            Self::History => "history",
            Self::Call => "call",
        }
    }
}

/// A set of [`Action`]s.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Actions(u8);

impl Actions {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self(31);

    #[must_use]
    pub const fn with(self, action: Action) -> Self {
        Self(self.0 | action as u8)
    }

    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn contains(self, action: Action) -> bool {
        self.0 & action as u8 != 0
    }

    pub fn iter(self) -> impl Iterator<Item = Action> {
        Action::ALL.into_iter().filter(move |&a| self.contains(a))
    }
}

impl FromIterator<Action> for Actions {
    fn from_iter<I: IntoIterator<Item = Action>>(actions: I) -> Self {
        actions.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl Serialize for Actions {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

impl<'de> Deserialize<'de> for Actions {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::<Action>::deserialize(deserializer).map(Self::from_iter)
    }
}

/// Why a grant was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GrantError {
    EmptyPattern,
    /// Longer than [`PATTERN_BYTES_MAX`].
    PatternTooLong,
    /// A control character: no room has one in its name.
    PatternCharacter(char),
    /// More than [`PATTERNS_MAX`].
    TooManyPatterns,
    /// More than [`ROLES_WITH_DEFAULTS_MAX`].
    TooManyRoles,
}

impl fmt::Display for GrantError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::EmptyPattern => write!(f, "a room pattern is empty"),
            Self::PatternTooLong => write!(f, "a room pattern is longer than {PATTERN_BYTES_MAX} bytes"),
            Self::PatternCharacter(c) => {
                write!(f, "a room pattern contains the character {}", c.escape_unicode())
            }
            Self::TooManyPatterns => write!(f, "there are more than {PATTERNS_MAX} room patterns"),
            Self::TooManyRoles => write!(f, "there are more than {ROLES_WITH_DEFAULTS_MAX} roles"),
        }
    }
}

impl std::error::Error for GrantError {}

/// Room names, with `*` for any run of characters (also none). There is no escape: `*` in a room name is matched by `*`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern(Box<str>);

impl Pattern {
    /// # Errors
    /// If it is empty, too long or holds a control character.
    pub fn new(pattern: &str) -> Result<Self, GrantError> {
        if pattern.is_empty() {
            return Err(GrantError::EmptyPattern);
        }
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(GrantError::PatternTooLong);
        }
        if let Some(c) = pattern.chars().find(|c| c.is_control()) {
            return Err(GrantError::PatternCharacter(c));
        }
        Ok(Self(pattern.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn matches(&self, room: &str) -> bool {
        matches(&self.0, room)
    }
}

/// Linear in the lengths of both: each piece between stars is searched once, leftmost, and never again.
fn matches(pattern: &str, room: &str) -> bool {
    if room.starts_with('$') && !pattern.starts_with('$') {
        return false;
    }
    let Some((prefix, rest)) = pattern.split_once('*') else {
        return pattern == room;
    };
    let Some(room) = room.strip_prefix(prefix) else {
        return false;
    };
    let (middle, suffix) = rest.rsplit_once('*').unwrap_or(("", rest));
    let Some(mut room) = room.strip_suffix(suffix) else {
        return false;
    };
    for piece in middle.split('*') {
        match room.find(piece) {
            Some(at) => room = &room[at + piece.len()..],
            None => return false,
        }
    }
    true
}

impl Serialize for Pattern {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// Patterns and what is allowed where they match: one entry of a token's `grants`, or of a role's defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub rooms: Vec<Pattern>,
    pub allow: Actions,
}

/// A set of rules within its bounds, a list of [`Rule`]s in JSON. Cheap to share, and one piece of memory however many they are,
/// because each idle connection keeps its token's.
///
/// Each pattern is preceded by what it allows, as one character. All sets of actions are control characters, which no pattern
/// contains, so it also ends the pattern before.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "Vec<Rule>")]
pub struct Rules(Arc<str>);

const _: () = assert!(Actions::ALL.0 < b' ');

impl Rules {
    /// # Errors
    /// If there are more than [`PATTERNS_MAX`] patterns.
    pub fn new(rules: Vec<Rule>) -> Result<Self, GrantError> {
        if rules.iter().map(|rule| rule.rooms.len()).sum::<usize>() > PATTERNS_MAX {
            return Err(GrantError::TooManyPatterns);
        }
        let mut text = String::new();
        for Rule { rooms, allow } in &rules {
            for pattern in rooms {
                text.push(char::from(allow.0));
                text.push_str(pattern.as_str());
            }
        }
        Ok(Self(text.into()))
    }

    /// Patterns and what they allow, in their order.
    fn iter(&self) -> impl Iterator<Item = (&str, Actions)> {
        let mut rest = &*self.0;
        std::iter::from_fn(move || {
            let allow = Actions(*rest.as_bytes().first()?);
            let behind = &rest[1..];
            let end = behind.bytes().position(|byte| byte <= Actions::ALL.0);
            let (pattern, next) = behind.split_at(end.unwrap_or(behind.len()));
            rest = next;
            Some((pattern, allow))
        })
    }

    /// What all rules that match the room allow together; `None` if none matches.
    fn at(&self, room: &str) -> Option<Actions> {
        self.iter()
            .filter(|(pattern, _)| matches(pattern, room))
            .fold(None, |sum, (_, allow)| Some(sum.unwrap_or_default().union(allow)))
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl TryFrom<Vec<Rule>> for Rules {
    type Error = GrantError;

    fn try_from(rules: Vec<Rule>) -> Result<Self, GrantError> {
        Self::new(rules)
    }
}

/// One rule for each pattern: the same meaning, though not the same grouping, as what was read.
impl Serialize for Rules {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let rule = |(pattern, allow): (&str, Actions)| Rule {
            rooms: vec![Pattern(pattern.into())],
            allow,
        };
        serializer.collect_seq(self.iter().map(rule))
    }
}

/// What a tenant allows each role unless the token says otherwise: in JSON, an object of role names and their rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<Role, Rules>")]
pub struct RoleGrants(BTreeMap<Role, Rules>);

impl TryFrom<BTreeMap<Role, Rules>> for RoleGrants {
    type Error = GrantError;

    fn try_from(roles: BTreeMap<Role, Rules>) -> Result<Self, GrantError> {
        Self::new(roles)
    }
}

impl RoleGrants {
    /// # Errors
    /// If there are more than [`ROLES_WITH_DEFAULTS_MAX`] roles.
    pub fn new(roles: impl IntoIterator<Item = (Role, Rules)>) -> Result<Self, GrantError> {
        let roles: BTreeMap<_, _> = roles.into_iter().collect();
        if roles.len() > ROLES_WITH_DEFAULTS_MAX {
            return Err(GrantError::TooManyRoles);
        }
        Ok(Self(roles))
    }

    fn of(&self, roles: &[Role]) -> Box<[Rules]> {
        roles
            .iter()
            .filter_map(|role| self.0.get(role))
            .cloned()
            .collect()
    }
}

/// The rights of one principal: the rules of the token over the defaults of its roles and of the rooms' classes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Grant {
    token: Rules,
    roles: Box<[Rules]>,
    classes: Arc<ClassGrants>,
    /// Which of the roles that `classes` speaks of this principal has.
    class_roles: RoleBits,
    /// Of the defaults that are in it.
    version: u32,
}

impl Grant {
    /// No rights at all.
    pub fn none() -> Self {
        Self::default()
    }

    /// `token` over what `defaults` give to everyone and to `roles`.
    pub fn new(token: Rules, defaults: &Defaults, roles: &[Role]) -> Self {
        Self {
            token,
            roles: defaults.roles.of(roles),
            classes: defaults.classes.clone(),
            class_roles: defaults.classes.bits(roles),
            version: defaults.version,
        }
    }

    /// The same token under other defaults.
    #[must_use]
    pub fn over(&self, defaults: &Defaults, roles: &[Role]) -> Self {
        Self::new(self.token.clone(), defaults, roles)
    }

    /// Which of the tenant's defaults are in it: another one means that [`over`](Self::over) is due.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Everything everywhere but reserved rooms: for the in-process handle and for tests.
    pub fn everything() -> Self {
        Self {
            token: Rules(format!("{}*", char::from(Actions::ALL.0)).into()),
            ..Self::default()
        }
    }

    /// Whether messages may be sent to people or connections under this address: `$user:<id>`, `$role:<name>`,
    /// `$connection`, `$tenant`. It is the right to publish there, which [`at`](Self::at) takes away for rooms.
    pub fn allows_send(&self, address: &str) -> bool {
        self.granted(address).contains(Action::Publish)
    }

    /// All that is allowed in the room.
    pub fn at(&self, room: &str) -> Actions {
        let allowed = self.granted(room);
        if room.starts_with('$') {
            Actions(allowed.0 & !(Action::Publish as u8))
        } else {
            allowed
        }
    }

    fn granted(&self, name: &str) -> Actions {
        self.token.at(name).unwrap_or_else(|| {
            let given = self.roles.iter().filter_map(|rules| rules.at(name));
            given.fold(self.classes.at(name, self.class_roles), Actions::union)
        })
    }

    pub fn allows(&self, action: Action, room: &str) -> bool {
        self.at(room).contains(action)
    }

    /// The same as [`allows`](Self::allows), with the refusal to send back.
    ///
    /// # Errors
    /// [`Code::Forbidden`]; the words name the right that is missing and nothing of what else the token may do.
    pub fn explain(&self, action: Action, room: &str) -> Result<(), Refusal> {
        if self.allows(action, room) {
            return Ok(());
        }
        Err(Refusal::new(
            Code::Forbidden,
            match action {
                Action::Publish if room.starts_with('$') => {
                    "only the broker publishes to rooms that begin with $"
                }
                Action::Subscribe => "the token lacks the right to subscribe to this room",
                Action::Publish => "the token lacks the right to publish to this room",
                Action::Presence => "the token lacks the right to see presence in this room",
                Action::History => "the token lacks the right to read the history of this room",
                Action::Call => "the token lacks the right to call here",
            },
        ))
    }
}

#[cfg(test)]
mod tests;
