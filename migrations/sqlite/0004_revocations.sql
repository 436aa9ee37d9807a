-- Tokens that are refused although they verify. `subject` is `user:<name>` or `jti:<id>`; without `until_ms` the row stays
-- until it is removed. Rows that have ended are deleted at the next start, and whenever the tenant gets another.
CREATE TABLE revocations (
    tenant     TEXT    NOT NULL REFERENCES tenants (tenant),
    subject    TEXT    NOT NULL,
    revoked_ms INTEGER NOT NULL,
    until_ms   INTEGER,
    reason     TEXT    NOT NULL,
    PRIMARY KEY (tenant, subject)
) STRICT, WITHOUT ROWID;
