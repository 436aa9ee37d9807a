//! The digest authentication of a device's LAN side, pure: SHA-256, user `admin`, the device id as realm, in the
//! two schemes of firmware 1.x and 2.x. Sources: the vendor's documentation of either version and the reports of
//! clients that broke on the change; the lock-out threshold is documented nowhere and chosen here.

mod challenge;
mod signature;

pub use challenge::{Challenge, Spelling};
pub use signature::Signature;

use crate::firmware::DigestKind;
use crate::rng::Rng;
use crate::time::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use std::collections::VecDeque;
use std::time::Duration;

/// SHA-256 of `dummy_method:dummy_uri`: what WebSocket calls sign in place of method and path.
pub const WEBSOCKET_HA2: &str = "6370ec69915103833b5222b368555393393f098bfbfbb59f47e0590af135f062";
/// A device remembers this many nonces; asking without a signature makes a new one and pushes out the oldest.
pub const NONCES_MAX: usize = 32;
/// A nonce of firmware 2.x dies at this age …
pub const NONCE_LIFE: Duration = Duration::from_secs(3600);
/// … or after this many uses.
pub const NONCE_USES_MAX: u32 = 30_000;
/// Wrong signatures within [`LOCK_OUT_WINDOW`] that lock everyone out.
pub const LOCK_OUT_FAILURES: usize = 10;
/// How long a wrong signature is remembered.
pub const LOCK_OUT_WINDOW: Duration = Duration::from_secs(600);

/// Why a call is not carried out.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Denial {
    /// Sign with this.
    Challenge(Challenge),
    /// Too many wrong signatures: right ones are refused too.
    LockedOut,
}

#[derive(Clone, Debug)]
struct Nonce {
    text: String,
    made_at: Timestamp,
    last_nc: u64,
    uses: u32,
}

/// The guard of one device.
#[derive(Clone)]
pub struct Digest {
    kind: DigestKind,
    realm: String,
    ha1: String,
    nonces: VecDeque<Nonce>,
    /// When wrong signatures came, the newest last; at most [`LOCK_OUT_FAILURES`].
    failures: VecDeque<Timestamp>,
    rng: Rng,
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // HA1 is as good as the password.
        f.debug_struct("Digest")
            .field("kind", &self.kind)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

impl Digest {
    /// A guard with a password. `seed` makes the nonces reproducible; this protects nothing real.
    pub fn new(kind: DigestKind, realm: &str, password: &str, seed: u64) -> Self {
        Self {
            kind,
            realm: realm.to_owned(),
            ha1: sha256_hex(&format!("admin:{realm}:{password}")),
            nonces: VecDeque::new(),
            failures: VecDeque::new(),
            rng: Rng::new(seed, 0),
        }
    }

    /// Judges a call. `ha2` is [`WEBSOCKET_HA2`] or [`http_ha2`].
    ///
    /// # Errors
    /// What to answer instead of carrying the call out.
    pub fn judge(&mut self, now: Timestamp, signature: Option<&Signature>, ha2: &str) -> Result<(), Denial> {
        if self.is_locked_out(now) {
            return Err(Denial::LockedOut);
        }
        let Some(signature) = signature else {
            return Err(self.challenge(now, false));
        };
        match self.check(now, signature, ha2) {
            Check::Right => Ok(()),
            Check::Stale => Err(self.challenge(now, true)),
            Check::Wrong => {
                self.remember_failure(now);
                Err(self.challenge(now, false))
            }
        }
    }

    fn check(&mut self, now: Timestamp, signature: &Signature, ha2: &str) -> Check {
        let nc_text = match (self.kind, &signature.nc_text) {
            (_, Some(nc)) => nc.as_str(),
            (DigestKind::Reusable, None) => "1",
            (DigestKind::Counted, None) => return Check::Wrong,
        };
        let Signature {
            realm,
            username,
            nonce,
            cnonce,
            response,
            ..
        } = signature;
        let expected = sha256_hex(&format!("{}:{nonce}:{nc_text}:{cnonce}:auth:{ha2}", self.ha1));
        if username != "admin" || *realm != self.realm || !response.eq_ignore_ascii_case(&expected) {
            return Check::Wrong;
        }
        let Some(known) = self.nonces.iter_mut().find(|known| known.text == *nonce) else {
            // Pushed out of the ring, or made before the last boot.
            return if self.kind == DigestKind::Counted {
                Check::Stale
            } else {
                Check::Wrong
            };
        };
        if self.kind == DigestKind::Reusable {
            return Check::Right;
        }
        let Some(nc) = signature.nc else {
            return Check::Wrong;
        };
        if now.since(known.made_at) > NONCE_LIFE || known.uses >= NONCE_USES_MAX {
            return Check::Stale;
        }
        if nc <= known.last_nc {
            return Check::Wrong;
        }
        known.last_nc = nc;
        known.uses += 1;
        Check::Right
    }

