//! Tokens a second, and the part of the machine's peak that they are.

use std::cell::OnceCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use onebit_engine::Isa;
use onebit_model::config::ModelConfig;
use onebit_trainer::TrainOptions;
use onebit_trainer::options::Precision;
use onebit_trainer::run::RunInputs;

use crate::commands::block_weights;
use crate::limits;

/// A rate is that of so long, pauses left out.
const WINDOW: Duration = Duration::from_secs(20);
/// Between two marks.
const APART: Duration = Duration::from_millis(200);

/// What trains.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// The GPU's name, if there is one.
    pub gpu: Option<String>,
    pub isa: Isa,
    pub threads: usize,
    /// Processes that do as this one.
    pub ranks: usize,
}

impl Machine {
    /// That of a run.
    pub(crate) fn of(inputs: &RunInputs) -> Self {
        Self {
            gpu: inputs.gpu.as_ref().map(|gpu| gpu.properties().name.clone()),
            isa: inputs.network.device().isa(),
            threads: rayon::current_num_threads(),
            ranks: inputs.world.size(),
        }
    }

    /// Operations a second that all ranks could do at best in the run's arithmetic, multiplications and additions counted one each.
    ///
    /// On CPUs it is measured now, in some 100 ms: chains of bf16 dot products where the run multiplies in bf16 and the CPU has the instruction, otherwise of f32 fused
    /// multiply-adds. Of a GPU it is its maker's figure for dense bf16 products; none for a GPU that is not [known](stated_peak), or in f32.
    fn peak(&self, precision: Precision) -> Option<f64> {
        let one = match (&self.gpu, precision) {
            (Some(name), Precision::Bf16) => stated_peak(name),
            (Some(_), _) => None,
            (None, Precision::Bf16) => {
                limits::bf16_peak(self.isa, self.threads).or_else(|| Some(limits::fma_peak(self.isa, self.threads)))
            }
            (None, _) => Some(limits::fma_peak(self.isa, self.threads)),
        };
        one.map(|one| one * self.ranks as f64)
    }
}

/// Dense bf16 operations a second by the data sheets, for the GPU that the driver calls `name`. Names that hold others stand first.
fn stated_peak(name: &str) -> Option<f64> {
    const STATED: [(&str, f64); 8] = [
        ("H100 PCIe", 756e12),
        ("H100 NVL", 835e12),
        ("H100", 989e12),
        ("H200", 989e12),
        ("A100", 312e12),
        ("L40S", 362e12),
        ("RTX 4090", 165e12),
        ("NVIDIA L4", 121e12),
    ];
    let found = STATED.iter().find(|(part, _)| name.contains(part));
    // An L40 is no L4.
    found
        .filter(|(part, _)| *part != "NVIDIA L4" || name == *part)
        .map(|(_, peak)| *peak)
}

/// Operations of a training step, a token: `6 · N` for the `N` weights that it is multiplied by (the linears of the blocks and the head; twice forward, four times
/// backward) and `6 · layers · heads · head_dim · seq_len` for attention, of which causality leaves half of `12 · …`. Recomputation and teachers count nothing:
/// it is what must be done, not what was.
pub(crate) fn operations_per_token(config: &ModelConfig, seq_len: usize) -> f64 {
    let weights = block_weights(config) + (config.vocab_size * config.hidden_size) as f64;
    let width = (config.num_attention_heads * config.head_dim) as f64;
    let attention = config.num_hidden_layers as f64 * width * seq_len as f64;
    6.0 * (weights + attention)
}

/// The speed of a run.
#[derive(Debug)]
pub(crate) struct Speed {
    tokens_per_step: u64,
    operations_per_token: f64,
    machine: Machine,
    precision: Precision,
    /// Measured when it is first asked for: a run that is over before says nothing of it.
    peak: OnceCell<Option<f64>>,
    began: Instant,
    /// When steps were done.
    marks: VecDeque<(Instant, u64)>,
}

impl Speed {
    /// Of a run that stands at `step`. The clock starts now.
    pub(crate) fn new(
        machine: Machine,
        config: &ModelConfig,
        options: &TrainOptions,
        precision: Precision,
        step: u64,
    ) -> Self {
        Self {
            tokens_per_step: options.tokens_per_step(),
            operations_per_token: operations_per_token(config, options.seq_len),
            machine,
            precision,
            peak: OnceCell::new(),
            began: Instant::now(),
            marks: VecDeque::from([(Instant::now(), step)]),
        }
    }

    /// `step` is done.
    pub(crate) fn step(&mut self, step: u64) {
        self.step_at(step, Instant::now());
    }

