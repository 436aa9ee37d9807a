//! From a token to a principal: by each kind of signature, and by the memory of tokens that were verified a moment ago.

use std::sync::Arc;

use cauce_broker::auth::sign::{Claims, SigningKey, sign};
use cauce_broker::auth::token::verify;
use cauce_broker::auth::{
    Authenticator, Expiry, KeyOwner, KeySource, KeySpec, Keys, Policy, Standing, VerifyingKey,
};
use cauce_broker::clock::Now;
use cauce_broker::config::Algorithm;
use cauce_protocol::{TenantId, UserId};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SECRET: &[u8] = b"a secret for benches, forty bytes long!!";
const RSA_PRIVATE: &str = include_str!("../../broker/tests/keys/test-rsa.pem");
const RSA_PUBLIC: &str = include_str!("../../broker/tests/keys/test-rsa.pub.pem");

/// 2026-11-23, in seconds since 1970.
const NOW_SECONDS: u64 = 1_795_000_000;

const NOW: Now = Now {
    mono_ms: 5_000,
    unix_ms: NOW_SECONDS * 1_000,
};

const POLICY: Policy = Policy {
    leeway_ms: 10_000,
    expiry: Expiry::Required,
    lifetime_ms_max: 86_400_000,
};

/// Tokens that a shard remembers.
const REMEMBERED: usize = 4_096;

/// A key ring of one, and a token that it verifies.
struct Signed {
    keys: Arc<Keys>,
    token: String,
}

impl Signed {
    fn new(
        algorithm: Algorithm,
        signing: &SigningKey,
        verifying: impl FnOnce(KeySpec) -> VerifyingKey,
    ) -> Self {
        let tenant = TenantId::new("default").expect("a good name");
        let spec = KeySpec {
            owner: KeyOwner::Tenant(tenant.clone()),
            kid: None,
            algorithm,
            issuer: None,
            audience: None,
        };
        let keys = Arc::new(Keys::default());
        keys.replace(KeySource::Config, vec![verifying(spec)])
            .expect("one key");
        let user = UserId::new("ann").expect("a good name");
        let claims = Claims {
            tenant: Some(tenant),
            ..Claims::new(user, NOW_SECONDS, 3_600)
        };
        let token = sign(&claims, signing).expect("a token");
        Self { keys, token }
    }

    fn hs256() -> Self {
        let signing = SigningKey::from_secret(Algorithm::Hs256, None, SECRET).expect("a good secret");
        Self::new(Algorithm::Hs256, &signing, |spec| {
            VerifyingKey::from_secret(spec, SECRET).expect("a good secret")
        })
    }

    fn rs256() -> Self {
        let signing = SigningKey::from_pem(Algorithm::Rs256, None, RSA_PRIVATE).expect("a good key");
        Self::new(Algorithm::Rs256, &signing, |spec| {
            VerifyingKey::from_pem(spec, RSA_PUBLIC).expect("a good key")
        })
    }

    fn es256() -> Self {
        let pair = rcgen::KeyPair::generate().expect("randomness");
        let signing =
            SigningKey::from_pem(Algorithm::Es256, None, &pair.serialize_pem()).expect("a good key");
        Self::new(Algorithm::Es256, &signing, |spec| {
            VerifyingKey::from_pem(spec, &pair.public_key_pem()).expect("a good key")
        })
    }
}

fn active(_: &TenantId) -> Standing {
    Standing::Active(Arc::default())
}

fn tokens(c: &mut Criterion) {
    let mut group = c.benchmark_group("token");
    group.throughput(Throughput::Elements(1));
    for (name, signed) in [
        ("HS256 verified", Signed::hs256()),
        ("RS256 verified, 2,048 bits", Signed::rs256()),
        ("ES256 verified", Signed::es256()),
    ] {
        let ring = signed.keys.ring();
        assert!(
            verify(&signed.token, &ring, POLICY, NOW, active).is_ok(),
            "{name}"
        );
        group.bench_function(name, |b| {
            b.iter(|| verify(&signed.token, &ring, POLICY, NOW, active));
        });
    }
    let signed = Signed::rs256();
    let mut memory = Authenticator::new(signed.keys.clone(), POLICY, REMEMBERED);
    let standing = Arc::default();
    group.bench_function("remembered", |b| {
        b.iter(|| memory.authenticate(&signed.token, NOW, |_| Standing::Active(Arc::clone(&standing))));
    });
    group.finish();
}

criterion_group!(benches, tokens);
criterion_main!(benches);
