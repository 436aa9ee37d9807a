//! For tests and the fuzzer: keys without a key schedule, a peer that seals whatever it likes, and what a driver does.

use std::io::IoSlice;

use super::{
    Gather, Opened, Opener, RecordError, Sealer, Sealing, Suite, TrafficKey, UpdateRequest, content_type,
    record_len,
};

pub const SUITES: [Suite; 3] = [Suite::Aes128Gcm, Suite::Aes256Gcm, Suite::Chacha20Poly1305];

/// Key number `generation` of a direction.
pub fn key(suite: Suite, generation: u8) -> TrafficKey {
    let len = match suite {
        Suite::Aes128Gcm => 16,
        Suite::Aes256Gcm | Suite::Chacha20Poly1305 => 32,
    };
    TrafficKey::new(suite, &vec![generation; len], &[!generation; 12]).expect("the suite's lengths")
}

/// What came out of one record; content is a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Content(Vec<u8>),
    KeyUpdate(UpdateRequest),
    Closed,
}

/// A receiver as a connection drives it.
#[derive(Debug)]
pub struct Receiver {
    pub opener: Opener,
    suite: Suite,
    generation: u8,
    kept: Vec<u8>,
    pub events: Vec<Event>,
}

impl Receiver {
    pub fn new(suite: Suite) -> Self {
        Self {
            opener: Opener::new(key(suite, 0), 0),
            suite,
            generation: 0,
            kept: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Bytes that wait for more.
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    pub fn receive(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        self.kept.extend_from_slice(bytes);
        let mut turn = self.opener.turn();
        while let Some(len) = record_len(&self.kept)? {
            let mut record: Vec<u8> = self.kept.drain(..len).collect();
            match turn.open(&mut record)? {
                Opened::Content(content) => self.events.push(Event::Content(content.to_vec())),
                Opened::Nothing => {}
                Opened::KeyUpdate(request) => {
                    self.generation = self.generation.wrapping_add(1);
                    turn.rekey(key(self.suite, self.generation));
                    self.events.push(Event::KeyUpdate(request));
                }
                Opened::Closed => {
                    self.events.push(Event::Closed);
                    self.kept.clear();
                    break;
                }
            }
        }
        Ok(())
    }

    /// All content that came, in one piece.
    pub fn content(&self) -> Vec<u8> {
        let content = |event: &Event| match event {
            Event::Content(bytes) => bytes.clone(),
            Event::KeyUpdate(_) | Event::Closed => Vec::new(),
        };
        self.events.iter().flat_map(content).collect()
    }
}

/// A sender as a connection drives it, and one that may also seal what no connection of ours would.
#[derive(Debug)]
pub struct Sender {
    pub sealer: Sealer,
    suite: Suite,
    generation: u8,
    pub sent: Vec<u8>,
}

impl Sender {
    pub fn new(suite: Suite, records_max: u64) -> Self {
        Self {
            sealer: Sealer::new(key(suite, 0), 0, records_max),
            suite,
            generation: 0,
            sent: Vec::new(),
        }
    }

    pub fn send(&mut self, slices: &[IoSlice<'_>]) -> Result<(), RecordError> {
        let mut content = Gather::new(slices, usize::MAX);
        let mut turn = self.sealer.turn()?;
        while content.left() > 0 {
            if turn.wants_update() {
                self.generation = self.generation.wrapping_add(1);
                turn.update(key(self.suite, self.generation), &mut self.sent)?;
            }
            turn.content(&mut content, &mut self.sent)?;
        }
        Ok(())
    }

    /// Changes the key, and says so.
    pub fn update(&mut self) -> Result<(), RecordError> {
        self.generation = self.generation.wrapping_add(1);
        let next = key(self.suite, self.generation);
        self.sealer.turn()?.update(next, &mut self.sent)
    }

    /// Changes the key without a word.
    pub fn rekey(&mut self) {
        self.generation = self.generation.wrapping_add(1);
        self.sealer = Sealer::new(key(self.suite, self.generation), 0, u64::MAX);
    }

    /// Seals what stands in a record, type and padding with it.
    pub fn seal_inner(&mut self, inner: &[u8]) {
        let seal =
            |mut turn: Sealing<'_>| turn.seal_inner(&mut self.sent, |out| out.extend_from_slice(inner));
        self.sealer.turn().and_then(seal).expect("a key and a number");
    }

    /// Seals content of a type, with padding.
    pub fn seal(&mut self, kind: u8, content: &[u8], padding: usize) {
        let inner = [content, &[kind], &vec![0; padding]].concat();
        self.seal_inner(&inner);
    }
}

/// Entry for the fuzzer: the first byte chooses the suite, the second the size of pieces, and the rest says what the peer seals
/// and what a stranger puts in between. However it is cut, the same comes out, and no content but the peer's.
#[doc(hidden)]
pub fn fuzz_records(data: &[u8]) {
    let [suite, cut, script @ ..] = data else {
        return;
    };
    let suite = SUITES[usize::from(*suite) % SUITES.len()];
    let mut sender = Sender::new(suite, u64::MAX);
    let mut contents = Vec::new();
    let mut script = script;
    while let [op, len, rest @ ..] = script {
        let (bytes, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        script = rest;
        match op % 6 {
            0 => sender.sent.extend_from_slice(bytes),
            1 => sender.seal_inner(bytes),
            2 => {
                sender.seal(content_type::APPLICATION_DATA, bytes, usize::from(op / 6));
                contents.push(bytes.to_vec());
            }
            3 => sender.seal(content_type::HANDSHAKE, bytes, 0),
            4 => sender.seal(content_type::ALERT, bytes, 0),
            _ => sender.update().expect("nothing has closed it"),
        }
        if op % 6 == 1
            && let Some(end) = bytes.iter().rposition(|&byte| byte != 0)
            && bytes[end] == content_type::APPLICATION_DATA
        {
            contents.push(bytes[..end].to_vec());
        }
    }
    contents.retain(|content| !content.is_empty());

    let (mut whole, mut pieces) = (Receiver::new(suite), Receiver::new(suite));
    let verdict = whole.receive(&sender.sent);
    let mut piecewise = Ok(());
    for piece in sender.sent.chunks(usize::from(*cut).max(1)) {
        piecewise = pieces.receive(piece);
        if piecewise.is_err() || pieces.events.last() == Some(&Event::Closed) {
            break;
        }
    }
    assert_eq!((verdict, &whole.events), (piecewise, &pieces.events));
    let opened = whole.events.iter().filter_map(|event| match event {
        Event::Content(bytes) => Some(bytes),
        Event::KeyUpdate(_) | Event::Closed => None,
    });
    assert!(
        opened
            .zip(contents.iter().map(Some).chain(std::iter::repeat(None)))
            .all(|(opened, sealed)| Some(opened) == sealed),
        "content that nobody sealed, or not in order"
    );
}
