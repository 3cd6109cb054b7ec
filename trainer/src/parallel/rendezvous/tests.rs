//! Ranks on loopback: as threads where they end in good order, as processes where they are killed.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;

use super::*;
use crate::TrainError;
use crate::parallel::launch::Launcher;

mod processes;

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn place(rank: usize, size: usize, port: u16) -> Place {
    Place {
        rank,
        local_rank: rank,
        size,
        launcher: Launcher::Torchrun,
        host: Some("127.0.0.1".into()),
        port,
    }
}

fn settings() -> Settings {
    Settings {
        secret: Secret::new("word"),
        timeout: Duration::from_secs(20),
        silence: Duration::from_secs(3),
        answer: Duration::from_secs(20),
        ..Settings::default()
    }
}

/// One that gives up soon.
fn hasty() -> Settings {
    Settings {
        timeout: Duration::from_secs(1),
        ..settings()
    }
}

type Joined = JoinHandle<Result<Arc<dyn Link>>>;

fn start(rank: usize, size: usize, port: u16, settings: Settings) -> Joined {
    std::thread::spawn(move || join(&place(rank, size, port), &settings))
}

fn error(joined: Joined) -> String {
    joined.join().unwrap().unwrap_err().to_string()
}

fn meet(size: usize) -> Vec<Arc<dyn Link>> {
    let port = free_port();
    let ranks: Vec<_> = (0..size).map(|rank| start(rank, size, port, settings())).collect();
    ranks.into_iter().map(|rank| rank.join().unwrap().unwrap()).collect()
}

#[test]
fn ranks_meet_in_any_order_and_gather_in_theirs() {
    let port = free_port();
    // The joiners come before anybody listens.
    let mut ranks: Vec<_> = [2, 1, 3].map(|rank| (rank, start(rank, 4, port, settings()))).into();
    std::thread::sleep(Duration::from_millis(120));
    ranks.push((0, start(0, 4, port, settings())));
    let at_work: Vec<_> = ranks
        .into_iter()
        .map(|(rank, joined)| {
            let link = joined.join().unwrap().unwrap();
            std::thread::spawn(move || {
                for round in 0..50u8 {
                    let own = vec![round; rank * usize::from(round)];
                    let all = link.all_gather(&own).unwrap();
                    let expected: Vec<_> = (0..4).map(|rank| vec![round; rank * usize::from(round)]).collect();
                    assert_eq!(all, expected);
                }
                link.check().unwrap();
                link.finish().unwrap();
                // Whoever is first through the door is not lost.
                link.check().unwrap();
            })
        })
        .collect();
    at_work.into_iter().for_each(|work| work.join().unwrap());
}

#[test]
fn long_contributions_arrive_whole() {
    let links = meet(2);
    let big: Vec<u8> = (0..9 << 20).map(|i: u32| (i * 7 + 1) as u8).collect();
    std::thread::scope(|scope| {
        for link in &links {
            scope.spawn(|| {
                let all = link.all_gather(&big).unwrap();
                assert!(all.iter().all(|bytes| *bytes == big));
            });
        }
    });
}

#[test]
fn another_secret_and_none_take_no_place() {
    let port = free_port();
    let host = start(0, 2, port, settings());
    let with = |secret: Option<Secret>| Settings { secret, ..settings() };
    let said = error(start(1, 2, port, with(Secret::new("another"))));
    assert!(said.contains("rank 0 has another secret"), "{said}");
    let said = error(start(1, 2, port, with(None)));
    assert!(said.contains("rank 0 has a secret, and this one has none"), "{said}");
    // The place is still free.
    start(1, 2, port, settings()).join().unwrap().unwrap();
    host.join().unwrap().unwrap();
}

#[test]
fn a_rendezvous_that_came_to_nothing_tells_of_wrong_secrets() {
    let port = free_port();
    let host = start(0, 3, port, hasty());
    let patient = start(2, 3, port, settings());
    let said = error(start(
        1,
        3,
        port,
        Settings {
            secret: Secret::new("another"),
            ..settings()
        },
    ));
    assert!(said.contains("another secret"), "{said}");
    let said = error(host);
    for part in [
        "rank 1 did not come within 1 s",
        "has another secret",
        "--rendezvous-timeout",
    ] {
        assert!(said.contains(part), "{said}");
    }
    let said = error(patient);
    assert!(
        said.contains("rank 0 refused") && said.contains("rank 1 did not come"),
        "{said}"
    );
}

#[test]
fn nobody_listens() {
    let said = error(start(1, 2, free_port(), hasty()));
    assert!(said.contains("rank 0 could not be reached within 1 s"), "{said}");
}

