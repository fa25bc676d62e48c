//! A matcher for Redis globs that parses the pattern while it matches.
//!
//! A copy of the host's rules, held equal by the property tests in `tests/behaviour/sdk/testing.rs`.

/// Returns whether the host accepts the pattern. A range from an ASCII to a non-ASCII byte is rejected, because servers
/// disagree on it.
pub(super) fn is_allowed(pattern: &[u8]) -> bool {
    let mut rest = pattern;
    while let Some((token, after)) = next(rest) {
        if let Token::Class { members, .. } = token
            && ranges(members).any(|(from, to)| from.is_ascii() != to.is_ascii())
        {
            return false;
        }
        rest = after;
    }
    true
}

/// Returns whether the pattern matches the whole key.
///
/// On a mismatch the last `*` takes one more byte. Earlier `*` need no backtracking, so the time is at most the product
/// of both lengths.
pub(super) fn matches(pattern: &[u8], key: &[u8]) -> bool {
    let (mut pattern, mut key) = (pattern, key);
    // The pattern after the last `*`, and the part of the key that was matched against it.
    let mut last_run: Option<(&[u8], &[u8])> = None;
    loop {
        match (next(pattern), key.split_first()) {
            (None, None) => return true,
            (Some((Token::Run, after)), _) => {
                last_run = Some((after, key));
                pattern = after;
                continue;
            }
            (Some((token, after)), Some((&byte, shorter))) if token.matches(byte) => {
                (pattern, key) = (after, shorter);
                continue;
            }
            _ => {}
        }
        match last_run {
            Some((after, [_, shorter @ ..])) => {
                last_run = Some((after, shorter));
                (pattern, key) = (after, shorter);
            }
            _ => return false,
        }
    }
}

enum Token<'p> {
    /// `*`
    Run,
    /// `?`
    Any,
    Literal(u8),
    Class {
        is_negated: bool,
        members: &'p [u8],
    },
}

impl Token<'_> {
    fn matches(&self, byte: u8) -> bool {
        match *self {
            Self::Run => false,
            Self::Any => true,
            Self::Literal(literal) => literal == byte,
            Self::Class { is_negated, members } => {
                ranges(members).any(|(from, to)| (from.min(to)..=from.max(to)).contains(&byte)) != is_negated
            }
        }
    }
}

/// Splits off the first token.
fn next(pattern: &[u8]) -> Option<(Token<'_>, &[u8])> {
    Some(match pattern {
        [] => return None,
        [b'*', after @ ..] => (Token::Run, after),
        [b'?', after @ ..] => (Token::Any, after),
        [b'\\', literal, after @ ..] => (Token::Literal(*literal), after),
        [b'[', b'^', members @ ..] => (Token::Class { is_negated: true, members }, after_class(members)),
        [b'[', members @ ..] => (Token::Class { is_negated: false, members }, after_class(members)),
        [literal, after @ ..] => (Token::Literal(*literal), after),
    })
}

/// Returns the ranges of a class up to its `]` or the end of the pattern. A single byte counts as a range.
fn ranges(members: &[u8]) -> impl Iterator<Item = (u8, u8)> {
    let mut rest = members;
    std::iter::from_fn(move || {
        let (range, after) = range(rest)?;
        rest = after;
        Some(range)
    })
}

fn range(members: &[u8]) -> Option<((u8, u8), &[u8])> {
    match members {
        [] | [b']', ..] => None,
        [b'\\', literal, after @ ..] => Some(((*literal, *literal), after)),
        [from, b'-', to, after @ ..] => Some(((*from, *to), after)),
        [literal, after @ ..] => Some(((*literal, *literal), after)),
    }
}

fn after_class(members: &[u8]) -> &[u8] {
    let mut rest = members;
    while let Some((_, after)) = range(rest) {
        rest = after;
    }
    rest.split_first().map_or(rest, |(_, after)| after)
}
