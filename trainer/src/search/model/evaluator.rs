//! The loss of a map on a text.

use std::collections::HashMap;
use std::sync::Mutex;

use onebit_model::evaluation::Text;
use onebit_model::runtime::PackedModel;

use super::palette::{Palette, Weighing};
use crate::search::{Candidate, Evaluator};
use crate::{Result, TrainError};

/// The text that maps are compared on.
#[derive(Clone, Debug)]
pub struct Calibration<'a> {
    ids: &'a [u32],
    context: usize,
    stages: Vec<usize>,
}

impl<'a> Calibration<'a> {
    /// The first `tokens` tokens of `ids` behind the first, which is context only, in windows of `context` tokens that do not overlap. Maps are compared on a sixteenth, a quarter and all of them, in whole
    /// windows.
    ///
    /// # Errors
    /// A text that is too short, or that the model of `palette` does not know.
    pub fn new(palette: &Palette, ids: &'a [u32], tokens: usize, context: usize) -> Result<Self> {
        let tokens = tokens.min(ids.len().saturating_sub(1)).max(1);
        let ids = &ids[..ids.len().min(tokens + 1)];
        Text::new(palette.config(), ids, (context, context))?;
        let mut stages: Vec<usize> = [16, 4].map(|part| (tokens / part).div_ceil(context) * context).into();
        stages.push(tokens);
        stages.retain(|&stage| (1..=tokens).contains(&stage));
        stages.dedup();
        Ok(Calibration { ids, context, stages })
    }

    /// The token counts, ascending.
    pub fn stages(&self) -> &[usize] {
        &self.stages
    }

    /// Tokens of a window.
    pub fn context(&self) -> usize {
        self.context
    }

    /// The tokens of which the first `tokens` behind the first are scored.
    pub fn ids(&self, tokens: usize) -> &'a [u32] {
        &self.ids[..self.ids.len().min(tokens + 1)]
    }

    /// A hash of the text and of how it is read.
    pub fn hash(&self) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(&(self.context as u64).to_le_bytes());
        for id in self.ids {
            hash.update(&id.to_le_bytes());
        }
        hash.finalize().to_hex().to_string()
    }
}

/// What a search asks of a model.
pub struct ModelEvaluator<'a> {
    /// Every matrix in every width.
    pub palette: &'a Palette,
    /// The text.
    pub calibration: Calibration<'a>,
    weighing: &'a Weighing<'a>,
    bytes: Mutex<HashMap<Candidate, u64>>,
    score: Box<Score<'a>>,
}

/// From a model and the tokens of a text, the first of them context only, to nats a token; told how many tokens are done.
pub type Score<'a> = dyn Fn(&PackedModel, &[u32], &(dyn Fn(u64) + Sync)) -> Result<f64> + Send + Sync + 'a;

impl<'a> ModelEvaluator<'a> {
    /// Of a palette, a text, the files that maps would be, and losses as `score` tells them.
    pub fn new(
        palette: &'a Palette,
        calibration: Calibration<'a>,
        weighing: &'a Weighing<'a>,
        score: Box<Score<'a>>,
    ) -> Self {
        ModelEvaluator {
            palette,
            calibration,
            weighing,
            bytes: Mutex::new(HashMap::new()),
            score,
        }
    }

    /// Nats a token of some other model, or on some other text. `progress` is told of tokens.
    ///
    /// # Errors
    /// Those of scoring.
    pub fn score(&self, model: &PackedModel, ids: &[u32], progress: &(dyn Fn(u64) + Sync)) -> Result<f64> {
        (self.score)(model, ids, progress)
    }

    /// A hash of all that a loss depends on: what a journal is kept under.
    pub fn inputs(&self) -> String {
        let widths: Vec<&str> = self.palette.widths().iter().map(|width| width.name()).collect();
        let (model, text) = (self.palette.hash(), self.calibration.hash());
        let inputs = format!("{model} {text} {:?} {}", self.calibration.stages(), widths.join(" "));
        blake3::hash(inputs.as_bytes()).to_hex().to_string()
    }
}

impl Evaluator for ModelEvaluator<'_> {
    type Error = TrainError;

    fn bytes(&self, map: &Candidate) -> u64 {
        // A header of a hundred kilobytes is not written twice for a map.
        if let Ok(known) = self.bytes.lock()
            && let Some(bytes) = known.get(map)
        {
            return *bytes;
        }
        let config = self.palette.config_of(map);
        // A file that cannot be is larger than any.
        let bytes = self.weighing.bytes(|site| config.mode_at(site)).unwrap_or(u64::MAX);
        if let Ok(mut known) = self.bytes.lock() {
            known.insert(map.clone(), bytes);
        }
        bytes
    }

    fn loss(&self, map: &Candidate, tokens: usize) -> Result<f64> {
        self.score(&self.palette.model(map)?, self.calibration.ids(tokens), &|_| ())
    }

    fn stages(&self) -> &[usize] {
        self.calibration.stages()
    }
}
