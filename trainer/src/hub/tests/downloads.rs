//! Downloads: whole and right, or a named error with what is there kept.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use super::*;
use crate::hub::fake::Fault;

/// A folder and the path of a download in it.
fn target() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("shard.parquet");
    (dir, to)
}

/// `fault` for the requests of bytes, as many times as `times`.
fn first_times(times: usize, fault: Fault) -> impl FnMut(&crate::hub::fake::Asked) -> Option<Fault> + Send {
    let mut left = times;
    move |asked| {
        (asked.elsewhere && left > 0).then(|| {
            left -= 1;
            fault.clone()
        })
    }
}

#[test]
fn a_file_comes_whole_and_the_token_stays_at_the_hub() {
    let hub = hub(300_000);
    hub.contents().token = Some("hf_secret".into());
    let client = client(&hub, Some("hf_secret"));
    let (_dir, to) = target();
    for path in [LARGE, SMALL] {
        download(&client, &described(&hub, path), &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), hub.contents().files[path]);
        assert_eq!(part(&to), None);
    }
    let log = hub.log();
    assert_eq!(log.iter().filter(|asked| asked.elsewhere).count(), 1);
    for asked in &log {
        assert_eq!(asked.token.is_some(), !asked.elsewhere, "{asked:?}");
    }
    assert!(log[0].path.contains("data/c%2B%2B/train"), "{:?}", log[0]);
}

#[test]
fn what_passes_is_tried_again() {
    let faults = [
        Fault::Closed,
        Fault::Cut(0),
        Fault::Cut(70_001),
        Fault::Answer(429, vec![("Retry-After", "0".into())], vec![]),
        Fault::Answer(503, vec![], vec![]),
        Fault::Answer(500, vec![], b"oops".to_vec()),
        // A signed address that has expired: the Hub is asked for another.
        Fault::Answer(403, vec![], vec![]),
        Fault::Wrong,
        Fault::Longer(5),
        Fault::Shorter(5),
        Fault::Unannounced(5),
    ];
    for fault in faults {
        let hub = hub(300_000);
        hub.script(first_times(1, fault.clone()));
        let (_dir, to) = target();
        download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(fs::read(&to).unwrap(), hub.contents().files[LARGE], "{fault:?}");
        assert_eq!(part(&to), None);
    }
}

#[test]
fn what_does_not_pass_is_an_error_with_its_name() {
    let (wrong, longer) = (Fault::Wrong, Fault::Longer(1));
    let always: [(Fault, fn(&HubError) -> bool, bool); 8] = [
        (wrong, |e| matches!(e, HubError::Checksum { .. }), false),
        (longer, |e| matches!(e, HubError::Length { .. }), false),
        (Fault::Shorter(1), |e| matches!(e, HubError::Length { .. }), false),
        (Fault::Unannounced(1), |e| matches!(e, HubError::Length { .. }), false),
        (
            Fault::Closed,
            |e| matches!(e, HubError::Unreachable { attempts: 4, .. }),
            true,
        ),
        (Fault::Cut(0), |e| matches!(e, HubError::Unreachable { .. }), true),
        (
            Fault::Answer(503, vec![], vec![]),
            |e| matches!(e, HubError::Unreachable { what, .. } if what.contains("503")),
            true,
        ),
        (
            Fault::Answer(404, vec![], vec![]),
            |e| matches!(e, HubError::Status { status: 404, address, .. } if !address.contains("secret")),
            true,
        ),
    ];
    for (fault, expected, part_stays) in always {
        let hub = hub(300_000);
        hub.script(first_times(usize::MAX, fault.clone()));
        let (_dir, to) = target();
        let error = download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap_err();
        assert!(expected(&error), "{fault:?}: {error}");
        assert!(!to.exists());
        assert_eq!(part(&to).is_some(), part_stays, "{fault:?}");
        let asked = hub.log().iter().filter(|asked| asked.elsewhere).count();
        assert!(asked <= 4, "{fault:?}: {asked} attempts");
    }
}

#[test]
fn a_cut_at_every_64_kilobytes_loses_nothing() {
    let hub = hub(5 << 20);
    hub.script(|asked| asked.elsewhere.then_some(Fault::Cut(64 << 10)));
    let (_dir, to) = target();
    download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), hub.contents().files[LARGE]);
    // Each byte came once.
    let starts: Vec<u64> = hub
        .log()
        .iter()
        .filter(|a| a.elsewhere)
        .map(|a| a.from.unwrap_or(0))
        .collect();
    let expected: Vec<u64> = (0..80).map(|i| i << 16).collect();
    assert_eq!(starts, expected);
}

#[test]
fn a_server_without_ranges_begins_anew_and_does_not_go_on_for_ever() {
    let hub = hub(300_000);
    let mut cuts = 2;
    hub.script(move |asked| {
        let cut = asked.elsewhere && cuts > 0;
        cuts -= usize::from(cut);
        asked
            .elsewhere
            .then_some(if cut { Fault::WholeCut(100_000) } else { Fault::Whole })
    });
    let (_dir, to) = target();
    let file = described(&hub, LARGE);
    download(&client(&hub, None), &file, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), hub.contents().files[LARGE]);

    hub.script(|asked| asked.elsewhere.then_some(Fault::WholeCut(100_000)));
    let before = hub.log().len();
    let (_dir, to) = target();
    let error = download(&client(&hub, None), &file, &to).unwrap_err();
    assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    // The first, which got further than what was there, and as many as are borne.
    assert_eq!(hub.log()[before..].iter().filter(|a| a.elsewhere).count(), 4);
}

