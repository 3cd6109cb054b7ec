//! What each width of each matrix does alone.

use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use onebit_engine::Isa;
use onebit_model::config::MatrixSite;
use onebit_model::evaluation::{Text, surprise};
use onebit_model::runtime::{KvType, PackedModel, Resume, Serial, Session, SessionOptions};
use rayon::prelude::*;

use super::evaluator::Calibration;
use super::palette::Palette;
use super::records::{Record, Records};
use crate::search::Candidate;
use crate::{Result, TrainError};

/// Tokens whose logits are compared to tell a head's error.
const COMPARED: usize = 64;
/// The name of the reference among the records.
const REFERENCE: &str = "reference";

/// What a width of a matrix alone does, everything else as the reference has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cell {
    /// Nats a token; `+∞` where it is not finite.
    pub loss: f64,
    /// How far the output is off: the squared error of the residual stream behind its block, over the square of what the block adds to it; of an embedding over its own square, of a
    /// head that of the logits over theirs.
    pub error: f64,
}

/// The measurements.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The map that everything was compared with: what the source holds.
    pub reference: Candidate,
    /// Its loss, nats a token.
    pub loss: f64,
    /// `[site][width]`
    pub cells: Vec<Vec<Cell>>,
    /// Passes that were made now; the others were in the file.
    pub passes: u64,
}

impl Measured {
    /// How much each width alone raises the loss.
    pub fn rises(&self) -> Vec<Vec<f64>> {
        let rise = |cell: &Cell| match cell.loss.is_finite() {
            true => cell.loss - self.loss,
            false => f64::INFINITY,
        };
        self.cells.iter().map(|row| row.iter().map(rise).collect()).collect()
    }
}

/// Measures every width of every matrix over the first `tokens` of a text, side by side on all threads. They are kept in a file of `folder`, named after what they depend on, and what is there is not measured again. `progress(done, of)` is told in
/// measurements. `None` if `interrupted` said so; what was measured until then is in the file.
///
/// # Errors
/// Those of the model and of the file.
pub fn measure(
    palette: &Palette,
    calibration: &Calibration<'_>,
    tokens: usize,
    folder: &Path,
    interrupted: &(dyn Fn() -> bool + Sync),
    progress: &(dyn Fn(u64, u64) + Sync),
) -> Result<Option<Measured>> {
    let reference = palette.held().clone();
    let widths: Vec<&str> = palette.widths().iter().map(|width| width.name()).collect();
    let inputs = format!(
        "{} {} {tokens} {reference} {}",
        palette.hash(),
        calibration.hash(),
        widths.join(" ")
    );
    let inputs = blake3::hash(inputs.as_bytes()).to_hex().to_string();
    let path = folder.join(format!("sensitivities-{}.jsonl", &inputs[..16]));
    let records = Mutex::new(Records::open(&path, &inputs)?);
    let known = |site: &str, width: &str| {
        let records = records.lock().map_err(|_| poisoned())?;
        Ok::<_, TrainError>(records.get(site, width).map(|record| Cell {
            loss: record.loss.unwrap_or(f64::INFINITY),
            error: record.error.unwrap_or(f64::INFINITY),
        }))
    };
    let name_of = |site: usize| palette.config().matrix_at(palette.sites()[site]).0;
    let (mut missing, mut all) = (Vec::new(), 0);
    for (site, held) in reference.choices().iter().enumerate() {
        for (number, width) in widths
            .iter()
            .enumerate()
            .filter(|(number, _)| *number != usize::from(*held))
        {
            all += 1;
            if known(&name_of(site), width)?.is_none() {
                missing.push((site, number));
            }
        }
    }
    let base = known(REFERENCE, REFERENCE)?;
    let passes = missing.len() as u64 + u64::from(base.is_none());
    let mut loss = base.map(|cell| cell.loss);
    if passes > 0 {
        let ids = calibration.ids(tokens);
        let pass = ReferencePass::new(palette, &reference, ids, calibration.context())?;
        if loss.is_none() {
            add(
                &records,
                REFERENCE,
                REFERENCE,
                Cell {
                    loss: pass.loss,
                    error: 0.0,
                },
            )?;
            loss = Some(pass.loss);
        }
        let done = AtomicU64::new(all - missing.len() as u64);
        let measured: Result<Vec<bool>> = { missing.par_iter() }
            .map(|&(site, number)| {
                if interrupted() {
                    return Ok(false);
                }
                let model = palette.model(&reference.with(site, number as u8))?;
                let cell = pass.compare(&model, palette.sites()[site])?;
                add(&records, &name_of(site), widths[number], cell)?;
                progress(done.fetch_add(1, Ordering::Relaxed) + 1, all);
                Ok(true)
            })
            .collect();
        if measured?.contains(&false) {
            return Ok(None);
        }
    }
    let loss = loss.unwrap_or(f64::INFINITY);
    let mut cells = Vec::new();
    for (site, held) in reference.choices().iter().enumerate() {
        let mut row = Vec::new();
        for (number, width) in widths.iter().enumerate() {
            row.push(match number == usize::from(*held) {
                true => Cell { loss, error: 0.0 },
                false => known(&name_of(site), width)?.unwrap_or(Cell {
                    loss: f64::INFINITY,
                    error: f64::INFINITY,
                }),
            });
        }
        cells.push(row);
    }
    Ok(Some(Measured {
        reference,
        loss,
        cells,
        passes,
    }))
}

fn poisoned() -> TrainError {
    TrainError::Runtime("a thread that measured came to an end; begin again".into())
}

