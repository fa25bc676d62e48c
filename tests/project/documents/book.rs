//! The book has every page, and every link has a target.

use std::collections::BTreeSet;

use larder_tests::documents::{code_and_text, documents};
use larder_tests::repository::{read, root};

/// The pages that the book lists, in its order.
fn listed() -> Vec<String> {
    let summary = read("docs/SUMMARY.md");
    let links = summary.lines().filter_map(|line| line.split_once("](")?.1.strip_suffix(')'));
    links.map(str::to_owned).collect()
}

#[test]
fn the_book_lists_every_page_once() {
    let listed = listed();
    let pages = documents().into_iter().filter_map(|document| Some(document.strip_prefix("docs/")?.to_owned()));
    // The decisions are for readers of the code.
    let is_in_book = |page: &String| page != "SUMMARY.md" && !page.starts_with("decisions/");
    let pages: BTreeSet<String> = pages.filter(is_in_book).collect();
    assert_eq!(listed.iter().cloned().collect::<BTreeSet<_>>(), pages);
    assert_eq!(listed.len(), pages.len(), "a page is listed twice");
    let readme = read("README.md");
    for page in pages {
        assert!(readme.contains(&format!("](docs/{page})")), "README.md does not lead to docs/{page}");
    }
}

/// The anchor of a heading in GitHub and mdBook.
fn anchor(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.collect::<String>().to_lowercase().replace(' ', "-")
}

fn anchors(document: &str) -> Vec<String> {
    let (_, text) = code_and_text(&read(document));
    let headings = text
        .lines()
        .filter_map(|line| line.trim_start_matches('#').strip_prefix(' ').filter(|_| line.starts_with('#')));
    let anchors: Vec<String> = headings.map(|heading| anchor(heading.trim())).collect();
    let distinct: BTreeSet<&String> = anchors.iter().collect();
    assert_eq!(distinct.len(), anchors.len(), "{document} has two headings of one name");
    anchors
}

/// The targets of all links of a text.
fn links(text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).map(|rest| rest.split_once(')').unwrap().0.to_owned());
    targets.collect()
}

#[test]
fn every_link_between_files_and_to_a_heading_leads_there() {
    let mut followed = BTreeSet::new();
    for document in documents() {
        let (_, text) = code_and_text(&read(&document));
        let folder = root().join(&document).parent().unwrap().to_owned();
        for link in links(&text).iter().filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').map_or((link.as_str(), None), |(file, name)| (file, Some(name)));
            let target = if file.is_empty() { root().join(&document) } else { folder.join(file) };
            assert!(target.exists(), "{document} links to `{link}`");
            if let Some(heading) = heading {
                let target = target.canonicalize().unwrap();
                let target = target.strip_prefix(root().canonicalize().unwrap()).unwrap();
                let anchors = anchors(target.to_str().unwrap());
                assert!(anchors.iter().any(|anchor| anchor == heading), "{document} links to `{link}`");
            }
            followed.insert(format!("{document} -> {link}"));
        }
    }
    for found in [
        "README.md -> docs/caching.md",
        "README.md -> SECURITY.md",
        "docs/production.md -> operations.md#alarms",
        "docs/decisions/README.md -> 0055-one-set-of-features-for-every-build.md",
    ] {
        assert!(followed.contains(found), "{found} was not found");
    }
}

/// `make book` puts these two beside the book's pages. A page that is not listed is not in it.
#[test]
fn every_link_of_a_page_is_in_the_book() {
    let makefile = read("Makefile");
    assert!(makefile.contains("cp -R deploy examples target/book/"));
    let listed = listed();
    for page in &listed {
        let (_, text) = code_and_text(&read(&format!("docs/{page}")));
        for link in links(&text).iter().filter(|link| !link.contains("://") && !link.starts_with("../")) {
            let file = link.split('#').next().unwrap_or_default();
            let is_there = !file.ends_with(".md") || listed.iter().any(|page| page == file);
            assert!(is_there, "{page} links to `{link}`, which is not in the book");
        }
        for link in links(&text).iter().filter(|link| link.starts_with("../")) {
            assert!(link.starts_with("../deploy") || link.starts_with("../examples/"), "{page} links to `{link}`");
            assert!(!link.ends_with(".md"), "{page} links to `{link}`, which the book makes `.html` of");
        }
    }
}

// Decision: docs/decisions/0102-the-book-is-tested-in-chromium-without-a-driver.md
/// The Makefile's target reads the book in Chromium, which CI has.
#[test]
fn ci_reads_the_book_in_a_browser() {
    assert!(read(".ci/run").contains("\nmake book-check\n"));
    assert!(read("Makefile").contains("\nbook-check: book servers\n\t@tests/browse-book.py target/book"));
    assert!(read("tests/install-servers.sh").contains(" chromium\""));
}

/// Also without a browser, as `make book-check` sees it: nothing is asked for elsewhere.
#[test]
fn the_book_loads_nothing_from_other_machines() {
    let book: toml::Table = read("book.toml").parse().unwrap();
    assert_eq!(book["book"]["src"].as_str(), Some("docs"));
    assert!(read("Makefile").contains(&format!("cp -R deploy examples {}/", "target/book")));
    assert_eq!(book["build"]["build-dir"].as_str(), Some("target/book/docs"));
    let html = book["output"]["html"].as_table().unwrap();
    for key in ["additional-js", "mathjax-support", "theme"] {
        assert!(!html.contains_key(key), "`{key}` may ask another machine");
    }
    for style in html["additional-css"].as_array().unwrap() {
        let text = read(style.as_str().unwrap());
        assert!(!text.contains("url(") && !text.contains("@import"), "{style} may ask another machine");
    }
    assert_eq!(html["playground"]["runnable"].as_bool(), Some(false));
    assert!(!book.contains_key("preprocessor"));
    for page in listed() {
        let (_, text) = code_and_text(&read(&format!("docs/{page}")));
        for word in ["<img", "<script", "<iframe", "<link"] {
            assert!(!text.contains(word), "{page} has `{word}`");
        }
        for image in text.split("![").skip(1).filter_map(|image| links(image).into_iter().next()) {
            assert!(!image.contains("://"), "{page} shows `{image}`");
        }
    }
}
