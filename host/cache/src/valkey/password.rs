//! Passwords: written in the configuration, or in a file that the operator may replace while the host runs.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::small_file;

/// The longest password file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// The byte order marks of UTF-8 and UTF-16.
const UTF8_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
const UTF16_MARKS: [&[u8]; 2] = [&[0xFF, 0xFE], &[0xFE, 0xFF]];

/// A password. Its `Debug` does not show it.
#[derive(Clone)]
pub struct Secret {
    text: String,
    /// Whether percent-encoded characters were decoded. A refusal of the server mentions it.
    is_decoded: bool,
}

impl Secret {
    /// Wraps a password.
    pub fn new(password: impl Into<String>) -> Self {
        Self { text: password.into(), is_decoded: false }
    }

    /// Wraps a password of a URL, in which percent-encoded characters were decoded. If the server refuses it, the
    /// message mentions that.
    pub fn percent_decoded(password: impl Into<String>) -> Self {
        Self { text: password.into(), is_decoded: true }
    }

    pub(in crate::valkey) fn reveal(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"…\"")
    }
}

/// Where a password comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PasswordSource {
    /// The configuration.
    Text(Secret),
    /// A file of at most 64 KiB with one line, the password, in UTF-8. A line break at its end is ignored. The file is
    /// read for each connection, so that the password can be changed while the host runs.
    File(PathBuf),
}

impl From<Secret> for PasswordSource {
    fn from(password: Secret) -> Self {
        Self::Text(password)
    }
}

impl PasswordSource {
    /// The password. Reads the file, if it is one.
    ///
    /// # Errors
    ///
    /// [`PasswordError`] if the file cannot be read or breaks a rule. The operator must replace it.
    pub fn read(&self) -> Result<Secret, PasswordError> {
        match self {
            Self::Text(password) => Ok(password.clone()),
            Self::File(file) => read_file(file).map_err(|reason| PasswordError { file: file.clone(), reason }),
        }
    }

    /// What the message about a refused login adds: where the password came from, if that may be the mistake.
    pub(in crate::valkey) fn hint(&self) -> String {
        match self {
            Self::Text(Secret { is_decoded: true, .. }) => {
                " (in the password of a `url`, `%` and two digits are one encoded character; write `%` itself as `%25`)"
                    .to_owned()
            }
            Self::Text(_) => " (correct `username` or `password`)".to_owned(),
            Self::File(file) => format!(" (the password is that of `password_file` = `{}`)", file.display()),
        }
    }
}

/// Why a password file cannot be used. Its text names the file and shows none of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot read `{}`: {reason}", .file.display())]
pub struct PasswordError {
    file: PathBuf,
    reason: String,
}

fn read_file(file: &Path) -> Result<Secret, String> {
    parse(small_file::read(file, MAX_FILE).map_err(|error| error.to_string())?).map_err(str::to_owned)
}

/// The password in the content of a file.
fn parse(content: Vec<u8>) -> Result<Secret, &'static str> {
    if content.starts_with(UTF8_MARK) {
        return Err("it begins with a byte order mark; save it as UTF-8 without one");
    }
    if UTF16_MARKS.iter().any(|mark| content.starts_with(mark)) || content.contains(&0) {
        return Err("it is UTF-16 or has NUL characters; save it as UTF-8");
    }
    let text = String::from_utf8(content).map_err(|_| "it is not UTF-8; a password must be")?;
    let password = text.trim_end_matches(['\r', '\n']);
    if password.is_empty() {
        return Err("it is empty; it must have the password as its only line");
    }
    if password.contains(['\r', '\n']) {
        return Err("it has several lines; it must have the password as its only line");
    }
    Ok(Secret::new(password))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_the_password_as_its_only_line() {
        for content in ["s3cret", "s3cret\n", "s3cret\r\n", "s3cret\n\n"] {
            assert_eq!(parse(content.into()).unwrap().reveal(), "s3cret", "{content:?}");
        }
        // Only line breaks at the end are ignored.
        assert_eq!(parse(" pa ss\t\n".into()).unwrap().reveal(), " pa ss\t");
    }

    #[test]
    fn a_file_that_an_editor_has_damaged_is_refused_with_what_is_wrong() {
        let utf16: Vec<u8> = "s3cret".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (content, reason) in [
            (b"\xEF\xBB\xBFs3cret\n".to_vec(), "byte order mark"),
            ([&[0xFF, 0xFE], &utf16[..]].concat(), "UTF-16"),
            (utf16, "UTF-16"),
            (b"s3cret\xFF".to_vec(), "not UTF-8"),
            (Vec::new(), "empty"),
            (b"\r\n".to_vec(), "empty"),
            (b"# the password\ns3cret\n".to_vec(), "several lines"),
            (b"s3\rcret".to_vec(), "several lines"),
        ] {
            let refused = parse(content).unwrap_err();
            assert!(refused.contains(reason) && !refused.contains("s3"), "{refused}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        let missing = PasswordSource::File("/nonexistent/password".into()).read().unwrap_err().to_string();
        assert!(missing.starts_with("cannot read `/nonexistent/password`: No such file"), "{missing}");
        for (file, reason) in [("/dev/zero", "not a regular file"), ("/", "directory")] {
            let refused = PasswordSource::File(file.into()).read().unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[test]
    fn debug_does_not_show_a_password() {
        let source = PasswordSource::from(Secret::new("s3cret"));
        assert_eq!(format!("{source:?}"), "Text(\"…\")");
    }
}