fn add(records: &Mutex<Records>, site: &str, width: &str, cell: Cell) -> Result<()> {
    let finite = |value: f64| value.is_finite().then_some(value);
    records.lock().map_err(|_| poisoned())?.add(Record {
        site: site.into(),
        width: width.into(),
        loss: finite(cell.loss),
        error: finite(cell.error),
    })
}

/// Sums of squares: of an error, and of what it is measured by.
#[derive(Clone, Copy, Default)]
struct Squares {
    error: f64,
    of: f64,
}

impl Squares {
    fn share(self) -> f64 {
        if self.of > 0.0 { self.error / self.of } else { 0.0 }
    }
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum()
}

fn square(a: &[f32]) -> f64 {
    a.iter().map(|a| f64::from(*a).powi(2)).sum()
}

/// What the reference does with the text.
struct ReferencePass<'t> {
    text: Text<'t>,
    blocks: usize,
    hidden: usize,
    /// For each window the residual stream behind 0, 1, … blocks, `[tokens, hidden]` each.
    streams: Vec<Vec<Vec<f32>>>,
    /// The logits of the first tokens of the first window.
    logits: Vec<f32>,
    loss: f64,
}

impl<'t> ReferencePass<'t> {
    fn new(palette: &Palette, reference: &Candidate, ids: &'t [u32], context: usize) -> Result<Self> {
        let config = palette.config();
        let text = Text::new(config, ids, (context, context))?;
        let (blocks, hidden) = (config.num_hidden_layers, config.hidden_size);
        let model = palette.model(reference)?;
        let passes: Vec<(Vec<Vec<f32>>, Vec<f32>, f64)> = (0..text.windows())
            .into_par_iter()
            .map(|window| {
                let Range { start, end } = text.span(window).0;
                let mut streams = vec![vec![0.0; (end - start) * hidden]; blocks + 1];
                let (mut logits, mut nats) = (Vec::new(), 0.0);
                let keep = |n: usize, first: usize, stream: &[f32]| {
                    streams[n][first * hidden..][..stream.len()].copy_from_slice(stream);
                };
                session(&model, &text)?.pass_from(&ids[start..end], None, keep, |i, row| {
                    nats += surprise(row, ids[start + i + 1]);
                    if window == 0 && i < COMPARED {
                        logits.extend_from_slice(row);
                    }
                })?;
                Ok((streams, logits, nats))
            })
            .collect::<Result<_>>()?;
        let nats: Vec<f64> = passes.iter().map(|pass| pass.2).collect();
        let loss = text.score(&nats).loss();
        let mut streams = Vec::new();
        let mut logits = Vec::new();
        for (stream, some, _) in passes {
            streams.push(stream);
            logits.extend(some);
        }
        Ok(ReferencePass {
            text,
            blocks,
            hidden,
            streams,
            logits,
            loss,
        })
    }

    /// The loss and the error of a model that differs at `site` alone.
    fn compare(&self, model: &PackedModel, site: MatrixSite) -> Result<Cell> {
        let (mut nats, mut squares) = (Vec::with_capacity(self.streams.len()), Squares::default());
        let mut session = session(model, &self.text)?;
        let (from, seen) = match site {
            MatrixSite::Embedding => (None, 0),
            MatrixSite::Linear { layer, .. } => (Some(layer), layer + 1),
            MatrixSite::Head => (Some(self.blocks), usize::MAX),
        };
        let ids = self.text.ids();
        let vocab = model.config().vocab_size;
        for (window, streams) in self.streams.iter().enumerate() {
            let Range { start, end } = self.text.span(window).0;
            let resume = from.map(|blocks| Resume {
                blocks,
                stream: &streams[blocks],
            });
            let squares_of_streams = Mutex::new(Squares::default());
            let behind = |n: usize, first: usize, stream: &[f32]| {
                if n != seen {
                    return;
                }
                let at = first * self.hidden..first * self.hidden + stream.len();
                let reference = &streams[n][at.clone()];
                let of = match n {
                    0 => square(reference),
                    _ => distance(reference, &streams[n - 1][at]),
                };
                if let Ok(mut squares) = squares_of_streams.lock() {
                    squares.error += distance(stream, reference);
                    squares.of += of;
                }
            };
            // Window by window, as scoring adds them up.
            let mut of_window = 0.0;
            let mut of_logits = Squares::default();
            session.pass_from(&ids[start..end], resume, behind, |i, row| {
                of_window += surprise(row, ids[start + i + 1]);
                if site == MatrixSite::Head
                    && window == 0
                    && let Some(reference) = self.logits.get(i * vocab..(i + 1) * vocab)
                {
                    of_logits.error += distance(row, reference);
                    of_logits.of += square(reference);
                }
            })?;
            nats.push(of_window);
            for more in [squares_of_streams.into_inner().unwrap_or_default(), of_logits] {
                squares.error += more.error;
                squares.of += more.of;
            }
        }
        Ok(Cell {
            loss: self.text.score(&nats).loss(),
            error: squares.share(),
        })
    }
}

/// A session for windows of `text`, as scoring opens them.
fn session<'m>(model: &'m PackedModel, text: &Text<'_>) -> Result<Session<&'m PackedModel, Serial>> {
    let options = SessionOptions {
        context: text.context(),
        chunk: text.context().min(64),
        logit_rows: text.context().min(16),
        kv: KvType::F32,
    };
    Ok(Session::new(model, Serial, Isa::best(), options)?)
}
