//! Messages of durable rooms: written with the heads of their rooms, read a page at a time.

use cauce_protocol::message::{Direction, Text};
use cauce_protocol::{ConnectionId, Epoch, Payload, Seq, UserId};
use futures_util::TryStreamExt;
use sqlx::error::BoxDynError;
use sqlx::sqlite::{SqliteArguments, SqliteConnection, SqliteRow};
use sqlx::{Arguments, Connection, Row};

use super::insert::{Bind, Insert, insert, insert_telling};
use super::values::{blob, damaged, int, name, text_bytes, uint};
use crate::publication::Excluded;
use crate::store::config::PAGE_ROWS_MAX;
use crate::store::error::StoreError;
use crate::store::messages::{MessagePage, MessageQuery, RoomHead, SeenKey, StoredMessage};
use crate::store::queue::{HeadRow, Piece, Waiting};
use crate::store::trim::HighMarks;

const HEAD: &str = "INSERT INTO messages (tenant, room, epoch, seq, unix_ms, cost, event, topic, user, excluded, repeat, \
                    payload_kind, payload)";

/// A number that is there already is somebody's error, and the message must not count as written.
static FIRST: Insert = Insert::new(HEAD, 13, "");

/// For an attempt after trouble: the commit before may have succeeded although its answer was an error.
static AGAIN: Insert = Insert::new(HEAD, 13, "ON CONFLICT (tenant, room, epoch, seq) DO NOTHING");

/// Counts a room's new messages, unless they have been counted: a commit before may have succeeded.
static HEADS: Insert = Insert::new(
    "INSERT INTO room_heads AS h (tenant, room, epoch, last, lease, kept, bytes, oldest_ms, written_ms, keep_messages, \
     keep_age_ms, keep_bytes, kept_high, bytes_high)",
    14,
    "ON CONFLICT (tenant, room) DO UPDATE SET \
     kept = excluded.kept + iif(h.epoch = excluded.epoch, h.kept, 0), \
     bytes = excluded.bytes + iif(h.epoch = excluded.epoch, h.bytes, 0), \
     lease = max(excluded.lease, iif(h.epoch = excluded.epoch, h.lease, 0)), \
     oldest_ms = iif(h.epoch = excluded.epoch AND h.kept > 0, h.oldest_ms, excluded.oldest_ms), \
     epoch = excluded.epoch, last = excluded.last, written_ms = excluded.written_ms, \
     keep_messages = excluded.keep_messages, keep_age_ms = excluded.keep_age_ms, keep_bytes = excluded.keep_bytes, \
     kept_high = excluded.kept_high, bytes_high = excluded.bytes_high \
     WHERE h.epoch <> excluded.epoch OR h.last < excluded.last",
);

impl Bind for Waiting {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let row = &self.row;
        values.add(row.tenant.as_str())?;
        values.add(row.room.as_str())?;
        values.add(int(row.epoch.0))?;
        values.add(int(row.seq.0))?;
        values.add(int(row.unix_ms))?;
        values.add(int(self.bytes as u64))?;
        values.add(row.event.as_str())?;
        values.add(row.topic.as_str())?;
        values.add(row.user.as_ref().map(UserId::as_str))?;
        let excluded: Vec<u8> = row.excluded.iter().flat_map(|c| c.0.to_be_bytes()).collect();
        values.add((!excluded.is_empty()).then_some(excluded))?;
        values.add(row.repeat.as_deref())?;
        let kind = match row.payload {
            Payload::Json(_) => 0,
            Payload::Text(_) => 1,
            Payload::Binary(_) => 2,
        };
        values.add(kind)?;
        values.add(row.payload.as_bytes().as_ref())
    }
}

impl Bind for HeadRow {
    fn bind(&self, values: &mut SqliteArguments) -> Result<(), BoxDynError> {
        let high = HighMarks::of(&self.keep);
        values.add(self.tenant.as_str())?;
        values.add(self.room.as_str())?;
        values.add(int(self.epoch.0))?;
        values.add(int(self.last.0))?;
        values.add(int(self.lease.0))?;
        values.add(int(self.kept))?;
        values.add(int(self.bytes))?;
        values.add(int(self.oldest_ms))?;
        values.add(int(self.written_ms))?;
        values.add(int(u64::from(self.keep.messages)))?;
        values.add(int(self.keep.age_ms))?;
        values.add(int(self.keep.bytes))?;
        values.add(int(high.messages))?;
        values.add(int(high.bytes))
    }
}

