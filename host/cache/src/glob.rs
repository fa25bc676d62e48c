//! Glob matching, byte for byte as the server's `SCAN … MATCH`.
//!
//! The rules are those of `stringmatchlen` in Redis 7.0 and Valkey 8.0. A pattern matches the whole key. `*` matches
//! any run of bytes, `?` any one byte, and `[…]` any byte of a class. In a class a leading `^` negates, ranges are
//! inclusive and may be reversed, `\x` is a literal, and `]` always closes; an unclosed class ends with the pattern.
//! Outside a class `\x` is a literal, and so is a trailing `\`. Servers compare the ends of a range as the platform's
//! `char`, so a range from an ASCII to a non-ASCII byte differs between processors; [`Pattern::new`] refuses it.

// Decision: docs/decisions/0010-ranges-from-ascii-to-non-ascii-bytes-are-refused-in-patterns.md

use crate::error::CacheError;
use crate::text::check_text;

/// A validated pattern, compiled for matching.
#[derive(Debug, Clone)]
pub struct Pattern {
    source: String,
    tokens: Vec<Token>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Literal(u8),
    AnyByte,
    AnyRun,
    Class(Box<Class>),
}

impl Pattern {
    /// The maximum length of a pattern in bytes.
    pub const MAX_LENGTH: usize = 1024;

    /// Checks and compiles a plugin's pattern. Runs of `*` become one.
    ///
    /// # Errors
    ///
    /// [`CacheError::InvalidArgument`] for a pattern that is empty, is longer than [`Pattern::MAX_LENGTH`] bytes,
    /// contains a control character, or has a range from an ASCII to a non-ASCII character.
    pub fn new(pattern: &str) -> Result<Self, CacheError> {
        check_text("pattern", pattern, Self::MAX_LENGTH)?;
        compile(pattern.as_bytes()).map(|tokens| Self { source: collapse_runs(pattern), tokens }).ok_or_else(|| {
            CacheError::InvalidArgument(
                "pattern: a range must not go from an ASCII to a non-ASCII character".to_owned(),
            )
        })
    }

    /// Matches every key that begins with this text, of any length.
    pub(crate) fn beginning_with(prefix: &str) -> Self {
        let literals = prefix.bytes().map(Token::Literal);
        let tokens = literals.chain([Token::AnyRun]).collect();
        Self { source: escape(prefix) + "*", tokens }
    }

    /// `*`, which matches every key.
    pub fn any() -> Self {
        Self { source: "*".to_owned(), tokens: vec![Token::AnyRun] }
    }

    /// The text of the pattern, with each run of `*` as one, for a server.
    pub fn as_str(&self) -> &str {
        &self.source
    }

    /// True if the pattern matches the whole key.
    ///
    /// After a mismatch only the last `*` takes one more byte: a match in which an earlier `*` is longer would also be
    /// found with a longer last one. The time is thus at most key length times tokens, without recursion.
    pub fn matches(&self, key: &[u8]) -> bool {
        let mut tokens = self.tokens.as_slice();
        let mut rest = key;
        // The point to return to: the tokens after the last `*`, and the rest of the key that they were matched with.
        let mut last_run: Option<(&[Token], &[u8])> = None;
        loop {
            match (tokens.split_first(), rest.split_first()) {
                (None, None) => return true,
                (Some((Token::AnyRun, [])), _) => return true,
                (Some((Token::AnyRun, after)), _) => {
                    last_run = Some((after, rest));
                    tokens = after;
                    continue;
                }
                (Some((token, after)), Some((&byte, shorter))) if token.matches(byte) => {
                    tokens = after;
                    rest = shorter;
                    continue;
                }
                _ => {}
            }
            match last_run {
                Some((after, [_, shorter @ ..])) => {
                    last_run = Some((after, shorter));
                    tokens = after;
                    rest = shorter;
                }
                _ => return false,
            }
        }
    }
}

impl Token {
    fn matches(&self, byte: u8) -> bool {
        match self {
            Self::Literal(literal) => *literal == byte,
            Self::AnyByte => true,
            Self::Class(class) => class.contains(byte),
            Self::AnyRun => false,
        }
    }
}

