//! Bounds that both ends know. The broker may be configured to lower ones, never to higher; `Welcome.limits` tells which hold.

/// Largest frame (length prefix not counted), in bytes.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Frame size allowed unless configured otherwise, in bytes.
pub const FRAME_BYTES_DEFAULT: usize = 64 * 1024;

/// Largest payload, in bytes: a frame less the room its other fields may need.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BYTES_MAX - 4096;

/// How deep a JSON payload may nest. 16 is deeper than any state we have seen and shallow enough for every parser.
pub const PAYLOAD_DEPTH_MAX: usize = 16;

/// Longest name of a room, user, role, tenant or device, in bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 200;

/// Longest event name, in bytes of UTF-8.
pub const EVENT_BYTES_MAX: usize = 100;

/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 128;

/// Longest method name of a call, in bytes.
pub const METHOD_BYTES_MAX: usize = 100;

/// Rooms that one subscribe or unsubscribe may name.
pub const ROOMS_A_REQUEST_MAX: usize = 128;

/// Connections that one publish or send may exclude.
pub const EXCLUDE_MAX: usize = 64;

/// Events that the filter of one subscription may list.
pub const FILTER_EVENTS_MAX: usize = 32;

/// Keys that the filter of one subscription may list.
pub const FILTER_KEYS_MAX: usize = 64;

/// Events and keys that the filters of one subscribe may list in all its rooms together.
pub const REQUEST_ENTRIES_MAX: usize = 1_024;

/// Longest key of a message, in bytes.
pub const KEY_BYTES_MAX: usize = 100;

/// Shortest and longest interval of a sampled subscription, in milliseconds.
pub const SAMPLE_MS_MIN: u32 = 10;
pub const SAMPLE_MS_MAX: u32 = 3_600_000;

/// Entries of one page of history, presence or notifications.
pub const PAGE_MAX: usize = 1_000;

/// Earlier connections that a hello may name.
pub const PREVIOUS_MAX: usize = 8;

/// Methods that one serve or unserve may name.
pub const METHODS_A_REQUEST_MAX: usize = 64;

/// Longest error that the server of a method may answer with, in bytes.
pub const ERROR_BYTES_MAX: usize = 1_024;

/// Longest title and message of a notification, in bytes.
pub const NOTIFICATION_TITLE_BYTES_MAX: usize = 200;
pub const NOTIFICATION_MESSAGE_BYTES_MAX: usize = 4_096;

/// Notifications that one request may mark as read by id.
pub const MARK_READ_MAX: usize = 100;

/// Longest token, in bytes (8 KiB is what common proxies let pass in a header).
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Longest client name in hello, in bytes.
pub const CLIENT_NAME_BYTES_MAX: usize = 100;

/// Frames that one WebSocket message may carry.
pub const FRAMES_A_MESSAGE_MAX: usize = 1024;

/// Ids, epochs and sequence numbers stay below this, so that a JavaScript number holds them exactly.
pub const INTEGER_MAX: u64 = (1 << 53) - 1;

/// Longest text of a `Code` message to a peer, in bytes: a WebSocket close reason holds 123.
pub const REASON_BYTES_MAX: usize = 123;

const _: () = assert!(FRAME_BYTES_DEFAULT <= FRAME_BYTES_MAX);
// The fields beside a payload always fit into what PAYLOAD_BYTES_MAX leaves: names, key, exclude list as varints.
const _: () = assert!(
    FRAME_BYTES_MAX - PAYLOAD_BYTES_MAX
        >= NAME_BYTES_MAX
            + EVENT_BYTES_MAX
            + IDEMPOTENCY_KEY_BYTES_MAX
            + KEY_BYTES_MAX
            + EXCLUDE_MAX * 10
            + 64
);
// A room list at its limits fits into a frame of default size.
const _: () = assert!(ROOMS_A_REQUEST_MAX * (NAME_BYTES_MAX + 4) < FRAME_BYTES_DEFAULT);
