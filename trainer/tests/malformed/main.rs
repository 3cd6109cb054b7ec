//! Damaged and hostile token files: each class of damage is an error of its own, and no file makes the reader panic or take more memory than its size
//! allows.

mod checkpoints;
#[path = "../../../model/tests/common/counting.rs"]
mod counting;
#[path = "../../../model/tests/malformed/harness.rs"]
mod harness;
mod texts;

use std::fs;
use std::path::{Path, PathBuf};

use harness::{check_damage, check_truncations, peak_of};
use onebit_trainer::data::{DataError, TokenFile, TokenWriter};

/// Bytes of the header of version 3.
const HEADER: usize = 192;

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn put(&self, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join("x.tokens");
        fs::write(&path, bytes).unwrap();
        path
    }

    fn open(&self, bytes: &[u8]) -> Result<TokenFile, DataError> {
        TokenFile::open(self.put(bytes))
    }
}

/// Three documents in ids of 2 or 4 bytes.
fn whole(vocab_size: usize) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.tokens");
    let mut writer = TokenWriter::create(&path, vocab_size, [7; 32], false).unwrap();
    for document in [&[1u32, 2, 3][..], &[4, 5], &[6]] {
        writer.push(document).unwrap();
        writer.end_document();
    }
    writer.finish(30, 9).unwrap();
    fs::read(path).unwrap()
}

/// The older format: magic, count, ids.
fn older(count: u64, ids: &[u32]) -> Vec<u8> {
    let ids = ids.iter().flat_map(|id| id.to_le_bytes());
    [b"TKN2".to_vec(), count.to_le_bytes().to_vec(), ids.collect()].concat()
}

/// Makes the checksum of the header that of what stands there now, so that what follows it is looked at.
fn sealed(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.len() >= HEADER && bytes.starts_with(b"1BTK") {
        let checksum = blake3::hash(&bytes[..128]);
        bytes[128..160].copy_from_slice(checksum.as_bytes());
    }
    bytes
}

/// A good file with some bytes of its header replaced, sealed again.
fn header(at: usize, value: &[u8]) -> Vec<u8> {
    let mut bytes = whole(100);
    bytes[at..at + value.len()].copy_from_slice(value);
    sealed(bytes)
}

