//! All keys at once: who writes them, and which of them a token may have been signed with.
//!
//! What must stay true:
//! - A ring never changes. A change makes another one with a higher generation, so whoever holds one sees one state.
//! - How many keys a token can make us try is bounded, whatever its header says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use cauce_protocol::TenantId;
use parking_lot::{Mutex, RwLock};
use smallvec::SmallVec;

use super::{KeyError, KeyOwner, KeySource, VerifyingKey};
use crate::config::Algorithm;

/// Keys that are looked at for a token that names no tenant. Beyond, it has to name one.
const SCAN_MAX: usize = 64;

/// Signatures of tenants' keys, and of the operator's, that one token can make us check. RS256 takes some 30 µs each.
pub const CANDIDATES_MAX: usize = 8;

/// Keys that one source (the configuration, a tenant, a key set) may have.
pub const KEYS_A_SOURCE_MAX: usize = 256;

/// A snapshot of all keys. Never changes; a change makes another one with a higher generation.
#[derive(Clone, Debug, Default)]
pub struct KeyRing {
    generation: u64,
    operator: Vec<Arc<VerifyingKey>>,
    tenants: HashMap<TenantId, Vec<Arc<VerifyingKey>>>,
    /// Of tenants, by name, those that may sign without naming their tenant; several tenants may use one name.
    named: HashMap<Box<str>, Vec<Arc<VerifyingKey>>>,
    /// The same without a name.
    unnamed: Vec<Arc<VerifyingKey>>,
}

/// What a token says about its key before anything of it is verified: good for choosing keys to try, for nothing else.
#[derive(Clone, Copy, Debug)]
pub(in crate::auth) struct Hint<'a> {
    pub(in crate::auth) algorithm: Algorithm,
    pub(in crate::auth) kid: Option<&'a str>,
    pub(in crate::auth) tenant: Option<&'a str>,
    pub(in crate::auth) issuer: Option<&'a str>,
}

pub(in crate::auth) type Candidates<'a> = SmallVec<[&'a VerifyingKey; CANDIDATES_MAX]>;

impl KeyRing {
    fn new(generation: u64, sources: &BTreeMap<KeySource, Vec<Arc<VerifyingKey>>>) -> Self {
        let mut ring = Self {
            generation,
            ..Self::default()
        };
        let keys = sources
            .iter()
            .flat_map(|(source, keys)| keys.iter().map(move |key| (source, key)));
        for (source, key) in keys {
            match &key.spec.owner {
                KeyOwner::Operator => ring.operator.push(key.clone()),
                KeyOwner::Tenant(tenant) => {
                    ring.tenants.entry(tenant.clone()).or_default().push(key.clone());
                    // A tenant can register another one's public key as its own, and would be sent the other's users if these
                    // need not name their tenant. Nobody can do that with a secret, and the operator has no reason to.
                    let may_be_silent =
                        !matches!(source, KeySource::Tenant(_)) || key.spec.algorithm.is_symmetric();
                    match &key.spec.kid {
                        _ if !may_be_silent => {}
                        Some(kid) => ring.named.entry(kid.clone()).or_default().push(key.clone()),
                        None => ring.unnamed.push(key.clone()),
                    }
                }
            }
        }
        ring
    }

