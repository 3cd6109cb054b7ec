//! Who teaches: models that are there, or such as the run trains first.

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

/// More teachers than this are taken for a mistake.
const MOST_TEACHERS: usize = 64;

/// Teachers that the run trains itself, in full precision: the same model from other seeds.
#[derive(Clone, Copy)]
pub(super) struct OwnTeachers {
    pub count: usize,
    /// Of each.
    pub steps: u64,
    /// What the preset says of them; else they are the model itself.
    preset: Option<TeacherDefaults>,
}

impl OwnTeachers {
    /// The folder of each within the run's.
    fn folders(self) -> impl Iterator<Item = String> {
        (1..=self.count).map(move |i| match self.count {
            1 => "teacher".into(),
            _ => format!("teacher-{i}"),
        })
    }
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

    /// The teachers that are trained first, if there are such.
    pub(super) fn own_teachers(&self, training: &presets::TrainingDefaults) -> Result<Option<OwnTeachers>> {
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
        let steps = if self.is_twin() || !self.teacher.is_empty() {
            0
        } else {
            let usual = training
                .teacher
                .map_or(0, |teacher| self.scaled(training, teacher.steps));
            self.teacher_steps.unwrap_or(usual)
        };
        match self.teacher_count {
            Some(_) if steps == 0 => {
                return Err(CliError::Usage(
                    "--teacher-count is of teachers that are trained first, and there are none; give --teacher-steps or leave it out".into(),
                ));
            }
            Some(count) if !(1..=MOST_TEACHERS).contains(&count) => {
                return Err(CliError::Usage(format!(
                    "--teacher-count: expected 1 to {MOST_TEACHERS}, found {count}"
                )));
            }
            _ => {}
        }
        let preset = training.teacher;
        let count = self.teacher_count.or(preset.map(|teacher| teacher.count)).unwrap_or(1);
        Ok((steps > 0).then_some(OwnTeachers { count, steps, preset }))
    }

    /// Where the run's own teachers of a model will lie, and what they will be.
    pub(super) fn planned(
        &self,
        own: OwnTeachers,
        config: &ModelConfig,
        options: &TrainOptions,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<(PathBuf, ModelConfig)>> {
        let mut twin = match own.preset {
            Some(teacher) => {
                let mut shape = presets::resolve(teacher.preset)?.config;
                fit_to_tokenizer(&mut shape, tokenizer);
                // What is given holds for all runs.
                shape.final_logit_softcapping = config.final_logit_softcapping;
                shape
            }
            None => config.clone(),
        };
        twin.set_all_modes(LinearMode::F16);
        check_teacher(&twin, config, options.seq_len)?;
        let within = self.output_dir.as_deref().unwrap_or(Path::new(""));
        Ok(own
            .folders()
            .map(|folder| (within.join(folder), twin.clone()))
            .collect())
    }

    /// The runs that train them, in folders of the run's own, with seeds that follow one another. What is given holds for all runs.
    pub(super) fn of_teachers(&self, own: OwnTeachers, output_dir: &Path) -> Vec<Train> {
        let seed = self.seed.unwrap_or(TrainOptions::default().seed);
        let seeds = (0..).map(|i| seed.wrapping_add(i));
        own.folders()
            .zip(seeds)
            .map(|(folder, seed)| self.of_teacher(own, output_dir.join(folder), seed))
            .collect()
    }

    fn of_teacher(&self, own: OwnTeachers, output_dir: PathBuf, seed: u64) -> Train {
        let mut run = Train {
            resume: self.resume && output_dir.join("checkpoints").is_dir(),
            tensorboard: self
                .tensorboard
                .as_ref()
                .zip(output_dir.file_name())
                .map(|(at, name)| at.join(name)),
            output_dir: Some(output_dir),
            seed: Some(seed),
            max_steps: Some(own.steps),
            max_epochs: None,
            quant: Some("none".into()),
            quant_warmup_steps: None,
            quant_anneal_steps: None,
            teacher_weight: None,
            teacher_steps: None,
            teacher_count: None,
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