#[test]
fn each_class_of_header_has_its_own_error() {
    use DataError as E;
    type Is = fn(&DataError) -> bool;
    let word = |at, value: u64| header(at, &value.to_le_bytes());
    let cases: Vec<(&str, Vec<u8>, Is)> = vec![
        ("nothing", Vec::new(), |e| matches!(e, E::NotTokens { .. })),
        (
            "another format",
            b"GGUF\x03\0\0\0".repeat(40),
            |e| matches!(e, E::NotTokens { found, .. } if found == "`GGUF`"),
        ),
        ("an earlier version", header(4, &2u32.to_le_bytes()), |e| {
            matches!(e, E::Version { found: 2, .. })
        }),
        ("a later version", header(4, &u32::MAX.to_le_bytes()), |e| {
            matches!(e, E::Version { .. })
        }),
        (
            "a changed header",
            whole(100)
                .into_iter()
                .enumerate()
                .map(|(i, b)| b ^ u8::from(i == 60))
                .collect(),
            |e| matches!(e, E::Checksum { part: "header", .. }),
        ),
        ("ids of 3 bytes", header(8, &3u32.to_le_bytes()), |e| {
            matches!(
                e,
                E::Header {
                    what: "the id width",
                    ..
                }
            )
        }),
        ("ids of 0 bytes", header(8, &0u32.to_le_bytes()), |e| {
            matches!(
                e,
                E::Header {
                    what: "the id width",
                    ..
                }
            )
        }),
        ("something in the reserved space", header(191, &[1]), |e| {
            matches!(
                e,
                E::Header {
                    what: "the reserved space",
                    ..
                }
            )
        }),
        ("ids elsewhere", word(80, 191), |e| {
            matches!(
                e,
                E::Header {
                    what: "the start of the ids",
                    ..
                }
            )
        }),
        ("tokens times width beyond 2^64", word(48, u64::MAX), |e| {
            matches!(
                e,
                E::Header {
                    what: "the start of the document index",
                    ..
                }
            )
        }),
        (
            "tokens times width that wraps to the same",
            word(48, (1 << 63) + 6),
            |e| {
                matches!(
                    e,
                    E::Header {
                        what: "the start of the document index",
                        ..
                    }
                )
            },
        ),
        ("an index inside the ids", word(88, 200), |e| {
            matches!(
                e,
                E::Header {
                    what: "the start of the document index",
                    ..
                }
            )
        }),
        ("documents times 8 beyond 2^64", word(56, 1 << 61), |e| {
            matches!(
                e,
                E::Length {
                    what: "its ids and documents",
                    ..
                }
            )
        }),
        ("one document more", word(56, 4), |e| {
            matches!(
                e,
                E::Length {
                    what: "its ids and documents",
                    ..
                }
            )
        }),
        ("a short older header", b"TKN2\x01".to_vec(), |e| {
            matches!(
                e,
                E::Length {
                    what: "the header",
                    expected: 12,
                    ..
                }
            )
        }),
        ("an older file with more ids than bytes", older(4, &[1, 2, 3]), |e| {
            matches!(e, E::Length { what: "its ids", .. })
        }),
        ("an older file with less ids than bytes", older(2, &[1, 2, 3]), |e| {
            matches!(e, E::Length { what: "its ids", .. })
        }),
        ("an older file of 2^64 ids", older(u64::MAX, &[1]), |e| {
            matches!(e, E::Length { what: "its ids", .. })
        }),
        // 4 · count wraps around to the 12 bytes that are there.
        (
            "an older file whose size wraps",
            older((1 << 62) + 3, &[1, 2, 3]),
            |e| matches!(e, E::Length { what: "its ids", .. }),
        ),
    ];
    let folder = Folder::new();
    for (class, bytes, expected) in cases {
        harness::seed_damaged(&["tokens_header"], &bytes);
        let (result, peak) = peak_of(|| folder.open(&bytes));
        assert!(peak < 1 << 16, "{class}: {peak} bytes");
        let error = result.map(drop).unwrap_err();
        assert!(expected(&error), "{class}: {error:?}");
        assert!(error.to_string().contains("x.tokens"), "{class}: {error}");
    }
}

/// What opening does not read: ids beyond the vocabulary, documents that overlap or run backwards.
#[test]
fn ids_and_documents_are_checked_when_they_are_read() {
    let folder = Folder::new();
    let mut bytes = whole(100);
    bytes[HEADER + 4..HEADER + 6].copy_from_slice(&100u16.to_le_bytes());
    let file = folder.open(&bytes).unwrap();
    let error = file.get(0..6, &mut Vec::new()).unwrap_err();
    assert!(
        matches!(
            error,
            DataError::IdOutOfRange {
                position: 2,
                id: 100,
                ..
            }
        ),
        "{error}"
    );
    assert!(matches!(
        file.verify(),
        Err(DataError::Checksum { part: "content", .. })
    ));

    let index = whole(100).len() - 24;
    for (place, start) in [(0, 1u64), (1, 7), (1, u64::MAX), (2, 2)] {
        let mut bytes = whole(100);
        bytes[index + 8 * place..][..8].copy_from_slice(&start.to_le_bytes());
        let file = folder.open(&bytes).unwrap();
        let damaged = (0..3).filter_map(|i| file.document(i).err());
        let damaged: Vec<_> = damaged
            .map(|e| {
                matches!(
                    e,
                    DataError::Header {
                        what: "the document index",
                        ..
                    }
                )
            })
            .collect();
        assert!(
            !damaged.is_empty() && damaged.iter().all(|named| *named),
            "document {place} at {start}"
        );
    }
}