    /// Rises with each change.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    pub fn is_empty(&self) -> bool {
        self.operator.is_empty() && self.tenants.is_empty()
    }

    /// The keys that may have signed such a token, the best first: at most [`CANDIDATES_MAX`] of
    /// tenants and as many of the operator.
    pub(in crate::auth) fn candidates<'a>(&'a self, hint: Hint<'_>) -> Candidates<'a> {
        let fits = |key: &&Arc<VerifyingKey>| {
            let spec = &key.spec;
            spec.algorithm == hint.algorithm
                && (spec.issuer.is_none() || spec.issuer.as_deref() == hint.issuer)
                && (spec.kid.is_none() || hint.kid.is_none() || spec.kid.as_deref() == hint.kid)
        };
        let tenants = match hint.tenant {
            Some(tenant) => self
                .tenants
                .get(tenant)
                .map_or(&[][..], |keys| keys)
                .iter()
                .filter(fits)
                .collect(),
            None => self.of_silent_tenants(hint.kid, fits),
        };
        let best = |keys: Vec<&'a Arc<VerifyingKey>>| {
            let mut keys: Vec<&VerifyingKey> = keys.into_iter().map(|key| &**key).collect();
            keys.sort_by_key(|key| key.spec.kid.as_deref() != hint.kid);
            keys.truncate(CANDIDATES_MAX);
            keys
        };
        let operator = self.operator.iter().filter(fits).collect();
        Candidates::from_iter(best(tenants).into_iter().chain(best(operator)))
    }

    /// For a token that names no tenant: all keys that fit, or none if there are too many to try, since trying some of
    /// them could miss that it fits keys of two tenants.
    fn of_silent_tenants<'a>(
        &'a self,
        kid: Option<&str>,
        fits: impl Fn(&&Arc<VerifyingKey>) -> bool,
    ) -> Vec<&'a Arc<VerifyingKey>> {
        let named: Vec<&Vec<_>> = match kid {
            Some(kid) => self.named.get(kid).into_iter().collect(),
            None => self.named.values().take(SCAN_MAX + 1).collect(),
        };
        if named.iter().map(|keys| keys.len()).sum::<usize>() + self.unnamed.len() > SCAN_MAX {
            return Vec::new();
        }
        let all: Vec<_> = named
            .into_iter()
            .flatten()
            .chain(&self.unnamed)
            .filter(fits)
            .collect();
        if all.len() > CANDIDATES_MAX {
            Vec::new()
        } else {
            all
        }
    }

    /// Whether any key has this name, for the tenant that a token speaks of or for the operator.
    pub(in crate::auth) fn knows_kid(&self, kid: &str, tenant: Option<&str>) -> bool {
        let has = |keys: &[Arc<VerifyingKey>]| keys.iter().any(|key| key.spec.kid.as_deref() == Some(kid));
        match tenant {
            Some(tenant) => self.tenants.get(tenant).is_some_and(|keys| has(keys)) || has(&self.operator),
            None => self.named.contains_key(kid) || has(&self.operator),
        }
    }
}

/// The keys of the node: sources write, verifiers take snapshots.
#[derive(Debug, Default)]
pub struct Keys {
    sources: Mutex<BTreeMap<KeySource, Vec<Arc<VerifyingKey>>>>,
    ring: RwLock<Arc<KeyRing>>,
}

impl Keys {
    /// The keys of now. The lock is held for one reference count.
    pub fn ring(&self) -> Arc<KeyRing> {
        self.ring.read().clone()
    }

    /// Replaces all keys of one source; none removes it.
    ///
    /// # Errors
    /// [`KeyError::TooMany`]; the old keys stay.
    pub fn replace(&self, source: KeySource, keys: Vec<VerifyingKey>) -> Result<(), KeyError> {
        self.replace_many([(source, keys)])
    }

    /// The same for many sources with one rebuild, as at start.
    ///
    /// # Errors
    /// [`KeyError::TooMany`]; the old keys stay, of all sources.
    pub fn replace_many(
        &self,
        changes: impl IntoIterator<Item = (KeySource, Vec<VerifyingKey>)>,
    ) -> Result<(), KeyError> {
        let changes: Vec<_> = changes.into_iter().collect();
        if changes.iter().any(|(_, keys)| keys.len() > KEYS_A_SOURCE_MAX) {
            return Err(KeyError::TooMany);
        }
        let mut sources = self.sources.lock();
        for (source, keys) in changes {
            if keys.is_empty() {
                sources.remove(&source);
            } else {
                sources.insert(source, keys.into_iter().map(Arc::new).collect());
            }
        }
        // Still under the lock of the sources, so that generations and contents agree.
        let generation = self.ring.read().generation + 1;
        let ring = KeyRing::new(generation, &sources);
        *self.ring.write() = Arc::new(ring);
        Ok(())
    }
}
