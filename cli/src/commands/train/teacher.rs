//! Who teaches: models that are there, or one that the run trains first.

use std::path::{Path, PathBuf};

use onebit_model::config::presets::{self, TeacherDefaults};
use onebit_model::config::{LinearMode, ModelConfig};
use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::TrainOptions;
use onebit_trainer::run::check_teacher;

use super::Train;
use super::prepare::fit_to_tokenizer;
use crate::model::ModelDirectory;
use crate::{CliError, Result, args};

/// The folder of a teacher that the run trains itself.
const FOLDER: &str = "teacher";

/// A teacher that the run trains itself, in full precision.
#[derive(Clone, Copy)]
pub(super) struct OwnTeacher {
    pub steps: u64,
    /// What the preset says of it; else it is the same model.
    preset: Option<TeacherDefaults>,
}

impl Train {
    /// The teachers, which must know the same tokens and sequences as long.
    pub(super) fn teachers(
        &self,
        config: &ModelConfig,
        options: &TrainOptions,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<(PathBuf, ModelConfig)>> {
        let open = |path: &PathBuf| {
            args::existing_directory(path, "--teacher")?;
            let directory = ModelDirectory::open(path)?;
            let teacher = directory.config();
            if directory.tokenizer()?.fingerprint() != tokenizer.fingerprint() {
                return Err(CliError::Failed(format!(
                    "--teacher: {}: it has another tokenizer; train it with the same",
                    path.display()
                )));
            }
            check_teacher(&teacher, config, options.seq_len)?;
            Ok((path.clone(), teacher))
        };
        self.teacher.iter().map(open).collect()
    }

    /// The teacher that is trained first, if there is one.
    pub(super) fn own_teacher(&self, training: &presets::TrainingDefaults) -> Result<Option<OwnTeacher>> {
        let given = self.teacher_steps.is_some_and(|steps| steps > 0);
        if given && self.is_twin() {
            return Err(CliError::Usage(
                "--teacher-steps trains the model in full precision first, and --quant none is that; leave one of them out".into(),
            ));
        }
        if given && !self.teacher.is_empty() {
            return Err(CliError::Usage(
                "--teacher and --teacher-steps both say who teaches; give one of them".into(),
            ));
        }
        if self.is_twin() || !self.teacher.is_empty() {
            return Ok(None);
        }
        let preset = training.teacher;
        let usual = preset.map_or(0, |teacher| self.scaled(training, teacher.steps));
        let steps = self.teacher_steps.unwrap_or(usual);
        Ok((steps > 0).then_some(OwnTeacher { steps, preset }))
    }

    /// Where the run's own teacher of a model will lie, and what it will be.
    pub(super) fn planned(
        &self,
        own: OwnTeacher,
        config: &ModelConfig,
        options: &TrainOptions,
        tokenizer: &Tokenizer,
    ) -> Result<(PathBuf, ModelConfig)> {
        let mut twin = match own.preset {
            Some(teacher) => {
                let mut shape = presets::resolve(teacher.preset)?.config;
                fit_to_tokenizer(&mut shape, tokenizer);
                // What is given holds for both runs.
                shape.final_logit_softcapping = config.final_logit_softcapping;
                shape
            }
            None => config.clone(),
        };
        twin.set_all_modes(LinearMode::F16);
        check_teacher(&twin, config, options.seq_len)?;
        Ok((self.output_dir.as_deref().unwrap_or(Path::new("")).join(FOLDER), twin))
    }

    /// The run that trains it, in a folder of the run's own. What is given holds for both runs.
    pub(super) fn of_teacher(&self, own: OwnTeacher, output_dir: &Path) -> Train {
        let output_dir = output_dir.join(FOLDER);
        let mut run = Train {
            resume: self.resume && output_dir.join("checkpoints").is_dir(),
            output_dir: Some(output_dir),
            max_steps: Some(own.steps),
            max_epochs: None,
            quant: Some("none".into()),
            quant_warmup_steps: None,
            quant_anneal_steps: None,
            teacher_weight: None,
            teacher_steps: None,
            keep_best: false,
            ..self.clone()
        };
        if let Some(teacher) = own.preset {
            run.config = Some(teacher.preset.into());
            let dropout = self.dropout(teacher.dropout);
            run.dropout = Some(dropout.hidden as f32);
            run.input_dropout = dropout.input.map(|p| p as f32);
            run.output_dropout = Some(dropout.output as f32);
            run.word_dropout = Some(dropout.word as f32);
        }
        run
    }
}
