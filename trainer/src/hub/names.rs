//! What names on the Hub look like. Anything else is refused before it becomes part of an address or of a path here.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::HubError;

/// A relative path of plain parts divided by `/`: none empty, `.` or `..`, no backslash, no control character.
pub(crate) fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.contains(|c: char| c == '\\' || c.is_control())
    };
    path.split('/').all(plain)
}

/// `NAME` or `OWNER/NAME`, of letters, digits and `-_.`.
pub(crate) fn is_dataset_id(id: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    is_plain_path(id) && id.len() <= 200 && id.chars().all(allowed) && id.matches('/').count() <= 1
}

/// A commit: 40 lower-case hexadecimal digits.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && is_hexadecimal(revision)
}

/// A SHA-256 checksum: 64 lower-case hexadecimal digits.
pub(crate) fn is_sha256(sum: &str) -> bool {
    sum.len() == 64 && is_hexadecimal(sum)
}

fn is_hexadecimal(text: &str) -> bool {
    text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Refuses a data set's name that would not be one.
pub(super) fn check_dataset(id: &str) -> Result<(), HubError> {
    check(
        is_dataset_id(id),
        "data set",
        id,
        "OWNER/NAME of letters, digits and -_.",
    )
}

/// Refuses a path that leaves the data set.
pub(super) fn check_path(path: &str) -> Result<(), HubError> {
    let expected = "a relative path with / that stays inside the data set";
    check(is_plain_path(path), "path", path, expected)
}

/// Refuses what is no commit.
pub(super) fn check_commit(revision: &str) -> Result<(), HubError> {
    let expected = "a commit of 40 lower-case hexadecimal digits";
    check(is_commit(revision), "revision", revision, expected)
}

/// Refuses what names nothing.
pub(super) fn check_revision(revision: &str) -> Result<(), HubError> {
    let good = !revision.is_empty() && revision.len() <= 200 && !revision.contains(char::is_control);
    check(good, "revision", revision, "a branch, a tag or a commit, such as main")
}

fn check(good: bool, what: &'static str, name: &str, expected: &'static str) -> Result<(), HubError> {
    if good {
        return Ok(());
    }
    Err(HubError::Name {
        what,
        name: name.into(),
        expected,
    })
}

/// What stays as it is in a part of an address (RFC 3986 §2.3).
const PART: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// One part of an address, its slashes encoded: `refs/pr/1` is `refs%2Fpr%2F1`.
pub(super) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// A path in an address, its slashes kept: `data/c++` is `data/c%2B%2B`.
pub(super) fn path(text: &str) -> String {
    text.split('/').map(part).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(path("data/c++/a b.parquet"), "data/c%2B%2B/a%20b.parquet");
        assert_eq!(path("data/c-sharp/ü?#%"), "data/c-sharp/%C3%BC%3F%23%25");
        assert_eq!(part("refs/pr/1"), "refs%2Fpr%2F1");
    }
}
