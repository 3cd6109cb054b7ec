use onebit_kernels_cpu::rng::Key;

use super::*;

fn random(len: usize) -> Vec<f32> {
    let key = Key::new(3, 4, len as u64);
    (0..len as u64).map(|i| key.normal(i)).collect()
}

#[test]
fn sums_are_rounded_once() {
    let Some(gpu) = Gpu::for_test("add") else { return };
    for len in [0, 4, 1020, 1024, 4092] {
        let narrow = |values: Vec<f32>| values.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
        let (a, b) = (narrow(random(len)), narrow(random(len + 1)[1..].to_vec()));
        let (out, x) = (gpu.upload(&a).unwrap(), gpu.upload(&b).unwrap());
        add(&gpu, &out, &x).unwrap();
        let expected: Vec<_> = a
            .iter()
            .zip(&b)
            .map(|(a, b)| bf16::from_f32(a.to_f32() + b.to_f32()))
            .collect();
        assert_eq!(gpu.download(&out).unwrap(), expected);
    }
    assert!(add(&gpu, &gpu.zeros(8).unwrap(), &gpu.zeros(4).unwrap()).is_err());
    assert!(add(&gpu, &gpu.zeros(6).unwrap(), &gpu.zeros(6).unwrap()).is_err());
}

#[test]
fn the_mask_is_that_of_the_cpu() {
    let Some(gpu) = Gpu::for_test("dropout") else { return };
    for len in [4, 1024, 4100] {
        let values = random(len);
        let (x, step) = (gpu.upload(&values).unwrap(), gpu.upload(&[9u32]).unwrap());
        let drop = Dropout {
            p: 0.3,
            seed: 1 << 40 | 5,
            purpose: 17,
            step: &step,
        };
        dropout(&gpu, &x, &drop).unwrap();
        let mut expected = vec![0.0; len];
        let (key, isa) = (
            Key::new(drop.seed, drop.purpose, 9),
            onebit_kernels_cpu::Isa::available().next().unwrap(),
        );
        onebit_kernels_cpu::dropout::dropout(isa, &values, 0.3, key, 0, &mut expected);
        assert_eq!(gpu.download(&x).unwrap(), expected);
    }
}
