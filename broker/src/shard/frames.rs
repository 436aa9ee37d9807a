//! Frames in a row, of which the first has its place here: most peers are given one a turn, and need no buffer for it.
//!
//! What must stay true: nothing is in the buffer while there is no first frame.

use std::collections::VecDeque;

use bytes::Bytes;

/// A queue of frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    first: Option<Bytes>,
    rest: VecDeque<Bytes>,
}

impl Frames {
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// The first frame, and whether others are behind it.
    pub(super) fn first(&self) -> Option<(&Bytes, bool)> {
        Some((self.first.as_ref()?, !self.rest.is_empty()))
    }

    pub(super) fn first_mut(&mut self) -> Option<&mut Bytes> {
        self.first.as_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Bytes> {
        self.first.iter().chain(&self.rest)
    }

    pub(super) fn push_last(&mut self, frame: Bytes) {
        match self.first {
            None => self.first = Some(frame),
            Some(_) => self.rest.push_back(frame),
        }
    }

    pub(super) fn pop_first(&mut self) {
        self.first = self.rest.pop_front();
    }

    /// Puts a frame behind so many others, which there must be.
    pub(super) fn insert(&mut self, at: usize, frame: Bytes) {
        match at.checked_sub(1) {
            Some(at) => self.rest.insert(at, frame),
            None => {
                if let Some(second) = self.first.replace(frame) {
                    self.rest.push_front(second);
                }
            }
        }
    }

    /// Keeps the first frame at most, and that only if told so.
    pub(super) fn drop_all_but_first(&mut self, keeps_first: bool) {
        self.rest.clear();
        if !keeps_first {
            self.first = None;
        }
    }

    /// Whether the next frame wants a buffer that is not there.
    pub(super) fn wants_buffer(&self) -> bool {
        self.first.is_some() && self.rest.capacity() == 0
    }

    /// Gives an empty buffer.
    pub(super) fn give_buffer(&mut self, buffer: VecDeque<Bytes>) {
        debug_assert!(self.rest.is_empty() && buffer.is_empty());
        self.rest = buffer;
    }

    /// Takes the buffer of a queue that has nothing in it; None if it has none.
    pub(super) fn take_buffer(&mut self) -> Option<VecDeque<Bytes>> {
        (self.rest.capacity() > 0 && self.is_empty()).then(|| std::mem::take(&mut self.rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Insert(usize),
        Pop,
        DropAllButFirst(bool),
        Lend,
        Return,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Push),
            2 => (0usize..6).prop_map(Step::Insert),
            3 => Just(Step::Pop),
            1 => any::<bool>().prop_map(Step::DropAllButFirst),
            1 => Just(Step::Lend),
            1 => Just(Step::Return),
        ];
        prop::collection::vec(step, 1..60)
    }

    proptest! {
        /// The model: a queue as the standard library has it.
        #[test]
        fn it_is_a_queue(steps in steps()) {
            let (mut frames, mut model) = (Frames::default(), VecDeque::new());
            for (n, step) in steps.into_iter().enumerate() {
                let frame = Bytes::from(vec![n as u8; 3]);
                match step {
                    Step::Push => {
                        frames.push_last(frame.clone());
                        model.push_back(frame);
                    }
                    Step::Insert(at) => {
                        let at = at.min(model.len());
                        frames.insert(at, frame.clone());
                        model.insert(at, frame);
                    }
                    Step::Pop => {
                        frames.pop_first();
                        model.pop_front();
                    }
                    Step::DropAllButFirst(keeps_first) => {
                        frames.drop_all_but_first(keeps_first);
                        model.truncate(usize::from(keeps_first));
                    }
                    Step::Lend => {
                        if frames.wants_buffer() {
                            frames.give_buffer(VecDeque::with_capacity(4));
                        }
                    }
                    Step::Return => {
                        let buffer = frames.take_buffer();
                        prop_assert!(buffer.is_none_or(|buffer| buffer.is_empty()));
                    }
                }
                prop_assert!(frames.iter().eq(&model));
                prop_assert_eq!(frames.is_empty(), model.is_empty());
                prop_assert_eq!(frames.first(), model.front().map(|first| (first, model.len() > 1)));
                prop_assert_eq!(frames.first_mut().cloned(), model.front().cloned());
            }
        }
    }
}