    /// Something else than training took time until now, or the run went back to `step`.
    pub(crate) fn pause(&mut self, step: u64) {
        self.marks = VecDeque::from([(Instant::now(), step)]);
    }

    fn step_at(&mut self, step: u64, now: Instant) {
        // The last mark is always this step; the one before it may go if it is close to its own predecessor.
        if let [.., (before, _), (last, _)] = *self.marks.make_contiguous()
            && last.duration_since(before) < APART
        {
            self.marks.pop_back();
        }
        self.marks.push_back((now, step));
        while self.marks.len() > 2 && self.marks[1].0 + WINDOW <= now {
            self.marks.pop_front();
        }
    }

    /// Tokens a second, lately.
    pub(crate) fn tokens_per_second(&self) -> Option<f64> {
        let (from, to) = (self.marks.front()?, self.marks.back()?);
        let seconds = to.0.duration_since(from.0).as_secs_f64();
        let steps = to.1.checked_sub(from.1)?;
        (steps > 0 && seconds > 0.0).then(|| (steps * self.tokens_per_step) as f64 / seconds)
    }

    /// The [operations](operations_per_token) of what was trained lately over the [peak](Machine::peak). The hard phase computes its forward in int8, whose peak is
    /// higher: the share may pass 1 there.
    pub(crate) fn share_of_peak(&self) -> Option<f64> {
        self.share(self.tokens_per_second()?)
    }

    /// The same from step `from` to step `to` of the run, in all the time since the beginning; none before a share was asked for, which costs a measurement.
    pub(crate) fn share_of_run(&self, from: u64, to: u64) -> Option<f64> {
        self.peak.get()?;
        let seconds = self.began.elapsed().as_secs_f64();
        self.share((to.saturating_sub(from) * self.tokens_per_step) as f64 / seconds.max(1e-9))
    }

    /// The same of a rate.
    fn share(&self, tokens_per_second: f64) -> Option<f64> {
        let peak = self.peak.get_or_init(|| self.machine.peak(self.precision));
        peak.filter(|peak| *peak > 0.0)
            .map(|peak| tokens_per_second * self.operations_per_token / peak)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn speed() -> Speed {
        let config = onebit_model::config::presets::resolve("quickstart").unwrap().config;
        let machine = Machine {
            gpu: Some("NVIDIA H200".into()),
            isa: Isa::from_env().unwrap(),
            threads: 1,
            ranks: 2,
        };
        let options = TrainOptions {
            batch_size: 4,
            seq_len: 25,
            accumulation_steps: 1,
            ..TrainOptions::default()
        };
        Speed::new(machine, &config, &options, Precision::Bf16, 0)
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds() {
        let mut speed = speed();
        assert_eq!(speed.tokens_per_second(), None);
        let start = speed.marks[0].0;
        let at = |ms: u64| start + Duration::from_millis(ms);
        // A step of 100 tokens each 100 ms, then each 50 ms.
        for i in 1..=300u64 {
            speed.step_at(i, at(100 * i));
        }
        let rate = speed.tokens_per_second().unwrap();
        assert!((rate - 1000.0).abs() < 1e-6, "{rate}");
        for i in 1..=600u64 {
            speed.step_at(300 + i, at(30_000 + 50 * i));
        }
        let rate = speed.tokens_per_second().unwrap();
        assert!((rate - 2000.0).abs() < 1e-6, "{rate}");
        assert!(speed.marks.len() < 110, "{}", speed.marks.len());
        speed.pause(900);
        assert_eq!(speed.tokens_per_second(), None);
    }

    #[test]
    fn the_share_of_a_peak_is_of_all_ranks() {
        let speed = speed();
        let rate = 2.0 * 989e12 / speed.operations_per_token;
        assert!((speed.share(rate).unwrap() - 1.0).abs() < 1e-12);
        assert_eq!(stated_peak("NVIDIA H100 PCIe"), Some(756e12));
        assert_eq!(stated_peak("NVIDIA H100 80GB HBM3"), Some(989e12));
        assert_eq!(stated_peak("NVIDIA L40"), None);
        assert_eq!(stated_peak("NVIDIA L4"), Some(121e12));
        assert_eq!(stated_peak("NVIDIA GeForce RTX 5090"), None);
    }

    #[test]
    fn a_cpu_has_a_peak_in_either_arithmetic() {
        let machine = Machine {
            gpu: None,
            isa: Isa::from_env().unwrap(),
            threads: 1,
            ranks: 1,
        };
        let [f32, bf16] = [Precision::F32, Precision::Bf16].map(|precision| machine.peak(precision).unwrap());
        assert!(f32 > 1e8 && bf16 > 1e8, "{f32} {bf16}");
    }
}
