use half::bf16;
use onebit_kernels_cpu::dropout;
use onebit_kernels_cpu::isa::Isa;
use onebit_kernels_cpu::rng::Key;

use super::*;
use crate::quantize::testing::Random;

const SEED: u64 = 0x1234_5678_9abc_def0;
const PURPOSE: u32 = 0x6472_6f70 + 3;

fn place(p: f32, step: &DeviceArray<u32>) -> Dropout<'_> {
    Dropout {
        p,
        seed: SEED,
        purpose: PURPOSE,
        step,
    }
}

#[test]
fn dropout_in_place_is_the_cpus() {
    let Some(gpu) = Gpu::for_test("drop_in_place") else {
        return;
    };
    let mut random = Random::new();
    // A number that is `p` itself is kept.
    let equal = Key::new(SEED, PURPOSE, 3).uniform(5);
    for (len, step, p) in [
        (0, 1, 0.5),
        (4, 2, 0.5),
        (4100, u32::MAX, 0.1),
        (1024, 0, 0.0),
        (8, 3, equal),
    ] {
        let x = random.f32s(len, 1.0);
        let narrow: Vec<bf16> = x.iter().map(|v| bf16::from_f32(*v)).collect();
        let steps = gpu.upload(&[step]).unwrap();
        let key = Key::new(SEED, PURPOSE, u64::from(step));
        let kept = |x: &[f32]| {
            let mut y = vec![0.0; len];
            dropout::dropout(Isa::best(), x, p, key, 0, &mut y);
            y
        };
        let (xs, narrows) = (gpu.upload(&x).unwrap(), gpu.upload(&narrow).unwrap());
        drop_in_place(&gpu, &xs, &place(p, &steps)).unwrap();
        drop_in_place(&gpu, &narrows, &place(p, &steps)).unwrap();
        assert!(gpu.download(&xs).unwrap() == kept(&x), "{len} elements");
        let wide: Vec<f32> = narrow.iter().map(|v| v.to_f32()).collect();
        let expected: Vec<bf16> = kept(&wide).iter().map(|v| bf16::from_f32(*v)).collect();
        assert!(gpu.download(&narrows).unwrap() == expected, "{len} elements of bf16");
        assert!(drop_in_place(&gpu, &xs, &place(1.0, &steps)).is_err());
    }
}

#[test]
fn rows_go_by_their_number() {
    let Some(gpu) = Gpu::for_test("drop_rows_in_place") else {
        return;
    };
    let mut random = Random::new();
    for (rows, cols, together, p) in [(1, 4, 1, 0.5), (37, 12, 5, 0.3), (600, 8, 100, 0.7), (6, 1028, 2, 0.0)] {
        let x = random.f32s(rows * cols, 1.0);
        // Ids that come again, in every place of a block of four numbers, and beyond 2^31.
        let ids: Vec<u32> = (0..rows as u32)
            .map(|i| i * 7 % 11 + if i % 3 == 0 { 0 } else { u32::MAX - 20 })
            .collect();
        let step = gpu.upload(&[9u32]).unwrap();
        let key = Key::new(SEED, PURPOSE, 9);
        let expected = |number: &dyn Fn(usize) -> u32| -> Vec<f32> {
            let factor = |row: usize| {
                if key.uniform(u64::from(number(row))) >= p {
                    1.0 / (1.0 - p)
                } else {
                    0.0
                }
            };
            x.iter().enumerate().map(|(i, v)| v * factor(i / cols)).collect()
        };
        let id_array = gpu.upload(&ids).unwrap();
        let cases = [
            (RowNumbers::Ids(&id_array), expected(&|row| ids[row])),
            (RowNumbers::Together(together), expected(&|row| (row / together) as u32)),
        ];
        for (numbers, expected) in cases {
            let xs = gpu.upload(&x).unwrap();
            drop_rows_in_place(&gpu, &xs, cols, numbers, &place(p, &step)).unwrap();
            assert!(gpu.download(&xs).unwrap() == expected, "{rows} x {cols}, {numbers:?}");
            let narrow: Vec<bf16> = x.iter().map(|v| bf16::from_f32(*v)).collect();
            let narrows = gpu.upload(&narrow).unwrap();
            drop_rows_in_place(&gpu, &narrows, cols, numbers, &place(p, &step)).unwrap();
            let zeros = |values: &mut dyn Iterator<Item = f32>| -> Vec<bool> { values.map(|v| v == 0.0).collect() };
            let found = gpu.download(&narrows).unwrap();
            assert_eq!(
                zeros(&mut found.iter().map(|v| v.to_f32())),
                zeros(&mut expected.iter().copied())
            );
        }
    }
    let (x, step) = (gpu.zeros::<f32>(24).unwrap(), gpu.zeros::<u32>(1).unwrap());
    let run = |cols, numbers: RowNumbers<'_>| drop_rows_in_place(&gpu, &x, cols, numbers, &place(0.5, &step));
    assert!(run(8, RowNumbers::Together(2)).is_ok());
    assert!(run(8, RowNumbers::Together(0)).is_err());
    assert!(run(6, RowNumbers::Together(1)).is_err());
    assert!(run(16, RowNumbers::Together(1)).is_err());
    assert!(run(8, RowNumbers::Ids(&step)).is_err());
}
