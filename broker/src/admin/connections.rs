//! Ending connections of clients, with who did it and why on record.

use cauce_protocol::limits::REASON_BYTES_MAX;
use cauce_protocol::{Code, ConnectionId, Refusal, UserId};
use serde_json::json;

use super::{Actor, Admin, detail};
use crate::hub::{Selection, Tenant};

/// What a client whose connection is ended should do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Afterwards {
    /// Connect again, with a jitter of its own.
    #[default]
    Reconnect,
    /// Stay away until somebody starts it again. Its token is still good: revoke it to keep the user out.
    StayAway,
}

/// Why connections are ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disconnect {
    /// For people at the other end; empty for words of ours.
    pub reason: String,
    pub afterwards: Afterwards,
}

impl Disconnect {
    /// # Errors
    /// `too_large` for a reason that a close frame does not hold, `invalid` for one with control characters.
    fn refusal(&self) -> Result<Refusal, Refusal> {
        if self.reason.len() > REASON_BYTES_MAX {
            let message = format!("reason is longer than {REASON_BYTES_MAX} bytes");
            return Err(Refusal::new(Code::TooLarge, message));
        }
        if self.reason.chars().any(char::is_control) {
            return Err(Refusal::new(Code::Invalid, "reason has control characters in it"));
        }
        let code = match self.afterwards {
            Afterwards::Reconnect => Code::GoingAway,
            Afterwards::StayAway => Code::Forbidden,
        };
        Ok(match self.reason.as_str() {
            "" => Refusal::new(code, "an administrator ended the connection"),
            reason => Refusal::new(code, reason.to_owned()),
        })
    }
}

impl Admin {
    /// Ends all connections that a user of the tenant has now. Answers how many there were; they are gone a moment later.
    ///
    /// # Errors
    /// `too_large` or `invalid` for the reason.
    pub fn disconnect_user(
        &self,
        actor: &Actor,
        tenant: &Tenant,
        user: &UserId,
        why: &Disconnect,
    ) -> Result<u32, Refusal> {
        let refusal = why.refusal()?;
        let connections = tenant.connections_of(user.as_str());
        self.hub
            .close(Selection::User(tenant.id.clone(), user.clone()), refusal);
        let record = json!({ "connections": connections, "reason": why.reason });
        self.audit(
            actor,
            Some(&tenant.id),
            "user.disconnect",
            user.as_str(),
            detail(&record),
        );
        Ok(connections)
    }

    /// Ends one connection of the tenant; it is gone a moment later.
    ///
    /// # Errors
    /// `not_found` if the tenant has no such connection, `too_large` or `invalid` for the reason.
    pub async fn disconnect_client(
        &self,
        actor: &Actor,
        tenant: &Tenant,
        id: ConnectionId,
        why: &Disconnect,
    ) -> Result<(), Refusal> {
        let refusal = why.refusal()?;
        let found = self.hub.connection_of(tenant, id).await;
        let (Some(info), Some(shard)) = (found, self.hub.shard_of(id)) else {
            return Err(Refusal::new(Code::NotFound, "there is no such connection now"));
        };
        self.hub.close_one(shard, Selection::Connection(id), refusal);
        let record = json!({ "user": info.user, "reason": why.reason });
        let target = id.0.to_string();
        self.audit(
            actor,
            Some(&tenant.id),
            "client.disconnect",
            &target,
            detail(&record),
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_fit_a_close_frame_and_the_code_says_what_to_do() {
        let why = |reason: &str, afterwards| {
            Disconnect {
                reason: reason.to_owned(),
                afterwards,
            }
            .refusal()
        };
        let refusal = why("maintenance", Afterwards::Reconnect).unwrap();
        assert_eq!(
            (refusal.code, &*refusal.message),
            (Code::GoingAway, "maintenance")
        );
        assert!(!why("", Afterwards::StayAway).unwrap().code.is_retryable());
        assert_eq!(
            why(&"x".repeat(124), Afterwards::StayAway).unwrap_err().code,
            Code::TooLarge
        );
        assert_eq!(why("a\nb", Afterwards::StayAway).unwrap_err().code, Code::Invalid);
    }
}
