//! How fast the passes over the arenas are.

use super::*;

#[test]
#[ignore = "a bench"]
fn bench_optimizer() {
    let Some(gpu) = Gpu::for_test("bench of the optimiser") else {
        return;
    };
    let step = Step::new(&gpu);
    gpu.write(&step.scalars, &StepScalars::new(9, 1e-3, 0.1, 0.9, 0.95).words())
        .unwrap();
    let time = |name: &str, n: usize, bytes: usize, run: &dyn Fn() -> Result<()>| {
        let mut times: Vec<f64> = (0..11)
            .map(|_| {
                let start = gpu.mark().unwrap();
                run().unwrap();
                gpu.mark().unwrap().seconds_since(&start).unwrap()
            })
            .collect();
        times.sort_by(f64::total_cmp);
        println!(
            "{name} n = {n}: {:.3} ms, {:.0} GB/s",
            times[5] * 1e3,
            (bytes * n) as f64 / times[5] / 1e9
        );
    };
    let constants = AdamW {
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
    };
    let fits = |n: &usize| *n as u64 * 18 < gpu.free_memory().unwrap();
    for n in [28_000_000, 134_000_000, 1_400_000_000]
        .map(|n: usize| n.next_multiple_of(BLOCK))
        .into_iter()
        .filter(fits)
    {
        let [p, g, m, v] = [0; 4].map(|_| gpu.zeros::<f32>(n).unwrap());
        // Zeros would take the slow way through divisions.
        for array in [&p, &g, &m, &v] {
            gpu.fill_bytes(array, 0x3c).unwrap();
        }
        let half = g.slice(..n / 2).cast::<bf16>();
        let decay = gpu.zeros::<u8>(n / BLOCK).unwrap();
        let (s, guard) = (&step.scalars, &step.guard);
        let norm = |g| global_norm(&gpu, &[g], &step.losses, 1.0, s, &step.partials, guard);
        time("global_norm", n, 4, &|| norm(Gradients::F32(&g)));
        time("global_norm bf16", n, 2, &|| norm(Gradients::Bf16(&half)));
        time("adamw", n, 28, &|| {
            adamw(&gpu, constants, &p, Gradients::F32(&g), (&m, &v), &decay, s, guard)
        });
        time("adamw bf16 gradients", n, 26, &|| {
            adamw(&gpu, constants, &p, Gradients::Bf16(&half), (&m, &v), &decay, s, guard)
        });
        let scales = n / BLOCK;
        let moments = EightBitMoments {
            first: &m.cast::<i8>().slice(..n),
            second: &v.cast::<u8>().slice(..n),
            first_scale: &m.slice(n - scales..),
            second_scale: &v.slice(n - scales..),
            element: 0,
        };
        time("adamw8bit", n, 12 + 4, &|| {
            adamw8bit(&gpu, constants, &p, Gradients::F32(&g), moments, &decay, s, guard)
        });
        time("adamw8bit bf16 gradients", n, 10 + 4, &|| {
            adamw8bit(&gpu, constants, &p, Gradients::Bf16(&half), moments, &decay, s, guard)
        });
        time("zero", n, 4, &|| zero(&gpu, &v));
    }
    let n = 4096 * 14_336;
    let [p, g, m] = [0; 3].map(|_| gpu.zeros::<f32>(n).unwrap());
    let [x, y] = [0; 2].map(|_| gpu.zeros::<bf16>(n).unwrap());
    let batch = muon::Batch::new(&gpu, gpu.zeros(1).unwrap(), &[0], n).unwrap();
    time("muon momentum", n, 12, &|| {
        muon::momentum(&gpu, &batch, &g, &m, 0.95, &step.guard, &step.partials)
    });
    time("muon normalize", n, 10, &|| {
        muon::normalize(&gpu, &batch, &g, &m, 0.95, &step.guard, &step.partials, &x)
    });
    time("muon combine", n, 6, &|| muon::combine(&gpu, (1.0, &x), (2.0, &y), &y));
    time("muon update", n, 10, &|| {
        muon::update(&gpu, &batch, &p, &x, 1.0, &step.scalars, &step.guard)
    });
}