/// A set of bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class([bool; 256]);

impl Class {
    fn contains(&self, byte: u8) -> bool {
        self.0.get(usize::from(byte)).is_some_and(|member| *member)
    }

    /// Adds all bytes from one to the other, in either order.
    fn add_range(&mut self, from: u8, to: u8) {
        let range = usize::from(from.min(to))..=usize::from(from.max(to));
        if let Some(members) = self.0.get_mut(range) {
            members.fill(true);
        }
    }

    fn negate(&mut self) {
        for member in &mut self.0 {
            *member = !*member;
        }
    }
}

/// Compiles a pattern. `None` for a range that differs between servers.
fn compile(pattern: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some((&first, after)) = rest.split_first() {
        rest = after;
        let token = match (first, after) {
            (b'*', _) => Token::AnyRun,
            (b'?', _) => Token::AnyByte,
            (b'[', _) => {
                let (class, after) = compile_class(after)?;
                rest = after;
                Token::Class(Box::new(class))
            }
            (b'\\', [escaped, after @ ..]) => {
                rest = after;
                Token::Literal(*escaped)
            }
            (literal, _) => Token::Literal(literal),
        };
        if token != Token::AnyRun || tokens.last() != Some(&Token::AnyRun) {
            tokens.push(token);
        }
    }
    Some(tokens)
}

/// Compiles the class after a `[`. Returns it and the rest of the pattern.
fn compile_class(pattern: &[u8]) -> Option<(Class, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'^', after @ ..] => (true, after),
        all => (false, all),
    };
    let mut class = Class([false; 256]);
    loop {
        rest = match rest {
            [] => break,
            [b'\\', literal, after @ ..] => {
                class.add_range(*literal, *literal);
                after
            }
            [b']', after @ ..] => {
                rest = after;
                break;
            }
            [from, b'-', to, after @ ..] => {
                if from.is_ascii() != to.is_ascii() {
                    return None;
                }
                class.add_range(*from, *to);
                after
            }
            [literal, after @ ..] => {
                class.add_range(*literal, *literal);
                after
            }
        };
    }
    if negated {
        class.negate();
    }
    Some((class, rest))
}

/// Replaces every run of `*` outside classes and escapes by one, because each `*` costs time on old servers.
fn collapse_runs(pattern: &str) -> String {
    let mut collapsed = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            '*' => rest.len().saturating_sub(rest.trim_start_matches('*').len()),
            '\\' => first.len_utf8().saturating_add(rest.chars().nth(1).map_or(0, char::len_utf8)),
            // A class is copied as it is.
            '[' => rest.len().saturating_sub(after_class(rest).len()),
            other => other.len_utf8(),
        };
        let (token, after) = rest.split_at(taken);
        collapsed.push_str(if first == '*' { "*" } else { token });
        rest = after;
    }
    collapsed
}

/// The rest of a pattern that begins with a class.
fn after_class(pattern: &str) -> &str {
    let inside = pattern.as_bytes().get(1..).unwrap_or_default();
    let after = compile_class(inside).map_or(0, |(_, after)| after.len());
    // A class ends after an ASCII `]` or with the pattern, so this is a character boundary.
    pattern.get(pattern.len().saturating_sub(after)..).unwrap_or_default()
}

