//! The name that a misspelt one was meant to be.

/// The longest name that is compared, in bytes.
const LONGEST: usize = 200;

/// The name that is nearest to a misspelt one: at most one letter in three is wrong, missing, added or swapped.
pub(crate) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = name.chars().count();
    // Names of a plugin's file can be long, and the time to compare is their product.
    let candidates = candidates.into_iter().filter(|candidate| candidate.len() <= LONGEST && letters <= LONGEST);
    let near = candidates.map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate));
    let near = near.filter(|(distance, _)| distance.saturating_mul(3) <= letters.max(3));
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The end of a message about a name that does not exist: `` ; did you mean `…`? ``, or nothing if no name is near it.
pub(crate) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> String {
    nearest(name, candidates).map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_third_of_the_letters_may_be_wrong() {
        assert_eq!(nearest("helo", ["shop", "hello"]), Some("hello"));
        assert_eq!(nearest("hlelo", ["shop", "hello"]), Some("hello"));
        assert_eq!(nearest("c", ["d", "hello"]), Some("d"));
        assert_eq!(nearest("world", ["shop", "hello"]), None);
        assert_eq!(did_you_mean("prot", ["port", "host"]), "; did you mean `port`?");
        assert_eq!(did_you_mean("prot", []), "");
    }
}
