//! That all ranks are about to make the same run: each tells what decides its bytes, before the first step.

use super::{ParallelError, World};
use crate::Result;
use crate::options::TrainOptions;

/// What decides the bytes of a run, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<(String, String)>);

impl Fingerprint {
    /// One without a field.
    pub fn new() -> Self {
        Fingerprint::default()
    }

    /// With one field more.
    #[must_use]
    pub fn with(mut self, field: impl Into<String>, value: impl ToString) -> Self {
        self.0.push((field.into(), value.to_string()));
        self
    }

    /// With every option of a run by its name.
    ///
    /// # Errors
    /// None in practice: options are JSON.
    pub fn with_options(mut self, options: &TrainOptions) -> Result<Self> {
        let json = serde_json::to_value(options).map_err(|e| bad(0, e))?;
        for (name, value) in json.as_object().into_iter().flatten() {
            self.0
                .push((format!("the option {}", name.replace('_', "-")), value.to_string()));
        }
        Ok(self)
    }

    /// Checks that the fingerprint of every rank is the same.
    ///
    /// # Errors
    /// [`ParallelError::Disagreement`], the same on every rank: the first field in which a rank differs from rank 0. What the link says.
    pub fn agree(&self, world: &World) -> Result<()> {
        let text = serde_json::to_vec(&self.0).map_err(|e| bad(world.rank(), e))?;
        let mut all = Vec::with_capacity(world.size());
        for (rank, text) in world.link().all_gather(&text)?.iter().enumerate() {
            let fields: Vec<(String, String)> = serde_json::from_slice(text).map_err(|e| bad(rank, e))?;
            all.push(fields);
        }
        let Some((first, others)) = all.split_first() else {
            return Ok(());
        };
        for (rank, other) in (1..).zip(others) {
            let differs = |field: &str, first: &str, other: &str| {
                let [field, first, other] = [field, first, other].map(str::to_string);
                Err(ParallelError::Disagreement {
                    field,
                    rank,
                    first,
                    other,
                }
                .into())
            };
            for ((name, value), (other_name, other_value)) in first.iter().zip(other) {
                if name != other_name {
                    return differs("what a run is made of", name, other_name);
                }
                if value != other_value {
                    return differs(name, value, other_value);
                }
            }
            if first.len() != other.len() {
                return differs("what a run is made of", &fields(first.len()), &fields(other.len()));
            }
        }
        Ok(())
    }
}

fn fields(n: usize) -> String {
    format!("{n} fields")
}

fn bad(rank: usize, e: serde_json::Error) -> ParallelError {
    ParallelError::Protocol {
        rank,
        what: format!("no fingerprint: {e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parallel::threads::ranks;

    fn said(change: impl Fn(usize, TrainOptions, &mut Fingerprint) -> TrainOptions + Sync) -> Vec<String> {
        ranks(3, |world| {
            let mut more = Fingerprint::new().with("the data", "1000 tokens, abc");
            let options = change(world.rank(), TrainOptions::default(), &mut more);
            match more.with_options(&options).unwrap().agree(&world) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            }
        })
    }

    #[test]
    fn the_field_the_rank_and_both_values_are_named_on_every_rank() {
        assert_eq!(said(|_, options, _| options), ["", "", ""]);
        let lr = |rank, options: TrainOptions, _: &mut Fingerprint| TrainOptions {
            lr: if rank == 2 { 0.5 } else { 0.25 },
            ..options
        };
        for said in said(lr) {
            assert!(
                said.contains("the option lr differs between ranks: rank 0 has 0.25, and rank 2 has 0.5"),
                "{said}"
            );
        }
        let data = |rank, options, more: &mut Fingerprint| {
            if rank == 1 {
                *more = Fingerprint::new().with("the data", "999 tokens, abc");
            }
            options
        };
        for said in said(data) {
            assert!(
                said.contains("the data differs between ranks: rank 0 has 1000 tokens, abc, and rank 1 has 999"),
                "{said}"
            );
        }
        let field = |rank, options, more: &mut Fingerprint| {
            if rank == 1 {
                *more = more.clone().with("the weather", "fine");
            }
            options
        };
        for said in said(field) {
            assert!(said.contains("what a run is made of differs"), "{said}");
        }
    }

    #[test]
    fn every_option_is_part_of_a_fingerprint() {
        let Fingerprint(fields) = Fingerprint::new().with_options(&TrainOptions::default()).unwrap();
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["batch-size", "seed", "quant-anneal-steps", "teachers"] {
            assert!(names.contains(&format!("the option {name}").as_str()), "{names:?}");
        }
    }
}
