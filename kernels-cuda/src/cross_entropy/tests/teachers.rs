//! What teachers find likely.

use super::*;

#[test]
fn a_teacher_has_its_share() {
    let Some(gpu) = Gpu::for_test("cross-entropy, taught") else {
        return;
    };
    let key = Key::new(seed("cross-entropy, taught"), 0, 0);
    for (size, stride, rows) in [(1, 8, 3), (7, 8, 5), (50, 72, 9), (1000, 1008, 3), (20_011, 20_016, 1)] {
        for (smoothing, z_loss, share, softcap) in [
            (0.0f32, 0.0f32, 0.5f32, None),
            (0.1, 1e-3, 0.3, None),
            (0.0, 0.0, 1.0, None),
            (0.1, 1e-3, 0.3, Some(2.0f32)),
        ] {
            let v = Vocabulary {
                size,
                stride,
                smoothing,
                z_loss,
                softcap,
            };
            let (logits, targets) = random(&key, rows, v, 3.0);
            // Two teachers.
            let teachers = [1, 2].map(|i| random(&Key::new(i, 0, 0), rows, v, 2.0).0);
            let likely = gpu.poisoned::<f32>(rows * stride).unwrap();
            for (i, teacher) in teachers.iter().enumerate() {
                soften(&gpu, &gpu.upload(teacher).unwrap(), v, 0.5, i > 0, &likely).unwrap();
            }
            let found = gpu.download(&likely).unwrap();
            let array = gpu.upload(&logits).unwrap();
            let ids = gpu.upload(&targets).unwrap();
            let [lse, nll, smoothed] = [0; 3].map(|_| gpu.poisoned::<f32>(rows).unwrap());
            let losses = RowLosses {
                lse: &lse,
                nll: &nll,
                smoothed: &smoothed,
            };
            let taught = Some(Likely {
                probabilities: &likely,
                share,
            });
            cross_entropy(&gpu, &array, &ids, v, taught, 1.0, losses).unwrap();
            let (gradients, wanted) = (gpu.download(&array).unwrap(), gpu.download(&smoothed).unwrap());
            for row in 0..rows {
                let x = &logits[row * stride..][..size];
                let (share, z) = (f64::from(share), f64::from(z_loss));
                let q: Vec<f64> = (0..size)
                    .map(|j| {
                        let of = |teacher: &[bf16]| {
                            let x = capped(&teacher[row * stride..][..size], softcap);
                            x[j].exp() / x.iter().map(|x| x.exp()).sum::<f64>()
                        };
                        0.5 * (of(&teachers[0]) + of(&teachers[1]))
                    })
                    .collect();
                for (j, found) in found[row * stride..][..stride].iter().enumerate() {
                    let want = q.get(j).copied().unwrap_or(0.0);
                    assert!(
                        (f64::from(*found) - want).abs() <= 1e-5 * want + 1e-9,
                        "q, {v:?} {row} {j}"
                    );
                }
                let ([all, .., plain], hard) = oracle(x, targets[row], (f64::from(smoothing), 0.0), 1.0, softcap);
                let x = capped(x, softcap);
                let agreed: f64 = q.iter().zip(&x).map(|(q, x)| q * x).sum();
                let want = (1.0 - share) * plain + share * (all - agreed) + z * all * all;
                assert!(
                    (f64::from(wanted[row]) - want).abs() <= 4e-6 * (want.abs() + all.abs() + 10.0),
                    "{v:?} row {row}: {} for {want}",
                    wanted[row]
                );
                for (j, found) in gradients[row * stride..][..stride].iter().enumerate() {
                    let found = f64::from(found.to_f32());
                    if j >= size {
                        assert_eq!(found, 0.0);
                        continue;
                    }
                    let p = (x[j] - all).exp();
                    let slope = softcap.map_or(1.0, |cap| 1.0 - (x[j] / f64::from(cap)).powi(2));
                    // Before the cap, `hard` is p less the smoothed target.
                    let hard = hard[j] / slope;
                    let want = slope * ((1.0 + 2.0 * z * all) * p - (1.0 - share) * (p - hard) - share * q[j]);
                    let bound = want.abs() / 200.0 + 1e-5 * (p + q[j] + (p - hard).abs());
                    assert!((found - want).abs() <= bound, "{v:?} {row} {j}: {found} for {want}");
                }
            }
            let short = likely.slice(1..);
            let bad = |probabilities, share| Some(Likely { probabilities, share });
            assert!(cross_entropy(&gpu, &array, &ids, v, bad(&short, 0.5), 1.0, losses).is_err());
            assert!(cross_entropy(&gpu, &array, &ids, v, bad(&likely, 1.5), 1.0, losses).is_err());
            assert!(soften(&gpu, &array, v, 1.0, false, &short).is_err());
        }
    }
}