/// The glob that matches exactly this text.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^' | '-') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, key: &str) -> bool {
        Pattern::new(pattern).unwrap().matches(key.as_bytes())
    }

    /// The keys among `candidates` that the pattern matches.
    fn matched<'a>(pattern: &str, candidates: &[&'a str]) -> Vec<&'a str> {
        candidates.iter().copied().filter(|key| matches(pattern, key)).collect()
    }

    #[test]
    fn a_pattern_matches_the_whole_key() {
        assert!(matches("user:1", "user:1"));
        assert!(!matches("user:1", "user:12"));
        assert!(!matches("ser:1", "user:1"));
        assert!(!matches("User:1", "user:1"));
    }

    #[test]
    fn a_star_matches_any_run_of_bytes_including_an_empty_one() {
        assert!(matches("user:*", "user:"));
        assert!(matches("*:1", "user:1"));
        assert!(matches("u*r*1", "user:r:1"));
        assert!(matches("*aab", "aaaab"));
        assert!(!matches("u*x", "user:1"));
        assert!(matches("a/*", "a/b/c"));
    }

    #[test]
    fn a_question_mark_matches_one_byte() {
        assert!(matches("user:?", "user:1"));
        assert!(!matches("user:?", "user:12"));
        assert!(!matches("?", "é"));
        assert!(matches("??", "é"));
    }

    /// The expected results were measured on a server.
    #[test]
    fn unusual_classes_match_as_on_the_server() {
        let keys = ["]", "^", "a", "-", "!", "b", "[", "\\", "z", "0"];
        assert_eq!(matched("[a-]", &keys), ["]", "^", "a"]);
        assert!(matched("[]a]", &keys).is_empty());
        assert!(matched("[^]a]", &keys).is_empty());
        assert!(matched("[", &keys).is_empty());
        assert!(matched("[]", &keys).is_empty());
        assert_eq!(matched("[^]", &keys), keys);
        assert_eq!(matched("[^", &keys), keys);
        assert_eq!(matched("[a", &keys), ["a"]);
        assert_eq!(matched("\\[", &keys), ["["]);
        assert_eq!(matched("[\\]]", &keys), ["]"]);
        assert_eq!(matched("[z-a]", &keys), ["a", "b", "z"]);
        assert_eq!(matched("[!a]", &keys), ["a", "!"]);
        assert_eq!(matched("[a-", &keys), ["a", "-"]);
        assert_eq!(matched("\\", &keys), ["\\"]);
        assert!(!matches("a\\", "a"));
    }

    #[test]
    fn a_run_of_stars_becomes_one() {
        let pattern = Pattern::new(&"*".repeat(1000)).unwrap();
        assert_eq!(pattern.as_str(), "*");
        assert!(pattern.matches(b"anything"));
    }

    #[test]
    fn stars_in_classes_and_escapes_are_kept() {
        for pattern in ["[**]", "\\**", "\\***", "[\\]**]", "a[^**"] {
            let compiled = Pattern::new(pattern).unwrap();
            assert_eq!(compile(compiled.as_str().as_bytes()), compile(pattern.as_bytes()), "{pattern}");
        }
        assert_eq!(Pattern::new("[**]**a").unwrap().as_str(), "[**]*a");
        assert_eq!(Pattern::new("\\***").unwrap().as_str(), "\\**");
    }

    #[test]
    fn many_stars_match_a_long_key_quickly() {
        let pattern = Pattern::new(&"*a".repeat(512)).unwrap();
        assert!(!pattern.matches("a".repeat(511).as_bytes()));
        assert!(pattern.matches("a".repeat(512).as_bytes()));
        assert!(!pattern.matches("b".repeat(1024).as_bytes()));
    }

    #[test]
    fn a_range_from_ascii_to_non_ascii_is_refused() {
        assert!(Pattern::new("[a-é]").is_err());
        assert!(Pattern::new("[а-я]").is_ok());
    }

    #[test]
    fn an_escaped_text_matches_only_itself() {
        let text = r"a*b?[c]^d-e\f";
        let pattern = Pattern::new(&escape(text)).unwrap();
        assert!(pattern.matches(text.as_bytes()));
        assert!(!pattern.matches(br"aXb?[c]^d-e\f"));
    }

    #[test]
    fn a_prefix_matches_what_begins_with_it_whatever_its_characters() {
        for prefix in ["", "a", "a*", "[a-", "\\", "é?", r"a*b?[c]^d-e\f"] {
            let pattern = Pattern::beginning_with(prefix);
            assert!(pattern.matches(prefix.as_bytes()), "{prefix}");
            assert!(pattern.matches(format!("{prefix}more").as_bytes()), "{prefix}");
            assert!(prefix.is_empty() || !pattern.matches(format!("x{prefix}").as_bytes()), "{prefix}");
            // A server gets the text and must match the same keys.
            assert_eq!(compile(pattern.as_str().as_bytes()), Some(pattern.tokens), "{prefix}");
        }
        assert_eq!(Pattern::beginning_with("").as_str(), Pattern::any().as_str());
    }
}
