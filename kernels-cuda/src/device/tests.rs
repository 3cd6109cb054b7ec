use super::*;

#[test]
fn arrays_hold_what_was_written() {
    let Some(gpu) = Gpu::for_test("arrays") else { return };
    let values: Vec<u32> = (0..1000).collect();
    let array = gpu.upload(&values).unwrap();
    assert_eq!(gpu.download(&array).unwrap(), values);
    assert_eq!(gpu.download(&array.slice(10..20)).unwrap(), values[10..20]);
    let other = gpu.zeros::<u32>(1000).unwrap();
    assert!(gpu.download(&other).unwrap().iter().all(|&v| v == 0));
    gpu.copy(&array, &other).unwrap();
    assert_eq!(gpu.download(&other).unwrap(), values);
    assert!(gpu.write(&array, &values[1..]).is_err());
}

#[test]
fn a_recording_runs_again_and_keeps_its_memory() {
    let Some(gpu) = Gpu::for_test("recordings") else { return };
    let from = gpu.upload(&[7u32; 64]).unwrap();
    let to = gpu.zeros::<u32>(64).unwrap();
    let graph = gpu.record(|| gpu.copy(&from, &to)).unwrap();
    drop(from);
    assert_eq!(gpu.download(&to).unwrap(), [0; 64]);
    graph.launch().unwrap();
    assert_eq!(gpu.download(&to).unwrap(), [7; 64]);
    let (mut there, back) = (gpu.pinned::<u32>(64).unwrap(), gpu.pinned::<u32>(64).unwrap());
    gpu.write_pinned(&to, &back).unwrap();
    gpu.read_pinned(&to, &mut there).unwrap();
    gpu.mark().unwrap().wait().unwrap();
    assert_eq!(there.as_slice(), [0; 64]);
}

#[test]
fn a_plan_knows_what_an_arena_needs() {
    fn arrays(arena: &mut Arena) -> (DeviceArray<f32>, DeviceArray<u8>) {
        (arena.take(100), arena.take(3))
    }
    let mut plan = Arena::plan();
    let (floats, bytes) = arrays(&mut plan);
    assert_eq!((floats.len(), bytes.len(), plan.used()), (100, 3, 768));
    let Some(gpu) = Gpu::for_test("arenas") else { return };
    let mut arena = Arena::new(&gpu, plan.used()).unwrap();
    let (floats, bytes) = arrays(&mut arena);
    gpu.write(&bytes, &[1, 2, 3]).unwrap();
    assert_eq!(gpu.download(&floats).unwrap(), [0.0; 100]);
    assert_eq!(gpu.download(&bytes).unwrap(), [1, 2, 3]);
}

#[test]
fn what_is_staged_arrives_whole_and_in_order() {
    let Some(gpu) = Gpu::for_test("staging") else { return };
    let mut staging = Staging::new(&gpu).unwrap();
    let whole = Staging::CHUNK / 4;
    for len in [0, 1, whole - 1, whole, whole + 1, 2 * whole, 3 * whole + 5] {
        let values: Vec<u32> = (0..len as u32).map(|i| i.wrapping_mul(2_654_435_761)).collect();
        let array = gpu.upload(&values).unwrap();
        let mut found = Vec::new();
        staging
            .read(&array, |first, piece: &[u32]| {
                assert_eq!(first, found.len());
                found.extend_from_slice(piece);
            })
            .unwrap();
        assert!(found == values, "{len}");
    }
}
