//! Making a manifest: from listings alone, page by page, each kept as soon as it is there.
//!
//! `OUTPUT.part` is the journal of a run: what is listed, at which commit, then a line for each page with the address of the next. A run that finds one of the same
//! commit and folders goes on behind its last whole line; any other begins anew. The manifest itself is written at the end, in the order of paths, so its bytes depend
//! on the commit alone and on what was asked for.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ManifestError, Shard};
use crate::hub::{self, Commit, Hub, HubError, Page};
use crate::storage::{Disk, Storage};
use crate::{Result, TrainError};

/// The folder whose folders are languages.
const DATA: &str = "data";
/// What a shard's name ends in.
const SHARD: &str = ".parquet";
/// Languages that are shown to somebody who asked for one that is not there.
const SHOWN: usize = 12;

/// What is listed.
#[derive(Clone, Debug)]
pub struct ManifestOptions {
    /// The data set: `bigcode/the-stack`.
    pub dataset: String,
    /// A branch, tag or commit.
    pub revision: String,
    /// Folders of `data`; none stands for all.
    pub languages: Vec<String>,
    /// The manifest, written over if it is there. Its folder must exist.
    pub output: PathBuf,
}

/// What shards come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// Shards.
    pub shards: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A manifest that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The data set.
    pub dataset: String,
    /// The commit that the revision stood for.
    pub revision: String,
    /// All shards.
    #[serde(flatten)]
    pub totals: Totals,
    /// Those of each language.
    pub languages: BTreeMap<String, Totals>,
    /// Files that are no shards.
    pub passed_over: u64,
    /// Shards that an earlier run had listed.
    pub resumed: u64,
}

/// What a run lists; the first line of its journal.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Job {
    dataset: String,
    revision: String,
    folders: Vec<String>,
}

/// A page; a further line of the journal.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    folder: usize,
    shards: Vec<Shard>,
    passed_over: u64,
    next: Option<String>,
}

/// Makes the manifest of a data set, from metadata alone. `seen` is told what is listed so far.
///
/// # Errors
/// [`HubError`]; [`ManifestError`] for languages that are not there, a data set that is laid out otherwise, and files that cannot be written. What was listed is kept for
/// the next run.
pub fn make_manifest(hub: &Hub, options: &ManifestOptions, seen: &mut dyn FnMut(Totals)) -> Result<Made> {
    let commit = hub.dataset(&options.dataset, &options.revision)?;
    let job = Job {
        folders: folders(hub, &commit, &options.languages)?,
        dataset: commit.dataset,
        revision: commit.sha,
    };
    let mut journal = Journal::open(&options.output, &job)?;
    let resumed = journal.shards.len() as u64;
    if let Err(error) = journal.list(hub, &job, seen) {
        // An address of a page that a server of today does not know any more.
        let stale = matches!(
            error,
            TrainError::Hub(HubError::Status { .. } | HubError::Answer { .. } | HubError::NoEntry { .. })
        );
        if resumed == 0 || !stale || journal.shards.len() as u64 > resumed {
            return Err(error);
        }
        journal.begin(&job)?;
        journal.list(hub, &job, seen)?;
    }
    journal.finish(&options.output, job, resumed)
}

/// What to list: one listing for all languages, or one for each that is asked for.
fn folders(hub: &Hub, commit: &Commit, languages: &[String]) -> Result<Vec<String>> {
    if languages.is_empty() {
        return Ok(vec![DATA.into()]);
    }
    let there = hub.folders(&commit.dataset, &commit.sha, DATA)?;
    let mut wanted: Vec<String> = languages.iter().map(|language| format!("{DATA}/{language}")).collect();
    wanted.sort();
    wanted.dedup();
    if let Some(absent) = wanted.iter().find(|folder| !there.contains(folder)) {
        let language = absent[DATA.len() + 1..].to_string();
        let mut known: Vec<&str> = there.iter().map(|folder| &folder[DATA.len() + 1..]).collect();
        known.sort_by_cached_key(|name| (strsim::damerau_levenshtein(name, &language), name.to_string()));
        let more = known.len().saturating_sub(SHOWN);
        let mut shown = known[..known.len() - more].join(", ");
        if more > 0 {
            shown += &format!(" and {more} others");
        }
        return Err(ManifestError::Language {
            dataset: commit.dataset.clone(),
            language,
            known: shown,
        }
        .into());
    }
    Ok(wanted)
}

