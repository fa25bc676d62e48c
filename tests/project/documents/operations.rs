//! docs/operations.md quotes messages of the program, and lists the alarms of deploy/alarms.yaml.

use std::collections::BTreeSet;

use larder_host::metrics::all;
use larder_tests::documents::spans;
use larder_tests::repository::{read, sources};
use tokio_rustls::rustls;

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

/// What the table shows in place of a placeholder in the code.
const FILLED: [(&str, &str); 3] = [
    ("reach Valkey at", "reach … at"),
    ("log in to Valkey at", "log in to … at"),
    ("too many open handles", "too many …"),
];

/// The messages that other libraries and the system contribute.
fn messages_of_libraries() -> [String; 2] {
    let refused = std::io::Error::from_raw_os_error(if cfg!(target_os = "macos") { 61 } else { 111 });
    let certificate = rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer);
    [refused.to_string(), certificate.to_string()]
}

/// Each piece between the parts that vary is in the code. A piece after a colon may be in another place of it.
#[test]
fn every_message_in_the_table_of_failures_is_in_the_code() {
    let code = ["host", "guest-sdk/src"].into_iter().flat_map(sources);
    let code = code.map(|(_, text)| text.replace("\\\"", "\"").replace("\\\n", "\n"));
    // A literal may continue in the next line of the source.
    let code = code.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
    let code: Vec<String> = code.chain(messages_of_libraries()).collect();
    let mut found = BTreeSet::new();
    for row in rows("## Failures") {
        for message in spans(&row[0]) {
            let quoted = FILLED.iter().fold(message.clone(), |text, (filled, open)| text.replace(filled, open));
            let pieces = quoted.split('…').flat_map(|piece| piece.split(": "));
            for piece in pieces.map(|piece| piece.trim_matches([' ', ':', '`'])).filter(|piece| piece.len() > 3) {
                assert!(code.iter().any(|text| text.contains(piece)), "the code has no `{piece}`, of `{message}`");
            }
            found.insert(message);
        }
        assert_eq!(row.len(), 3, "{row:?}");
    }
    // One of each table.
    for message in ["cannot read configuration …", "the server refused: …", "the plugin failed"] {
        assert!(found.contains(message), "`{message}` is in no table");
    }
}

/// With the same summaries; and their queries use metrics, labels and values that a host exports.
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
    let documented: Vec<_> =
        rows("## Alarms").into_iter().map(|row| (row[0].trim_matches('`').to_owned(), row[1].clone())).collect();
    assert_eq!(documented, in_file);

    let mut asked = BTreeSet::new();
    for rule in rules {
        let expression = rule["expr"].as_str().unwrap();
        let is_word = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
        for name in expression
            .split(|letter| !is_word(letter))
            .filter(|word| word.starts_with("larder_") || word.starts_with("process_"))
        {
            let metric = all().find(|metric| metric.name == name);
            let metric = metric.unwrap_or_else(|| panic!("`{name}` is not a metric: {expression}"));
            for selector in expression.split(name).skip(1).filter_map(|rest| rest.strip_prefix('{')) {
                let label = selector.split(|letter| !is_word(letter)).next().unwrap();
                assert!(metric.labels.contains(&label), "`{name}` has no label `{label}`: {expression}");
                // Each value is one that the metric's help names, or an error of the interface.
                let values = selector.split('"').nth(1).unwrap().split('|');
                let errors = ["timeout", "unavailable", "other"];
                for value in values {
                    let is_exported = metric.help.contains(&format!("`{value}`")) || errors.contains(&value);
                    assert!(is_exported, "`{name}` never has `{value}`: {expression}");
                }
            }
            asked.insert(name);
        }
    }
    for name in ["larder_up", "larder_calls_total", "larder_runs_total", "larder_get_or_set_total"] {
        assert!(asked.contains(name), "no alarm uses `{name}`");
    }
}
