//! Passwords: where they are read from, and that no message shows one.

use super::*;
use crate::cache::valkey::PasswordSource;

#[test]
fn a_password_can_be_in_a_file_beside_the_configuration() {
    let directory = new_directory();
    std::fs::write(directory.join("password"), "s3cret\n").unwrap();
    let parse = |text: &str| Config::parse(text, "larder.toml", &directory, &|_| None);
    let from_file = parse("[caches.c]\ntype = \"valkey\"\npassword_file = \"password\"").unwrap();
    let missing = parse("[caches.c]\ntype = \"valkey\"\npassword_file = \"none\"").unwrap_err().to_string();
    std::fs::write(directory.join("long"), vec![b'x'; (64 << 10) + 1]).unwrap();
    let long = parse("[caches.c]\ntype = \"valkey\"\npassword_file = \"long\"").unwrap_err().to_string();
    // As an editor of another system saves it.
    std::fs::write(directory.join("marked"), "\u{feff}s3cret\n").unwrap();
    let marked = parse("[caches.c]\ntype = \"valkey\"\npassword_file = \"marked\"").unwrap_err().to_string();
    std::fs::remove_dir_all(&directory).unwrap();
    assert_eq!(server(&from_file, "c").password, Some(PasswordSource::File(directory.join("password"))));
    assert!(marked.contains("without one") && !marked.contains("s3cret"), "{marked}");
    assert!(missing.contains("`caches.c.password_file`: cannot read"), "{missing}");
    assert!(long.contains("it is longer than 64 KiB") && !long.contains("xx"), "{long}");
}

#[test]
fn two_passwords_or_a_user_without_password_are_refused() {
    let both = server_refusal("password = \"a\"\npassword_file = \"b\"");
    assert!(both.contains("the password is also set by `password_file`"), "{both}");
    assert!(server_refusal("username = \"u\"").contains("needs a `password`"));
}

#[test]
fn a_password_of_another_type_is_not_shown() {
    assert_eq!(server_refusal("password = 123456"), "larder.toml:3:12: `caches.c.password`: must be a string");
}

#[test]
fn debug_does_not_show_a_password() {
    let config = parse("[caches.c]\ntype = \"valkey\"\npassword = \"s3cret\"");
    assert!(!format!("{config:?}").contains("s3cret"));
}