/// The shards of a page, and how many files are none.
fn shards(job: &Job, page: Page) -> Result<(Vec<Shard>, u64)> {
    let (mut shards, mut passed_over) = (Vec::new(), 0);
    for file in page.files {
        let name = file.path.strip_prefix(DATA).and_then(|rest| rest.strip_prefix('/'));
        let Some(id) = name.and_then(|name| name.strip_suffix(SHARD)) else {
            passed_over += 1;
            continue;
        };
        let layout = |reason: String| ManifestError::Layout {
            dataset: job.dataset.clone(),
            file: file.path.clone(),
            reason,
        };
        let (language, _) = id
            .split_once('/')
            .ok_or_else(|| layout("language is not told by a folder".into()))?;
        let shard = Shard {
            id: id.into(),
            language: language.into(),
            path: file.path.clone(),
            bytes: file.bytes,
            sha256: file.sha256.clone(),
            dataset: job.dataset.clone(),
            revision: job.revision.clone(),
        };
        if let Some(problem) = shard.problem() {
            return Err(layout(problem).into());
        }
        shards.push(shard);
    }
    Ok((shards, passed_over))
}

/// What is listed so far, in memory and in `OUTPUT.part`.
struct Journal {
    path: PathBuf,
    file: File,
    shards: Vec<Shard>,
    passed_over: u64,
    totals: Totals,
    /// The folder that is listed, and where its next page is; `None` at its beginning.
    at: (usize, Option<String>),
}

