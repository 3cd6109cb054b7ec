//! What names on the Hub look like. Anything else is refused before it becomes part of an address or of a path here.

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