#[test]
fn what_an_earlier_call_left_is_taken_up_or_thrown_away() {
    let hub = hub(300_000);
    let client = client(&hub, None);
    let whole = hub.contents().files[LARGE].clone();
    let file = described(&hub, LARGE);
    let longer = [&whole[..], b"more"].concat();
    let other = noise(200_000, 9);
    let cases: [(&[u8], &[Option<u64>]); 6] = [
        (&whole[..1], &[Some(1)]),
        (&whole[..200_000], &[Some(200_000)]),
        (&whole, &[]),
        (&longer, &[None]),
        // Of another file: the checksum tells, and it is begun anew.
        (&other, &[Some(200_000), None]),
        (b"", &[None]),
    ];
    for (left, expected) in cases {
        let (_dir, to) = target();
        fs::write(to.with_extension("parquet.part"), left).unwrap();
        let before = hub.log().len();
        download(&client, &file, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), whole);
        let asked: Vec<_> = hub.log()[before..]
            .iter()
            .filter(|a| a.elsewhere)
            .map(|a| a.from)
            .collect();
        assert_eq!(asked, expected, "{} bytes were there", left.len());
    }
    // Without a checksum nothing is taken up.
    let (_dir, to) = target();
    let unknown = HubFile { sha256: None, ..file };
    fs::write(to.with_extension("parquet.part"), &other).unwrap();
    download(&client, &unknown, &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), whole);
}

#[test]
fn a_token_that_expires_in_the_middle_says_so_and_keeps_what_came() {
    let hub = Arc::new(hub(300_000));
    hub.contents().token = Some("old".into());
    let (_dir, to) = target();
    let file = described(&hub, LARGE);
    let mut first = true;
    hub.script(move |asked| {
        if asked.elsewhere {
            return Some(Fault::Cut(120_000));
        }
        let expired = !std::mem::take(&mut first);
        expired.then(|| Fault::Answer(401, vec![], vec![]))
    });
    let error = download(&client(&hub, Some("old")), &file, &to).unwrap_err();
    assert!(matches!(error, HubError::TokenExpired { .. }), "{error}");
    assert!(error.to_string().contains("HF_TOKEN"), "{error}");
    assert_eq!(part(&to).unwrap(), hub.contents().files[LARGE][..120_000]);
    hub.contents().token = Some("new".into());
    hub.script(|_| None);
    download(&client(&hub, Some("new")), &file, &to).unwrap();
    assert_eq!(hub.log().last().unwrap().from, Some(120_000));
}

#[test]
fn terms_and_names_are_said() {
    let hub = hub(1000);
    let (_dir, to) = target();
    let file = described(&hub, LARGE);
    hub.contents().token = Some("good".into());
    for token in [None, Some("bad")] {
        let error = download(&client(&hub, token), &file, &to).unwrap_err();
        assert!(matches!(error, HubError::Gated { .. }), "{error}");
        let said = error.to_string();
        assert!(
            said.contains("accept its terms") && said.contains("HF_TOKEN") && !said.contains("bad"),
            "{said}"
        );
    }
    hub.contents().token = None;
    let anybody = client(&hub, None);
    let absent = |change: fn(&mut HubFile)| {
        let mut file = file.clone();
        change(&mut file);
        download(&anybody, &file, &to).unwrap_err()
    };
    let entry = absent(|f| f.path = "data/none.parquet".into());
    assert!(
        matches!(&entry, HubError::NoEntry { entry, .. } if entry == "data/none.parquet"),
        "{entry}"
    );
    let revision = absent(|f| f.revision = "b".repeat(40));
    assert!(matches!(revision, HubError::NoRevision { .. }), "{revision}");
    let dataset = absent(|f| f.dataset = "a/b".into());
    assert!(matches!(dataset, HubError::NoDataset { .. }), "{dataset}");
    for change in [
        |f: &mut HubFile| f.path = "../x".into(),
        |f: &mut HubFile| f.revision = "main".into(),
        |f: &mut HubFile| f.dataset = "../x".into(),
    ] {
        assert!(matches!(absent(change), HubError::Name { .. }));
    }
    hub.script(|_| Some(Fault::Answer(403, vec![], vec![])));
    let refused = download(&client(&hub, Some("t")), &file, &to).unwrap_err();
    assert!(matches!(refused, HubError::TokenRefused { .. }), "{refused}");
}

