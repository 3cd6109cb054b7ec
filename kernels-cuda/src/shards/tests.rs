//! Ranks that divide an arena, one after the other on one GPU, against [`WeightTable`] on the whole.

mod bench;
mod case;

use case::{Case, Rank, layout};

use super::WeightMode::{Binary, Full, Int8, Ternary};
use super::*;
use crate::quantize::testing::*;
use crate::weights::WeightTable;

/// Whole pieces of all kinds: less than sixteen, as many, more; sums of more than one chunk; full ones between them.
const MATRICES: [(usize, usize, WeightMode); 10] = [
    (64, 64, Ternary),
    (16, 256, Full),
    (0, 64, Ternary),
    (256, 256, Ternary),
    (48, 1280, Binary),
    (272, 256, Ternary),
    (3, 4096, Full),
    (37, 4096, Ternary),
    (1, 4096, Binary),
    (24, 512, Ternary),
];

const DIVISIONS: [(usize, usize); 5] = [(1, 1000), (2, 1000), (3, 5), (4, 1), (7, 33)];

#[test]
fn ranks_know_what_the_whole_table_does() {
    let Some(gpu) = Gpu::for_test("shards") else { return };
    for (ranks, bucket) in DIVISIONS {
        let case = Case::new(&gpu, &MATRICES, ranks, bucket);
        case.exchange();
        let all = 0..MATRICES.len();
        let scales = gpu.poisoned(case.scales.len()).unwrap();
        let dense_len = case
            .tensors()
            .iter()
            .map(|t| t.dense + t.rows * t.cols + 8)
            .max()
            .unwrap();
        let [codes, found] = [0; 2].map(|_| gpu.poisoned::<i8>(case.len() + 3).unwrap());
        let [dense, found_dense] = [0; 2].map(|_| gpu.poisoned::<bf16>(dense_len).unwrap());
        let (whole, anneal) = (&case.whole, gpu.upload(&[1.0f32]).unwrap());
        whole.measure(&gpu, all.clone(), &case.master, &scales).unwrap();
        // Full tensors are none of the shards', so the whole table leaves them alone too.
        for i in all.clone().filter(|&i| MATRICES[i].2 != Full) {
            whole
                .write(
                    &gpu,
                    i..i + 1,
                    &case.master,
                    &scales,
                    Some(&codes),
                    Some(&dense),
                    &anneal,
                )
                .unwrap();
        }
        let bits =
            |x: &DeviceArray<f32>| -> Vec<u32> { gpu.download(x).unwrap().iter().map(|x| x.to_bits()).collect() };
        assert_eq!(bits(&scales), bits(&case.scales), "scales of {ranks} ranks");
        for rank in &case.ranks {
            assert_eq!(bits(whole.gammas()), bits(rank.table.gammas()), "γ of {ranks} ranks");
        }
        let table = &case.ranks[ranks / 2].table;
        table
            .unpack(&gpu, all, &case.packed, Some(&found), Some(&found_dense))
            .unwrap();
        assert!(
            gpu.download(&codes).unwrap() == gpu.download(&found).unwrap(),
            "codes of {ranks} ranks"
        );
        let bits =
            |x: &DeviceArray<bf16>| -> Vec<u16> { gpu.download(x).unwrap().iter().map(|x| x.to_bits()).collect() };
        assert!(bits(&dense) == bits(&found_dense), "dense weights of {ranks} ranks");
    }
}

#[test]
fn dense_weights_of_own_slices_are_those_of_the_whole() {
    let Some(gpu) = Gpu::for_test("shards, dense") else {
        return;
    };
    for (ranks, bucket) in DIVISIONS {
        let case = Case::new(&gpu, &MATRICES, ranks, bucket);
        case.exchange();
        let (all, whole) = (0..MATRICES.len(), &case.whole);
        whole.measure(&gpu, all.clone(), &case.master, &case.scales).unwrap();
        let ends = case.tensors().iter().map(|t| t.dense + t.rows * t.cols + 8);
        let len = ends.max().unwrap();
        for anneal in [0.0f32, 0.3, 1.0] {
            let anneal = gpu.upload(&[anneal]).unwrap();
            let [expected, found] = [0; 2].map(|_| gpu.poisoned::<bf16>(len).unwrap());
            let (scales, dense) = (&case.scales, Some(&expected));
            whole
                .write(&gpu, all.clone(), &case.master, scales, None, dense, &anneal)
                .unwrap();
            for rank in &case.ranks {
                let slices = rank.table.slices().len();
                for which in [0..slices / 3, slices / 3..slices] {
                    rank.table.dense(&gpu, which, &rank.weights, &found, &anneal).unwrap();
                }
            }
            let bits = |x| -> Vec<u16> { gpu.download::<bf16>(x).unwrap().iter().map(|x| x.to_bits()).collect() };
            assert!(bits(&expected) == bits(&found), "{ranks} ranks");
            // Too short for a tensor of which a rank has something.
            let short = found.slice(..case.tensors()[0].dense);
            let tried = |rank: &Rank, which| rank.table.dense(&gpu, which, &rank.weights, &short, &anneal);
            assert!(
                case.ranks
                    .iter()
                    .any(|rank| tried(rank, 0..rank.table.slices().len()).is_err())
            );
            let slices = case.ranks[0].table.slices().len();
            assert!(tried(&case.ranks[0], 0..slices + 1).is_err());
        }
    }
}

