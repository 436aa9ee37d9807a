-- Notifications: stored once for their whole audience, with what each user has read beside them.

-- `id` rises within the tenant and is never given twice, also when the newest ones have been deleted: the last one given is in
-- notification_heads. `audience` is `t` for the whole tenant, `r:` and a role, or `u:` and a user. Rows are large, hence with
-- a rowid.
CREATE TABLE notifications (
    tenant     TEXT    NOT NULL,
    id         INTEGER NOT NULL,
    audience   TEXT    NOT NULL,
    sender     TEXT    NOT NULL,
    kind       INTEGER NOT NULL,
    priority   INTEGER NOT NULL,
    title      TEXT    NOT NULL,
    message    TEXT    NOT NULL,
    json       TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT;

-- Has what counting and paging ask for, so that neither touches the rows themselves.
CREATE INDEX notifications_by_audience ON notifications (tenant, audience, id, expires_ms);

CREATE INDEX notifications_by_expiry ON notifications (expires_ms, tenant, id);

-- The last id given to each tenant, and how many rows it has.
CREATE TABLE notification_heads (
    tenant TEXT    NOT NULL PRIMARY KEY,
    last   INTEGER NOT NULL,
    kept   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- What a user has read one by one.
CREATE TABLE notification_reads (
    tenant TEXT    NOT NULL,
    id     INTEGER NOT NULL,
    user   TEXT    NOT NULL,
    PRIMARY KEY (tenant, id, user)
) STRICT, WITHOUT ROWID;

-- Up to which id a user has read everything.
CREATE TABLE notification_marks (
    tenant TEXT    NOT NULL,
    user   TEXT    NOT NULL,
    up_to  INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, user)
) STRICT, WITHOUT ROWID;

CREATE INDEX notification_marks_by_age ON notification_marks (at_ms, tenant);

-- Idempotency keys by sender, with the id that was given.
CREATE TABLE notification_keys (
    tenant TEXT    NOT NULL,
    sender TEXT    NOT NULL,
    key    TEXT    NOT NULL,
    id     INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    PRIMARY KEY (tenant, sender, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX notification_keys_by_age ON notification_keys (at_ms, tenant);

-- Notifications that were deleted and whose reads are still to be: a notice that ten thousand have read leaves in small steps.
CREATE TABLE notification_leavings (
    tenant TEXT    NOT NULL,
    id     INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;
