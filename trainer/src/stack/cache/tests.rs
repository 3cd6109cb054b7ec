//! The budget, and who makes way for whom.

use onebit_engine::rng::Key;

use super::*;
use crate::stack::testing::{Trouble, Watched, size};
use crate::storage::Disk;

/// Shards of these lengths, as files that hold anything.
fn shards(hub: &Path, lengths: &[u64]) -> Vec<Shard> {
    let shard = |(i, &bytes): (usize, &u64)| {
        let path = format!("data/{i}.parquet");
        fs::create_dir_all(hub.join("data")).unwrap();
        fs::write(hub.join(&path), vec![i as u8; bytes as usize]).unwrap();
        Shard {
            id: format!("s{i}"),
            language: "c".into(),
            path,
            bytes,
            sha256: None,
            dataset: "d".into(),
            revision: "r".into(),
        }
    };
    lengths.iter().enumerate().map(shard).collect()
}

struct Setting {
    _folder: tempfile::TempDir,
    root: PathBuf,
    shards: Vec<Shard>,
    fetch: Arc<Watched>,
    never: AtomicBool,
}

/// What the lock takes.
fn lock_bytes() -> u64 {
    std::process::id().to_string().len() as u64
}

impl Setting {
    fn new(lengths: &[u64]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (hub, root) = (folder.path().join("hub"), folder.path().join("cache"));
        Setting {
            shards: shards(&hub, lengths),
            fetch: Watched::new(&hub, &root),
            root,
            _folder: folder,
            never: AtomicBool::new(false),
        }
    }

    fn open(&self, budget: u64) -> Arc<Cache> {
        Cache::open(&self.root, budget + lock_bytes(), Arc::new(Disk)).unwrap()
    }

    fn obtain(&self, cache: &Arc<Cache>, shard: usize, last: &[usize]) -> Result<Pin> {
        let last = last.iter().map(|&i| file_name(&self.shards[i])).collect();
        cache.obtain(&self.shards[shard], &last, &*self.fetch, &self.never)
    }

    fn fetched(&self) -> Vec<String> {
        std::mem::take(&mut *self.fetch.fetches.lock().unwrap())
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.root).unwrap().flatten();
        let mut names: Vec<String> = names.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
        names.retain(|name| name != ".lock");
        names.sort();
        names
    }
}

#[test]
fn the_least_recently_used_goes_and_the_last_ones_go_last() {
    let s = Setting::new(&[100; 6]);
    let cache = s.open(300);
    for shard in [0, 1, 2, 0, 1] {
        drop(s.obtain(&cache, shard, &[]).unwrap());
    }
    assert_eq!(s.fetched(), ["s0", "s1", "s2"]);
    // 2 is the oldest; then 0, but for its being one of the last.
    drop(s.obtain(&cache, 3, &[]).unwrap());
    drop(s.obtain(&cache, 4, &[0, 3]).unwrap());
    let mut expected: Vec<String> = [0, 3, 4].map(|i| file_name(&s.shards[i])).into();
    expected.sort();
    assert_eq!(s.files(), expected);
    // When there is no other way they go, too.
    drop(s.obtain(&cache, 5, &[0, 3, 4]).unwrap());
    assert!(!s.files().contains(&file_name(&s.shards[0])));
    assert_eq!(s.fetched(), ["s3", "s4", "s5"]);
}

#[test]
fn what_is_at_work_stays_and_a_fetch_waits_for_it() {
    let s = Setting::new(&[100; 3]);
    let cache = s.open(200);
    let (zero, one) = (s.obtain(&cache, 0, &[]).unwrap(), s.obtain(&cache, 1, &[]).unwrap());
    std::thread::scope(|scope| {
        let third = scope.spawn(|| s.obtain(&cache, 2, &[]).unwrap());
        while s.fetched().len() < 2 {
            std::thread::yield_now();
        }
        assert!(!third.is_finished() && zero.path().is_file() && one.path().is_file());
        drop(one);
        assert!(third.join().unwrap().path().is_file());
    });
    assert!(zero.path().is_file());
    let stopped = AtomicBool::new(true);
    let error = cache.obtain(&s.shards[1], &HashSet::new(), &*s.fetch, &stopped);
    assert!(error.is_ok(), "2 is not at work any more");
    let one = error.unwrap();
    let error = cache
        .obtain(&s.shards[2], &HashSet::new(), &*s.fetch, &stopped)
        .err()
        .unwrap();
    assert!(matches!(error, TrainError::Stack(StackError::Stopped)), "{error}");
    drop(one);
}