#[test]
fn some_tensors_in_one_form() {
    let Some(gpu) = Gpu::for_test("shards, ranges") else {
        return;
    };
    let case = Case::new(&gpu, &MATRICES, 2, 7);
    case.exchange();
    let packed = gpu.download(&case.packed).unwrap();
    let table = &case.ranks[0].table;
    for which in [0..0, 2..5, 5..6, 9..10] {
        let codes = gpu.poisoned::<i8>(case.len()).unwrap();
        table
            .unpack(&gpu, which.clone(), &case.packed, Some(&codes), None)
            .unwrap();
        let mut expected = vec![-1i8; case.len()];
        for t in &case.tensors()[which] {
            for i in (t.codes..t.codes + t.rows * t.cols).filter(|_| t.mode != Full) {
                expected[i] = (packed[i / 4] >> (2 * (i % 4)) & 3) as i8 - 1;
            }
        }
        assert!(gpu.download(&codes).unwrap() == expected);
    }
    // Weights of one block at a time lie at the beginning of an array.
    let mut block = case.tensors()[3];
    (block.codes, block.dense, block.scales) = (0, 0, 0);
    let slice = Slice {
        first: 0,
        len: block.rows * block.cols,
        at: 0,
    };
    let one = ShardTable::new(&gpu, &[block], &[slice]).unwrap();
    let weights = gpu
        .upload(&case.weights[8 + case.tensors()[3].codes..][..slice.len])
        .unwrap();
    let (sums, scales) = (gpu.zeros(slice.len / PIECE).unwrap(), gpu.zeros(block.rows).unwrap());
    let (packed, dense) = (
        gpu.poisoned(slice.len / 4).unwrap(),
        gpu.poisoned::<bf16>(slice.len).unwrap(),
    );
    one.measure(&gpu, &weights, &sums).unwrap();
    one.scale(&gpu, &sums, &scales).unwrap();
    one.pack(&gpu, 0..1, &weights, &packed).unwrap();
    one.unpack(&gpu, 0..1, &packed, None, Some(&dense)).unwrap();
    let gamma = gpu.download(one.gammas()).unwrap()[0];
    let w = gpu.download(&weights).unwrap();
    let hard = |w: f32| bf16::from_f32((w * (1.0 / gamma)).round_ties_even().clamp(-1.0, 1.0) * gamma);
    assert!(gpu.download(&dense).unwrap().iter().zip(w).all(|(d, w)| *d == hard(w)));
}

#[test]
fn weights_that_are_no_numbers_are_as_in_the_whole_table() {
    let Some(gpu) = Gpu::for_test("shards, not finite") else {
        return;
    };
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut case = Case::new(&gpu, &[(8, 1024, Ternary)], 1, 1000);
        case.weights[8 + 5000] = bad;
        gpu.write(&case.master, &case.weights).unwrap();
        let own = &case.ranks[0].weights;
        let mut values = gpu.download(own).unwrap();
        values[4 + 5000] = bad;
        gpu.write(own, &values).unwrap();
        case.exchange();
        let (scales, anneal) = (gpu.poisoned(case.scales.len()).unwrap(), gpu.upload(&[1.0f32]).unwrap());
        let [codes, found] = [0; 2].map(|_| gpu.poisoned::<i8>(case.len()).unwrap());
        case.whole.measure(&gpu, 0..1, &case.master, &scales).unwrap();
        case.whole
            .write(&gpu, 0..1, &case.master, &scales, Some(&codes), None, &anneal)
            .unwrap();
        case.ranks[0]
            .table
            .unpack(&gpu, 0..1, &case.packed, Some(&found), None)
            .unwrap();
        assert!(gpu.download(&codes).unwrap() == gpu.download(&found).unwrap(), "{bad}");
    }
}

#[test]
fn counts_of_ranks_add_up() {
    let Some(gpu) = Gpu::for_test("shards, statistics") else {
        return;
    };
    for (ranks, bucket) in DIVISIONS {
        let case = Case::new(&gpu, &MATRICES, ranks, bucket);
        case.exchange();
        // What was there before: some other trits.
        let mut random = Random::new();
        let mut packed = gpu.download(&case.packed).unwrap();
        for byte in &mut packed {
            if random.next().is_multiple_of(5) {
                *byte = (0..4).fold(0, |byte, _| byte << 2 | (random.next() % 3) as u8);
            }
        }
        let before = gpu.upload(&packed).unwrap();
        let codes = gpu.poisoned::<i8>(case.len()).unwrap();
        let (all, whole) = (0..MATRICES.len(), &case.whole);
        let table = &case.ranks[0].table;
        table.unpack(&gpu, all.clone(), &before, Some(&codes), None).unwrap();
        whole.measure(&gpu, all.clone(), &case.master, &case.scales).unwrap();
        for with_previous in [true, false] {
            let expected = gpu.poisoned::<u32>(COUNTS * MATRICES.len()).unwrap();
            whole
                .statistics(
                    &gpu,
                    all.clone(),
                    &case.master,
                    with_previous.then_some(&codes),
                    &expected,
                )
                .unwrap();
            let mut found = vec![0; expected.len()];
            for rank in &case.ranks {
                let counts = gpu.poisoned::<u32>(expected.len()).unwrap();
                rank.table
                    .statistics(&gpu, &rank.weights, with_previous.then_some(&before), &counts)
                    .unwrap();
                for (f, c) in found.iter_mut().zip(gpu.download(&counts).unwrap()) {
                    *f += c;
                }
            }
            assert_eq!(
                found,
                gpu.download(&expected).unwrap(),
                "{ranks} ranks, {with_previous}"
            );
        }
    }
}