/// Everything that training does with a file.
fn use_all(path: &Path) -> Result<(), DataError> {
    let file = TokenFile::open(path)?;
    let mut ids = Vec::new();
    for index in 0..file.documents().min(100) {
        if let Ok(range) = file.document(index) {
            let _ = file.get(range, &mut ids);
        }
    }
    file.get(0..file.len(), &mut ids)?;
    assert_eq!(ids.len(), file.len());
    file.check_for(100_000, Some(&[7; 32]))?;
    file.verify()
}

#[test]
fn cut_or_damaged_files_never_panic() {
    let folder = Folder::new();
    for (name, whole) in [
        ("two bytes an id", whole(100)),
        ("four bytes an id", whole(70_000)),
        ("the older format", older(5, &[1, 2, 70_000, 4, 5])),
    ] {
        use_all(&folder.put(&whole)).unwrap();
        check_truncations(name, &whole, |bytes| {
            assert!(use_all(&folder.put(bytes)).is_err() || bytes.len() == whole.len());
        });
        check_damage(name, &whole, 2000, |bytes| drop(use_all(&folder.put(bytes))));
        check_damage(name, &whole, 2000, |bytes| {
            drop(use_all(&folder.put(&sealed(bytes.to_vec()))))
        });
    }
}

/// A corpus that is written again while a run has it mapped: the run goes on with the old one.
#[test]
fn a_file_replaced_while_it_is_mapped_stays_as_it_was() {
    let folder = Folder::new();
    let path = folder.put(&whole(100));
    let file = TokenFile::open(&path).unwrap();
    let mut writer = TokenWriter::create(&path, 100, [8; 32], true).unwrap();
    writer.push(&[9]).unwrap();
    writer.end_document();
    assert_eq!(writer.finish(1, 1).unwrap().len(), 1);
    let mut ids = Vec::new();
    file.get(0..6, &mut ids).unwrap();
    assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    file.verify().unwrap();
}

/// A corpus that another program cuts or lengthens in place: an error that says so, where the system would end the process. Locks are asked for.
#[test]
fn a_file_changed_in_place_while_it_is_mapped_is_refused() {
    let folder = Folder::new();
    let path = folder.put(&whole(100));
    let file = TokenFile::open(&path).unwrap();
    let other = fs::File::options().write(true).open(&path).unwrap();
    assert!(other.try_lock().is_err(), "the map holds a lock");
    let len = other.metadata().unwrap().len();
    let refused = |result: Result<(), DataError>| {
        let error = result.unwrap_err();
        assert!(error.to_string().contains("x.tokens"), "{error}");
        assert!(matches!(error, DataError::Io { source, .. } if source.to_string().contains("changed its length")));
    };
    for changed in [0, len + 1] {
        other.set_len(changed).unwrap();
        refused(file.get(0..6, &mut Vec::new()));
        refused(file.document(0).map(drop));
        refused(file.verify());
    }
    other.set_len(len).unwrap();
    drop(file);
    other.lock().unwrap();
    assert!(TokenFile::open(&path).is_err(), "another program is writing it");
}

/// Opening a pipe would wait for somebody to write into it.
#[cfg(unix)]
#[test]
fn pipes_are_refused_at_once() {
    let folder = Folder::new();
    let path = folder.0.path().join("x.tokens");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "mkfifo is a part of every Unix"
    );
    let error = TokenFile::open(&path).unwrap_err();
    assert!(
        matches!(&error, DataError::Io { source, .. } if source.to_string().contains("regular")),
        "{error}"
    );
}

/// Small good files are the first inputs of the fuzz target.
#[test]
fn seeds_of_the_fuzz_target() {
    let folder = Folder::new();
    for (name, bytes) in [
        ("narrow", whole(100)),
        ("wide", whole(70_000)),
        ("older", older(3, &[1, 2, 70_000])),
    ] {
        use_all(&folder.put(&bytes)).unwrap();
        harness::seed("tokens", name, &bytes);
        harness::seed("tokens_header", name, &bytes);
    }
}
