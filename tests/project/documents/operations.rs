//! docs/operations.md quotes the program, and tells of the alarms that there are.

use std::collections::BTreeSet;

use larder_host::metrics::all;
use larder_tests::documents::{code_and_text, documents, spans};
use larder_tests::repository::{read, sources};

/// The rows of all tables under a heading, by their cells, without the heads.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let text = read("docs/operations.md");
    let (_, section) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`"));
    let level = heading.split(' ').next().unwrap();
    let end = section.find(&format!("\n{level} ")).unwrap_or(section.len());
    let tables = section[..end].split("\n\n").filter(|paragraph| paragraph.trim_start().starts_with("| "));
    let rows = tables.flat_map(|table| table.trim().lines().skip(2));
    let cells = |row: &str| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    rows.map(cells).collect()
}

/// Piece by piece, as `…` stands for what differs, and what stands behind a colon may come from another place: in the
/// program, or in a test that looks at what it says.
#[test]
fn every_message_in_the_table_of_failures_is_one_of_ours() {
    let code = ["host", "guest-sdk/src", "tests/behaviour"].into_iter().flat_map(sources);
    let code: Vec<String> = code.map(|(_, text)| text.replace("\\\"", "\"").replace("\\\n", "\n")).collect();
    // A text may go on in the next line of the source.
    let code: Vec<String> = code.iter().map(|text| text.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    let mut count = 0;
    for row in rows("## Failures") {
        for message in spans(&row[0]) {
            let pieces = message.split('…').flat_map(|piece| piece.split(": "));
            for piece in pieces.map(|piece| piece.trim_matches([' ', ':', '`'])).filter(|piece| piece.len() > 3) {
                assert!(code.iter().any(|text| text.contains(piece)), "nobody says `{piece}`, of `{message}`");
            }
            count += 1;
        }
        assert_eq!(row.len(), 3, "{row:?}");
    }
    assert!(count > 40, "only {count} messages were found");
}

#[test]
fn every_figure_that_a_document_names_exists() {
    let mut count = 0;
    for document in documents() {
        let text = read(&document);
        for span in spans(&code_and_text(&text).1) {
            let Some(name) = span.split(['{', ' ']).find(|word| word.starts_with("larder_")) else { continue };
            let name = name.split("::").next().unwrap();
            let is_code = ["larder_host", "larder_cache"].iter().any(|library| name.starts_with(library));
            if name.ends_with(".wasm") || is_code {
                continue;
            }
            assert!(all().any(|figure| figure.name == name), "{document} names `{name}`, which is no figure");
            count += 1;
        }
    }
    assert!(count > 30, "only {count} figures were found");
}

/// With their meaning, word for word; and what they ask Prometheus for is what a host tells.
#[test]
fn the_alarms_are_those_of_the_file() {
    let alarms: serde_json::Value = serde_saphyr::from_str(&read("deploy/alarms.yaml")).unwrap();
    let rules = alarms["groups"][0]["rules"].as_array().unwrap();
    let in_file: Vec<_> = rules
        .iter()
        .map(|rule| {
            (rule["alert"].as_str().unwrap().to_owned(), rule["annotations"]["summary"].as_str().unwrap().to_owned())
        })
        .collect();
    let told: Vec<_> =
        rows("## Alarms").into_iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect();
    assert_eq!(told, in_file);

    let mut asked = BTreeSet::new();
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        for name in expression.split(|letter| !is_word(letter)).filter(|word| word.starts_with("larder_")) {
            let figure = all().find(|figure| figure.name == name);
            let figure = figure.unwrap_or_else(|| panic!("`{name}` is no figure: {expression}"));
            for selector in expression.split(name).skip(1).filter_map(|rest| rest.strip_prefix('{')) {
                let label = selector.split(|letter| !is_word(letter)).next().unwrap();
                assert!(figure.labels.contains(&label), "`{name}` has no label `{label}`: {expression}");
                // Each value is one that the figure's meaning names, or an error of the interface.
                let values = selector.split('"').nth(1).unwrap().split('|');
                let errors = ["timeout", "unavailable", "other"];
                for value in values {
                    let is_told = figure.help.contains(&format!("`{value}`")) || errors.contains(&value);
                    assert!(is_told, "`{name}` never has `{value}`: {expression}");
                }
            }
            asked.insert(name);
        }
    }
    assert!(asked.len() >= 6, "{asked:?}");
}
