//! Tokens for the generator's users, signed with the tenant's shared secret (HS256).

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// How long the tokens are good for, in seconds: longer than a soak of a working day.
const LIFETIME_S: u64 = 12 * 60 * 60;

/// Who signs, and for which tenant.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Signing {
    /// The tenant's shared secret (HS256). Each connection gets a token of its own user, with rights to `loadtest:*`.
    #[arg(
        long = "key",
        value_name = "SECRET",
        env = "LOADTEST_KEY",
        hide_env_values = true
    )]
    pub(crate) key: Option<String>,
    /// The key's name in the token's header, where the tenant has several.
    #[arg(long, value_name = "KID")]
    pub(crate) kid: Option<String>,
    /// The tenant in the token, for an operator's key.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Where one tenant floods: its name, for an operator's key.
    #[arg(long, value_name = "TENANT")]
    pub(crate) flood_tenant: Option<String>,
    /// Where one tenant floods: its own secret.
    #[arg(
        long,
        value_name = "SECRET",
        env = "LOADTEST_FLOOD_KEY",
        hide_env_values = true
    )]
    pub(crate) flood_key: Option<String>,
    /// One token for all connections, instead of a key.
    #[arg(long, env = "CAUCE_TOKEN", hide_env_values = true, conflicts_with = "key")]
    pub(crate) token: Option<String>,
}

impl Signing {
    /// The same for the tenant that floods.
    ///
    /// # Errors
    /// If nothing tells it from the measured one; in words for people.
    pub(crate) fn of_the_flood(&self) -> Result<Self, String> {
        let anyone = self.key.is_none() && self.token.is_none();
        if self.flood_key.is_none() && self.flood_tenant.is_none() && !anyone {
            return Err("who floods must be of another tenant: give --flood-key, or --flood-tenant for an operator's key".to_owned());
        }
        Ok(Self {
            key: self.flood_key.clone().or_else(|| self.key.clone()),
            kid: self.kid.clone().filter(|_| self.flood_key.is_none()),
            tenant: self.flood_tenant.clone(),
            flood_tenant: None,
            flood_key: None,
            token: None,
        })
    }

    /// The tenant that an operator's key speaks for.
    pub(crate) fn tenant(&self) -> Option<&str> {
        self.tenant.as_deref()
    }

    /// The token of the `index`-th user; empty for a server that asks for none.
    pub(crate) fn token(&self, index: u32) -> String {
        let grants = json!([{"rooms": ["loadtest:*"], "allow": ["subscribe", "publish", "history"]}]);
        self.token_of(&format!("loadtest-{index}"), grants)
    }

    /// The token of the `index`-th who watches devices.
    pub(crate) fn watchers_token(&self, index: u32) -> String {
        let grants = json!([{"rooms": ["$devices", "$device:*"], "allow": ["subscribe"]}]);
        self.token_of(&format!("loadtest-watcher-{index}"), grants)
    }

    fn token_of(&self, user: &str, grants: serde_json::Value) -> String {
        match (&self.token, &self.key) {
            (Some(token), _) => token.clone(),
            (None, Some(key)) => self.sign(key, user, grants),
            (None, None) => String::new(),
        }
    }

    fn sign(&self, key: &str, user: &str, grants: serde_json::Value) -> String {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_secs());
        let mut header = json!({"alg": "HS256", "typ": "JWT"});
        if let Some(kid) = &self.kid {
            header["kid"] = json!(kid);
        }
        let mut claims = json!({
            "sub": user,
            "grants": grants,
            "iat": now,
            "exp": now + LIFETIME_S,
        });
        if let Some(tenant) = &self.tenant {
            claims["tenant"] = json!(tenant);
        }
        let mut token = URL_SAFE_NO_PAD.encode(header.to_string());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims.to_string(), &mut token);
        let signature = hmac::sign(
            &hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes()),
            token.as_bytes(),
        );
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_user_has_a_token_that_the_key_verifies() {
        let signing = Signing {
            key: Some("0123456789abcdef0123456789abcdef".into()),
            kid: Some("k1".into()),
            tenant: Some("bench".into()),
            flood_tenant: None,
            flood_key: None,
            token: None,
        };
        assert!(signing.of_the_flood().is_err());
        let token = signing.token(7);
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"0123456789abcdef0123456789abcdef");
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        assert!(hmac::verify(&key, signed.as_bytes(), &signature).is_ok());
        let claims = signed.split_once('.').unwrap().1;
        let claims: serde_json::Value =
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap();
        assert_eq!(claims["sub"], "loadtest-7");
        assert_eq!(claims["tenant"], "bench");
        assert_ne!(signing.token(8), token);
    }
}
