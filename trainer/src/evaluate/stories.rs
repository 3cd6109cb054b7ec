//! A suite on the stories of the built-in [grammar](crate::stories): what a model makes of a source that is known exactly.
//!
//! 1. *Coding*: bits a byte on unseen stories, beside those of the grammar itself.
//! 2. *Telling*: how many of the stories that the model tells are stories, and consistent.
//! 3. *Agreement*: of two stories that differ in one word, which is right in one and contradicts what was said in the other (she turns he, the red shell blue, Ginger Toffee), the model should
//!    find the consistent one likelier. Pairs are made of the last mention of a word that the story keeps; each slot of the grammar is counted by itself.

use std::collections::BTreeMap;

use onebit_engine::Isa;
use onebit_model::evaluation::score;
use onebit_model::runtime::{KvType, PackedModel, Serial, Session, SessionOptions};
use onebit_model::sampling::{Sampler, SamplingParams};
use onebit_model::tokenizer::Tokenizer;
use rayon::prelude::*;
use serde::Serialize;

use super::failed;
use crate::Result;
use crate::stories::{Grammar, Split, stream};

/// Unseen stories that are coded.
const CODED: usize = 300;
/// Stories that the model tells and the grammar reads.
const TOLD: usize = 100;
/// Longest story told, in tokens.
const LONGEST: usize = 150;
/// Unseen stories of each of which a pair is made.
const PAIRS: usize = 400;

/// A packed model that is judged by stories.
#[derive(Clone, Copy, Debug)]
pub struct StoryTeller<'a> {
    /// The model.
    pub model: &'a PackedModel,
    /// The CPU path.
    pub isa: Isa,
    /// Its tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// How it tells.
    pub params: &'a SamplingParams,
}

/// Pairs of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Agreement {
    /// Pairs.
    pub pairs: usize,
    /// Those whose consistent story the model found likelier.
    pub preferred: usize,
}

/// What the suite found.
#[derive(Clone, Debug, Serialize)]
pub struct StorySuite {
    /// Bits a byte of the model on unseen stories.
    pub bpb: f64,
    /// Bits a byte of the grammar itself on the same stories: no model can do better on average.
    pub entropy_bpb: f64,
    /// Share of the told stories that the grammar accepts as consistent.
    pub valid_fraction: f64,
    /// Share of the pairs whose consistent story the model found likelier.
    pub agreement: f64,
    /// The same for each slot, such as `hero` or `colour`.
    pub slots: BTreeMap<String, Agreement>,
}

/// All of the suite, on stories of the held-out stream of `seed`.
///
/// # Errors
/// What the tokenizer or the runtime refuses.
pub fn score_stories(teller: StoryTeller<'_>, grammar: &Grammar, seed: u64) -> Result<StorySuite> {
    let (bpb, entropy_bpb) = teller.code(grammar, seed)?;
    let slots = teller.agreement(grammar, seed)?;
    let all = slots.values().fold(Agreement::default(), |all, slot| Agreement {
        pairs: all.pairs + slot.pairs,
        preferred: all.preferred + slot.preferred,
    });
    Ok(StorySuite {
        bpb,
        entropy_bpb,
        valid_fraction: valid_fraction(&teller.rejected(grammar, seed)?),
        agreement: all.preferred as f64 / all.pairs.max(1) as f64,
        slots,
    })
}

/// The share of the told stories that were not rejected.
pub(crate) fn valid_fraction(rejected: &[(String, String)]) -> f64 {
    1.0 - rejected.len() as f64 / TOLD as f64
}

