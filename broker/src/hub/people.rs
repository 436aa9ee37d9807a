//! Users of a tenant who are connected to this node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cauce_protocol::UserId;
use parking_lot::Mutex;

use crate::rate::SharedGcra;

/// A user with at least one connection.
#[derive(Debug)]
pub struct Person {
    pub id: UserId,
    /// What its connections have published lately. A user who comes back after the last has closed begins anew; the tenant's
    /// limit does not.
    pub publishes: SharedGcra,
}

/// Who is connected, with how many connections. Touched when connections come and go, and by administration; never on the path
/// of messages.
#[derive(Debug, Default)]
pub(super) struct People(Mutex<HashMap<UserId, Entry, foldhash::fast::RandomState>>);

#[derive(Debug)]
struct Entry {
    connections: u32,
    person: Arc<Person>,
}

impl People {
    /// Counts a connection of this user in, unless there are as many as there may be.
    pub(super) fn enter(&self, user: &UserId, connections_max: usize) -> Option<Arc<Person>> {
        let mut people = self.0.lock();
        if let Some(entry) = people.get_mut(user) {
            if entry.connections as usize >= connections_max {
                return None;
            }
            entry.connections += 1;
            return Some(entry.person.clone());
        }
        if connections_max == 0 {
            return None;
        }
        let person = Arc::new(Person {
            id: user.clone(),
            publishes: SharedGcra::default(),
        });
        let entry = Entry {
            connections: 1,
            person: person.clone(),
        };
        people.insert(user.clone(), entry);
        Some(person)
    }

    pub(super) fn leave(&self, user: &UserId) {
        let mut people = self.0.lock();
        if let Some(entry) = people.get_mut(user) {
            entry.connections -= 1;
            if entry.connections == 0 {
                people.remove(user);
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn connections(&self, user: &str) -> u32 {
        self.0.lock().get(user).map_or(0, |entry| entry.connections)
    }

    /// The first `limit` users behind `after`, by name, with their connections.
    pub(super) fn page(&self, prefix: &str, after: &str, limit: usize) -> Vec<(UserId, u32)> {
        let people = self.0.lock();
        let mut first = BTreeMap::new();
        for (user, entry) in people.iter() {
            let name = user.as_str();
            let full = first.len() >= limit;
            if name <= after
                || !name.starts_with(prefix)
                || full && first.last_key_value().is_none_or(|(last, _)| name > *last)
            {
                continue;
            }
            first.insert(name, (user, entry.connections));
            if full {
                first.pop_last();
            }
        }
        first
            .into_values()
            .map(|(user, connections)| (user.clone(), connections))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn user(name: &str) -> UserId {
        UserId::new(name).unwrap()
    }

    proptest! {
        #[test]
        fn counts_and_pages_agree_with_a_plain_map(
            steps in prop::collection::vec(("[ab]{1,3}", any::<bool>()), 0..80),
            prefix in "[ab]{0,1}", after in "[ab]{0,2}", limit in 1usize..6,
        ) {
            let (people, mut model) = (People::default(), BTreeMap::<String, u32>::new());
            for (name, enters) in steps {
                let count = model.entry(name.clone()).or_default();
                if enters {
                    prop_assert_eq!(people.enter(&user(&name), 3).is_some(), *count < 3);
                    *count = (*count + 1).min(3);
                } else if *count > 0 {
                    people.leave(&user(&name));
                    *count -= 1;
                }
                model.retain(|_, count| *count > 0);
            }
            prop_assert_eq!(people.len(), model.len());
            let expected: Vec<_> = model
                .iter()
                .filter(|(name, _)| name.starts_with(&prefix) && **name > after)
                .take(limit)
                .map(|(name, &count)| (user(name), count))
                .collect();
            prop_assert_eq!(people.page(&prefix, &after, limit), expected);
            for (name, count) in &model {
                prop_assert_eq!(people.connections(name), *count);
            }
        }
    }

    #[test]
    fn connections_of_one_user_share_one_person_until_the_last_has_gone() {
        let people = People::default();
        let (first, second) = (
            people.enter(&user("ann"), 9).unwrap(),
            people.enter(&user("ann"), 9).unwrap(),
        );
        assert!(Arc::ptr_eq(&first, &second));
        people.leave(&user("ann"));
        assert!(Arc::ptr_eq(&first, &people.enter(&user("ann"), 9).unwrap()));
    }
}
