//! `onebit stack manifest`: what shards a data set has, without downloading any.

use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_trainer::stack::manifest::{Made, ManifestOptions, make_manifest};
use serde::Serialize;

use crate::progress::Progress;
use crate::{CliError, Result, args, output};

/// Lists every shard of a data set on the Hugging Face Hub, with its size and checksum, as JSON lines. No data is downloaded.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "manifest",
    example = "{command_name} --languages rust,python --output stack.jsonl",
    note = "Shards are the files data/LANGUAGE/*.parquet. The manifest names the commit that --revision stands for, so it means the same bytes whenever it is used; lines may be taken out by hand. A run that was interrupted goes on where it was when it is started again (OUTPUT.part), as long as the revision stands for the same commit.",
    note = "HF_TOKEN, or the file that the login of Hugging Face's tools leaves, says who asks: The Stack's terms must be accepted on its page first. HF_ENDPOINT names another Hub; over plain http the token can be read on the way."
)]
pub struct Manifest {
    /// the data set (default: bigcode/the-stack)
    #[argh(option, default = "String::from(\"bigcode/the-stack\")")]
    dataset_id: String,
    /// branch, tag or commit (default: main)
    #[argh(option, default = "String::from(\"main\")")]
    revision: String,
    /// the manifest to write (default: data/the_stack_manifest.jsonl)
    #[argh(option, default = "PathBuf::from(\"data/the_stack_manifest.jsonl\")")]
    output: PathBuf,
    /// languages with commas between, as their folders are called: rust,c++,c-sharp (default: all)
    #[argh(option)]
    languages: Option<String>,
    /// write over an existing file
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Listed<'a> {
    manifest: &'a Path,
    #[serde(flatten)]
    made: &'a Made,
}

impl Manifest {
    pub(super) fn run(self) -> Result<()> {
        let languages = self.chosen()?;
        let hub = crate::hub::hub()?;
        if let Some(folder) = self.output.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            args::output_directory(folder, "--output")?;
        }
        args::new_file(&self.output, "--output", self.force)?;
        let options = ManifestOptions {
            dataset: self.dataset_id,
            revision: self.revision,
            languages,
            output: self.output,
        };
        // Ctrl-C may end it at any moment: what is listed is in the journal.
        let progress = Progress::new("listing", 0);
        let made = make_manifest(&hub, &options, &mut |totals| {
            progress.set(totals.shards, || {
                format!("{} shards, {}", totals.shards, output::bytes(totals.bytes))
            });
        });
        drop(progress);
        let made = made?;
        if self.json {
            return output::json(&Listed {
                manifest: &options.output,
                made: &made,
            });
        }
        let mut rows = vec![
            ("manifest", options.output.display().to_string()),
            ("data set", format!("{} at {}", made.dataset, made.revision)),
            ("languages", made.languages.len().to_string()),
            ("shards", made.totals.shards.to_string()),
            ("size", output::bytes(made.totals.bytes)),
        ];
        if made.passed_over > 0 {
            rows.push((
                "passed over",
                format!("{} files that are not parquet", made.passed_over),
            ));
        }
        if made.resumed > 0 {
            rows.push((
                "taken up",
                format!("{} shards that an earlier run had listed", made.resumed),
            ));
        }
        output::table(&rows)
    }

    /// The languages that were asked for; none stands for all.
    fn chosen(&self) -> Result<Vec<String>> {
        let Some(text) = &self.languages else {
            return Ok(Vec::new());
        };
        let languages: Vec<String> = text.split(',').map(|name| name.trim().to_string()).collect();
        match languages.iter().find(|name| name.is_empty() || name.contains('/')) {
            Some(name) => Err(CliError::Usage(format!(
                "--languages: expected names with commas between, such as rust,python, found {name:?} in {text:?}"
            ))),
            None => Ok(languages),
        }
    }
}
