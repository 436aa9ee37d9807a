-- The first schema. Times are milliseconds since 1970, JSON is text, an empty `tenant` in api_keys and audit is the operator
-- (a tenant's name is never empty). Rules for this folder: forward only, never edit a file that has been released, every
-- table's key and every index begins with or contains the tenant.

CREATE TABLE meta (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants (
    tenant     TEXT    NOT NULL PRIMARY KEY CHECK (tenant <> ''),
    name       TEXT    NOT NULL,
    status     TEXT    NOT NULL CHECK (status IN ('enabled', 'disabled')),
    settings   TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    updated_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- `material` is sealed by the broker; the database never sees a key.
CREATE TABLE signing_keys (
    tenant     TEXT    NOT NULL REFERENCES tenants (tenant),
    kid        TEXT    NOT NULL,
    alg        TEXT    NOT NULL,
    material   BLOB    NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (tenant, kid)
) STRICT, WITHOUT ROWID;

-- No foreign key: the operator's keys have no tenant. The broker checks the tenant in the transaction that inserts.
CREATE TABLE api_keys (
    tenant     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    name       TEXT    NOT NULL,
    scopes     TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE device_tokens (
    tenant     TEXT    NOT NULL REFERENCES tenants (tenant),
    id         TEXT    NOT NULL,
    hash       BLOB    NOT NULL,
    device     TEXT,
    label      TEXT    NOT NULL,
    created_ms INTEGER NOT NULL,
    revoked_ms INTEGER,
    PRIMARY KEY (tenant, id)
) STRICT, WITHOUT ROWID;

-- (boot, seq) orders the states of a device: `boot` counts the starts of the broker, `seq` the states within one run.
-- A device that was announced but has never spoken has boot 0 and no state. Rows are large, hence with a rowid.
CREATE TABLE devices (
    tenant       TEXT    NOT NULL REFERENCES tenants (tenant),
    device       TEXT    NOT NULL,
    boot         INTEGER NOT NULL DEFAULT 0,
    seq          INTEGER NOT NULL DEFAULT 0,
    received_ms  INTEGER,
    src          TEXT,
    model        TEXT,
    state        TEXT,
    equipment_id TEXT,
    label        TEXT,
    assigned_ms  INTEGER,
    metadata     TEXT,
    PRIMARY KEY (tenant, device)
) STRICT;

-- The three logs have no foreign key: they are written in bulk and emptied by age, and what happened stays true after
-- its device is gone. `seq` is the order of arrival, unique within the database.
CREATE TABLE device_readings (
    tenant        TEXT    NOT NULL,
    device        TEXT    NOT NULL,
    ts_ms         INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    channel       TEXT    NOT NULL,
    received_ms   INTEGER NOT NULL,
    output        INTEGER CHECK (output IN (0, 1)),
    power_w       REAL,
    voltage_v     REAL,
    current_a     REAL,
    energy_wh     REAL,
    temperature_c REAL,
    PRIMARY KEY (tenant, device, ts_ms, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX device_readings_by_age ON device_readings (received_ms, tenant);

CREATE TABLE device_events (
    tenant      TEXT    NOT NULL,
    device      TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    ts_ms       INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    component   TEXT,
    event       TEXT    NOT NULL,
    data        TEXT    NOT NULL,
    PRIMARY KEY (tenant, device, seq)
) STRICT;

CREATE INDEX device_events_by_age ON device_events (received_ms, tenant);

CREATE TABLE audit (
    tenant TEXT    NOT NULL,
    seq    INTEGER NOT NULL,
    at_ms  INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    target TEXT    NOT NULL,
    detail TEXT    NOT NULL,
    PRIMARY KEY (tenant, seq)
) STRICT;

CREATE INDEX audit_by_age ON audit (at_ms, tenant);
