//! The documents of the repository: their fenced blocks, configurations and tables.

use std::collections::BTreeSet;

use larder_host::Config;

use crate::repository::{read, root};

/// All documents of the project, by their path from its root.
pub fn documents() -> Vec<String> {
    let folders = ["", "docs", "docs/decisions", "host/cache", "host/runtime", "host/cli", "guest-sdk"];
    let folders = folders.into_iter().map(str::to_owned);
    let examples = std::fs::read_dir(root().join("examples")).unwrap();
    let examples = examples.map(|entry| format!("examples/{}", entry.unwrap().file_name().to_str().unwrap()));
    let mut documents = Vec::new();
    for folder in folders.chain(["examples".to_owned()]).chain(examples) {
        for entry in std::fs::read_dir(root().join(&folder)).into_iter().flatten() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                documents.push(format!("{folder}/{name}").trim_start_matches('/').to_owned());
            }
        }
    }
    documents.sort();
    documents
}

/// A fenced block.
#[derive(Debug)]
pub struct Block {
    /// The language after the opening fence.
    pub language: String,
    /// The content, without the indentation of a list item around the block.
    pub text: String,
}

/// The fenced blocks of a document, and the text around them.
pub fn code_and_text(document: &str) -> (Vec<Block>, String) {
    let (mut blocks, mut text) = (Vec::new(), String::new());
    let mut open: Option<(usize, Block)> = None;
    for line in document.lines() {
        let trimmed = line.trim_start();
        match &mut open {
            None => match trimmed.strip_prefix("```") {
                Some(language) => {
                    let block = Block { language: language.to_owned(), text: String::new() };
                    open = Some((line.len() - trimmed.len(), block));
                }
                None => text = text + line + "\n",
            },
            Some(_) if trimmed == "```" => blocks.extend(open.take().map(|(_, block)| block)),
            Some((indent, block)) => {
                block.text.push_str(line.get(*indent..).unwrap_or_default());
                block.text.push('\n');
            }
        }
    }
    assert!(open.is_none(), "a block is not closed");
    (blocks, text)
}

/// The contents of all fenced blocks of one language.
pub fn blocks(document: &str, language: &str) -> Vec<String> {
    let (blocks, _) = code_and_text(document);
    blocks.into_iter().filter(|block| block.language == language).map(|block| block.text).collect()
}

/// The code spans of a text, between one backtick or two.
pub fn spans(text: &str) -> Vec<String> {
    let mut spans = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find('`') {
        let fence = if rest[start..].starts_with("``") { "``" } else { "`" };
        let after = &rest[start + fence.len()..];
        let Some(end) = after.find(fence) else { break };
        spans.push(after[..end].trim().to_owned());
        rest = &after[end + fence.len()..];
    }
    spans
}

/// Whether a block in TOML is part of a Cargo manifest.
pub fn is_manifest(toml: &str) -> bool {
    ["[dependencies]", "[package]"].iter().any(|table| toml.starts_with(table))
}

/// All configurations in the documents, each with the document.
pub fn configurations() -> Vec<(String, String)> {
    let mut configurations = Vec::new();
    for document in documents() {
        let blocks = blocks(&read(&document), "toml").into_iter().filter(|block| !is_manifest(block));
        configurations.extend(blocks.map(|block| (document.clone(), block)));
    }
    configurations
}

/// The tables of keys: the document, the heading before the table, and the TOML table without any of the keys.
pub const TABLES: [(&str, &str, &str); 6] = [
    ("docs/caching.md", "## RAM cache", "[caches.c]\ntype = \"ram\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"valkey\""),
    ("docs/caching.md", "### Connection parameters", "[caches.c]\ntype = \"redis\""),
    ("docs/configuration.md", "## Plugins", "[plugins.p]"),
    ("docs/configuration.md", "## Sandbox", "[sandbox]"),
    ("docs/serving.md", "## Configuration", "[serve]"),
];

/// The rows of the first table of keys after a heading: key and default.
pub fn rows(document: &str, heading: &str) -> Vec<(String, String)> {
    let text = read(document);
    let section = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading `{heading}`")).1;
    let table = section.lines().skip_while(|line| !line.starts_with("| key | default |")).skip(2);
    table
        .take_while(|line| line.starts_with('|'))
        .map(|line| {
            let mut cells = line.split('|').skip(1).map(|cell| cell.trim().trim_matches('`').to_owned());
            (cells.next().unwrap(), cells.next().unwrap())
        })
        .collect()
}

/// The keys that a table accepts, from the error for an unknown key.
pub fn accepted_keys(table: &str) -> BTreeSet<String> {
    let error = Config::from_toml(&format!("{table}\nno_such_key = 1")).unwrap_err().to_string();
    let (_, expected) = error.split_once("expected ").unwrap();
    expected.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The commands that `docs/servers.md` names between these words and the end of their paragraph, as ACL rules.
pub fn rights_after(words: &str) -> Vec<String> {
    let guide = read("docs/servers.md");
    let mut paragraphs = guide.split("\n\n").map(|paragraph| paragraph.replace('\n', " "));
    let after = paragraphs.find_map(|paragraph| Some(paragraph.split_once(words)?.1.to_owned())).unwrap();
    let named = after.split('`').skip(1).step_by(2).filter(|word| *word != "db");
    named.map(|command| format!("+{}", command.to_lowercase().replace(' ', "|"))).collect()
}