#[test]
fn other_versions_worlds_and_ranks_are_refused_on_both_sides() {
    type Change = (&'static str, fn() -> (Place, Settings));
    let changes: [Change; 4] = [
        (
            "the version of onebit differs: rank 0 has 0.1.0 and rank 1 has 9.9.9",
            || {
                let version = "9.9.9".into();
                (place(1, 3, 0), Settings { version, ..settings() })
            },
        ),
        ("the number of ranks differs: rank 0 has 3 and rank 1 has 2", || {
            (place(1, 2, 0), settings())
        }),
        ("there are two of rank 2", || (place(2, 3, 0), settings())),
        ("expected a rank below 3, found 3", || {
            // As a process that believes in a larger world and says otherwise.
            (place(3, 3, 0), settings())
        }),
    ];
    for (part, change) in changes {
        let port = free_port();
        let host = start(
            0,
            3,
            port,
            Settings {
                version: "0.1.0".into(),
                ..settings()
            },
        );
        let bystander = start(
            2,
            3,
            port,
            Settings {
                version: "0.1.0".into(),
                ..settings()
            },
        );
        // The bystander has its place.
        std::thread::sleep(Duration::from_millis(300));
        let (place, settings) = change();
        let settings = Settings {
            version: if settings.version == "9.9.9" {
                settings.version
            } else {
                "0.1.0".into()
            },
            ..settings
        };
        let wrong = std::thread::spawn(move || join(&Place { port, ..place }, &settings));
        for said in [error(host), error(bystander), error(wrong)] {
            assert!(said.contains(part), "{part:?} is not in {said:?}");
        }
    }
}

#[test]
fn another_protocol_is_refused_by_name() {
    let port = free_port();
    let host = start(
        0,
        2,
        port,
        Settings {
            secret: None,
            ..settings()
        },
    );
    let mut stream = connect(port);
    let mut opening = b"1BRANKS\n".to_vec();
    opening.extend_from_slice(&77u32.to_le_bytes());
    opening.extend_from_slice(&[0; 33]);
    stream.write_all(&opening).unwrap();
    // The answer names its own protocol, so that the joiner can tell too.
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..], handshake::PROTOCOL.to_le_bytes());
    let said = error(host);
    assert!(said.contains("speaks protocol 77, expected 1"), "{said}");

    // And a rank 0 of another protocol.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let joiner = start(1, 2, port, settings());
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 45]).unwrap();
    opening.extend_from_slice(&[0; 32]);
    stream.write_all(&opening).unwrap();
    let said = error(joiner);
    assert!(said.contains("rank 0 speaks protocol 77, expected 1"), "{said}");
}

