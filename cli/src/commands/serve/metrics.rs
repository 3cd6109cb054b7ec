//! Figures for Prometheus.

use std::sync::atomic::Ordering;

use onebit_model::serving::Load;
use prometheus::{Encoder, Histogram, HistogramOpts, IntCounterVec, Opts, Registry, TextEncoder};

/// Seconds from the request to the first token, and between tokens.
const BUCKETS: [f64; 14] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
];

/// What is counted.
pub(super) struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    /// From the request to the first token of an answer.
    pub first: Histogram,
    /// From a token that was told to the next.
    pub between: Histogram,
}

impl Metrics {
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let requests = IntCounterVec::new(
            Opts::new("onebit_requests_total", "Requests by address and status."),
            &["path", "status"],
        )?;
        let histogram =
            |name: &str, help: &str| Histogram::with_opts(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()));
        let first = histogram(
            "onebit_time_to_first_token_seconds",
            "From a request to the first token of each answer.",
        )?;
        let between = histogram(
            "onebit_time_between_tokens_seconds",
            "From one piece of an answer to the next.",
        )?;
        registry.register(Box::new(requests.clone()))?;
        registry.register(Box::new(first.clone()))?;
        registry.register(Box::new(between.clone()))?;
        Ok(Self {
            registry,
            requests,
            first,
            between,
        })
    }

    /// Counts a request.
    pub fn count(&self, path: &'static str, status: u16) {
        self.requests.with_label_values(&[path, &status.to_string()]).inc();
    }

    /// All of it as text.
    pub fn text(&self, load: &Load) -> String {
        let mut bytes = Vec::new();
        // Into memory, by an encoder of text: there is nothing that could fail.
        let _ = TextEncoder::new().encode(&self.registry.gather(), &mut bytes);
        let mut text = String::from_utf8_lossy(&bytes).into_owned();
        let counters = [
            (
                "onebit_tokens_generated_total",
                "Tokens of answers that are done.",
                &load.generated,
            ),
            (
                "onebit_tokens_read_total",
                "Tokens of prompts that were read.",
                &load.read,
            ),
            (
                "onebit_tokens_reused_total",
                "Tokens of prompts that need not be read again.",
                &load.reused,
            ),
            ("onebit_steps_total", "Passes over the model.", &load.steps),
        ];
        for (name, help, value) in counters {
            let value = value.load(Ordering::Relaxed);
            text.push_str(&format!(
                "# HELP {name} {help}\n# TYPE {name} counter\n{name} {value}\n"
            ));
        }
        let gauges = [
            ("onebit_answers_active", "Answers that are being written.", &load.active),
            (
                "onebit_answers_waiting",
                "Answers that wait for a sequence.",
                &load.waiting,
            ),
        ];
        for (name, help, value) in gauges {
            let value = value.load(Ordering::Relaxed);
            text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n{name} {value}\n"));
        }
        text
    }
}
