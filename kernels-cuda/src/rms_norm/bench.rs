use super::*;
use crate::quantize::testing::*;

#[test]
#[ignore = "a bench"]
fn bench_norms() {
    let Some(gpu) = Gpu::for_test("bench") else { return };
    let step = gpu.upload(&[1u32]).unwrap();
    for (rows, cols) in [(65536, 512), (65536, 768), (16384, 2048), (16384, 2560), (8192, 4096)] {
        let len = rows * cols;
        let (x, dres) = (filled(&gpu, len), filled(&gpu, len));
        let (w, rstd) = (filled(&gpu, cols), filled(&gpu, rows));
        let (values, dy, plain) = (filled(&gpu, len), filled(&gpu, len), filled(&gpu, len));
        let forms = Forms::new(&gpu, rows, cols, 0.5);
        let norm_of = Norm { weight: &w, eps: 1e-5 };
        let dropout = Dropout {
            p: 0.1,
            seed: 1,
            purpose: 2,
            step: &step,
        };
        let branch = |dropout| Branch {
            values: &values,
            factor: 0.5,
            dropout,
            sum: &x,
        };
        let name = |what: &str| format!("{what} {rows}x{cols}");
        let codes = forms.codes_only();
        bench(&gpu, &name("residual_norm, int8"), 5 * len, || {
            residual_norm(&gpu, &x, None, &norm_of, &rstd, &codes).unwrap()
        });
        for (what, dropped) in [("residual_norm, branch, int8", None), ("  with dropout", Some(dropout))] {
            bench(&gpu, &name(what), 11 * len, || {
                residual_norm(&gpu, &x, Some(&branch(dropped)), &norm_of, &rstd, &codes).unwrap()
            });
        }
        bench(&gpu, &name("norm, int8"), 3 * len, || {
            norm(&gpu, &values, cols, &norm_of, &rstd, &codes).unwrap()
        });
        let (total, partials) = (filled(&gpu, cols), filled(&gpu, partial_len(cols)));
        let dw = WeightGradient {
            total: &total,
            accumulate: true,
            partials: &partials,
        };
        for (what, dropout) in [
            ("residual_norm_backward, branch", None),
            ("  with dropout", Some(dropout)),
        ] {
            let args = ResidualBackward {
                dy: &dy,
                dy2: None,
                x: &x,
                rstd: &rstd,
                weight: &w,
                dres: &dres,
                fresh: false,
                branch: Some(BranchGradient {
                    values: &values,
                    factor: 0.5,
                    dropout,
                }),
                dw,
            };
            bench(&gpu, &name(what), 16 * len, || {
                residual_norm_backward(&gpu, &args).unwrap()
            });
        }
        bench(&gpu, &name("norm_backward"), 6 * len, || {
            norm_backward(&gpu, &dy, &values, cols, &w, &rstd, &plain, &dw).unwrap()
        });
    }
}
