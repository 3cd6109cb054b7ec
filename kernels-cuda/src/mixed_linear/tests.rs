//! Every mixture against the CPU's kernels: bit for bit.

use onebit_kernels_cpu::{Isa, activation, elementwise, quantize, rms_norm};

use super::*;
use crate::chain_gemv::testing::{Chains, KINDS};
use crate::chain_gemv::{ChainKind, groups};
use crate::ternary_gemv::tests::{Both, CODES, Random, bits};
use crate::ternary_gemv::{Extent, TernaryCode};

/// A linear on both sides.
enum Linear {
    Packed(Both),
    Chains(Chains),
}

impl Linear {
    fn new(random: &mut Random, rows: usize, cols: usize) -> Self {
        let kind = random.next() as usize % (CODES.len() + KINDS.len());
        match CODES.get(kind) {
            Some(&code) => Linear::Packed(Both::new(random, code, rows, cols)),
            None => Linear::Chains(Chains::new(random, KINDS[kind - CODES.len()], rows, cols)),
        }
    }

    fn part(&self) -> LinearPart<'_> {
        match self {
            Linear::Packed(both) => LinearPart::Packed(both.part()),
            Linear::Chains(both) => LinearPart::Chains(both.part()),
        }
    }

    fn size(&self) -> [usize; 2] {
        match self {
            Linear::Packed(both) => [both.rows, both.cols],
            Linear::Chains(both) => [both.rows, both.cols],
        }
    }

    /// `[rows]` for one token, as the CPU's runtime has it.
    fn product(&self, x: &[f32], norm: Option<&[f32]>) -> Vec<f32> {
        let (isa, mut normed) = (Isa::best(), x.to_vec());
        if let Some(norm) = norm {
            rms_norm::rms_norm(isa, x, norm, 1e-5, &mut normed);
        }
        let stride = x.len().next_multiple_of(2560);
        let (mut xq, mut scale) = (vec![0; stride], [0.0]);
        quantize::absmax_i8(isa, &normed, x.len(), &mut xq, stride, &mut scale);
        match self {
            Linear::Packed(both) => both.product(&xq, scale[0]),
            Linear::Chains(both) if self.part().kind() == LinearKind::Chains(ChainKind::Int4) => {
                both.product_of_bytes(&xq, scale[0])
            }
            Linear::Chains(both) => both.product(&normed),
        }
    }
}

/// Exactly the room that `stack` says.
fn room(gpu: &Gpu, stack: &LinearStack, tokens: usize) -> (Inputs, Opened) {
    let extent = stack.extent();
    let inputs = Inputs {
        floats: gpu.poisoned(tokens * extent.floats).unwrap(),
        bytes: gpu.poisoned(tokens * extent.cols).unwrap(),
        scales: gpu.poisoned(tokens).unwrap(),
    };
    let opened = Opened {
        weights: gpu.poisoned(extent.opened).unwrap(),
        sums: gpu.poisoned(tokens * extent.sums).unwrap(),
    };
    (inputs, opened)
}

fn needed(linears: &[Linear], gated: bool) -> (usize, Extent) {
    let parts: Vec<_> = linears
        .iter()
        .map(|linear| (linear.part().kind(), linear.size()))
        .collect();
    let bytes = parts.iter().map(|(kind, size)| kind.bytes_needed(*size)).sum();
    (bytes, LinearStack::extent_needed(&parts, gated))
}

#[test]
fn stacks_of_every_mixture_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("mixed linears") else {
        return;
    };
    let mut random = Random::seeded("mixed linears");
    let isa = Isa::best();
    for round in 0..40 {
        let cols = [48, 130, 321][round % 3];
        let count = 1 + round % 3;
        let linears: Vec<_> = (0..count)
            .map(|_| {
                let rows = 1 + random.next() as usize % 40;
                Linear::new(&mut random, rows, cols)
            })
            .collect();
        let parts: Vec<_> = linears.iter().map(Linear::part).collect();
        let stack = LinearStack::stacked(&gpu, &parts).unwrap();
        assert_eq!((stack.bytes(), stack.extent()), needed(&linears, false));
        let (rows, kinds) = (stack.rows(), parts.iter().map(LinearPart::kind).collect::<Vec<_>>());
        for (tokens, chunk) in [(1, false), (3, false), (16, false), (2, true), (19, true)] {
            let (values, weights) = (random.floats(tokens * cols), random.floats(cols));
            let before = random.floats(tokens * rows);
            let norm = (round % 2 == 0).then_some(&weights[..]);
            let (x, w) = (gpu.upload(&values).unwrap(), gpu.upload(&weights).unwrap());
            let w = norm.map(|_| &w);
            let outs = [(); 3].map(|()| gpu.upload(&before).unwrap());
            for epilogue in [
                Epilogue::Store(&outs[0]),
                Epilogue::Add(&outs[1], 0.7),
                Epilogue::Relu2(&outs[2]),
            ] {
                let (inputs, opened) = room(&gpu, &stack, tokens);
                let opened = chunk.then_some(&opened);
                mixed_linear(&gpu, &stack, &x, w, 1e-5, epilogue, &inputs, opened).unwrap();
            }
            let found = outs.map(|out| gpu.download(&out).unwrap());
            for t in 0..tokens {
                let x = &values[t * cols..][..cols];
                let y: Vec<f32> = linears.iter().flat_map(|linear| linear.product(x, norm)).collect();
                let mut want = [y.clone(), before[t * rows..][..rows].to_vec(), y.clone()];
                elementwise::axpy(isa, 0.7, &y, &mut want[1]);
                activation::relu2(isa, &y, &mut want[2]);
                for (i, want) in want.iter().enumerate() {
                    let found = &found[i][t * rows..][..rows];
                    assert_eq!(bits(found), bits(want), "{kinds:?} of {cols}, {i}, {t} of {tokens}");
                }
            }
        }
    }
}

