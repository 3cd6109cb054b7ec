//! Inference in a browser: the functions of a WebAssembly module, for [`onebit.js`](../onebit.js) and any other host.
//!
//! ```text
//! input(size) ─→ address, where the host writes the model's bytes ─ load() ─ options(…) ─┐
//! input(size) ─→ address, where the host writes a prompt ────────── begin(…) ────────────┴─ next(), next(), … ─→ output() and output_size()
//! ```
//!
//! | function | returns |
//! |---|---|
//! | `onebit_input(size)` | where the host writes `size` bytes for the function that it calls next; 0 where memory is too little |
//! | `onebit_load()` | takes the input as a `.1bit` model, in place of the one before |
//! | `onebit_context_limit()` | tokens that the model was made for |
//! | `onebit_options(context, kv)` | makes a generator: `kv` 0 for f32, 1 for f16, 2 for int8 |
//! | `onebit_begin(max_tokens, temperature, top_k, top_p, min_p, repetition_penalty, seed)` | takes the input as a prompt in UTF-8 |
//! | `onebit_next()` | the next token's id, with its text as output; [`ENDED`] after the last |
//! | `onebit_output()`, `onebit_output_size()` | where text or an error's message stands, in UTF-8 |
//! | `onebit_simd()` | whether the module was compiled with SIMD128 |
//!
//! Where nothing else is said a function returns [`DONE`], or [`FAILED`] with the message as output. One module has one model and one answer at a time; a page that
//! wants more makes more instances. The input is consumed by the function that takes it.
//!
//! The functions take numbers alone and need no `unsafe`: bytes are written and read by the host, which may do so anywhere in a module's memory anyhow.
#![deny(unsafe_code)]

use std::cell::RefCell;
use std::sync::Arc;

use onebit_model::decode::{DecodeError, TextGenerator, TextOptions};
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, SharedBytes};
use onebit_model::sampling::SamplingParams;

/// It is done.
pub const DONE: i32 = 0;
/// The answer has ended.
pub const ENDED: i32 = -1;
/// It failed: the output says why.
pub const FAILED: i32 = -2;

/// As many bytes as a cache line has, and aligned like one: what weights are read in.
#[repr(C, align(64))]
#[derive(Clone, Copy, bytemuck::Zeroable, bytemuck::Pod)]
struct Line([u8; 64]);

/// Bytes that the host writes.
#[derive(Default)]
struct Input {
    lines: Vec<Line>,
    size: usize,
}

impl AsRef<[u8]> for Input {
    fn as_ref(&self) -> &[u8] {
        let bytes = bytemuck::cast_slice(&self.lines);
        bytes.get(..self.size).unwrap_or(bytes)
    }
}

#[derive(Default)]
struct State {
    input: Input,
    output: String,
    image: Option<Image>,
    generator: Option<TextGenerator>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// Why a call failed.
enum Failure {
    Decode(DecodeError),
    Wrong(&'static str),
}

impl<E: Into<DecodeError>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Decode(error.into())
    }
}

/// Calls `work`, and tells what goes wrong.
fn told(work: impl FnOnce(&mut State) -> Result<i32, Failure>) -> i32 {
    STATE.with_borrow_mut(|state| {
        state.output.clear();
        work(state).unwrap_or_else(|failure| {
            state.output = match failure {
                Failure::Decode(error) => error.to_string(),
                Failure::Wrong(text) => text.into(),
            };
            FAILED
        })
    })
}

fn count(n: u32) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

impl State {
    fn load(&mut self) -> Result<i32, Failure> {
        // What was there first, so that two models need not have room.
        (self.generator, self.image) = (None, None);
        let bytes = SharedBytes::new(Arc::new(std::mem::take(&mut self.input)));
        self.image = Some(Image::new(bytes)?);
        Ok(DONE)
    }

    fn options(&mut self, context: u32, kv: i32) -> Result<i32, Failure> {
        self.generator = None;
        let image = self
            .image
            .as_ref()
            .ok_or(Failure::Wrong("no model is loaded; call onebit_load first"))?;
        let kv = match kv {
            0 => KvType::F32,
            1 => KvType::F16,
            2 => KvType::Int8,
            _ => return Err(Failure::Wrong("kv: expected 0 for f32, 1 for f16 or 2 for int8")),
        };
        let context = count(context);
        let options = TextOptions {
            context,
            kv,
            ..TextOptions::of(image)
        };
        self.generator = Some(TextGenerator::new(image, options)?);
        Ok(DONE)
    }

    fn begin(&mut self, max_tokens: u32, sampling: SamplingParams) -> Result<i32, Failure> {
        let prompt = std::mem::take(&mut self.input);
        let generator = self.generator.as_mut().ok_or(NO_GENERATOR)?;
        let prompt = std::str::from_utf8(prompt.as_ref())
            .map_err(|_| Failure::Wrong("expected a prompt in UTF-8; convert it first"))?;
        generator.set_sampling(sampling)?;
        generator.begin(prompt, count(max_tokens))?;
        Ok(DONE)
    }

    fn next(&mut self) -> Result<i32, Failure> {
        let generator = self.generator.as_mut().ok_or(NO_GENERATOR)?;
        Ok(match generator.next_token()? {
            Some(id) => {
                self.output.push_str(generator.text_of(id)?);
                i32::try_from(id).map_err(|_| Failure::Wrong("a token's id does not fit 31 bits"))?
            }
            None => {
                self.output.push_str(generator.last_text());
                ENDED
            }
        })
    }
}

const NO_GENERATOR: Failure = Failure::Wrong("there is no generator; call onebit_load and onebit_options first");

/// The functions as the host sees them; the [module](self) describes them.
#[allow(unsafe_code, reason = "a name that is not mangled might be another's too")]
mod exports {
    use super::*;

    #[unsafe(no_mangle)]
    extern "C" fn onebit_input(size: u32) -> *mut u8 {
        STATE.with_borrow_mut(|state| {
            state.input = Input::default();
            let size = count(size);
            let mut lines = Vec::new();
            if lines.try_reserve_exact(size.div_ceil(64).max(1)).is_err() {
                return std::ptr::null_mut();
            }
            lines.resize(size.div_ceil(64).max(1), Line([0; 64]));
            state.input = Input { lines, size };
            state.input.lines.as_mut_ptr().cast()
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_load() -> i32 {
        told(State::load)
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_context_limit() -> u32 {
        STATE.with_borrow(|state| {
            let limit = state
                .image
                .as_ref()
                .map_or(0, |image| image.config().max_position_embeddings);
            u32::try_from(limit).unwrap_or(u32::MAX)
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_options(context: u32, kv: i32) -> i32 {
        told(|state| state.options(context, kv))
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_begin(
        max_tokens: u32,
        temperature: f32,
        top_k: u32,
        top_p: f32,
        min_p: f32,
        repetition_penalty: f32,
        seed: u64,
    ) -> i32 {
        let top_k = count(top_k);
        told(|state| {
            state.begin(
                max_tokens,
                SamplingParams {
                    temperature,
                    top_k,
                    top_p,
                    min_p,
                    repetition_penalty,
                    seed,
                },
            )
        })
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_next() -> i32 {
        told(State::next)
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_output() -> *const u8 {
        STATE.with_borrow(|state| state.output.as_ptr())
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_output_size() -> usize {
        STATE.with_borrow(|state| state.output.len())
    }

    #[unsafe(no_mangle)]
    extern "C" fn onebit_simd() -> i32 {
        i32::from(cfg!(target_feature = "simd128"))
    }
}
