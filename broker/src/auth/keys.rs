//! The keys that tokens are verified with.

use cauce_protocol::TenantId;

/// For whom a key speaks.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyOwner {
    /// For every tenant; its tokens must name one.
    Operator,
    /// For this one only.
    Tenant(TenantId),
}
