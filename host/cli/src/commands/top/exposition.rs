//! A parser for the text format of Prometheus. It reads names, labels and values, and skips comments and timestamps.

// Decision: docs/decisions/0039-larder-top-reads-the-prometheus-format.md

use std::num::NonZeroUsize;

/// The value of a metric for one set of labels.
#[derive(Debug, PartialEq)]
pub(super) struct Sample<'a> {
    pub(super) name: &'a str,
    labels: Vec<(&'a str, String)>,
    pub(super) value: f64,
}

/// The number, counted from 1, of the first line that is not in this format.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MalformedLine(pub(super) NonZeroUsize);

impl Sample<'_> {
    /// The value of a label. Empty if the label is absent, which Prometheus treats as the same.
    pub(super) fn label(&self, name: &str) -> &str {
        self.labels.iter().find(|(label, _)| *label == name).map_or("", |(_, value)| value)
    }
}

/// Parses the samples, in order.
pub(super) fn samples(text: &str) -> impl Iterator<Item = Result<Sample<'_>, MalformedLine>> {
    let numbers = std::iter::successors(Some(NonZeroUsize::MIN), |number| number.checked_add(1));
    let lines = text.lines().map(str::trim).zip(numbers);
    let lines = lines.filter(|(line, _)| !line.is_empty() && !line.starts_with('#'));
    lines.map(|(line, number)| sample(line).ok_or(MalformedLine(number)))
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
    // A timestamp may follow the value.
    let is_complete = words.next().is_none_or(|time| time.parse::<i64>().is_ok()) && words.next().is_none();
    is_complete.then_some(Sample { name, labels, value })
}

/// Splits a text after the name at its start. `None` if it does not start with a name.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == ':';
    let end = text.find(|letter| !is_part(letter)).unwrap_or(text.len());
    text.split_at_checked(end).filter(|(name, _)| !name.is_empty())
}

/// Parses labels, without the opening brace. Returns them and the text after the closing brace.
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

/// Parses a quoted string, without the opening quote. Returns it unescaped, and the text after the closing quote.
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

    fn parse(text: &str) -> Result<Vec<Sample<'_>>, MalformedLine> {
        samples(text).collect()
    }

    fn sample_of<'a>(name: &'a str, labels: &[(&'a str, &str)], value: f64) -> Sample<'a> {
        Sample { name, labels: labels.iter().map(|(label, value)| (*label, (*value).to_owned())).collect(), value }
    }

    #[test]
    fn names_labels_and_values_are_parsed() {
        let text = "# HELP a help text\n# TYPE a counter\na 1\n\na{b=\"c\"} 2.5\n\
                    a:b_c{d=\"e\",f=\"g, }=h\",} 1e3 1395066363000\r\n  spaced { b = \"c\" , } +Inf \n";
        let expected = vec![
            sample_of("a", &[], 1.0),
            sample_of("a", &[("b", "c")], 2.5),
            sample_of("a:b_c", &[("d", "e"), ("f", "g, }=h")], 1000.0),
            sample_of("spaced", &[("b", "c")], f64::INFINITY),
        ];
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn escapes_in_labels_are_decoded() {
        let text = r#"a{b="back\\slash \"quoted\" new\nline"} 1"#;
        assert_eq!(parse(text), Ok(vec![sample_of("a", &[("b", "back\\slash \"quoted\" new\nline")], 1.0)]));
    }

    #[test]
    fn an_absent_label_is_empty() {
        let sample = sample_of("a", &[("b", "c")], 1.0);
        assert_eq!((sample.label("b"), sample.label("c")), ("c", ""));
    }

    #[test]
    fn the_error_has_the_number_of_the_malformed_line() {
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
            assert_eq!(parse(&text), Err(MalformedLine(NonZeroUsize::new(3).unwrap())), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _parsed_or_refused = parse(&text);
        }

        /// Characters with a meaning in the format occur more often than at random.
        #[test]
        fn no_text_that_resembles_metrics_panics(text in "([a_{}=,\"\\\\n 1.e+\n#é]|a\\{b=\"|\"\\} 1\n){0,64}") {
            let _parsed_or_refused = parse(&text);
        }

        #[test]
        fn every_label_value_survives_escaping_and_parsing(value in any::<String>(), number in any::<f64>()) {
            let written = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            prop_assume!(!number.is_nan() && !value.contains('\r'));
            let text = format!("a{{b=\"{written}\"}} {number}\n");
            prop_assert_eq!(parse(&text), Ok(vec![sample_of("a", &[("b", &value)], number)]));
        }
    }
}