    fn challenge(&mut self, now: Timestamp, stale: bool) -> Denial {
        let text = match self.kind {
            DigestKind::Reusable => now.as_seconds().to_string(),
            DigestKind::Counted => {
                let (high, low) = (self.rng.next_u64(), self.rng.next_u64());
                STANDARD.encode((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
            }
        };
        if !self.nonces.iter().any(|known| known.text == text) {
            if self.nonces.len() == NONCES_MAX {
                self.nonces.pop_front();
            }
            self.nonces.push_back(Nonce {
                text: text.clone(),
                made_at: now,
                last_nc: 0,
                uses: 0,
            });
        }
        Denial::Challenge(Challenge {
            kind: self.kind,
            realm: self.realm.clone(),
            nonce: text,
            stale,
        })
    }

    fn remember_failure(&mut self, now: Timestamp) {
        if self.kind == DigestKind::Counted {
            if self.failures.len() == LOCK_OUT_FAILURES {
                self.failures.pop_front();
            }
            self.failures.push_back(now);
        }
    }

    fn is_locked_out(&self, now: Timestamp) -> bool {
        self.failures.len() == LOCK_OUT_FAILURES
            && self
                .failures
                .front()
                .is_some_and(|oldest| now.since(*oldest) < LOCK_OUT_WINDOW)
    }
}

enum Check {
    Right,
    Stale,
    Wrong,
}

/// What an HTTP request signs.
pub fn http_ha2(method: &str, uri: &str) -> String {
    sha256_hex(&format!("{method}:{uri}"))
}

fn sha256_hex(text: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The error object for callers that got a denial over a WebSocket.
impl Denial {
    /// As an error of a call.
    pub fn to_rpc_error(&self, spelling: Spelling) -> crate::rpc::RpcError {
        match self {
            Self::Challenge(challenge) => crate::rpc::RpcError::Challenge(challenge.to_message(spelling)),
            Self::LockedOut => crate::rpc::RpcError::LockedOut,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    const REALM: &str = "shellyplugsg3-8cbfeaa133f0";
    const AT: Timestamp = Timestamp::from_seconds(1_725_185_413);
    const CNONCE: &str = "AAAAAAAAAAAAAAAAAAAAAA==";

    fn guard(kind: DigestKind) -> Digest {
        Digest::new(kind, REALM, "s3cret", 1)
    }

    fn nonce_of(denial: Result<(), Denial>) -> (String, bool) {
        match denial {
            Err(Denial::Challenge(challenge)) => (challenge.nonce, challenge.stale),
            other => panic!("a challenge was expected, not {other:?}"),
        }
    }

    fn signed(nonce: &str, nc: u64, password: &str) -> Signature {
        let ha1 = sha256_hex(&format!("admin:{REALM}:{password}"));
        let response = sha256_hex(&format!("{ha1}:{nonce}:{nc}:{CNONCE}:auth:{WEBSOCKET_HA2}"));
        let auth = json!({"realm": REALM, "username": "admin", "nonce": nonce, "nc": nc, "cnonce": CNONCE, "response": response});
        Signature::from_frame(&auth).expect("complete")
    }

    #[test]
    fn the_published_vector_is_accepted_on_websocket_and_http() {
        let mut guard = guard(DigestKind::Reusable);
        assert_eq!(
            guard.ha1,
            "b5b237cba38fc305c5e4f2ddeab8604945ccb849d05a60bf44d626b8254b66e9"
        );
        assert_eq!(sha256_hex("dummy_method:dummy_uri"), WEBSOCKET_HA2);
        assert_eq!(nonce_of(guard.judge(AT, None, WEBSOCKET_HA2)).0, "1725185413");
        let mut auth = json!({
            "realm": REALM, "username": "admin", "nonce": 1_725_185_413, "nc": 1, "cnonce": CNONCE, "algorithm": "SHA-256",
            "response": "56c514802991fb98a404d2bba000df11ac44b33ef94840144afade5477fc5f54",
        });
        let signature = Signature::from_frame(&auth).expect("complete");
        assert_eq!(guard.judge(AT, Some(&signature), WEBSOCKET_HA2), Ok(()));
        assert_eq!(
            guard.judge(AT, Some(&signature), WEBSOCKET_HA2),
            Ok(()),
            "1.x lets a signature be used again"
        );
        auth.as_object_mut().expect("an object").remove("nc");
        let without_count = Signature::from_frame(&auth).expect("complete");
        assert_eq!(
            guard.judge(AT, Some(&without_count), WEBSOCKET_HA2),
            Ok(()),
            "1.x takes a missing nc as 1"
        );

        let ha2 = http_ha2("POST", "/rpc");
        assert_eq!(
            ha2,
            "000f63d6ab7885380586d8f11c7d0316d58ebabfdcdc05cbb470221557a08c4c"
        );
        let header = format!(
            r#"Digest username="admin", realm="{REALM}", nonce="1725185413", uri="/rpc", cnonce="{CNONCE}", nc=00000001, qop=auth, response="71bd93468a02405f53b60dc5847f983c2774b3ca01c0755ea9b12bbe45e030c6", algorithm=SHA-256"#
        );
        let signature = Signature::from_header(&header, "/rpc").expect("complete");
        assert_eq!(guard.judge(AT, Some(&signature), &ha2), Ok(()));
        assert_eq!(
            Signature::from_header(&header, "/rpc/Shelly.GetStatus"),
            None,
            "signed for another path"
        );
    }

    #[test]
    fn firmware_two_wants_a_rising_count_and_an_opaque_nonce() {
        let mut guard = guard(DigestKind::Counted);
        let (nonce, stale) = nonce_of(guard.judge(AT, None, WEBSOCKET_HA2));
        assert!(!stale && nonce.ends_with('=') && nonce.parse::<u64>().is_err());
        for nc in [1, 2, 7] {
            assert_eq!(
                guard.judge(AT, Some(&signed(&nonce, nc, "s3cret")), WEBSOCKET_HA2),
                Ok(())
            );
        }
        for nc in [7, 3] {
            let denial = guard.judge(AT, Some(&signed(&nonce, nc, "s3cret")), WEBSOCKET_HA2);
            assert!(
                !nonce_of(denial).1,
                "a used count is a wrong signature, not a stale nonce"
            );
        }
        let mut without_count = signed(&nonce, 9, "s3cret");
        (without_count.nc, without_count.nc_text) = (None, None);
        assert!(!nonce_of(guard.judge(AT, Some(&without_count), WEBSOCKET_HA2)).1);
    }

    #[test]
    fn an_old_or_forgotten_nonce_is_stale_not_wrong() {
        let mut guard = guard(DigestKind::Counted);
        let (nonce, _) = nonce_of(guard.judge(AT, None, WEBSOCKET_HA2));
        let late = AT.plus(NONCE_LIFE + Duration::from_secs(1));
        let (fresh, stale) = nonce_of(guard.judge(late, Some(&signed(&nonce, 1, "s3cret")), WEBSOCKET_HA2));
        assert!(stale);
        assert_eq!(
            guard.judge(late, Some(&signed(&fresh, 1, "s3cret")), WEBSOCKET_HA2),
            Ok(())
        );
        // Unsigned calls push it out of the ring.
        for _ in 0..NONCES_MAX {
            assert!(guard.judge(late, None, WEBSOCKET_HA2).is_err());
        }
        assert!(nonce_of(guard.judge(late, Some(&signed(&fresh, 2, "s3cret")), WEBSOCKET_HA2)).1);
        assert_eq!(guard.nonces.len(), NONCES_MAX);
    }

    #[test]
    fn a_nonce_wears_out() {
        let mut guard = guard(DigestKind::Counted);
        let (nonce, _) = nonce_of(guard.judge(AT, None, WEBSOCKET_HA2));
        guard.nonces[0].uses = NONCE_USES_MAX - 1;
        assert_eq!(
            guard.judge(AT, Some(&signed(&nonce, 1, "s3cret")), WEBSOCKET_HA2),
            Ok(())
        );
        assert!(nonce_of(guard.judge(AT, Some(&signed(&nonce, 2, "s3cret")), WEBSOCKET_HA2)).1);
    }

    #[test]
    fn guessing_locks_out_even_the_right_password_for_ten_minutes() {
        let mut guard = guard(DigestKind::Counted);
        let (nonce, _) = nonce_of(guard.judge(AT, None, WEBSOCKET_HA2));
        for nc in 0..LOCK_OUT_FAILURES as u64 {
            assert!(
                guard
                    .judge(AT, Some(&signed(&nonce, nc + 1, "guess")), WEBSOCKET_HA2)
                    .is_err()
            );
        }
        assert_eq!(
            guard.judge(AT, Some(&signed(&nonce, 50, "s3cret")), WEBSOCKET_HA2),
            Err(Denial::LockedOut)
        );
        assert_eq!(guard.judge(AT, None, WEBSOCKET_HA2), Err(Denial::LockedOut));
        let later = AT.plus(LOCK_OUT_WINDOW);
        let (nonce, _) = nonce_of(guard.judge(later, None, WEBSOCKET_HA2));
        assert_eq!(
            guard.judge(later, Some(&signed(&nonce, 1, "s3cret")), WEBSOCKET_HA2),
            Ok(())
        );
    }

    #[test]
    fn firmware_one_never_locks_out() {
        let mut guard = guard(DigestKind::Reusable);
        let (nonce, _) = nonce_of(guard.judge(AT, None, WEBSOCKET_HA2));
        for _ in 0..100 {
            assert!(!nonce_of(guard.judge(AT, Some(&signed(&nonce, 1, "guess")), WEBSOCKET_HA2)).1);
        }
        assert_eq!(
            guard.judge(AT, Some(&signed(&nonce, 1, "s3cret")), WEBSOCKET_HA2),
            Ok(())
        );
    }

    #[test]
    fn challenges_are_spelled_as_captured() {
        let realm = "shellyplus2pm-485519992590";
        let mut guard = Digest::new(DigestKind::Reusable, realm, "x", 1);
        let Err(Denial::Challenge(challenge)) = guard.judge(AT, None, WEBSOCKET_HA2) else {
            panic!("denied")
        };
        assert_eq!(
            challenge.to_message(Spelling::Plain),
            r#"{"auth_type": "digest", "nonce": 1725185413, "nc": 1, "realm": "shellyplus2pm-485519992590", "algorithm": "SHA-256"}"#
        );
        let display: Value =
            serde_json::from_str(&challenge.to_message(Spelling::WallDisplay)).expect("JSON");
        assert_eq!(display["nc"], "1");
        assert_eq!(
            challenge.to_header(Spelling::Plain),
            r#"Digest qop="auth", realm="shellyplus2pm-485519992590", nonce="1725185413", algorithm=SHA-256"#
        );
        assert!(
            challenge
                .to_header(Spelling::WallDisplay)
                .contains(r#"opaque="""#)
        );
    }

    #[test]
    fn debug_shows_no_secret() {
        let guard = guard(DigestKind::Counted);
        assert!(!format!("{guard:?}").contains(&guard.ha1));
    }

    proptest! {
        #[test]
        fn no_header_breaks_the_reader(text in "\\PC{0,120}") {
            let _ = Signature::from_header(&text, "/rpc");
            let _ = Signature::from_header(&format!("Digest {text}"), "/rpc");
        }

        /// Under any mix of calls the memory stays bounded and a wrong password never gets through.
        #[test]
        fn the_wrong_password_never_passes(steps in prop::collection::vec((0u8..3, 0u64..5, 0u64..2000), 1..120)) {
            let mut guard = guard(DigestKind::Counted);
            let (mut now, mut nonce) = (AT, String::new());
            for (what, nc, seconds) in steps {
                now = now.plus(Duration::from_secs(seconds));
                let signature = match what { 0 => None, 1 => Some(signed(&nonce, nc, "guess")), _ => Some(signed(&nonce, nc, "s3cret")) };
                match guard.judge(now, signature.as_ref(), WEBSOCKET_HA2) {
                    Ok(()) => prop_assert_eq!(what, 2),
                    Err(Denial::Challenge(challenge)) => nonce = challenge.nonce,
                    Err(Denial::LockedOut) => {}
                }
                prop_assert!(guard.nonces.len() <= NONCES_MAX && guard.failures.len() <= LOCK_OUT_FAILURES);
            }
        }
    }
}
