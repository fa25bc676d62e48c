//! The text format of Prometheus, read as far as figures need it: names, labels and values.

// Decision: docs/decisions/0039-larder-top-reads-the-prometheus-format.md

use std::num::NonZeroUsize;

/// One figure's value for one set of labels.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: Vec<(&'a str, String)>,
    pub(super) value: f64,
}

/// The first line, counted from 1, that is not in this format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) NonZeroUsize);

impl Sample<'_> {
    /// What a label says; empty without it, which is the same to Prometheus.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// The samples in their order.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Result<Sample<'_>, Malformed>> {
    let numbers = std::iter::successors(Some(NonZeroUsize::MIN), |number| number.checked_add(1));
    let lines = text.lines().map(str::trim).zip(numbers);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(line, number)| sample(line).ok_or(Malformed(number)))
}

fn sample(line: &str) -> Option<Sample<'_>> {
    let (name, rest) = identifier(line)?;
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), line.strip_prefix(name)?.strip_prefix([' ', '\t'])?),
    };
    let mut words = rest.split_ascii_whitespace();
    let value = words.next()?.parse().ok()?;
    // The time of the sample may stand behind it.
    let has_ended = words.next().is_none_or(|time| time.parse::<i64>().is_ok()) && words.next().is_none();
    has_ended.then_some(Sample { name, labels, value })
}

/// The name at the beginning of a text, and the rest.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

/// The labels behind an opening brace, and what comes after the closing one.
fn labels(text: &str) -> Option<(Vec<(&str, String)>, &str)> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    loop {
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, after) = identifier(rest)?;
        let after = after.trim_start().strip_prefix('=')?.trim_start().strip_prefix('"')?;
        let (value, after) = quoted(after)?;
        labels.push((name, value));
        let after = after.trim_start();
        rest = match after.strip_prefix(',') {
            Some(next) => next.trim_start(),
            None => after.starts_with('}').then_some(after)?,
        };
    }
}

/// What stands behind an opening quotation mark, and what comes after the closing one.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut letters = text.chars();
    loop {
        match letters.next()? {
            '"' => return Some((value, letters.as_str())),
            '\\' => value.push(match letters.next()? {
                'n' => '\n',
                letter => letter,
            }),
            letter => value.push(letter),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<Sample<'_>>, Malformed> {
        samples(text).collect()
    }

    fn one<'a>(name: &'a str, labels: &[(&'a str, &str)], value: f64) -> Sample<'a> {
        Sample { name, labels: labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect(), value }
    }

    #[test]
    fn names_labels_and_values_are_read() {
        let text = "# HELP a what it says\n# TYPE a counter\na 1\n\na{b=\"c\"} 2.5\n\
                    a:b_c{d=\"e\",f=\"g, }=h\",} 1e3 1395066363000\r\n  spaced { b = \"c\" , } +Inf \n";
        let expected = vec![
            one("a", &[], 1.0),
            one("a", &[("b", "c")], 2.5),
            one("a:b_c", &[("d", "e"), ("f", "g, }=h")], 1000.0),
            one("spaced", &[("b", "c")], f64::INFINITY),
        ];
        assert_eq!(read(text), Ok(expected));
    }

    #[test]
    fn escapes_in_labels_are_undone() {
        let text = r#"a{b="back\\slash \"quoted\" new\nline"} 1"#;
        assert_eq!(read(text), Ok(vec![one("a", &[("b", "back\\slash \"quoted\" new\nline")], 1.0)]));
    }

    #[test]
    fn a_label_that_is_not_there_is_empty() {
        let sample = one("a", &[("b", "c")], 1.0);
        assert_eq!((sample.label("b"), sample.label("c")), ("c", ""));
    }

    #[test]
    fn the_line_that_is_in_another_format_is_named() {
        let lines = [
            "<html>",
            "a",
            "a b",
            "a-1",
            "a 1 b",
            "a 1 2 3",
            "1",
            "{} 1",
            "a{ 1",
            "a{b} 1",
            "a{b=c} 1",
            "a{b=\"c} 1",
            "a{b=\"c\\",
            "a{b=\"c\" d=\"e\"} 1",
            "a{,} 1",
            "a{b=\"c\"}",
        ];
        for line in lines {
            let text = format!("# a comment\na 1\n{line}\n<html>\n");
            assert_eq!(read(&text), Err(Malformed(NonZeroUsize::new(3).unwrap())), "{line}");
        }
    }

    proptest! {
        #[test]
        fn nothing_that_is_sent_is_a_panic(text in any::<String>()) {
            let _read_or_refused = read(&text);
        }

        /// Letters that mean something come more often than by chance.
        #[test]
        fn nothing_that_looks_like_figures_is_a_panic(text in "([a_{}=,\"\\\\n 1.e+\n#é]|a\\{b=\"|\"\\} 1\n){0,64}") {
            let _read_or_refused = read(&text);
        }

        #[test]
        fn whatever_a_label_says_is_read_as_it_was(value in any::<String>(), number in any::<f64>()) {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assume!(!number.is_nan() && !value.contains('\r'));
            let text = format!("a{{b=\"{written}\"}} {number}\n");
            prop_assert_eq!(read(&text), Ok(vec![one("a", &[("b", &value)], number)]));
        }
    }
}
