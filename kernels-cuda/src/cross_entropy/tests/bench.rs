//! Losses and gradients of large vocabularies, timed.

use super::*;

#[test]
#[ignore = "a bench"]
fn bench_cross_entropy() {
    let Some(gpu) = Gpu::for_test("bench of cross-entropy") else {
        return;
    };
    for (rows, size) in [(16_384, 8192), (4096, 32_768), (2048, 128_256)] {
        for smoothing in [0.0, 0.1] {
            let v = Vocabulary {
                size,
                stride: size,
                smoothing,
                z_loss: 0.0,
                softcap: None,
            };
            let (row, targets) = random(&Key::new(1, 0, 0), 16, v, 3.0);
            let logits = gpu.upload(&row.repeat(rows / 16)).unwrap();
            let ids = gpu.upload(&targets.repeat(rows / 16)).unwrap();
            let [lse, nll, smoothed] = [0; 3].map(|_| gpu.zeros::<f32>(rows).unwrap());
            let losses = RowLosses {
                lse: &lse,
                nll: &nll,
                smoothed: &smoothed,
            };
            for (name, bytes, gradient) in [("evaluate", 2, false), ("gradient", 4, true)] {
                let mut times: Vec<f64> = (0..15)
                    .map(|_| {
                        let start = gpu.mark().unwrap();
                        if gradient {
                            cross_entropy(&gpu, &logits, &ids, v, None, 1e-4, losses).unwrap();
                        } else {
                            cross_entropy_evaluate(&gpu, &logits, &ids, v, losses).unwrap();
                        }
                        gpu.mark().unwrap().seconds_since(&start).unwrap()
                    })
                    .collect();
                times.sort_by(f64::total_cmp);
                let rate = (bytes * rows * size) as f64 / times[7] / 1e9;
                println!(
                    "cross_entropy {name} [{rows}, {size}] smoothing {smoothing}: {:.1} us, {rate:.0} GB/s",
                    times[7] * 1e6
                );
            }
        }
    }
    let rows = 65_536;
    let [nll, smoothed, sums] = [rows, rows, 2].map(|n| gpu.zeros::<f32>(n).unwrap());
    let slot = gpu.zeros::<u32>(1).unwrap();
    let mut times: Vec<f64> = (0..15)
        .map(|_| {
            let start = gpu.mark().unwrap();
            loss_sums(&gpu, &nll, &smoothed, &slot, &sums).unwrap();
            gpu.mark().unwrap().seconds_since(&start).unwrap()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("loss_sums [{rows}]: {:.1} us", times[7] * 1e6);
}
