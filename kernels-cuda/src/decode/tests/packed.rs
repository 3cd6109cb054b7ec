//! Packed embeddings and heads.

use onebit_kernels_cpu::{Isa, quantize, rms_norm, softcap};

use super::head::greedy;
use crate::chain_gemv::testing::Chains;
use crate::chain_gemv::{ChainKind, ChainMatrix};
use crate::decode::*;
use crate::device::Gpu;
use crate::mixed_linear::Inputs;
use crate::ternary_gemv::tests::{Both, Random, bits, small};
use crate::ternary_gemv::{TernaryCode, TernaryMatrix};

/// An embedding on both sides.
enum Words {
    Packed(Both),
    Int4(Box<Chains>),
}

impl Words {
    fn new(random: &mut Random, kind: VocabularyKind, rows: usize, cols: usize) -> Self {
        match kind {
            VocabularyKind::Packed(code) => Words::Packed(Both::new(random, code, rows, cols)),
            _ => Words::Int4(Box::new(Chains::new(random, ChainKind::Int4, rows, cols))),
        }
    }

    fn upload(&self, gpu: &Gpu) -> Vocabulary {
        match self {
            Words::Packed(both) => Vocabulary::Packed(TernaryMatrix::stacked(gpu, &[both.part()]).unwrap()),
            Words::Int4(both) => Vocabulary::Int4(ChainMatrix::new(gpu, both.part()).unwrap()),
        }
    }

    fn row(&self, row: usize) -> Vec<f32> {
        match self {
            Words::Packed(both) => {
                let weights = &both.weights[row * both.cols..][..both.cols];
                weights.iter().map(|w| f32::from(*w) * both.gamma).collect()
            }
            Words::Int4(both) => both.row(row),
        }
    }

    /// Logits of one token.
    fn product(&self, normed: &[f32]) -> Vec<f32> {
        match self {
            Words::Packed(both) => {
                let stride = normed.len().next_multiple_of(2560);
                let (mut xq, mut scale) = (vec![0; stride], [0.0]);
                quantize::absmax_i8(Isa::best(), normed, normed.len(), &mut xq, stride, &mut scale);
                both.product(&xq, scale[0])
            }
            Words::Int4(both) => both.product(normed),
        }
    }
}

#[test]
fn packed_embeddings_and_heads_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("packed embeddings and heads") else {
        return;
    };
    let mut random = Random::seeded("packed embeddings and heads");
    let mut sizes = vec![(1, 1), (31, 16), (33, 130), (517, 1100)];
    if !small(&gpu) {
        sizes.extend([(32_000, 768), (128_256, 2560)]);
    }
    for (rows, cols) in sizes {
        for kind in KINDS {
            let both = Words::new(&mut random, kind, rows, cols);
            let (matrix, norm) = (both.upload(&gpu), random.floats(cols));
            assert_eq!((matrix.kind(), matrix.rows(), matrix.cols()), (kind, rows, cols));
            assert_eq!(matrix.bytes(), kind.bytes_needed([rows, cols]));
            let w = gpu.upload(&norm).unwrap();
            for tokens in [1, 2, 5, 16] {
                let what = format!("{kind:?} {rows} x {cols}, {tokens} tokens");
                let values = random.floats(tokens * cols);
                let x = gpu.upload(&values).unwrap();
                let extent = matrix.extent();
                let inputs = Inputs {
                    floats: gpu.poisoned(tokens * extent.floats).unwrap(),
                    bytes: gpu.poisoned(tokens * extent.cols).unwrap(),
                    scales: gpu.poisoned(tokens * matrix.scales()).unwrap(),
                };
                let output = HeadOutput::new(&gpu, tokens, 20).unwrap();
                gpu.write(&output.position, &[3]).unwrap();
                let logits = gpu.poisoned::<f32>(tokens * rows).unwrap();
                let cap = [None, Some(3.0), Some(0.01)][(rows + tokens) % 3];
                matrix
                    .head(&gpu, &x, &w, (1e-5, cap), &logits, &inputs, &output, tokens)
                    .unwrap();
                let (found, best) = (gpu.download(&logits).unwrap(), gpu.download(&output.best).unwrap());
                for t in 0..tokens {
                    let mut normed = vec![0.0; cols];
                    rms_norm::rms_norm(Isa::best(), &values[t * cols..][..cols], &norm, 1e-5, &mut normed);
                    let mut want = both.product(&normed);
                    if let Some(cap) = cap {
                        softcap::softcap(Isa::best(), cap, &mut want);
                    }
                    assert_eq!(bits(&found[t * rows..][..rows]), bits(&want), "{what}, {t}");
                    assert_eq!(best[t], greedy(&want), "{what}, {t}");
                }
                // The id is written where the context has a place for it, and the position moves.
                assert_eq!(gpu.download(&output.position).unwrap(), [3 + tokens as u32], "{what}");
                assert_eq!(
                    gpu.download(&output.ids).unwrap()[3 + tokens],
                    best[tokens - 1],
                    "{what}"
                );

                let ids: Vec<u32> = (0..20).map(|_| (random.next() % rows as u64) as u32).collect();
                gpu.write(&output.ids, &ids).unwrap();
                gpu.write(&output.position, &[2]).unwrap();
                let x = gpu.poisoned::<f32>(tokens * cols).unwrap();
                matrix.embed(&gpu, &output.ids, &output.position, &x).unwrap();
                let rows = ids[2..2 + tokens].iter().flat_map(|id| both.row(*id as usize));
                let want: Vec<f32> = rows.collect();
                assert_eq!(bits(&gpu.download(&x).unwrap()), bits(&want), "{what}");
            }
        }
    }
}

