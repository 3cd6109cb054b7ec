//! The passes of a rank that owns half of the matrices of the shape `1b3`.

use super::*;

#[test]
#[ignore = "a bench"]
fn bench_shards() {
    let Some(gpu) = Gpu::for_test("bench") else { return };
    let (d, f) = (2048, 5632);
    let block = [
        (3 * d, d, Ternary),
        (d, d, Ternary),
        (2 * f, d, Ternary),
        (d, f, Ternary),
    ];
    let matrices: Vec<_> = (0..24).flat_map(|_| block).collect();
    let tensors = layout(&matrices);
    let last = tensors[tensors.len() - 1];
    let n = last.codes + last.rows * last.cols;
    let own = Slice {
        first: 0,
        len: n / 2 / PIECE * PIECE,
        at: 0,
    };
    let table = ShardTable::new(&gpu, &tensors, &[own]).unwrap();
    let weights = filled(&gpu, own.len);
    let (sums, scales) = (filled(&gpu, n / PIECE), filled(&gpu, last.scales + last.rows));
    let (packed, codes, dense) = (gpu.zeros(n / 4).unwrap(), filled(&gpu, n), filled(&gpu, 2 * n));
    let counts = gpu.zeros(COUNTS * tensors.len()).unwrap();
    let all = 0..tensors.len();
    bench(&gpu, "measure half", 4 * own.len, || {
        table.measure(&gpu, &weights, &sums).unwrap()
    });
    bench(&gpu, "scale", n / 1024, || table.scale(&gpu, &sums, &scales).unwrap());
    bench(&gpu, "pack half", 4 * own.len + own.len / 4, || {
        table.pack(&gpu, 0..1, &weights, &packed).unwrap()
    });
    bench(&gpu, "unpack codes", n + n / 4, || {
        table.unpack(&gpu, all.clone(), &packed, Some(&codes), None).unwrap()
    });
    bench(&gpu, "unpack dense", 2 * n + n / 4, || {
        table.unpack(&gpu, all.clone(), &packed, None, Some(&dense)).unwrap()
    });
    bench(&gpu, "statistics half", 4 * own.len + own.len / 4, || {
        table.statistics(&gpu, &weights, Some(&packed), &counts).unwrap()
    });
}
