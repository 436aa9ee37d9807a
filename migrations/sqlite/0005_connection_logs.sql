-- Comings and goings of clients. Like the other logs: no foreign key, written in bulk, emptied by age; `seq` is the order
-- of arrival. A row of 'opened' has neither code, message nor duration.
CREATE TABLE connection_logs (
    tenant      TEXT    NOT NULL,
    seq         INTEGER NOT NULL,
    at_ms       INTEGER NOT NULL,
    connection  INTEGER NOT NULL,
    user        TEXT    NOT NULL,
    event       TEXT    NOT NULL CHECK (event IN ('opened', 'closed')),
    code        INTEGER,
    message     TEXT,
    address     TEXT    NOT NULL,
    client      TEXT,
    duration_ms INTEGER,
    PRIMARY KEY (tenant, seq)
) STRICT;

CREATE INDEX connection_logs_by_age ON connection_logs (at_ms, tenant);

CREATE INDEX connection_logs_by_user ON connection_logs (tenant, user, seq);
