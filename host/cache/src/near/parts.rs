//! The parts of the keys that a server has, if other servers have the rest: the slots of a node of a cluster.

/// The words of a set with a bit for each part. Keys are divided into 16,384 parts, the slots of a cluster.
const WORDS: usize = 16_384 / 64;

/// A set of parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts(Box<[u64; WORDS]>);

impl Parts {
    pub(crate) fn none() -> Self {
        Self(Box::new([0; WORDS]))
    }

    /// Adds a part. A number that no part has is ignored.
    pub(crate) fn insert(&mut self, part: u16) {
        let (word, bit) = place(part);
        if let Some(word) = self.0.get_mut(word) {
            *word |= bit;
        }
    }

    pub(crate) fn contains(&self, part: u16) -> bool {
        let (word, bit) = place(part);
        self.0.get(word).is_some_and(|word| word & bit != 0)
    }

    /// True if every part of `other` is in this set.
    pub(crate) fn contains_all(&self, other: &Self) -> bool {
        self.0.iter().zip(other.0.iter()).all(|(own, other)| other & !own == 0)
    }
}

/// The word of a part, and its bit there.
fn place(part: u16) -> (usize, u64) {
    (usize::from(part / 64), 1_u64.rotate_left(u32::from(part % 64)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_has_what_was_inserted() {
        let set = |parts: &[u16]| {
            let mut set = Parts::none();
            parts.iter().for_each(|part| set.insert(*part));
            set
        };
        let some = set(&[0, 63, 64, 16_383, 16_384, u16::MAX]);
        let found: Vec<u16> = (0..=u16::MAX).filter(|part| some.contains(*part)).collect();
        assert_eq!(found, [0, 63, 64, 16_383]);
        assert!(some.contains_all(&set(&[63, 16_383])) && some.contains_all(&some));
        assert!(!some.contains_all(&set(&[63, 65])) && !set(&[]).contains_all(&some));
    }
}
