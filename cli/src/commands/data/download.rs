//! WikiText-2 from the Hub: parquet files, downloaded and checked, then written as the text that they came from.
//!
//! On the Hub a row of `wikitext-2-v1` is a line of the original with its line end, but for a blank one (` ` and the line end), which is an empty row. What the Hub holds
//! could not be reached by the tests: they read it from a Hub of their own that holds the original in this form.
//!
//! Everything lies in the folder `.wikitext2-download` of the output directory until all of it is there, so a run that was ended finds what came before. A file there
//! says that names are being given: a text that has its name already is then this command's own.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use onebit_trainer::TrainError;
use onebit_trainer::data::text::Documents;
use onebit_trainer::hub::{Commit, Entry, Hub, HubError};
use onebit_trainer::storage::{Disk, Storage};

use super::Source;
use crate::progress::Progress;
use crate::{CliError, Result, args, interrupt};

const DATASET: &str = "Salesforce/wikitext";
const FOLDER: &str = "wikitext-2-v1";
/// Names of the splits here and on the Hub.
const SPLITS: [(&str, &str); 3] = [("train", "train"), ("valid", "validation"), ("test", "test")];

/// A download, finished or not.
pub(super) struct Download {
    folder: PathBuf,
}

impl Download {
    /// The one into a directory.
    pub fn of(output_dir: &Path) -> Self {
        Self {
            folder: output_dir.join(".wikitext2-download"),
        }
    }

    /// Whether a run was ended while it gave the texts their names.
    pub fn was_naming(&self) -> bool {
        self.naming().is_file()
    }

    fn naming(&self) -> PathBuf {
        self.folder.join("naming")
    }

    /// The texts of all splits in the download's folder.
    pub fn run(&self, output_dir: &Path) -> Result<Vec<Source>> {
        let hub = crate::hub::hub()?;
        args::output_directory(output_dir, "--output-dir")?;
        args::output_directory(&self.folder, "--output-dir")?;
        let commit = hub.dataset(DATASET, "main")?;
        let listed = hub.list(DATASET, &commit.sha, Some(FOLDER));
        let entries = listed.collect::<Result<Vec<Entry>, TrainError>>()?;
        let mut splits = Vec::new();
        for (split, name) in SPLITS {
            let start = format!("{FOLDER}/{name}-");
            let mut files: Vec<Entry> = entries.iter().filter(|entry| is_part(entry, &start)).cloned().collect();
            if files.is_empty() {
                return Err(CliError::Failed(format!(
                    "data wikitext2: {DATASET} has no file {start}*.parquet at {}; get the text elsewhere and pass its directory by --from",
                    commit.sha
                )));
            }
            files.sort_by(|a, b| a.path.cmp(&b.path));
            splits.push((split, files));
        }
        let fetched = self.fetch(&hub, &commit, splits);
        let fetched = fetched.map_err(|error| match error {
            CliError::Train(TrainError::Hub(HubError::Stopped)) => {
                CliError::Interrupted("interrupted; what came is kept: run the command again to go on".into())
            }
            error => error,
        })?;
        let mut sources = Vec::new();
        for (split, files) in fetched {
            let from = self.folder.join(format!("{split}.txt"));
            write_text(&files, &from)?;
            sources.push(Source {
                split,
                from,
                to: output_dir.join(format!("{split}.txt")),
            });
        }
        Ok(sources)
    }

    /// Downloads what is not there yet.
    fn fetch(
        &self,
        hub: &Hub,
        commit: &Commit,
        splits: Vec<(&'static str, Vec<Entry>)>,
    ) -> Result<Vec<(&'static str, Vec<PathBuf>)>> {
        let stop = interrupt::poll();
        let total = splits.iter().flat_map(|(_, files)| files).map(|file| file.bytes).sum();
        let progress = Progress::new("downloading", total);
        let mut done = 0;
        let mut fetched = Vec::new();
        for (split, files) in splits {
            let mut paths = Vec::new();
            for (n, file) in files.into_iter().enumerate() {
                let bytes = file.bytes;
                // A name for each content, so that nothing of another commit is taken for it.
                let content = file.sha256.clone().unwrap_or_else(|| commit.sha.clone());
                let path = self.folder.join(format!("{split}-{n}-{content}.parquet"));
                if !path.is_file() {
                    let seen = &mut |n| progress.set(done + n, || split.into());
                    hub.download(&commit.file(file), &path, seen, stop)?;
                }
                done += bytes;
                paths.push(path);
            }
            fetched.push((split, paths));
        }
        interrupt::forget();
        Ok(fetched)
    }

    /// Gives the texts their names and lets everything else go.
    pub fn finish(&self, sources: &[Source], output_dir: &Path) -> Result<()> {
        let naming = self.naming();
        let marked = File::create(&naming).and_then(|file| file.sync_all());
        marked
            .and_then(|()| Disk.sync_directory(&self.folder))
            .map_err(|e| write_failed(&naming, &e))?;
        for source in sources {
            fs::rename(&source.from, &source.to).map_err(|e| write_failed(&source.to, &e))?;
        }
        let done = Disk.sync_directory(output_dir);
        done.and_then(|()| fs::remove_dir_all(&self.folder))
            .map_err(|e| write_failed(&self.folder, &e))
    }
}

fn is_part(entry: &Entry, start: &str) -> bool {
    entry.path.starts_with(start) && entry.path.ends_with(".parquet")
}

/// Writes the rows of parquet files as lines.
fn write_text(rows: &[PathBuf], to: &Path) -> Result<()> {
    let failed = |e: std::io::Error| write_failed(to, &e);
    let mut out = BufWriter::new(File::create(to).map_err(failed)?);
    for row in Documents::open(rows)? {
        out.write_all(line(&row?.text).as_bytes()).map_err(failed)?;
    }
    let file = out.into_inner().map_err(|e| failed(e.into_error()))?;
    file.sync_all().map_err(failed)
}

/// The line that a row stands for.
fn line(row: &str) -> String {
    match row.strip_suffix('\n').unwrap_or(row) {
        "" => " \n".into(),
        line => format!("{line}\n"),
    }
}

fn write_failed(path: &Path, error: &std::io::Error) -> CliError {
    CliError::io(path, "write", error, "check the space and the permissions there")
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn rows_are_lines() {
        assert_eq!(line(""), " \n");
        assert_eq!(line(" = Title = \n"), " = Title = \n");
        assert_eq!(line(" no end "), " no end \n");
        assert_eq!(line(" \n"), " \n");
    }
}
