//! Ranks as processes, which are killed.

use super::*;

/// A process that is one rank, and gathers until it is killed; what it says goes to stdout.
#[test]
#[ignore = "other tests start it as a process, and kill it"]
fn rank_as_a_process() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let place = place(number("TEST_RANK"), 3, number("TEST_PORT") as u16);
    let link = match join(&place, &settings()) {
        Ok(link) => link,
        Err(error) => return println!("\nSAID {error}"),
    };
    println!("\nSAID joined");
    loop {
        if let Err(error) = link.all_gather(&[0; 100]) {
            return println!("\nSAID {error}");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn process(rank: usize, port: u16) -> Child {
    let name = "parallel::rendezvous::tests::processes::rank_as_a_process";
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", name, "--nocapture", "--test-threads=1"])
        .env("TEST_RANK", rank.to_string())
        .env("TEST_PORT", port.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// What a process said last, after it has ended.
fn last_words(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = text.lines().filter_map(|line| line.strip_prefix("SAID ")).next_back();
    said.unwrap_or_else(|| panic!("nothing in {text}")).to_string()
}

/// Waits until a process has joined.
fn joined(child: &mut Child) {
    let mut text = Vec::new();
    let from = child.stdout.as_mut().unwrap();
    while !String::from_utf8_lossy(&text).contains("SAID joined\n") {
        let mut byte = [0];
        assert_eq!(from.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&text));
        text.push(byte[0]);
    }
}

#[test]
fn whichever_rank_is_killed_the_others_end_and_name_it() {
    for killed in 0..3 {
        let port = free_port();
        let mut ranks: Vec<_> = (0..3).map(|rank| process(rank, port)).collect();
        ranks.iter_mut().for_each(joined);
        ranks[killed].kill().unwrap();
        ranks[killed].wait().unwrap();
        for (rank, child) in ranks.into_iter().enumerate().filter(|(rank, _)| *rank != killed) {
            let said = last_words(child);
            let begins = format!("rank {killed} (");
            assert!(
                said.starts_with(&begins) && said.contains("was lost"),
                "rank {rank}: {said}"
            );
        }
    }
}

#[test]
fn a_rank_or_the_host_killed_while_others_are_awaited_ends_them() {
    // Rank 2 never comes. The joiner is killed:
    let port = free_port();
    let host = start(0, 3, port, settings());
    let mut child = process(1, port);
    std::thread::sleep(Duration::from_secs(2));
    child.kill().unwrap();
    child.wait().unwrap();
    let said = error(host);
    // Unless it was killed before it came, which takes a very slow machine.
    assert!(
        said.contains("rank 1 (") && said.contains("ended before all ranks had come"),
        "{said}"
    );
    // The host is killed:
    let port = free_port();
    let mut host = process(0, port);
    drop(connect(port));
    let joiner = start(1, 3, port, hasty());
    std::thread::sleep(Duration::from_millis(400));
    host.kill().unwrap();
    host.wait().unwrap();
    let said = error(joiner);
    assert!(said.contains("rank 0 ("), "{said}");
    assert!(said.contains("ended before all ranks had come"), "{said}");
}
