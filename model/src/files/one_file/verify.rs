//! Reading all of a file: that it is what was exported.

use onebit_kernels_cpu::{Isa, int4_gemv};

#[cfg(feature = "tokenizers")]
use super::TOKENIZER_JSON;
use super::{CHECKSUM_LEN, COLUMNS, OneFile, SKETCH, TOKENIZER_PACKED};
use crate::files::stream::PIECE;
use crate::files::{FileError, PartProblem};
use crate::runtime::{FloatMatrix, FloatValues, HeadSketch, Linear, PackedModel, Pool};
#[cfg(feature = "tokenizers")]
use crate::tokenizer::Tokenizer;

impl OneFile {
    /// Reads the whole file: its checksum, every code, every float, and that columns are those of the rows. What this accepts is what was exported.
    /// Pages of the map are given back on the way, so that what is resident at once does not grow with the file.
    ///
    /// # Errors
    /// [`FileError::Part`] with what is not as it should be.
    pub fn verify(&self) -> Result<(), FileError> {
        let recorded = self.image.weights.metadata().get("checksum").map_or("", String::as_str);
        let refused = |problem| self.refuse("checksum", problem);
        let bytes = self.image.bytes();
        let length = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
        let (header, data) = bytes
            .split_at_checked(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8))
            .ok_or_else(|| refused(PartProblem::Checksum))?;
        let hex = recorded.len() == CHECKSUM_LEN && recorded.bytes().all(|b| b.is_ascii_hexdigit());
        let place = header
            .windows(CHECKSUM_LEN)
            .position(|window| window == recorded.as_bytes());
        let Some(place) = place.filter(|_| hex) else {
            return Err(refused(PartProblem::NoChecksum));
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header[..place]);
        hasher.update(&[b'0'; CHECKSUM_LEN]);
        hasher.update(&header[place + CHECKSUM_LEN..]);
        for piece in data.chunks(PIECE) {
            hasher.update(piece);
            self.image.weights.give_pages_back();
        }
        if hasher.finalize().to_hex().as_str() != recorded {
            return Err(refused(PartProblem::Checksum));
        }
        let model = self.model()?;
        if let Some(name) = not_finite(&model) {
            return Err(self.refuse(name, PartProblem::NotFinite));
        }
        for (layer, block) in model.blocks().iter().enumerate() {
            for (shape, linear) in model.config().linears(layer).zip(block.linears()) {
                if let Some(problem) = flaw(linear) {
                    return Err(self.refuse(&shape.name, problem));
                }
                if let Linear::Ternary {
                    columns: Some(columns), ..
                } = linear
                    && linear.make_columns().is_none_or(|made| made != **columns)
                {
                    let name = format!("{}{COLUMNS}", shape.name);
                    return Err(self.refuse(&name, PartProblem::Derived { of: "the rows" }));
                }
                self.image.weights.give_pages_back();
            }
        }
        if let Some(sketch) = model.sketch() {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let pool = Pool::new(threads).map_err(|e| self.refuse("the model", PartProblem::model(e)))?;
            if HeadSketch::build(&pool, Isa::best(), model.head()).as_ref() != Some(sketch) {
                return Err(self.refuse(SKETCH[0].0, PartProblem::Derived { of: "the head" }));
            }
        }
        self.image.weights.give_pages_back();
        self.verify_tokenizer()
    }

    /// The packed tokenizer is the one that the JSON packs into.
    #[cfg(feature = "tokenizers")]
    fn verify_tokenizer(&self) -> Result<(), FileError> {
        if let (Some(packed), Some(json)) = (
            self.image.bytes_of(TOKENIZER_PACKED).map_err(|e| self.error(e))?,
            self.tokenizer_json(),
        ) {
            let tokenizer =
                Tokenizer::from_bytes(json).map_err(|e| self.refuse(TOKENIZER_JSON, PartProblem::content(e)))?;
            if tokenizer.pack().is_none_or(|bytes| bytes != *packed) {
                return Err(self.refuse(TOKENIZER_PACKED, PartProblem::Derived { of: TOKENIZER_JSON }));
            }
        }
        Ok(())
    }

    /// The packed tokenizer can be used; without the `tokenizers` crate it cannot be made again.
    #[cfg(not(feature = "tokenizers"))]
    fn verify_tokenizer(&self) -> Result<(), FileError> {
        match self.image.bytes_of(TOKENIZER_PACKED).map_err(|e| self.error(e))? {
            Some(_) => self.tokenizer().map(drop),
            None => Ok(()),
        }
    }
}

/// What a linear holds that its mode does not allow.
fn flaw(linear: &Linear) -> Option<PartProblem> {
    match linear {
        Linear::Ternary {
            rows,
            cols,
            layout,
            packed,
            ..
        } if !layout.is_valid(packed, *rows, *cols) => Some(PartProblem::Code),
        Linear::Int8 { values, .. } if values.contains(&i8::MIN) => Some(PartProblem::Range),
        Linear::Int4 { cols, codes, steps, .. } => {
            let sound = int4_gemv::is_padded(codes, *cols) && steps.iter().all(|step| step.is_finite());
            (!sound).then_some(PartProblem::NotFinite)
        }
        Linear::Float(matrix) if !is_sound(&matrix.values) => Some(PartProblem::NotFinite),
        _ => None,
    }
}

/// Whether every value is finite, and every integer one that its type has there.
fn is_sound(values: &FloatValues) -> bool {
    let integers = match values {
        FloatValues::Int8 { values, .. } => !values.contains(&i8::MIN),
        FloatValues::Int4 { codes, cols, .. } => int4_gemv::is_padded(codes, *cols),
        FloatValues::Trits {
            layout,
            packed,
            rows,
            cols,
            ..
        } => layout.is_valid(packed, *rows, *cols),
        _ => true,
    };
    integers && values.all_finite()
}

/// The embedding, the head or the norms, if a value in them is NaN or infinite.
fn not_finite(model: &PackedModel) -> Option<&'static str> {
    let finite = |matrix: &FloatMatrix| is_sound(&matrix.values);
    let norm = |values: &[f32]| values.iter().all(|v| v.is_finite());
    let norms = model.blocks().iter().flat_map(|block| block.norms()).all(|w| norm(w)) && norm(model.norm());
    [
        ("model.embed_tokens.weight", finite(model.embedding())),
        ("lm_head.weight", finite(model.head())),
        ("the norms", norms),
    ]
    .into_iter()
    .find_map(|(name, good)| (!good).then_some(name))
}
