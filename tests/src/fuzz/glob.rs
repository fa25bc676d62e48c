//! The glob matcher against one that is made to be read.

use larder_host::cache::glob::Pattern;

/// A pattern, a line feed, and a key. Pattern and key match by [`Pattern`] if and only if they do by [`reference`], and
/// so does the pattern as a server is given it.
pub fn glob(data: &[u8]) {
    let Some(end) = data.iter().position(|&byte| byte == b'\n') else { return };
    let (Ok(pattern), key) = (str::from_utf8(&data[..end]), &data[end + 1..]) else { return };
    let Ok(compiled) = Pattern::new(pattern) else { return };
    let expected = reference(pattern.as_bytes(), key);
    assert_eq!(compiled.matches(key), expected, "`{pattern}` and {key:?}");
    let given = compiled.as_str();
    assert_eq!(reference(given.as_bytes(), key), expected, "`{given}` in place of `{pattern}`, and {key:?}");
    let again = Pattern::new(given).expect("what a server is given is a pattern");
    assert_eq!(again.as_str(), given, "`{pattern}`");
}

/// Whether a pattern matches a key, by a server's rules read one by one: `stringmatchlen` of Valkey 8.0.
///
/// It goes through the pattern once, with all places of the key at which what was read may end.
pub fn reference(pattern: &[u8], key: &[u8]) -> bool {
    let mut ends = vec![false; key.len() + 1];
    ends[0] = true;
    let mut rest = pattern;
    while let Some(first) = rest.first() {
        if *first == b'*' {
            let shortest = ends.iter().position(|&is_end| is_end).unwrap_or(ends.len());
            ends[shortest..].fill(true);
            rest = &rest[1..];
            continue;
        }
        let mut longer = vec![false; ends.len()];
        for (place, &byte) in key.iter().enumerate() {
            longer[place + 1] = ends[place] && matches_one(rest, byte).0;
        }
        // How long an element is does not depend on the byte.
        rest = &rest[matches_one(rest, 0).1..];
        ends = longer;
    }
    ends[key.len()]
}

/// Whether the element that the pattern begins with, which is no `*`, matches the byte; and its length.
fn matches_one(pattern: &[u8], byte: u8) -> (bool, usize) {
    match pattern {
        [b'?', ..] => (true, 1),
        [b'\\', escaped, ..] => (*escaped == byte, 2),
        [b'[', b'^', ..] => {
            let (is_member, len) = is_in_class(pattern, 2, byte);
            (!is_member, len)
        }
        [b'[', ..] => is_in_class(pattern, 1, byte),
        [literal, ..] => (*literal == byte, 1),
        [] => unreachable!("there is an element"),
    }
}

/// Whether the class whose first member would stand at `at` has the byte; and where it ends.
fn is_in_class(pattern: &[u8], mut at: usize, byte: u8) -> (bool, usize) {
    let mut is_member = false;
    loop {
        match &pattern[at..] {
            [] => return (is_member, at),
            [b'\\', escaped, ..] => {
                is_member |= *escaped == byte;
                at += 2;
            }
            [b']', ..] => return (is_member, at + 1),
            [from, b'-', to, ..] => {
                is_member |= (from <= to && (from..=to).contains(&&byte)) || (to..=from).contains(&&byte);
                at += 3;
            }
            [literal, ..] => {
                is_member |= *literal == byte;
                at += 1;
            }
        }
    }
}
