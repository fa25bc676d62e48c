//! The glob matcher, compared with a simple one.

use larder_host::cache::glob::Pattern;

/// The input is a pattern, a line feed, and a key. [`Pattern`] matches if and only if [`reference`] does, also for the
/// pattern in the form that a server gets.
pub fn glob(data: &[u8]) {
    let Some(end) = data.iter().position(|&byte| byte == b'\n') else { return };
    let (Ok(pattern), key) = (str::from_utf8(&data[..end]), &data[end + 1..]) else { return };
    let Ok(compiled) = Pattern::new(pattern) else { return };
    let expected = reference(pattern.as_bytes(), key);
    assert_eq!(compiled.matches(key), expected, "`{pattern}` and {key:?}");
    let given = compiled.as_str();
    assert_eq!(reference(given.as_bytes(), key), expected, "`{given}` in place of `{pattern}`, and {key:?}");
    let again = Pattern::new(given).expect("the form for a server is a pattern");
    assert_eq!(again.as_str(), given, "`{pattern}`");
}

/// True if a pattern matches a key, by the rules of a server: `stringmatchlen` of Valkey 8.0.
///
/// It reads the pattern once, and keeps all positions of the key at which the part that was read may end.
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
        // The length of an element does not depend on the byte.
        rest = &rest[matches_one(rest, 0).1..];
        ends = longer;
    }
    ends[key.len()]
}

/// Whether the first element of the pattern, which is not `*`, matches the byte, and the length of the element.
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

/// Whether the class with its first member at `at` has the byte, and the end of the class.
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
