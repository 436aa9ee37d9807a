//! Revocations as the store takes them: committed and synced before the future is ready, like every change of an
//! administrator. The errors are those of [`super::admin`].

use cauce_protocol::TenantId;

use super::bounds;
use super::error::StoreError;
use super::handle::StoreHandle;
use super::rows::RevocationRow;
use super::sql;

impl StoreHandle {
    /// Takes the place of an earlier one of the same subject, and lets go of those of the tenant that have ended by `at_ms`.
    pub async fn put_revocation(&self, row: RevocationRow, at_ms: u64) -> Result<(), StoreError> {
        bounds::revocation(&row)?;
        self.write(move |c| Box::pin(async move { sql::put_revocation(c, &row, at_ms).await }))
            .await
    }

    pub async fn delete_revocation(&self, tenant: TenantId, subject: String) -> Result<(), StoreError> {
        self.write(move |c| Box::pin(async move { sql::delete_revocation(c, &tenant, &subject).await }))
            .await
    }
}