#[test]
fn gates_of_every_mixture_have_the_bits_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("mixed gates") else {
        return;
    };
    let mut random = Random::seeded("mixed gates");
    let isa = Isa::best();
    for round in 0..40 {
        let (rows, cols) = (1 + random.next() as usize % 40, [48, 130, 321][round % 3]);
        let linears = [(); 2].map(|()| Linear::new(&mut random, rows, cols));
        let [gate, up] = linears.each_ref().map(Linear::part);
        let stack = LinearStack::gated(&gpu, gate, up).unwrap();
        assert_eq!((stack.bytes(), stack.extent()), needed(&linears, true));
        for (tokens, chunk) in [(1, false), (5, false), (18, true)] {
            let (values, weights) = (random.floats(tokens * cols), random.floats(cols));
            let (x, w) = (gpu.upload(&values).unwrap(), gpu.upload(&weights).unwrap());
            let outs = [(); 2].map(|()| gpu.poisoned::<f32>(tokens * rows).unwrap());
            for epilogue in [Epilogue::GatedRelu2(&outs[0]), Epilogue::GatedSilu(&outs[1])] {
                let (inputs, opened) = room(&gpu, &stack, tokens);
                let opened = chunk.then_some(&opened);
                mixed_linear(&gpu, &stack, &x, Some(&w), 1e-5, epilogue, &inputs, opened).unwrap();
            }
            let found = outs.map(|out| gpu.download(&out).unwrap());
            for t in 0..tokens {
                let x = &values[t * cols..][..cols];
                let [g, u] = linears.each_ref().map(|linear| linear.product(x, Some(&weights)));
                let mut want = [(); 2].map(|()| vec![0.0; rows]);
                activation::relu2_gate(isa, &g, &u, &mut want[0]);
                activation::swiglu(isa, &g, &u, &mut want[1]);
                for (i, want) in want.iter().enumerate() {
                    let found = &found[i][t * rows..][..rows];
                    let kinds = (gate.kind(), up.kind());
                    assert_eq!(bits(found), bits(want), "{kinds:?} of {cols}, {i}, {t} of {tokens}");
                }
            }
        }
    }
}

#[test]
fn shapes_are_compared() {
    let Some(gpu) = Gpu::for_test("shapes of mixed linears") else {
        return;
    };
    let mut random = Random(1);
    let packed = Linear::Packed(Both::new(&mut random, TernaryCode::T2, 8, 64));
    let [floats, int4, longer] = [(ChainKind::F16, 64), (ChainKind::Int4, 64), (ChainKind::F16, 65)]
        .map(|(kind, cols)| Linear::Chains(Chains::new(&mut random, kind, 8, cols)));
    assert!(LinearStack::stacked(&gpu, &[]).is_err());
    assert!(LinearStack::stacked(&gpu, &[packed.part(), longer.part()]).is_err());
    let short = Linear::Chains(Chains::new(&mut random, ChainKind::F16, 7, 64));
    assert!(LinearStack::gated(&gpu, packed.part(), short.part()).is_err());
    let stack = LinearStack::stacked(&gpu, &[packed.part(), floats.part(), int4.part()]).unwrap();
    assert!(stack.single().is_none());
    let extent = stack.extent();
    assert_eq!((extent.floats, extent.cols), (64, 256.max(32 * groups(64))));
    let array = |len| gpu.zeros::<f32>(len).unwrap();
    let (x, y, norm) = (array(2 * 64), array(2 * 24), array(64));
    let (inputs, _) = room(&gpu, &stack, 2);
    let run = |epilogue: Epilogue<'_>, inputs: &Inputs| {
        mixed_linear(&gpu, &stack, &x, Some(&norm), 1e-5, epilogue, inputs, None)
    };
    run(Epilogue::Store(&y), &inputs).unwrap();
    assert!(run(Epilogue::Store(&y.slice(1..)), &inputs).is_err());
    assert!(run(Epilogue::GatedSilu(&y), &inputs).is_err());
    for short in [
        Inputs {
            floats: inputs.floats.slice(1..),
            ..inputs.clone()
        },
        Inputs {
            bytes: inputs.bytes.slice(1..),
            ..inputs.clone()
        },
        Inputs {
            scales: inputs.scales.slice(1..),
            ..inputs.clone()
        },
    ] {
        assert!(run(Epilogue::Store(&y), &short).is_err());
    }
    gpu.synchronize().unwrap();
}
