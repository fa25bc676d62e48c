//! Follows the frames of HTTP/2 in the bytes that a client sends, and counts what its small frames cost.

/// What comes before the first frame.
const PREFACE: usize = 24;

const DATA: u8 = 0;
const END_STREAM: u8 = 1;
const PADDED: u8 = 8;

/// h2 counts each unread frame with at least this much, in bytes.
const LEAST_COST: usize = 256;

/// The most that one byte can cost: a frame of one byte has a head of nine.
pub(super) const MAX_COST_PER_BYTE: usize = 26;

/// What h2 counts an unread frame of this length beyond its length, in bytes.
pub(super) fn cost(len: usize) -> usize {
    // Empty ones are not kept, and have a limit of their own.
    if len == 0 { 0 } else { LEAST_COST.saturating_sub(len) }
}

/// What the frames in some bytes cost.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cost {
    /// Of small frames.
    pub(super) added: usize,
    /// What h2 takes off for large ones.
    pub(super) removed: usize,
}

/// The place in the stream of frames.
#[derive(Debug)]
pub(super) struct Frames {
    head: [u8; 9],
    /// The bytes of the head that are there.
    filled: usize,
    /// The bytes to pass over before the next head.
    rest: usize,
}

impl Frames {
    pub(super) fn new() -> Self {
        Self { head: [0; 9], filled: 0, rest: PREFACE }
    }

    /// Passes over bytes, and returns what the frames that begin in them cost.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) -> Cost {
        let mut cost = Cost::default();
        while !bytes.is_empty() {
            if self.rest > 0 {
                let passed = self.rest.min(bytes.len());
                self.rest = self.rest.saturating_sub(passed);
                bytes = bytes.get(passed..).unwrap_or_default();
                continue;
            }
            let wanted = self.head.len().saturating_sub(self.filled).min(bytes.len());
            let (part, after) = bytes.split_at_checked(wanted).unwrap_or((bytes, &[]));
            for (to, from) in self.head.iter_mut().skip(self.filled).zip(part) {
                *to = *from;
            }
            self.filled = self.filled.saturating_add(wanted);
            bytes = after;
            if self.filled == self.head.len() {
                self.begin_frame(&mut cost);
            }
        }
        cost
    }

    fn begin_frame(&mut self, total: &mut Cost) {
        let [a, b, c, kind, flags, ..] = self.head;
        let len = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(usize::MAX);
        self.filled = 0;
        self.rest = len;
        // h2 does not count the last frame of a stream.
        if kind != DATA || flags & END_STREAM != 0 {
            return;
        }
        // The length of the padding is not known yet.
        let len = if flags & PADDED == 0 { len } else { len.min(1) };
        total.added = total.added.saturating_add(cost(len));
        total.removed = total.removed.saturating_add(len.saturating_sub(LEAST_COST));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, len: usize) -> Vec<u8> {
        let mut frame = u32::try_from(len).unwrap().to_be_bytes()[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(vec![b'x'; len]);
        frame
    }

    #[test]
    fn small_frames_of_data_cost_what_h2_counts_however_the_bytes_are_cut() {
        let bytes = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            frame(4, 0, 6),
            frame(DATA, 0, 1),
            frame(1, 4, 20),
            frame(DATA, 0, 200),
            frame(DATA, 0, 0),
            frame(DATA, 0, 1000),
            frame(DATA, END_STREAM, 1),
            frame(DATA, PADDED, 100),
            frame(DATA, PADDED, 0),
            frame(DATA, 0, 255),
        ]
        .concat();
        for part in 1..=bytes.len() {
            let mut frames = Frames::new();
            let mut cost = Cost::default();
            for bytes in bytes.chunks(part) {
                let Cost { added, removed } = frames.pass(bytes);
                cost = Cost { added: cost.added + added, removed: cost.removed + removed };
            }
            assert_eq!(cost, Cost { added: 255 + 56 + 255 + 1, removed: 744 }, "in parts of {part}");
        }
    }

    #[test]
    fn no_bytes_cost_more_than_the_bound() {
        let bytes = frame(DATA, 0, 1).repeat(1000);
        let cost = Frames { rest: 0, ..Frames::new() }.pass(&bytes).added;
        assert!(cost <= bytes.len() * MAX_COST_PER_BYTE, "{cost}");
    }
}