fn connect(port: u16) -> TcpStream {
    for _ in 0..1000 {
        if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) {
            return stream;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nobody listens at {port}");
}

#[test]
fn strangers_do_no_harm() {
    let port = free_port();
    let host = start(0, 2, port, settings());
    // Some say nothing and stay, as a scanner does.
    let silent: Vec<_> = (0..5).map(|_| connect(port)).collect();
    for words in [
        &b""[..],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"1BRANKS\n",
        &[0xff; 4096],
        // An opening, and then a frame of 4 GiB, of no kind, or nothing behind it.
        &[b"1BRANKS\n\x01\0\0\0\x01", &[7; 32][..], b"\xff\xff\xff\xff\x01"].concat(),
        &[b"1BRANKS\n\x01\0\0\0\x01", &[7; 32][..], b"\x01\0\0\0\x63\0"].concat(),
        // An introduction without a proof of the secret.
        &[
            b"1BRANKS\n\x01\0\0\0\x01",
            &[7; 32][..],
            b"\x30\0\0\0\x01",
            &[0; 48][..],
        ]
        .concat(),
    ] {
        let mut stream = connect(port);
        // It may be let go in the midst of it.
        let _ = stream.write_all(words);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // Nothing but an opening and its proof, or a refusal, ever comes back.
        assert!(answer.len() < 120, "{answer:?}");
    }
    start(1, 2, port, settings()).join().unwrap().unwrap();
    host.join().unwrap().unwrap();
    drop(silent);
}

#[test]
fn an_introduction_is_of_its_own_rendezvous_alone() {
    // Whoever listened to one cannot use it again: another nonce, another proof.
    let secret = Secret::new("word").unwrap();
    let proof = secret.proof("joiner", &[&[1; 32], &[2; 32]]);
    assert!(!handshake::holds(secret.proof("joiner", &[&[3; 32], &[2; 32]]), proof));
    assert!(!handshake::holds(secret.proof("rank 0", &[&[1; 32], &[2; 32]]), proof));
    assert!(handshake::holds(secret.proof("joiner", &[&[1; 32], &[2; 32]]), proof));
    assert_eq!(Secret::new(" \n"), None);
    assert_eq!(Secret::new("a\n"), Secret::new("a"));
}

#[test]
fn networks_need_a_secret() {
    // An address for documentation, which nobody has.
    let place = Place {
        host: Some("192.0.2.1".into()),
        ..place(1, 2, 9)
    };
    let none = Settings {
        secret: None,
        ..hasty()
    };
    let said = join(&place, &none).unwrap_err().to_string();
    assert!(said.contains("ONEBIT_SECRET"), "{said}");
    let place = Place { host: None, ..place };
    let said = join(&place, &none).unwrap_err().to_string();
    assert!(said.contains("MASTER_ADDR"), "{said}");
}

#[test]
fn a_rank_that_fails_says_why_and_one_that_goes_is_lost() {
    let links = meet(3);
    let (sender, heard) = channel();
    for rank in [0, 1] {
        let sender = sender.clone();
        links[rank].on_loss(Box::new(move |error| sender.send(error.to_string()).unwrap()));
    }
    links[2].fail("its disk is full");
    for _ in 0..2 {
        let said = heard.recv_timeout(Duration::from_secs(10)).unwrap();
        assert!(
            said.starts_with("rank 2 (") && said.ends_with(") failed: its disk is full"),
            "{said}"
        );
    }
    for rank in [0, 1] {
        let said = links[rank].all_gather(&[]).unwrap_err().to_string();
        assert!(said.contains("its disk is full"), "{said}");
        assert_eq!(links[rank].check().unwrap_err().to_string(), said);
    }

    // Without a word, and while the others wait for it.
    let mut links = meet(3);
    let gone = links.remove(1);
    let waiting: Vec<_> = links
        .into_iter()
        .map(|link| std::thread::spawn(move || link.all_gather(&[])))
        .collect();
    std::thread::sleep(Duration::from_millis(50));
    drop(gone);
    for result in waiting {
        match result.join().unwrap().unwrap_err() {
            TrainError::Parallel(ParallelError::Lost { rank: 1, .. }) => {}
            other => panic!("{other}"),
        }
    }
}

/// A rank 1 whose rank 0 is what the test makes of a connection.
fn at_a_false_host(settings: Settings) -> (TcpStream, Arc<dyn Link>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let joiner = start(1, 2, port, settings.clone());
    let (stream, from) = listener.accept().unwrap();
    let meeting = Meeting {
        host: "127.0.0.1".into(),
        address: format!("127.0.0.1:{port}"),
        rank: 0,
        local_rank: 0,
        size: 2,
        port,
        settings,
    };
    let moment = std::time::Instant::now() + Duration::from_secs(10);
    let handshake::Visit::Rank(mut stream, _) = handshake::receive(&meeting, stream, &from.to_string(), moment) else {
        panic!("a rank came");
    };
    frame::write(&mut stream, frame::Kind::Start, br#"["here","there"]"#).unwrap();
    (stream, joiner.join().unwrap().unwrap())
}

#[test]
fn whoever_says_nothing_is_lost() {
    // The connection stays open, and no beat comes.
    let (_open, link) = at_a_false_host(Settings {
        silence: Duration::from_millis(700),
        ..settings()
    });
    let said = link.all_gather(&[1]).unwrap_err().to_string();
    assert!(
        said.contains("rank 0 (here) was lost: it was silent for 0.7 s"),
        "{said}"
    );
}

#[test]
fn what_is_not_the_collection_that_was_expected_is_refused() {
    let collection = |number: u64, parts: &[u8]| [&number.to_le_bytes()[..], parts].concat();
    for (kind, bytes, part) in [
        (
            frame::Kind::Data,
            collection(5, &[]),
            "contribution 5 where 0 was expected",
        ),
        (frame::Kind::Data, vec![1, 2, 3], "a contribution without a number"),
        (frame::Kind::Data, collection(0, &[]), "a collection that is cut off"),
        (
            frame::Kind::Data,
            collection(0, &[0, 0, 0, 0, 1, 0, 0, 0]),
            "a collection that is cut off",
        ),
        (
            frame::Kind::Data,
            collection(0, &[0, 0, 0, 0, 0, 0, 0, 0, 9]),
            "a collection that is cut off",
        ),
        (frame::Kind::Loss, vec![7, 0, 0, 0, 0], "it sent news of no rank"),
        (frame::Kind::Start, vec![], "it sent Start"),
    ] {
        let (mut stream, link) = at_a_false_host(settings());
        frame::write(&mut stream, kind, &bytes).unwrap();
        let said = link.all_gather(&[]).unwrap_err().to_string();
        assert!(said.contains(part), "{part:?} is not in {said:?}");
    }
}

#[test]
fn a_rank_that_does_not_take_part_is_named() {
    let port = free_port();
    let short = Settings {
        answer: Duration::from_millis(300),
        ..settings()
    };
    let ranks: Vec<_> = (0..2).map(|rank| start(rank, 2, port, short.clone())).collect();
    let links: Vec<_> = ranks.into_iter().map(|rank| rank.join().unwrap().unwrap()).collect();
    match links[0].all_gather(&[]).unwrap_err() {
        TrainError::Parallel(ParallelError::Silent { rank: 1, .. }) => {}
        other => panic!("{other}"),
    }
}
