//! Small data sets for the tests, in The Stack's layout.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use onebit_engine::rng::Key;
use onebit_model::tokenizer::{Tokenizer, train_bpe};
use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

use super::fetch::{Fetch, FromFolder, part_of};
use super::manifest::Shard;
use crate::{Result, TrainError};

/// A row: its text and its licences.
pub(crate) type Row = (Option<String>, Vec<&'static str>);

const SCHEMA: &str = "message schema {
    optional binary hexsha (UTF8);
    optional int64 size;
    optional binary lang (UTF8);
    optional group max_stars_repo_licenses (LIST) { repeated group list { optional binary element (UTF8); } }
    optional binary content (UTF8);
}";

/// Writes rows as a shard of several row groups. Texts are not compressed into less: the sizes of shards are those of their texts.
pub(crate) fn write_shard(path: &Path, rows: &[Row]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let schema = Arc::new(parse_message_type(SCHEMA).unwrap());
    let properties = Arc::new(WriterProperties::builder().set_dictionary_enabled(false).build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in rows.chunks(8) {
        let mut group = writer.next_row_group().unwrap();
        let mut column = 0;
        while let Some(mut open) = group.next_column().unwrap() {
            let ones = vec![1i16; rows.len()];
            match column {
                1 => {
                    let sizes: Vec<i64> = rows
                        .iter()
                        .map(|row| row.0.as_ref().map_or(0, String::len) as i64)
                        .collect();
                    open.typed::<Int64Type>()
                        .write_batch(&sizes, Some(&ones), None)
                        .unwrap();
                }
                3 => {
                    let (mut values, mut defined, mut repeated) = (Vec::new(), Vec::new(), Vec::new());
                    for (_, licenses) in rows {
                        for (i, license) in licenses.iter().enumerate() {
                            values.push(ByteArray::from(*license));
                            defined.push(3);
                            repeated.push(i16::from(i > 0));
                        }
                        if licenses.is_empty() {
                            defined.push(1);
                            repeated.push(0);
                        }
                    }
                    let typed = open.typed::<ByteArrayType>();
                    typed.write_batch(&values, Some(&defined), Some(&repeated)).unwrap();
                }
                4 => {
                    let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.0.is_some())).collect();
                    let values: Vec<ByteArray> = rows
                        .iter()
                        .filter_map(|row| row.0.as_deref())
                        .map(ByteArray::from)
                        .collect();
                    open.typed::<ByteArrayType>()
                        .write_batch(&values, Some(&levels), None)
                        .unwrap();
                }
                _ => {
                    let values = vec![ByteArray::from("x"); rows.len()];
                    open.typed::<ByteArrayType>()
                        .write_batch(&values, Some(&ones), None)
                        .unwrap();
                }
            }
            open.close().unwrap();
            column += 1;
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A text of `words` words, now and then with the end of a line.
pub(crate) fn text(seed: u64, words: u64) -> String {
    const WORDS: [&str; 12] = [
        "fn", "let", "cow", "shell", "(x)", "{ }", "return", "match", "==", "found", "a", "the",
    ];
    let key = Key::new(seed, 11, 0);
    let mut text = String::new();
    for i in 0..words {
        text += WORDS[key.below(2 * i, 12) as usize];
        text += if key.below(2 * i + 1, 8) == 0 { "\n" } else { " " };
    }
    text
}

/// A data set in a folder.
pub(crate) struct DataSet {
    pub folder: tempfile::TempDir,
    pub shards: Vec<Shard>,
    pub tokenizer: Arc<Tokenizer>,
}

impl DataSet {
    /// One whose shard `i` has `rows(i)`; languages take turns.
    pub fn new(count: usize, rows: impl Fn(usize) -> Vec<Row>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut shards = Vec::new();
        for i in 0..count {
            let language = ["c", "python", "rust"][i % 3];
            let path = format!("data/{language}/train-{i:05}-of-{count:05}.parquet");
            let file = folder.path().join("hub").join(&path);
            write_shard(&file, &rows(i));
            shards.push(Shard {
                id: format!("{language}/{i}"),
                language: language.into(),
                path,
                bytes: fs::metadata(file).unwrap().len(),
                sha256: None,
                dataset: "some/code".into(),
                revision: "0".repeat(40),
            });
        }
        let corpus: Vec<String> = (0..20).map(|seed| text(seed, 100)).collect();
        let tokenizer = Arc::new(train_bpe(corpus, 280).unwrap());
        DataSet {
            folder,
            shards,
            tokenizer,
        }
    }

    /// Twenty rows a shard, of lengths that differ, one of them without text and one of another's.
    pub fn usual(count: usize) -> Self {
        Self::new(count, |shard| {
            let shard = shard as u64;
            let key = Key::new(shard, 12, 0);
            let row = |row: u64| match row {
                7 => (None, vec!["MIT"]),
                // The same in some shards.
                11 => (Some(text(shard % 4, 60)), vec!["MIT"]),
                13 => (Some(text(100 * shard + row, 50)), vec!["GPL-3.0"]),
                _ => {
                    let licenses = if row.is_multiple_of(2) {
                        vec!["MIT", "Apache-2.0"]
                    } else {
                        vec!["MIT"]
                    };
                    (
                        Some(text(100 * shard + row, 20 + u64::from(key.below(row, 60)))),
                        licenses,
                    )
                }
            };
            (0..20).map(row).collect()
        })
    }

    pub fn hub(&self) -> PathBuf {
        self.folder.path().join("hub")
    }

    pub fn largest(&self) -> u64 {
        self.shards.iter().map(|shard| shard.bytes).max().unwrap()
    }
}

/// Bytes of all files below a folder.
pub(crate) fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let of = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of).sum()
}