/// Within a transaction of the caller. `again` if this piece has been tried before. Answers the places of the rows that
/// the database would never take, in ascending order.
///
/// # Errors
/// The database's trouble; then the transaction must not be committed.
pub(in crate::store) async fn write_messages(
    connection: &mut SqliteConnection,
    piece: &Piece,
    again: bool,
) -> Result<Vec<usize>, sqlx::Error> {
    let statement = if again { &AGAIN } else { &FIRST };
    let mut refused = Vec::new();
    insert_telling(connection, statement, &piece.rows, |row| refused.push(row.ticket)).await?;
    let given_up: Vec<usize> = if refused.is_empty() {
        Vec::new()
    } else {
        let place = |&at: &usize| refused.contains(&piece.rows[at].ticket);
        (0..piece.rows.len()).filter(place).collect()
    };
    if given_up.is_empty() {
        insert(connection, &HEADS, &piece.heads).await?;
    } else {
        insert(connection, &HEADS, &piece.heads_without(&given_up)).await?;
    }
    Ok(given_up)
}

/// Says that every number was accounted for when the store closed.
pub(in crate::store) async fn mark_clean(c: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR REPLACE INTO meta (name, value) VALUES ('clean', '1')")
        .execute(c)
        .await
        .map(drop)
}

/// Takes back the mark of the last stop and reads where the rooms stood. Without the mark the leases may have been used up,
/// and new ones begin behind them. Within the transaction of the start, so that no number is given before this is on the disk.
pub(in crate::store) async fn load_heads(
    c: &mut SqliteConnection,
    lease_ahead: u64,
) -> Result<Vec<RoomHead>, sqlx::Error> {
    let clean = sqlx::query("DELETE FROM meta WHERE name = 'clean'")
        .execute(&mut *c)
        .await?
        .rows_affected()
        > 0;
    if !clean {
        sqlx::query("UPDATE room_heads SET lease = lease + ?")
            .bind(int(lease_ahead))
            .execute(&mut *c)
            .await?;
    }
    let mut rows =
        sqlx::query("SELECT tenant, room, epoch, last, lease FROM room_heads ORDER BY tenant, room").fetch(c);
    let mut heads = Vec::new();
    while let Some(row) = rows.try_next().await? {
        let (last, lease) = (uint(&row, 3)?, uint(&row, 4)?);
        let given = if clean {
            last
        } else {
            lease.saturating_sub(lease_ahead)
        };
        heads.push(RoomHead {
            tenant: name(&row, 0)?,
            room: name(&row, 1)?,
            epoch: Epoch(uint(&row, 2)?),
            last: Seq(last),
            given: Seq(given.max(last)),
            lease: Seq(lease),
        });
    }
    Ok(heads)
}

/// Longest that an idempotency key is promised, in milliseconds: the upper end of `rooms.dedup_window`.
const KEY_PROMISED_MS: u64 = 3_600_000;

/// Keys that are taken up at a start; with more, the oldest are forgotten.
const SEEN_KEYS_MAX: u32 = 500_000;

/// The newest idempotency keys, oldest first.
pub(in crate::store) async fn load_seen_keys(
    c: &mut SqliteConnection,
    now_ms: u64,
) -> Result<Vec<SeenKey>, sqlx::Error> {
    let mut rows = sqlx::query(
        "SELECT tenant, room, epoch, seq, repeat, unix_ms FROM messages INDEXED BY messages_by_repeat \
         WHERE repeat IS NOT NULL AND unix_ms > ? ORDER BY unix_ms DESC LIMIT ?",
    )
    .bind(int(now_ms.saturating_sub(KEY_PROMISED_MS)))
    .bind(SEEN_KEYS_MAX)
    .fetch(c);
    let mut keys = Vec::new();
    while let Some(row) = rows.try_next().await? {
        keys.push(SeenKey {
            tenant: name(&row, 0)?,
            room: name(&row, 1)?,
            epoch: Epoch(uint(&row, 2)?),
            seq: Seq(uint(&row, 3)?),
            repeat: row.try_get::<String, _>(4)?.into(),
            unix_ms: uint(&row, 5)?,
        });
    }
    keys.reverse();
    Ok(keys)
}

/// One moment's view: what is kept, and then the page.
pub(in crate::store) async fn page(
    c: &mut SqliteConnection,
    query: &MessageQuery,
    now_ms: u64,
) -> Result<MessagePage, StoreError> {
    let mut view = c.begin().await?;
    let page = read_page(&mut view, query, now_ms).await?;
    view.rollback().await?;
    Ok(page)
}

