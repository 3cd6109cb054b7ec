use super::*;

#[test]
#[ignore = "a bench"]
fn bench_weights() {
    let Some(gpu) = Gpu::for_test("bench") else { return };
    let block = |d: usize, f: usize| {
        [
            (3 * d, d, Ternary),
            (d, d, Ternary),
            (2 * f, d, Ternary),
            (d, f, Ternary),
        ]
    };
    for (name, layers, d, f) in [("125m", 12, 768, 2048), ("1b3", 24, 2048, 5632)] {
        let matrices: Vec<_> = (0..layers).flat_map(|_| block(d, f)).collect();
        let tensors = layout(&matrices);
        let len = tensors.last().unwrap().master + tensors.last().unwrap().len();
        let table = WeightTable::new(&gpu, &tensors).unwrap();
        let master = filled(&gpu, len);
        let (scales, codes, dense) = (filled(&gpu, len), filled(&gpu, 2 * len), filled(&gpu, 2 * len));
        let all = 0..tensors.len();
        let time = |what: &str, which: &Range<usize>, bytes: usize, run: &dyn Fn()| {
            let part = which.len() as f64 / tensors.len() as f64;
            let bytes = (bytes as f64 * len as f64 * part) as usize;
            bench(&gpu, &format!("{name} {what}, {} tensors", which.len()), bytes, run);
        };
        for which in [all.clone(), 0..4] {
            time("measure", &which, 4, &|| {
                table.measure(&gpu, which.clone(), &master, &scales).unwrap()
            });
        }
        for (what, a) in [("write, hard", 1.0f32), ("write, soft", 0.5)] {
            let anneal = gpu.upload(&[a]).unwrap();
            time(what, &all, 7, &|| {
                table
                    .write(&gpu, all.clone(), &master, &scales, Some(&codes), Some(&dense), &anneal)
                    .unwrap()
            });
        }
        let counts = gpu.zeros::<u32>(COUNTS * tensors.len()).unwrap();
        time("statistics", &all, 5, &|| {
            table
                .statistics(&gpu, all.clone(), &master, Some(&codes), &counts)
                .unwrap()
        });
    }
}
