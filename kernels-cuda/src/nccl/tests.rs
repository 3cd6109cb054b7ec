//! Every test runs itself again as so many processes, each a rank with a GPU of its own.

use std::env;
use std::process::{Child, Command, Stdio};

use super::*;
use crate::elementwise::add;
use crate::{Arena, driver};

const RANK: &str = "ONEBIT_TEST_RANK";
const SIZE: &str = "ONEBIT_TEST_RANKS";
const ID: &str = "ONEBIT_TEST_ID";

/// Runs `body` as each of as many ranks as there are GPUs, up to `most`; not where there is one alone. `name` is the test's own path.
fn as_ranks(name: &str, most: usize, body: impl Fn(&Gpu, &Communicator)) {
    if let (Ok(rank), Ok(size), Ok(id)) = (env::var(RANK), env::var(SIZE), env::var(ID)) {
        let (rank, size) = (rank.parse().unwrap(), size.parse().unwrap());
        let mut bytes = [0; UniqueId::BYTES];
        for (i, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&id[2 * i..2 * i + 2], 16).unwrap();
        }
        let gpu = Gpu::open(rank).unwrap();
        let links = Communicator::new(&gpu, &UniqueId::from_bytes(bytes), rank, size).unwrap();
        return body(&gpu, &links);
    }
    let found = match driver() {
        Ok(driver) => driver.devices,
        Err(error) => return println!("SKIPPED (no GPU): {name}; {error}"),
    };
    // An emulated machine has as many as it is told to have.
    let emulated = found.iter().all(|(name, _)| name == "emulated");
    let size = if emulated { most } else { most.min(found.len()) };
    if size < 2 {
        return println!("SKIPPED (one GPU): {name}");
    }
    let id: String = UniqueId::new()
        .unwrap()
        .to_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let rank = |rank: usize| {
        Command::new(env::current_exe().unwrap())
            .args([&format!("nccl::tests::{name}"), "--exact", "--nocapture"])
            .envs([(RANK, rank.to_string()), (SIZE, size.to_string()), (ID, id.clone())])
            .env("ONEBIT_EMULATOR_GPUS", size.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let ranks: Vec<Child> = (0..size).map(rank).collect();
    for (rank, child) in ranks.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "rank {rank}: {text}");
        assert!(text.contains("1 passed"), "rank {rank} ran no test: {text}");
    }
    println!("ran as {size} ranks: {name}");
}

/// What rank `rank` has at `i`: small whole numbers, whose sums are exact in every type.
fn value(rank: usize, i: usize) -> f32 {
    ((i * 7 + rank * 13) % 61) as f32 - 20.0
}

fn values(rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| value(rank, i)).collect()
}

fn sums(size: usize, len: usize) -> Vec<f32> {
    (0..len).map(|i| (0..size).map(|rank| value(rank, i)).sum()).collect()
}

fn finished(gpu: &Gpu, links: &Communicator) {
    links.join().unwrap();
    gpu.synchronize().unwrap();
}

#[test]
fn sums_of_every_type() {
    as_ranks("sums_of_every_type", 3, |gpu, links| {
        // The last is more than a window of the emulation, and no multiple of one.
        for len in [1, 5, 256, 1000, 300_001] {
            let mine = values(links.rank(), len);
            let wide = gpu.upload(&mine).unwrap();
            let narrow: Vec<bf16> = mine.iter().map(|&v| bf16::from_f32(v)).collect();
            let narrow = gpu.upload(&narrow).unwrap();
            let whole: Vec<u32> = mine.iter().map(|&v| (v + 100.0) as u32).collect();
            let whole = gpu.upload(&whole).unwrap();
            links.fork().unwrap();
            links.all_reduce(&wide).unwrap();
            links.all_reduce(&narrow).unwrap();
            links.all_reduce(&whole).unwrap();
            finished(gpu, links);
            let expected = sums(links.size(), len);
            assert_eq!(gpu.download(&wide).unwrap(), expected);
            let narrow: Vec<f32> = gpu.download(&narrow).unwrap().iter().map(|v| v.to_f32()).collect();
            assert_eq!(narrow, expected);
            let whole: Vec<f32> = gpu.download(&whole).unwrap().iter().map(|&v| v as f32).collect();
            let shifted: Vec<f32> = expected.iter().map(|v| v + 100.0 * links.size() as f32).collect();
            assert_eq!(whole, shifted);
        }
    });
}

#[test]
fn parts_are_summed_and_gathered() {
    as_ranks("parts_are_summed_and_gathered", 3, |gpu, links| {
        for part in [1, 64, 4096, 100_001] {
            let len = part * links.size();
            let array = gpu.upload(&values(links.rank(), len)).unwrap();
            links.fork().unwrap();
            links.reduce_scatter(&array).unwrap();
            finished(gpu, links);
            let expected = sums(links.size(), len);
            let own = links.part(len);
            assert_eq!(
                gpu.download(&array.slice(own.clone())).unwrap(),
                expected[own],
                "{part}"
            );
            links.fork().unwrap();
            links.all_gather(&array).unwrap();
            finished(gpu, links);
            assert_eq!(gpu.download(&array).unwrap(), expected);
        }
        let uneven = gpu.zeros::<f32>(links.size() + 1).unwrap();
        assert!(links.reduce_scatter(&uneven).is_err());
        assert!(links.all_gather(&uneven).is_err());
        // Nothing is no reason to wait for anybody.
        links.all_reduce(&uneven.slice(..0)).unwrap();
    });
}

/// What a training step does: sums of one part beside the making of the next, recorded once, run again.
#[test]
fn sums_in_a_recording() {
    as_ranks("sums_in_a_recording", 2, |gpu, links| {
        const LEN: usize = 10_000;
        let mut arena = Arena::new(gpu, 8 * LEN * size_of::<bf16>()).unwrap();
        let [first, second, source] = [(); 3].map(|()| arena.take::<bf16>(LEN));
        let ones = vec![bf16::ONE; LEN];
        gpu.write(&source, &ones).unwrap();
        let step = gpu
            .record(|| {
                add(gpu, &first, &source)?;
                links.fork()?;
                links.all_reduce(&first)?;
                add(gpu, &second, &source)?;
                links.fork()?;
                links.all_reduce(&second)?;
                links.join()?;
                add(gpu, &first, &second)
            })
            .unwrap();
        let (mut a, mut b) = (0.0, 0.0);
        let size = links.size() as f32;
        for _ in 0..4 {
            step.launch().unwrap();
            (a, b) = (size * (a + 1.0) + size * (b + 1.0), size * (b + 1.0));
            let found = [&first, &second].map(|array| gpu.download(array).unwrap());
            assert!(found[0].iter().all(|v| v.to_f32() == a), "{} {a}", found[0][0]);
            assert!(found[1].iter().all(|v| v.to_f32() == b), "{} {b}", found[1][0]);
        }
    });
}

#[test]
fn a_library_that_is_none_is_said_to_be_so() {
    let error = CudaError::NoNccl {
        why: "libnccl.so.2: not found".into(),
    };
    assert!(error.to_string().contains("ONEBIT_NCCL"), "{error}");
    match version() {
        Ok(version) => println!("NCCL {version}"),
        Err(error) => assert!(error.to_string().contains("NCCL"), "{error}"),
    }
}