async fn read_page(
    c: &mut SqliteConnection,
    query: &MessageQuery,
    now_ms: u64,
) -> Result<MessagePage, sqlx::Error> {
    let empty = MessagePage {
        messages: Vec::new(),
        first: Seq(0),
        more: false,
    };
    let Some(first) = first_shown(c, query, now_ms).await? else {
        return Ok(empty);
    };
    let limit = i64::from(query.limit.clamp(1, PAGE_ROWS_MAX));
    let sizes = match query.direction {
        Direction::Forwards => {
            let from = query.from.0.max(first.0.saturating_sub(1));
            sqlx::query(
                "SELECT seq, length(payload) FROM messages \
                 WHERE tenant = ? AND room = ? AND epoch = ? AND seq > ? ORDER BY seq LIMIT ?",
            )
            .bind(query.tenant.as_str())
            .bind(query.room.as_str())
            .bind(int(query.epoch.0))
            .bind(int(from))
            .bind(limit + 1)
        }
        Direction::Backwards => {
            let from = if query.from.0 == 0 { u64::MAX } else { query.from.0 };
            sqlx::query(
                "SELECT seq, length(payload) FROM messages \
                 WHERE tenant = ? AND room = ? AND epoch = ? AND seq < ? AND seq >= ? ORDER BY seq DESC LIMIT ?",
            )
            .bind(query.tenant.as_str())
            .bind(query.room.as_str())
            .bind(int(query.epoch.0))
            .bind(int(from))
            .bind(int(first.0))
            .bind(limit + 1)
        }
    };
    let found = sizes
        .fetch_all(&mut *c)
        .await?
        .iter()
        .map(|row| Ok((uint(row, 0)?, uint(row, 1)?)))
        .collect::<Result<Vec<_>, sqlx::Error>>()?;
    let shown = fitting(
        &found,
        query.limit.clamp(1, PAGE_ROWS_MAX) as usize,
        query.bytes_max as u64,
    );
    let more = found.len() > shown;
    let (Some(&(one, _)), Some(&(other, _))) = (found.first(), found[..shown].last()) else {
        return Ok(MessagePage { first, ..empty });
    };
    let mut messages = sqlx::query(
        "SELECT seq, unix_ms, event, topic, user, excluded, repeat, payload_kind, payload FROM messages \
         WHERE tenant = ? AND room = ? AND epoch = ? AND seq BETWEEN ? AND ? ORDER BY seq",
    )
    .bind(query.tenant.as_str())
    .bind(query.room.as_str())
    .bind(int(query.epoch.0))
    .bind(int(one.min(other)))
    .bind(int(one.max(other)))
    .fetch(c)
    .and_then(|row| std::future::ready(read(&row)))
    .try_collect::<Vec<_>>()
    .await?;
    if query.direction == Direction::Backwards {
        messages.reverse();
    }
    Ok(MessagePage {
        messages,
        first,
        more,
    })
}

/// How many of these messages, given by number and size, make the page.
fn fitting(found: &[(u64, u64)], limit: usize, bytes_max: u64) -> usize {
    let mut bytes = 0_u64;
    found
        .iter()
        .take(limit)
        .enumerate()
        .take_while(|(at, (_, size))| {
            bytes = bytes.saturating_add(*size);
            *at == 0 || bytes <= bytes_max
        })
        .count()
}

/// The oldest message that the room's class keeps now, whether retention has come to the older ones or not. None if there
/// is none, or the room is in another epoch.
async fn first_shown(
    c: &mut SqliteConnection,
    query: &MessageQuery,
    now_ms: u64,
) -> Result<Option<Seq>, sqlx::Error> {
    let head = sqlx::query(
        "SELECT kept, keep_messages, keep_age_ms FROM room_heads WHERE tenant = ? AND room = ? AND epoch = ?",
    )
    .bind(query.tenant.as_str())
    .bind(query.room.as_str())
    .bind(int(query.epoch.0))
    .fetch_optional(&mut *c)
    .await?;
    let Some(head) = head else {
        return Ok(None);
    };
    let (kept, messages, age_ms) = (uint(&head, 0)?, uint(&head, 1)?, uint(&head, 2)?);
    let since_ms = if age_ms == 0 {
        0
    } else {
        now_ms.saturating_sub(age_ms)
    };
    let first = sqlx::query(
        "SELECT seq FROM messages WHERE tenant = ?1 AND room = ?2 AND epoch = ?3 AND unix_ms >= ?5 AND seq >= \
         (SELECT seq FROM messages WHERE tenant = ?1 AND room = ?2 AND epoch = ?3 ORDER BY seq LIMIT 1 OFFSET ?4) \
         ORDER BY seq LIMIT 1",
    )
    .bind(query.tenant.as_str())
    .bind(query.room.as_str())
    .bind(int(query.epoch.0))
    .bind(int(kept.saturating_sub(messages)))
    .bind(int(since_ms))
    .fetch_optional(c)
    .await?;
    first.map(|row| uint(&row, 0).map(Seq)).transpose()
}