impl Journal {
    /// Takes up the journal of the same job, or begins one.
    fn open(output: &Path, job: &Job) -> Result<Self> {
        let path = beside(output, "part");
        let failed = |source| write_failed(&path, source);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed)?;
        hub::lock(&file, &path)?;
        let mut journal = Self {
            path,
            file,
            shards: Vec::new(),
            passed_over: 0,
            totals: Totals::default(),
            at: (0, None),
        };
        let (found, end) = journal.read(job)?;
        if !found {
            journal.begin(job)?;
            return Ok(journal);
        }
        let cut = journal
            .file
            .set_len(end)
            .and_then(|()| journal.file.seek(SeekFrom::Start(end)));
        cut.map_err(|e| write_failed(&journal.path, e))?;
        Ok(journal)
    }

    /// Reads whole lines as far as they make sense: whether they are of this job, and where they end.
    fn read(&mut self, job: &Job) -> Result<(bool, u64)> {
        let file = self.file.try_clone().map_err(|e| write_failed(&self.path, e))?;
        let mut reader = BufReader::new(file);
        let (mut text, mut end) = (Vec::new(), 0);
        loop {
            text.clear();
            let length = reader
                .read_until(b'\n', &mut text)
                .map_err(|e| write_failed(&self.path, e))?;
            if text.pop() != Some(b'\n') {
                return Ok((end > 0, end));
            }
            if end == 0 {
                if !serde_json::from_slice::<Job>(&text).is_ok_and(|found| found == *job) {
                    return Ok((false, 0));
                }
            } else {
                match serde_json::from_slice::<Line>(&text) {
                    Ok(line) if line.folder == self.at.0 && line.shards.iter().all(|s| s.problem().is_none()) => {
                        self.add(line);
                    }
                    _ => return Ok((true, end)),
                }
            }
            end += length as u64;
        }
    }

    fn begin(&mut self, job: &Job) -> Result<()> {
        self.shards.clear();
        (self.passed_over, self.totals, self.at) = (0, Totals::default(), (0, None));
        let emptied = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        emptied.map_err(|e| write_failed(&self.path, e))?;
        self.write(job)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let failed = |source| write_failed(&self.path, source);
        let mut text = serde_json::to_vec(line).map_err(|e| failed(e.into()))?;
        text.push(b'\n');
        self.file.write_all(&text).map_err(failed)?;
        Ok(())
    }

    fn add(&mut self, line: Line) {
        for shard in &line.shards {
            self.totals.shards += 1;
            self.totals.bytes = self.totals.bytes.saturating_add(shard.bytes);
        }
        self.shards.extend(line.shards);
        self.passed_over += line.passed_over;
        self.at = match line.next {
            Some(next) => (line.folder, Some(next)),
            None => (line.folder + 1, None),
        };
    }

    /// Lists what is left.
    fn list(&mut self, hub: &Hub, job: &Job, seen: &mut dyn FnMut(Totals)) -> Result<()> {
        while let Some(folder) = job.folders.get(self.at.0) {
            let first = match self.at.1.take() {
                Some(next) => Ok(next),
                None => hub.first_page(&job.dataset, &job.revision, Some(folder), true),
            };
            for page in hub.pages(&job.dataset, Some(folder), first) {
                let page = page?;
                let next = page.next.clone();
                let (shards, passed_over) = shards(job, page)?;
                let line = Line {
                    folder: self.at.0,
                    shards,
                    passed_over,
                    next,
                };
                self.write(&line)?;
                self.add(line);
                seen(self.totals);
            }
        }
        Ok(())
    }

    /// Writes the manifest, and lets the journal go.
    fn finish(mut self, output: &Path, job: Job, resumed: u64) -> Result<Made> {
        if self.shards.is_empty() {
            fs::remove_file(&self.path).map_err(|e| write_failed(&self.path, e))?;
            return Err(ManifestError::NoShards { dataset: job.dataset }.into());
        }
        self.shards.sort_by(|a, b| a.path.cmp(&b.path));
        if let Some(twice) = self.shards.windows(2).find(|pair| pair[0].path == pair[1].path) {
            // Pages that were listed in different runs; the next begins anew.
            fs::remove_file(&self.path).map_err(|e| write_failed(&self.path, e))?;
            return Err(ManifestError::Layout {
                dataset: job.dataset,
                file: twice[0].path.clone(),
                reason: "name was listed twice; run the command again".into(),
            }
            .into());
        }
        let new = beside(output, "new");
        let mut languages = BTreeMap::<String, Totals>::new();
        let written = File::create(&new).and_then(|file| {
            let mut file = BufWriter::new(file);
            for shard in &self.shards {
                serde_json::to_writer(&mut file, shard)?;
                file.write_all(b"\n")?;
                let totals = languages.entry(shard.language.clone()).or_default();
                totals.shards += 1;
                totals.bytes = totals.bytes.saturating_add(shard.bytes);
            }
            file.into_inner()?.sync_all()
        });
        written.map_err(|e| write_failed(&new, e))?;
        let folder = match output.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let done = fs::remove_file(&self.path).and_then(|()| fs::rename(&new, output));
        done.and_then(|()| Disk.sync_directory(folder))
            .map_err(|e| write_failed(output, e))?;
        Ok(Made {
            dataset: job.dataset,
            revision: job.revision,
            totals: self.totals,
            languages,
            passed_over: self.passed_over,
            resumed,
        })
    }
}

fn beside(output: &Path, ending: &str) -> PathBuf {
    let mut name = output.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    name.into()
}

fn write_failed(path: &Path, source: std::io::Error) -> ManifestError {
    ManifestError::Io {
        path: path.to_path_buf(),
        action: "write",
        source,
    }
}

#[cfg(test)]
mod tests;