impl StoryTeller<'_> {
    /// Nats of a story by itself: a line break, which is context, the story, and the line break that ends it.
    fn nats(&self, story: &str) -> Result<f64> {
        let context = self.model.config().max_position_embeddings;
        let ids = self.tokenizer.encode(&format!("\n{story}\n")).map_err(|e| failed(&e))?;
        Ok(score(self.model, self.isa, &ids, (context, context), KvType::F32, &|_| ())?.nats)
    }

    /// Bits a byte of the model and of the grammar on unseen stories.
    pub(crate) fn code(&self, grammar: &Grammar, seed: u64) -> Result<(f64, f64)> {
        let mut random = stream(seed, Split::HeldOut);
        let stories: Vec<_> = (0..CODED).map(|_| grammar.generate(&mut random)).collect();
        let bits: f64 = stories.iter().map(|s| -s.log2_probability).sum();
        let bytes: usize = stories.iter().map(|s| s.text.len() + 1).sum();
        let nats = stories.par_iter().map(|story| self.nats(&story.text));
        // Summed in their order, whatever the threads.
        let nats: f64 = nats.collect::<Result<Vec<f64>>>()?.iter().sum();
        Ok((nats / std::f64::consts::LN_2 / bytes as f64, bits / bytes as f64))
    }

    /// The stories told that are none, each with the reason.
    pub(crate) fn rejected(&self, grammar: &Grammar, seed: u64) -> Result<Vec<(String, String)>> {
        let told = (0..TOLD as u64)
            .into_par_iter()
            .map(|i| self.tell(seed.wrapping_add(i), &mut |_| ()))
            .collect::<Result<Vec<_>>>()?;
        let reasons = told
            .into_iter()
            .filter_map(|story| grammar.parse(&story).err().map(|e| (story, e.to_string())));
        Ok(reasons.collect())
    }

    /// How often the consistent one of a pair is likelier, by slot.
    fn agreement(&self, grammar: &Grammar, seed: u64) -> Result<BTreeMap<String, Agreement>> {
        let mut random = stream(seed ^ 2, Split::HeldOut);
        let pairs: Vec<_> = (0..PAIRS)
            .filter_map(|_| {
                let story = grammar.generate(&mut random).text;
                let wrong = grammar.contradict(&story, &mut |n| random() as usize % n)?;
                Some((story, wrong))
            })
            .collect();
        let preferred = pairs
            .par_iter()
            .map(|(story, wrong)| Ok(self.nats(story)? < self.nats(&wrong.text)?))
            .collect::<Result<Vec<bool>>>()?;
        let mut slots = BTreeMap::<String, Agreement>::new();
        for ((_, wrong), preferred) in pairs.iter().zip(preferred) {
            let counts = slots.entry(wrong.slot.to_string()).or_default();
            counts.pairs += 1;
            counts.preferred += usize::from(preferred);
        }
        Ok(slots)
    }

    /// Lets the model tell a story, piece by piece.
    ///
    /// # Errors
    /// Anything that the packed runtime refuses.
    pub fn tell(&self, seed: u64, piece: &mut dyn FnMut(&str)) -> Result<String> {
        let params = SamplingParams { seed, ..*self.params };
        let config = self.model.config();
        let mut sampler = Sampler::new(params, config.vocab_size).map_err(|e| failed(&e))?;
        let context = config.max_position_embeddings;
        let options = SessionOptions::new(context);
        let mut session = Session::new(self.model, Serial, self.isa, options).map_err(|e| failed(&e))?;
        let mut ids = self.tokenizer.encode("\n").map_err(|e| failed(&e))?;
        let mut stream = self.tokenizer.stream(true);
        let mut story = String::new();
        let mut logits = session.prefill(&ids).map_err(|e| failed(&e))?.to_vec();
        while ids.len() < LONGEST.min(context) {
            let id = sampler.sample(&mut logits, &ids).map_err(|e| failed(&e))?;
            let text = stream.push(id).map_err(|e| failed(&e))?;
            if let Some(end) = text.find('\n') {
                piece(&text[..end]);
                story.push_str(&text[..end]);
                return Ok(story);
            }
            piece(&text);
            story.push_str(&text);
            ids.push(id);
            logits.copy_from_slice(session.decode(id).map_err(|e| failed(&e))?);
        }
        Ok(story)
    }
}
