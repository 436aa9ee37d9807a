//! Tokens that were verified a moment ago: a herd that comes back brings the same ones, and RS256 costs some 30 µs each.

use std::collections::HashMap;
use std::sync::Arc;

use aws_lc_rs::digest;
use cauce_protocol::{Code, Refusal, TenantId};

use super::fetch::{Nudge, Prospect};
use super::grant::Defaults;
use super::keys::Keys;
use super::principal::Principal;
use super::token::{self, Denied, Policy, Standing};
use crate::clock::Now;

/// How long a token without an end may be answered from the cache, in milliseconds.
const ENDLESS_MS: u64 = 300_000;

/// When to come again while key sets are being fetched, in milliseconds: most answer within a few hundred.
const KEY_FETCH_RETRY_MS: u32 = 1_000;

/// Verified tokens by SHA-256. Bounded by two generations: when the young one is full it becomes the old one, and what was
/// in the old one and not asked for since is forgotten.
#[derive(Debug)]
struct TokenCache {
    half: usize,
    key_generation: u64,
    policy: Policy,
    young: HashMap<Digest, Cached>,
    old: HashMap<Digest, Cached>,
}

type Digest = [u8; 32];

#[derive(Clone, Debug)]
struct Cached {
    principal: Arc<Principal>,
    /// The defaults that are in the principal's grant.
    defaults: Arc<Defaults>,
    until_unix_ms: u64,
}

impl TokenCache {
    fn new(capacity: usize, policy: Policy) -> Self {
        Self {
            half: (capacity / 2).max(1),
            key_generation: 0,
            policy,
            young: HashMap::new(),
            old: HashMap::new(),
        }
    }

    /// Forgets everything if keys or policy have changed since.
    fn refresh(&mut self, key_generation: u64, policy: Policy) {
        if (self.key_generation, self.policy) != (key_generation, policy) {
            (self.key_generation, self.policy) = (key_generation, policy);
            self.young.clear();
            self.old.clear();
        }
    }

    fn find(&mut self, digest: &Digest, now: Now) -> Option<Cached> {
        if let Some(cached) = self.old.remove(digest) {
            self.keep(*digest, cached);
        }
        let cached = self.young.get(digest)?;
        if cached.until_unix_ms <= now.unix_ms {
            self.young.remove(digest);
            return None;
        }
        Some(cached.clone())
    }

    fn keep(&mut self, digest: Digest, cached: Cached) {
        if self.young.len() >= self.half && !self.young.contains_key(&digest) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(digest, cached);
    }

    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

/// Verifies tokens for one thread, remembering them.
#[derive(Debug)]
pub struct Authenticator {
    keys: Arc<Keys>,
    nudge: Option<Nudge>,
    policy: Policy,
    cache: TokenCache,
}

impl Authenticator {
    /// Remembers `cache_capacity` tokens at most, some 500 bytes each.
    pub fn new(keys: Arc<Keys>, policy: Policy, cache_capacity: usize) -> Self {
        Self {
            keys,
            nudge: None,
            policy,
            cache: TokenCache::new(cache_capacity, policy),
        }
    }

    /// Has key sets fetched when a token names an unknown key. The bearer is told to come again in a second, and only refused
    /// for good once the fetch has ended.
    #[must_use]
    pub fn with_nudge(mut self, nudge: Nudge) -> Self {
        self.nudge = Some(nudge);
        self
    }

    /// Takes another policy; what was verified under the old one is forgotten.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// As [`token::verify`]. The tenant's standing is asked every time, so a tenant that is switched off, or whose role
    /// defaults change, is treated so at once.
    ///
    /// # Errors
    /// As [`token::verify`], and `unavailable` while key sets are being fetched.
    pub fn authenticate(
        &mut self,
        token: &str,
        now: Now,
        standing: impl FnOnce(&TenantId) -> Standing,
    ) -> Result<Arc<Principal>, Denied> {
        let ring = self.keys.ring();
        self.cache.refresh(ring.generation(), self.policy);
        // Hashing takes far longer input than a token's bound to cost as much as a signature, but nothing unbounded.
        if token.len() > cauce_protocol::limits::TOKEN_BYTES_MAX {
            return token::verify(token, &ring, self.policy, now, standing).map(Arc::new);
        }
        let digest = sha256(token.as_bytes());
        if let Some(cached) = self.cache.find(&digest, now) {
            return self.again(digest, cached, standing).map_err(Denied::from);
        }
        let mut defaults = Arc::default();
        let principal = token::verify(token, &ring, self.policy, now, |tenant| {
            let standing = standing(tenant);
            if let Standing::Active(active) = &standing {
                defaults = active.clone();
            }
            standing
        })
        .map_err(|denied| self.perhaps_later(denied, now))?;
        let principal = Arc::new(principal);
        let ends = principal
            .expires_unix_ms
            .map(|end| end.saturating_add(self.policy.leeway_ms));
        let cached = Cached {
            principal: principal.clone(),
            defaults,
            until_unix_ms: ends.unwrap_or_else(|| now.unix_ms.saturating_add(ENDLESS_MS)),
        };
        self.cache.keep(digest, cached);
        Ok(principal)
    }

    /// Tokens that are remembered.
    pub fn remembered(&self) -> usize {
        self.cache.len()
    }

    fn perhaps_later(&self, denied: Denied, now: Now) -> Denied {
        let Some(nudge) = self.nudge.as_ref().filter(|_| denied.unknown_kid) else {
            return denied;
        };
        match nudge.unknown_kid(now.mono_ms) {
            Prospect::Unknown => denied,
            Prospect::Coming => Denied {
                refusal: Refusal::new(Code::Unavailable, "the token's key is being fetched: come again")
                    .retry_after(KEY_FETCH_RETRY_MS),
                ..denied
            },
        }
    }

    fn again(
        &mut self,
        digest: Digest,
        mut cached: Cached,
        standing: impl FnOnce(&TenantId) -> Standing,
    ) -> Result<Arc<Principal>, Refusal> {
        let defaults = token::active(standing(&cached.principal.tenant))?;
        if !Arc::ptr_eq(&defaults, &cached.defaults) {
            let mut principal = (*cached.principal).clone();
            principal.grant = principal.grant.over(&defaults, &principal.roles);
            cached.principal = Arc::new(principal);
            cached.defaults = defaults;
            self.cache.keep(digest, cached.clone());
        }
        Ok(cached.principal)
    }
}

fn sha256(bytes: &[u8]) -> Digest {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}