#[test]
fn many_pieces_are_added_in_order() {
    let Some(gpu) = Gpu::for_test("shards, large") else {
        return;
    };
    // More than 256 chunks of sixteen pieces, which a block stages at once, on a GPU.
    let rows = if emulated(&gpu) { 65 } else { 20_001 };
    let case = Case::new(&gpu, &[(rows, 4096, Ternary), (33, 4096, Ternary)], 3, 11);
    case.exchange();
    case.whole.measure(&gpu, 0..2, &case.master, &case.scales).unwrap();
    let expected = gpu.download(case.whole.gammas()).unwrap();
    for rank in &case.ranks {
        assert_eq!(gpu.download(rank.table.gammas()).unwrap(), expected);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(gpu) = Gpu::for_test("shards, shapes") else {
        return;
    };
    let tensors = layout(&[(64, 64, Ternary), (32, 256, Ternary)]);
    let slices = [
        Slice {
            first: 0,
            len: 4096,
            at: 0,
        },
        Slice {
            first: 8192,
            len: 4096,
            at: 4096,
        },
    ];
    let table = ShardTable::new(&gpu, &tensors, &slices).unwrap();
    let tensor = |i: usize, change: &dyn Fn(&mut WeightTensor)| {
        let mut tensors = tensors.clone();
        change(&mut tensors[i]);
        ShardTable::new(&gpu, &tensors, &[])
    };
    assert!(tensor(0, &|_| ()).is_ok());
    assert!(tensor(0, &|t| t.rows = 63).is_err());
    assert!(tensor(1, &|t| t.codes += 4096).is_err());
    assert!(tensor(1, &|t| t.dense += 4).is_err());
    assert!(tensor(1, &|t| t.mode = Int8).is_err());
    for bad in [
        Slice { first: 4, ..slices[1] },
        Slice { len: 4, ..slices[1] },
        Slice { at: 2, ..slices[1] },
        Slice { len: 8192, ..slices[1] },
        Slice { first: 0, ..slices[1] },
        Slice {
            first: usize::MAX & !4095,
            ..slices[1]
        },
    ] {
        assert!(ShardTable::new(&gpu, &tensors, &[slices[0], bad]).is_err(), "{bad:?}");
    }
    let (weights, sums) = (gpu.zeros::<f32>(8192).unwrap(), gpu.zeros::<f32>(3).unwrap());
    let (packed, scales) = (gpu.zeros::<u8>(3072).unwrap(), gpu.zeros::<f32>(100).unwrap());
    assert!(table.measure(&gpu, &weights, &sums).is_ok());
    assert!(table.measure(&gpu, &weights.slice(..8188), &sums).is_err());
    assert!(table.measure(&gpu, &weights, &sums.slice(..2)).is_err());
    assert!(table.scale(&gpu, &sums, &scales).is_ok());
    assert!(table.scale(&gpu, &sums, &scales.slice(..99)).is_err());
    assert!(table.pack(&gpu, 0..2, &weights, &packed).is_ok());
    assert!(table.pack(&gpu, 0..3, &weights, &packed).is_err());
    assert!(table.pack(&gpu, 0..2, &weights, &packed.slice(..3071)).is_err());
    let (codes_array, dense_array) = (gpu.zeros::<i8>(12288).unwrap(), gpu.zeros::<bf16>(12312).unwrap());
    let unpack = |which, codes: usize, dense: usize| {
        let (codes, dense) = (codes_array.slice(..codes), dense_array.slice(..dense));
        table.unpack(&gpu, which, &packed, Some(&codes), Some(&dense))
    };
    assert!(unpack(0..2, 12288, 12312).is_ok());
    assert!(unpack(0..1, 4096, 4104).is_ok());
    assert!(unpack(0..2, 12287, 12312).is_err());
    assert!(unpack(0..2, 12288, 12311).is_err());
    assert!(unpack(1..3, 12288, 12312).is_err());
    let counts = gpu.zeros::<u32>(6).unwrap();
    assert!(table.statistics(&gpu, &weights, Some(&packed), &counts).is_ok());
    assert!(
        table
            .statistics(&gpu, &weights, Some(&packed.slice(1..)), &counts)
            .is_err()
    );
    assert!(table.statistics(&gpu, &weights, None, &counts.slice(1..)).is_err());
}
