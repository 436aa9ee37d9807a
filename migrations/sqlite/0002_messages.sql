-- Durable rooms: what was published, and where each room's numbering stands.

-- One row a room. A message and the head that counts it are written in one transaction, so the head is always true.
-- `last` is the last number that was dealt with, `lease` the last that may have been given. `kept` and `bytes` are what
-- lies in `messages` of this epoch, `oldest_ms` when its oldest message was taken. Above `kept_high` or `bytes_high` the
-- oldest go, down to `keep_messages` and `keep_bytes`: a little apart, so that a full room is not trimmed at each message.
-- One message alone is kept whatever its size.
CREATE TABLE room_heads (
    tenant        TEXT    NOT NULL CHECK (tenant <> ''),
    room          TEXT    NOT NULL CHECK (room <> ''),
    epoch         INTEGER NOT NULL,
    last          INTEGER NOT NULL,
    lease         INTEGER NOT NULL,
    kept          INTEGER NOT NULL,
    bytes         INTEGER NOT NULL,
    oldest_ms     INTEGER NOT NULL,
    written_ms    INTEGER NOT NULL,
    keep_messages INTEGER NOT NULL,
    keep_age_ms   INTEGER NOT NULL,
    keep_bytes    INTEGER NOT NULL,
    kept_high     INTEGER NOT NULL,
    bytes_high    INTEGER NOT NULL,
    PRIMARY KEY (tenant, room)
) STRICT, WITHOUT ROWID;

-- Each holds only the rooms that retention has something to do for, or will have, in the order in which it is due.
CREATE INDEX room_heads_over ON room_heads (tenant, room)
WHERE kept > kept_high OR (bytes > bytes_high AND kept > 1);
CREATE INDEX room_heads_by_age ON room_heads (oldest_ms + keep_age_ms, tenant) WHERE keep_age_ms > 0 AND kept > 0;
CREATE INDEX room_heads_empty ON room_heads (written_ms, tenant) WHERE kept = 0;

-- Rows may be large and come in any order of rooms, hence with a rowid. `payload_kind` is 0 for JSON, 1 for text, 2 for
-- bytes; `excluded` holds connections, eight bytes each, most significant first; `cost` is what the row counts for in
-- its room's `bytes`, and comes before the payload so that summing it does not read that.
CREATE TABLE messages (
    tenant       TEXT    NOT NULL CHECK (tenant <> ''),
    room         TEXT    NOT NULL CHECK (room <> ''),
    epoch        INTEGER NOT NULL,
    seq          INTEGER NOT NULL CHECK (seq > 0),
    unix_ms      INTEGER NOT NULL,
    cost         INTEGER NOT NULL,
    event        TEXT    NOT NULL,
    topic        TEXT    NOT NULL,
    user         TEXT,
    excluded     BLOB,
    repeat       TEXT,
    payload_kind INTEGER NOT NULL CHECK (payload_kind IN (0, 1, 2)),
    payload      BLOB    NOT NULL,
    PRIMARY KEY (tenant, room, epoch, seq)
) STRICT;

-- For the start: idempotency keys that are still promised. Messages without a key cost nothing here.
CREATE INDEX messages_by_repeat ON messages (unix_ms, tenant) WHERE repeat IS NOT NULL;

-- Epochs that ended with messages left; retention takes those away a step at a time.
CREATE TABLE room_epochs_ended (
    tenant TEXT    NOT NULL,
    room   TEXT    NOT NULL,
    epoch  INTEGER NOT NULL,
    PRIMARY KEY (tenant, room, epoch)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER room_heads_epoch_ends AFTER UPDATE OF epoch ON room_heads
WHEN old.epoch <> new.epoch AND old.kept > 0
BEGIN
    INSERT OR IGNORE INTO room_epochs_ended (tenant, room, epoch) VALUES (old.tenant, old.room, old.epoch);
END;