/// What goes wrong with a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The disk is full after some bytes.
    Full,
    /// Bytes in the middle are others.
    Damage,
    /// The line is cut after some bytes.
    Cut,
}

/// Fetches from a folder a little at a time, and looks after each little at what the cache holds.
#[derive(Debug)]
pub(crate) struct Watched {
    pub from: FromFolder,
    pub root: PathBuf,
    /// The most bytes that the cache was seen to hold.
    pub most: AtomicU64,
    pub fetches: Mutex<Vec<String>>,
    /// Trouble of the next fetches of these shards.
    pub troubles: Mutex<Vec<(String, Trouble)>>,
}

impl Watched {
    pub fn new(from: &Path, root: &Path) -> Arc<Self> {
        Arc::new(Watched {
            from: FromFolder(from.into()),
            root: root.into(),
            most: AtomicU64::new(0),
            fetches: Mutex::default(),
            troubles: Mutex::default(),
        })
    }

    pub fn look(&self) {
        self.most.fetch_max(size(&self.root), Ordering::Relaxed);
    }

    pub fn trouble(&self, shard: &str, trouble: Trouble) {
        self.troubles.lock().unwrap().push((shard.into(), trouble));
    }
}

impl Fetch for Watched {
    fn fetch(&self, shard: &Shard, to: &Path, _: &std::sync::atomic::AtomicBool) -> Result<()> {
        use std::io::Write;
        self.fetches.lock().unwrap().push(shard.id.clone());
        let trouble = {
            let mut troubles = self.troubles.lock().unwrap();
            let at = troubles.iter().position(|(of, _)| *of == shard.id);
            at.map(|at| troubles.remove(at).1)
        };
        let mut bytes = fs::read(self.from.0.join(&shard.path)).unwrap();
        if trouble == Some(Trouble::Damage) {
            let middle = bytes.len() * 3 / 4;
            bytes[middle..middle + 400].fill(0xff);
        }
        let part = part_of(to);
        let mut file = File::create(&part).unwrap();
        for (i, chunk) in bytes.chunks(1 + bytes.len() / 7).enumerate() {
            let failed = |kind: std::io::ErrorKind| TrainError::Io {
                path: part.clone(),
                source: kind.into(),
                action: "make room there",
            };
            match trouble {
                Some(Trouble::Full) if i == 3 => return Err(failed(std::io::ErrorKind::StorageFull)),
                Some(Trouble::Cut) if i == 3 => return Err(failed(std::io::ErrorKind::ConnectionReset)),
                _ => file.write_all(chunk).unwrap(),
            }
            file.flush().unwrap();
            self.look();
        }
        fs::rename(&part, to).unwrap();
        Ok(())
    }
}
