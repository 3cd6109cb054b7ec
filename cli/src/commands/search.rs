//! `onebit search`: the width of every matrix, so that a model is the best for its bytes.

mod compare;
mod finetune;
mod finish;
mod options;
mod outcome;
mod setup;
mod table;

use std::path::PathBuf;

use argh::FromArgs;

use self::options::Plan;
use crate::Result;

/// Finds the width of every matrix of a model (binary, ternary, int4, int8 or f16): the least perplexity within so many megabytes, or the smallest file of a perplexity.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "search",
    example = "{command_name} --model model --data valid.txt --max-size-mb 12 --output map.json --packed small.1bit",
    example = "{command_name} --model model --data valid.txt --max-ppl 70 --output map.json",
    example = "{command_name} --model model --data valid.txt --max-size-mb 6 --finetune-steps 300 --finetune-data train.tokens --output map.json --packed small.1bit",
    note = "First the model is written once in each width (the palette), then each width of each matrix is tried alone (the sensitivities); from the best maps that their sum promises an evolution on the true loss goes on, because errors do not add up. All of it is kept in --work-dir: the same command goes on where an interrupted one was, and another search of the same model and text begins with what is known. It takes about twice the bytes that the model has in f16.",
    note = "Without --max-size-mb and --max-ppl the whole front is searched, and the map that is chosen is the smallest one whose perplexity is within a percent of the least.",
    note = "map.json has the front, every figure of it as `onebit eval --max-tokens N --stride C` says it of the file that `onebit export --map map.json --point I` writes, whose bytes it promises too."
)]
pub struct Search {
    /// the model: a directory, a .1bit or a .gguf file, or the name of a bundled one; in full precision, or trained ternary
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// text that maps are compared on (also JSONL, parquet, .gz, .zst), directory of texts, or token file
    #[argh(option)]
    data: Option<PathBuf>,
    /// most megabytes (1,000,000 bytes) of the .1bit file, tokenizer and all (default: no limit)
    #[argh(option)]
    max_size_mb: Option<f64>,
    /// most perplexity on --data (default: no limit)
    #[argh(option)]
    max_ppl: Option<f64>,
    /// most maps that are evaluated, beside the sensitivities (default: 400)
    #[argh(option)]
    max_evaluations: Option<u64>,
    /// most minutes, of all of it but fine-tuning; what fits in depends on the machine (default: no limit)
    #[argh(option)]
    minutes: Option<f64>,
    /// tokens of --data that maps are compared on (default: 8192, or all there are)
    #[argh(option)]
    tokens: Option<usize>,
    /// tokens that each width alone is tried on (default: a quarter of --tokens)
    #[argh(option)]
    sensitivity_tokens: Option<usize>,
    /// tokens of a window; windows do not overlap (default: the model's context, 512 at most)
    #[argh(option)]
    context: Option<usize>,
    /// widths to choose from, the widest first, separated by commas (default: f16,int8,int4,ternary,binary)
    #[argh(option)]
    widths: Option<String>,
    /// seed of the evolution (default: 42)
    #[argh(option)]
    seed: Option<u64>,
    /// try random maps too, on as many tokens of evaluation, to see what the search is worth
    #[argh(switch)]
    compare_random: bool,
    /// the result: the map as layer_bit_map, the front, the sensitivities (default: none)
    #[argh(option)]
    output: Option<PathBuf>,
    /// the model under the map, a .1bit file (default: none)
    #[argh(option)]
    packed: Option<PathBuf>,
    /// a picture of the front, an SVG file (default: the name of --output with .svg)
    #[argh(option)]
    plot: Option<PathBuf>,
    /// folder of palette, sensitivities and journal (default: the name of --output with .work)
    #[argh(option)]
    work_dir: Option<PathBuf>,
    /// steps of training under the map that was found, so that the weights get used to it; for --packed (default: 0)
    #[argh(option)]
    finetune_steps: Option<u64>,
    /// text or token file for --finetune-steps; not the text of --data
    #[argh(option)]
    finetune_data: Option<PathBuf>,
    /// sequences of --context tokens in a step of --finetune-steps (default: 16)
    #[argh(option)]
    finetune_batch_size: Option<usize>,
    /// learning rate of --finetune-steps (default: 0.0003)
    #[argh(option)]
    finetune_lr: Option<f32>,
    /// auto (a GPU that is found, else the CPU), cpu, cuda or cuda:N; the result is the same (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// replace --output, --packed and --plot if they are there
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

impl Search {
    pub(super) fn run(self) -> Result<()> {
        let plan = Plan::of(&self)?;
        setup::run(&self, &plan)
    }
}
