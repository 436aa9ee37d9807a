//! The one table of error and close codes. Replies and closes use the same numbers, and the hundred tells the client what
//! to do, so that a client which has never seen a code still does the right thing.

use std::fmt;

/// What a client should do about a code: the meaning of its range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advice {
    /// 4000–4099: connect or ask again, with the usual jitter.
    RetryNow,
    /// 4100–4199: again, but not before `retry_after_ms`.
    RetryLater,
    /// 4200–4299: bring another token, then again.
    RenewToken,
    /// 4300–4399: the same will fail again; do not repeat it.
    Never,
}

macro_rules! codes {
    ($($(#[doc = $meaning:literal])* $variant:ident = $number:literal, $name:literal;)*) => {
        /// A reason, stable across versions.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $($(#[doc = $meaning])* $variant = $number,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$variant,)*];

            /// Stable name, as in the `name` field of `Error`.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// What happened, in one sentence: the same as the documentation of the variant.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($meaning),*).trim_ascii(),)* }
            }

            /// The code with this number, if this version knows it.
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

codes! {
    /// The broker is stopping or moving its clients.
    GoingAway = 4000, "going_away";
    /// A fault of the broker. It is logged there.
    Internal = 4001, "internal";
    /// A newer connection took the place of this one (devices).
    Replaced = 4002, "replaced";
    /// Nothing was heard from the peer for too long.
    HeartbeatTimeout = 4003, "heartbeat_timeout";
    /// The peer read too slowly and its outbox filled up.
    Slow = 4004, "slow";
    /// No hello within the handshake time.
    HandshakeTimeout = 4005, "handshake_timeout";

    /// Queues are full; new work is refused so that accepted work is not lost.
    Overloaded = 4100, "overloaded";
    /// More requests than allowed.
    RateLimited = 4101, "rate_limited";
    /// Too many connections of this address, user or tenant.
    TooManyConnections = 4102, "too_many_connections";
    /// The store cannot answer now.
    Unavailable = 4103, "unavailable";
    /// The other side of a call did not answer in time.
    Timeout = 4104, "timeout";
    /// The device is known, but not connected.
    DeviceOffline = 4105, "device_offline";
    /// A limit of the tenant on rooms, devices or subscriptions is reached.
    QuotaExceeded = 4106, "quota_exceeded";
    /// Nobody serves this method now, or whoever did was lost before it answered.
    NotServed = 4107, "not_served";

    /// No token was given.
    Unauthenticated = 4200, "unauthenticated";
    /// The token's time is over.
    TokenExpired = 4201, "token_expired";
    /// The token, its user or its tenant was revoked.
    TokenRevoked = 4202, "token_revoked";
    /// The token is not valid yet: a clock is wrong.
    TokenNotYetValid = 4203, "token_not_yet_valid";

    /// The bytes are not what the protocol says.
    Malformed = 4300, "malformed";
    /// Message, feature or version that this broker does not know.
    Unsupported = 4301, "unsupported";
    /// Frame, payload, name or list beyond its limit.
    TooLarge = 4302, "too_large";
    /// The rights of this token do not cover it.
    Forbidden = 4303, "forbidden";
    /// Signature, algorithm, issuer, audience or claims of the token are wrong.
    TokenInvalid = 4304, "token_invalid";
    /// The token speaks of a tenant that its key does not belong to.
    WrongTenant = 4305, "wrong_tenant";
    /// The tenant is switched off.
    TenantDisabled = 4306, "tenant_disabled";
    /// A name or value is not allowed.
    Invalid = 4307, "invalid";
    /// There is no such thing, or none that this token may see.
    NotFound = 4308, "not_found";
    /// It exists already, or is in a state that does not allow this.
    Conflict = 4309, "conflict";
    /// The page's origin is not on the allow-list.
    OriginRefused = 4310, "origin_refused";
    /// The device answered with an error of its own.
    DeviceError = 4311, "device_error";
    /// The server of the method answered with an error of its own.
    MethodError = 4312, "method_error";
    /// The caller gave up waiting.
    Cancelled = 4313, "cancelled";
    /// The payload breaks the schema of its event; the message names the path.
    SchemaViolation = 4314, "schema_violation";
}

impl Code {
    /// As in close frames and in the `code` field of `Error`.
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// What the client should do.
    pub const fn advice(self) -> Advice {
        match Advice::of(self.number()) {
            Some(advice) => advice,
            None => Advice::Never,
        }
    }

    /// Whether the same request may succeed later without anyone changing it.
    pub const fn is_retryable(self) -> bool {
        matches!(self.advice(), Advice::RetryNow | Advice::RetryLater)
    }
}

impl Advice {
    /// As in the table of codes that every SDK reads.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RetryNow => "retry_now",
            Self::RetryLater => "retry_later",
            Self::RenewToken => "renew_token",
            Self::Never => "never",
        }
    }

    /// The advice of a number's range, for numbers this version may not know. `None` outside the table.
    pub const fn of(number: u16) -> Option<Self> {
        match number {
            4000..4100 => Some(Self::RetryNow),
            4100..4200 => Some(Self::RetryLater),
            4200..4300 => Some(Self::RenewToken),
            4300..4400 => Some(Self::Never),
            _ => None,
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.number())
    }
}

/// A reason with the words for people and, where it helps, the time to wait.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    /// What happened and what to do. Holds no secret and nothing of another tenant.
    pub message: std::borrow::Cow<'static, str>,
    /// Milliseconds; 0 where the code's range says enough.
    pub retry_after_ms: u32,
}

impl Refusal {
    pub fn new(code: Code, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        Self {
            code,
            message: message.into(),
            retry_after_ms: 0,
        }
    }

    /// The same, not to be repeated before this many milliseconds have passed.
    #[must_use]
    pub fn retry_after(mut self, retry_after_ms: u32) -> Self {
        self.retry_after_ms = retry_after_ms;
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_lies_in_a_range_and_names_are_unique() {
        let mut names = std::collections::HashSet::new();
        for &code in Code::ALL {
            assert!(Advice::of(code.number()).is_some(), "{code}");
            assert_eq!(Code::from_number(code.number()), Some(code));
            assert!(names.insert(code.name()), "{code}");
        }
    }

    #[test]
    fn an_unknown_number_still_advises() {
        assert_eq!(Code::from_number(4199), None);
        assert_eq!(Advice::of(4199), Some(Advice::RetryLater));
        assert_eq!(Advice::of(1006), None);
    }
}