#[test]
fn redirects_are_bounded_and_the_token_never_comes_back() {
    let hub = hub(1000);
    let (home, elsewhere) = (hub.endpoint(), hub.elsewhere());
    let (_dir, to) = target();
    let file = described(&hub, LARGE);
    let redirect = |place: String| Some(Fault::Answer(302, vec![("Location", place)], vec![]));
    hub.script(move |_| redirect("/datasets/again".into()));
    let client = client(&hub, Some("t"));
    let error = download(&client, &file, &to).unwrap_err();
    assert!(matches!(error, HubError::Redirect { .. }), "{error}");
    assert_eq!(hub.log().len(), 9);
    // Renamed at the Hub (the token stays), then elsewhere, and from there back to the Hub (it does not come back).
    let back = format!("{home}/datasets/{DATASET}/resolve/{}/{SMALL}", file.revision);
    let far = format!("{elsewhere}/far");
    hub.script(move |asked| match (asked.elsewhere, asked.path.as_str()) {
        (true, _) => redirect(back.clone()),
        (_, "/renamed") => redirect(far.clone()),
        (_, path) if path.contains(LARGE.rsplit('/').next().unwrap()) => redirect("/renamed".into()),
        _ => None,
    });
    let small = HubFile {
        path: file.path.clone(),
        ..described(&hub, SMALL)
    };
    download(&client, &small, &to).unwrap();
    let tokens: Vec<bool> = hub.log()[9..].iter().map(|asked| asked.token.is_some()).collect();
    assert_eq!(tokens, [true, true, false, false]);
    for place in ["ftp://x/y", "http://user@127.0.0.1/", "http://"] {
        hub.script(move |_| redirect(place.into()));
        let error = download(&client, &file, &to).unwrap_err();
        assert!(matches!(error, HubError::Redirect { .. }), "{place}: {error}");
    }
    hub.script(|_| Some(Fault::Answer(302, vec![], vec![])));
    assert!(matches!(download(&client, &file, &to), Err(HubError::Redirect { .. })));
}

#[test]
fn a_stop_ends_it_wherever_it_is_and_keeps_what_came() {
    let slow = Fault::Drip(1000, Duration::from_millis(10));
    for fault in [slow, Fault::Hang(100_000), Fault::Hang(0)] {
        let hub = hub(300_000);
        hub.script(move |asked| asked.elsewhere.then(|| fault.clone()));
        let client = client(&hub, None);
        let (_dir, to) = target();
        let file = described(&hub, LARGE);
        let stop = AtomicBool::new(false);
        let (sender, stopped) = mpsc::channel();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !hub.log().iter().any(|asked| asked.elsewhere) {
                    std::thread::sleep(Duration::from_millis(1));
                }
                std::thread::sleep(Duration::from_millis(50));
                stop.store(true, Ordering::Relaxed);
                sender.send(Instant::now()).unwrap();
            });
            let error = own(client.download(&file, &to, &mut |_| {}, &stop).unwrap_err());
            assert!(matches!(error, HubError::Stopped), "{error}");
            // Generous: what is tested is that nobody waited for the server, which sleeps for a minute.
            assert!(stopped.recv().unwrap().elapsed() < Duration::from_secs(30));
        });
        let came = part(&to).unwrap();
        assert_eq!(came, hub.contents().files[LARGE][..came.len()]);
        hub.script(|_| None);
        download(&client, &file, &to).unwrap();
    }
}

#[test]
fn a_server_that_falls_silent_is_asked_again() {
    let hub = hub(300_000);
    hub.script(first_times(1, Fault::Hang(100_000)));
    let mut options = client(&hub, None).options.clone();
    options.read_timeout = Duration::from_millis(100);
    let (_dir, to) = target();
    download(&Hub::new(options).unwrap(), &described(&hub, LARGE), &to).unwrap();
    assert_eq!(fs::read(&to).unwrap(), hub.contents().files[LARGE]);
}

#[test]
fn one_client_serves_many_threads() {
    let hub = hub(300_000);
    let client = client(&hub, None);
    let (dir, _) = target();
    let file = described(&hub, LARGE);
    hub.script(|asked| (asked.elsewhere && asked.number.is_multiple_of(3)).then_some(Fault::Cut(70_000)));
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (client, file, to) = (&client, &file, dir.path().join(n.to_string()));
            scope.spawn(move || download(client, file, &to).unwrap());
        }
    });
    for n in 0..8 {
        assert_eq!(
            fs::read(dir.path().join(n.to_string())).unwrap(),
            hub.contents().files[LARGE]
        );
    }
}

#[test]
fn one_process_at_a_time() {
    let hub = hub(1000);
    let (_dir, to) = target();
    let held = fs::File::create(to.with_extension("parquet.part")).unwrap();
    held.lock().unwrap();
    let error = download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap_err();
    assert!(matches!(error, HubError::Busy { .. }), "{error}");
    drop(held);
    download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let hub = hub(300_000);
    let (_dir, to) = target();
    std::os::unix::fs::symlink("/dev/full", to.with_extension("parquet.part")).unwrap();
    let error = download(&client(&hub, None), &described(&hub, LARGE), &to).unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    assert!(to.with_extension("parquet.part").is_symlink(), "the part stays");
    let none = to.join("no/such/folder");
    assert!(matches!(
        download(&client(&hub, None), &described(&hub, LARGE), &none),
        Err(HubError::Io { .. })
    ));
}