fn read(row: &SqliteRow) -> Result<StoredMessage, sqlx::Error> {
    let text = |column| {
        Text::new(text_bytes(row, column)?).map_err(|e| damaged(format_args!("a text of a message: {e}")))
    };
    let bytes = blob(row, 8)?;
    let payload = match uint(row, 7)? {
        0 => Payload::Json(bytes),
        1 => Payload::Text(bytes),
        2 => Payload::Binary(bytes),
        kind => return Err(damaged(format_args!("a payload of the kind {kind}"))),
    };
    let user: Option<&str> = row.try_get(4)?;
    let repeat: Option<&str> = row.try_get(6)?;
    Ok(StoredMessage {
        seq: Seq(uint(row, 0)?),
        event: text(2)?,
        payload,
        topic: text(3)?,
        user: match user {
            Some(_) => Some(name(row, 4)?),
            None => None,
        },
        excluded: read_excluded(row, 5)?,
        unix_ms: uint(row, 1)?,
        repeat: repeat.map(Into::into),
    })
}

fn read_excluded(row: &SqliteRow, column: usize) -> Result<Excluded, sqlx::Error> {
    let bytes: Option<&[u8]> = row.try_get(column)?;
    let (numbers, rest) = bytes.unwrap_or_default().as_chunks::<8>();
    if !rest.is_empty() {
        return Err(damaged(format_args!("a list of connections")));
    }
    Ok(numbers
        .iter()
        .map(|&number| ConnectionId(u64::from_be_bytes(number)))
        .collect())
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::time::Instant;

    use cauce_protocol::{RoomName, TenantId};
    use sqlx::ConnectOptions;

    use super::*;
    use crate::rooms::Keep;
    use crate::store::config::StoreConfig;
    use crate::store::messages::{Committed, Late, MessageRow};
    use crate::store::migrate;
    use crate::store::sql::{BEGIN, writer_options};

    fn piece(seqs: std::ops::RangeInclusive<u64>) -> Piece {
        let mut backlog: VecDeque<Waiting> = seqs
            .map(|seq| Waiting {
                ticket: seq,
                bytes: 300,
                since: Instant::now(),
                row: Box::new(MessageRow {
                    tenant: TenantId::new("t").unwrap(),
                    room: RoomName::new("r").unwrap(),
                    epoch: Epoch(1),
                    seq: Seq(seq),
                    event: Text::from_static("e"),
                    payload: Payload::NULL,
                    topic: Text::default(),
                    user: None,
                    excluded: Excluded::new(),
                    unix_ms: seq,
                    repeat: None,
                    lease: Seq(seq + 100),
                    keep: Keep {
                        messages: 100,
                        ..Keep::NONE
                    },
                    committed: Committed(None),
                    late: Late::default(),
                }),
            })
            .collect();
        Piece::cut(&mut backlog).unwrap()
    }

    #[tokio::test]
    async fn a_piece_that_was_committed_although_the_answer_was_an_error_is_not_counted_twice() {
        let dir = tempfile::tempdir().unwrap();
        let config = StoreConfig::new(dir.path());
        migrate::migrate(&config).unwrap();
        let mut c = writer_options(&config).connect().await.unwrap();
        for (piece, again, refused) in [
            (piece(1..=700), false, 0),
            (piece(1..=700), true, 0),
            (piece(701..=702), false, 0),
            // Without a doubt about a commit before, the same numbers are another message.
            (piece(701..=703), false, 2),
        ] {
            let mut t = c.begin_with(BEGIN).await.unwrap();
            let given_up = write_messages(&mut t, &piece, again).await.unwrap();
            t.commit().await.unwrap();
            assert_eq!(given_up, (0..refused).collect::<Vec<_>>());
        }
        let told: (i64, i64, i64, i64) =
            sqlx::query_as("SELECT last, kept, bytes, (SELECT count(*) FROM messages) FROM room_heads")
                .fetch_one(&mut c)
                .await
                .unwrap();
        assert_eq!(told, (703, 703, 703 * 300, 703));
    }

    #[test]
    fn a_page_has_at_least_one_message_and_else_what_fits() {
        let found = [(1, 50), (2, 60), (3, 0), (4, 1)];
        assert_eq!(fitting(&[], 10, 100), 0);
        assert_eq!(fitting(&found, 10, 0), 1);
        assert_eq!(fitting(&found, 10, 109), 1);
        assert_eq!(fitting(&found, 10, 110), 3);
        assert_eq!(fitting(&found, 2, 1_000), 2);
    }
}