#[test]
fn what_lies_there_counts_whoever_put_it_there() {
    let s = Setting::new(&[100, 100, 100, 150]);
    fs::create_dir_all(s.root.join("mine")).unwrap();
    fs::write(s.root.join("mine/notes.txt"), [0; 60]).unwrap();
    let cache = s.open(260);
    for shard in 0..3 {
        drop(s.obtain(&cache, shard, &[]).unwrap());
        assert!(size(&s.root) <= 260 + lock_bytes());
    }
    assert!(s.root.join("mine/notes.txt").is_file());
    fs::write(s.root.join("more"), [0; 60]).unwrap();
    drop(s.obtain(&cache, 0, &[]).unwrap());
    assert!(
        size(&s.root) <= 260 + lock_bytes(),
        "somebody else's file counts as soon as it is there"
    );
    let error = s.obtain(&cache, 3, &[]).err().unwrap().to_string();
    assert!(
        error.contains("shard s3 has 150 bytes") && error.contains("has room for 140"),
        "{error}"
    );
    assert!(cache.check(s.shards[..3].iter()).is_ok());
    let error = cache.check(s.shards.iter()).unwrap_err().to_string();
    assert!(
        error.contains("shard s3") && error.contains("--disk-budget-gb"),
        "{error}"
    );
}

#[test]
fn what_an_earlier_run_left_is_used_or_goes() {
    let s = Setting::new(&[100; 5]);
    {
        let cache = s.open(500);
        (0..4).for_each(|shard| drop(s.obtain(&cache, shard, &[]).unwrap()));
        s.fetch.trouble("s4", Trouble::Cut);
        assert!(s.obtain(&cache, 4, &[]).is_err());
        assert_eq!(size(&s.root), 445 + lock_bytes());
        let error = Cache::open(&s.root, 1, Arc::new(Disk)).err().unwrap().to_string();
        assert!(error.contains("another run is at work"), "{error}");
    }
    // One was cut off by a power failure.
    fs::write(s.root.join(file_name(&s.shards[1])), [1; 40]).unwrap();
    s.fetched();
    let cache = s.open(500);
    for shard in 0..5 {
        let pin = s.obtain(&cache, shard, &[]).unwrap();
        assert_eq!(fs::read(pin.path()).unwrap(), [shard as u8; 100]);
    }
    assert_eq!(s.fetched(), ["s1", "s4"]);
    drop(cache);
    // A smaller budget holds from the first moment.
    let cache = s.open(250);
    assert_eq!(s.files().len(), 2);
    drop(cache);
}

#[test]
fn a_full_disk_makes_room_or_says_so() {
    let s = Setting::new(&[100; 3]);
    let cache = s.open(1000);
    let zero = s.obtain(&cache, 0, &[]).unwrap();
    drop(s.obtain(&cache, 1, &[]).unwrap());
    s.fetch.trouble("s2", Trouble::Full);
    drop(s.obtain(&cache, 2, &[]).unwrap());
    assert!(zero.path().is_file() && !s.files().contains(&file_name(&s.shards[1])));
    s.fetch.trouble("s1", Trouble::Full);
    s.fetch.trouble("s1", Trouble::Full);
    let error = s.obtain(&cache, 1, &[]).err().unwrap().to_string();
    assert!(error.contains("make room there"), "{error}");
    drop(s.obtain(&cache, 1, &[]).unwrap());
}