#[test]
fn shapes_are_compared() {
    let Some(gpu) = Gpu::for_test("shapes of packed heads") else {
        return;
    };
    let mut random = Random(1);
    for kind in KINDS {
        let matrix = Words::new(&mut random, kind, 40, 33).upload(&gpu);
        let (x, norm, logits) = (
            gpu.zeros::<f32>(66).unwrap(),
            gpu.zeros::<f32>(33).unwrap(),
            gpu.zeros::<f32>(80).unwrap(),
        );
        let output = HeadOutput::new(&gpu, 2, 4).unwrap();
        let none = Inputs {
            floats: gpu.zeros(0).unwrap(),
            bytes: gpu.zeros(0).unwrap(),
            scales: gpu.zeros(0).unwrap(),
        };
        let run = |x: &_, norm: &_, logits: &_, inputs: &Inputs| {
            matrix.head(&gpu, x, norm, (1e-5, None), logits, inputs, &output, 0)
        };
        let extent = matrix.extent();
        let inputs = Inputs {
            floats: gpu.zeros(2 * extent.floats).unwrap(),
            bytes: gpu.zeros(2 * extent.cols).unwrap(),
            scales: gpu.zeros(2 * matrix.scales()).unwrap(),
        };
        run(&x, &norm, &logits, &inputs).unwrap();
        assert!(run(&x, &norm, &logits, &none).is_err());
        assert!(run(&x.slice(1..), &norm, &logits, &inputs).is_err());
        assert!(run(&x, &norm.slice(1..), &logits, &inputs).is_err());
        assert!(run(&x, &norm, &logits.slice(1..), &inputs).is_err());
        assert!(run(&x.slice(..0), &norm, &logits.slice(..0), &inputs).is_err());
        assert!(matrix.embed(&gpu, &output.ids, &output.ids, &x).is_err());
        assert!(
            matrix
                .embed(&gpu, &output.ids, &output.position, &x.slice(1..))
                .is_err()
        );
    }
    // Bytes that meet bytes are no vocabulary.
    let bytes = Words::Packed(Both::new(&mut random, TernaryCode::Int8, 8, 16)).upload(&gpu);
    let (x, output) = (gpu.zeros::<f32>(16).unwrap(), HeadOutput::new(&gpu, 1, 4).unwrap());
    assert!(bytes.embed(&gpu, &output.ids, &output.position, &x).is_err());
    gpu.synchronize().unwrap();
}

const KINDS: [VocabularyKind; 4] = [
    VocabularyKind::Packed(TernaryCode::B1),
    VocabularyKind::Packed(TernaryCode::T2),
    VocabularyKind::Packed(TernaryCode::T5),
    VocabularyKind::Int4,
];
