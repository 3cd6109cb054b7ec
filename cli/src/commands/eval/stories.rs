//! A model judged by stories of the built-in grammar.

use onebit_trainer::evaluate::{StorySuite, StoryTeller, score_stories};
use onebit_trainer::stories::Grammar;

use super::Eval;
use crate::generation::Given;
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, output};

impl Eval {
    /// What makes no sense with stories.
    pub(super) fn check_stories(&self) -> Result<()> {
        if !self.stories {
            return match self.seed {
                Some(_) => Err(CliError::Usage(
                    "--seed is that of the stories; it needs --stories".into(),
                )),
                None => Ok(()),
            };
        }
        let others = [
            ("--data", self.data.is_some()),
            ("--ids", self.ids.is_some()),
            ("--stride", self.stride.is_some()),
            ("--context", self.context.is_some()),
            ("--max-tokens", self.max_tokens.is_some()),
            ("--cache", self.cache.is_some()),
            ("--dynamic", self.dynamic.is_some()),
            ("--logits", self.logits),
            ("--kv-type", self.kv_type.is_some()),
            (
                "--device",
                self.device.as_deref().is_some_and(|device| device.starts_with("cuda")),
            ),
        ];
        match others.iter().find(|(_, given)| *given) {
            Some((other, _)) => Err(CliError::Usage(format!(
                "--stories are made up and scored on the CPU, each by itself; leave {other} out"
            ))),
            None => Ok(()),
        }
    }

    /// Judges the model by stories.
    pub(super) fn score_stories(self) -> Result<()> {
        let path = args::required(
            args::either(self.model, "--model", self.model_dir, "--model-dir")?,
            "--model",
        )?;
        let head = args::head_type(self.head.as_deref())?;
        let directory = ModelDirectory::open(&path)?;
        let params = Given::default().resolve(&directory.generation)?;
        let place = device::place_on_cpu(self.threads)?;
        let tokenizer = directory.tokenizer()?;
        let model = directory.load(head)?;
        let teller = StoryTeller {
            model: &model,
            isa: place.isa,
            tokenizer: &tokenizer,
            params: &params,
        };
        output::note("coding unseen stories, telling some, and telling consistent ones from others");
        let suite = score_stories(teller, &Grammar::built_in(), self.seed.unwrap_or(0))?;
        if self.json { output::json(&suite) } else { print(&suite) }
    }
}

fn print(suite: &StorySuite) -> Result<()> {
    let mut rows = vec![
        (
            "coding",
            format!(
                "{:.4} bits a byte; the grammar itself {:.4} ({:.3} of it)",
                suite.bpb,
                suite.entropy_bpb,
                suite.bpb / suite.entropy_bpb
            ),
        ),
        (
            "telling",
            format!(
                "{:.0} % of the stories told are consistent",
                100.0 * suite.valid_fraction
            ),
        ),
        ("agreement", format!("{:.1} % of the pairs", 100.0 * suite.agreement)),
    ];
    for (slot, counts) in &suite.slots {
        rows.push(("", format!("{slot}: {} of {}", counts.preferred, counts.pairs)));
    }
    output::table(&rows)
}