/// Storage that knows of less room than there is.
#[derive(Debug)]
struct Small(u64);

impl Storage for Small {
    fn create_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.create_directory(path)
    }
    fn create(&self, path: &Path) -> std::io::Result<Box<dyn crate::storage::Output>> {
        Disk.create(path)
    }
    fn append(&self, path: &Path, length: u64) -> std::io::Result<Box<dyn crate::storage::Output>> {
        Disk.append(path, length)
    }
    fn sync_file(&self, path: &Path) -> std::io::Result<()> {
        Disk.sync_file(path)
    }
    fn sync_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.sync_directory(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> std::io::Result<()> {
        Disk.rename(from, to)
    }
    fn remove_directory(&self, path: &Path) -> std::io::Result<()> {
        Disk.remove_directory(path)
    }
    fn free_space(&self, path: &Path) -> std::io::Result<Option<u64>> {
        Ok(Some((MARGIN + self.0).saturating_sub(size(path))))
    }
}

#[test]
fn the_disk_may_have_less_room_than_the_budget() {
    let s = Setting::new(&[100; 3]);
    let cache = Cache::open(&s.root, 1000, Arc::new(Small(250))).unwrap();
    for shard in 0..3 {
        drop(s.obtain(&cache, shard, &[]).unwrap());
    }
    assert_eq!(s.files().len(), 2);
    drop(cache);
    let cache = Cache::open(&s.root, 1000, Arc::new(Small(50))).unwrap();
    let error = s.obtain(&cache, 0, &[]).err().unwrap().to_string();
    assert!(error.contains("are free") && error.contains("shard s0"), "{error}");
}

/// Whatever is done in whatever order: never more than the budget, and what is held is never taken away.
#[test]
fn the_budget_holds_in_any_order() {
    for seed in 0..20 {
        let key = Key::new(seed, 21, 0);
        let lengths: Vec<u64> = (0..12).map(|i| u64::from(20 + key.below(i, 180))).collect();
        let s = Setting::new(&lengths);
        let budget = 450 + u64::from(key.below(100, 300));
        let mut cache = s.open(budget);
        let mut held: Vec<(usize, Pin)> = Vec::new();
        for step in 0..150u64 {
            let draw = |n: u64, bound: u32| key.below(1000 + 8 * step + n, bound) as usize;
            match draw(0, 10) {
                0..=6 => {
                    if held.len() == 2 {
                        held.remove(draw(1, 2));
                    }
                    let (shard, last) = (draw(2, 12), [draw(3, 12), draw(4, 12)]);
                    match draw(5, 12) {
                        0 => s.fetch.trouble(&s.shards[shard].id, Trouble::Cut),
                        1 => s.fetch.trouble(&s.shards[shard].id, Trouble::Full),
                        _ => {}
                    }
                    if let Ok(pin) = s.obtain(&cache, shard, &last) {
                        held.push((shard, pin));
                    }
                    s.fetch.troubles.lock().unwrap().clear();
                }
                7 => held.clear(),
                8 => {
                    held.clear();
                    drop(cache);
                    cache = s.open(budget);
                }
                _ => {
                    if let Some((shard, pin)) = held.first() {
                        cache.renew(pin, &s.shards[*shard], &*s.fetch, &s.never).unwrap();
                    }
                }
            }
            s.fetch.look();
            for (shard, pin) in &held {
                assert_eq!(fs::metadata(pin.path()).unwrap().len(), lengths[*shard]);
            }
            let state = cache.state();
            assert!(state.held() <= budget, "{} of {budget}", state.held());
            let on_disk = size(&s.root) - lock_bytes();
            assert!(
                on_disk <= state.held(),
                "{on_disk} bytes are there and {} are known",
                state.held()
            );
        }
        let most = s.fetch.most.load(Ordering::Relaxed);
        assert!(most <= budget + lock_bytes(), "{most} of {budget}");
        assert!(most > budget / 2, "the budget was put to use");
    }
}
