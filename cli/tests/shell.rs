//! At home in a shell: completions in real ones, colour where a person reads, a version that never fails, help with examples.
#![cfg(all(feature = "train", feature = "completions"))]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use common::{command, onebit, onebit_with};

/// A command: the words that name it, what its help lists.
#[derive(Debug)]
struct Known {
    words: Vec<String>,
    help: String,
    options: BTreeSet<String>,
    below: Vec<String>,
}

/// Every command, found by walking through the help.
fn commands() -> Vec<Known> {
    let mut ask = vec![Vec::new()];
    let mut all = Vec::new();
    while let Some(words) = ask.pop() {
        let mut args: Vec<String> = words.clone();
        args.push("--help".into());
        let help = onebit(&args).ok();
        let listed = |section: &str| -> Vec<String> {
            let lines = help.lines().skip_while(|line| *line != section).skip(1);
            lines
                .take_while(|line| line.starts_with(' '))
                .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
                .filter_map(|line| Some(line.split_whitespace().next()?.trim_end_matches(',').to_string()))
                .collect()
        };
        let below = listed("Commands:");
        ask.extend(below.iter().map(|name| [words.clone(), vec![name.clone()]].concat()));
        let options = listed("Options:").into_iter().collect();
        all.push(Known {
            words,
            help,
            options,
            below,
        });
    }
    assert!(all.len() > 20, "{} commands", all.len());
    all
}

/// What cannot be tested here, said where the test harness does not hide it.
fn skipped(what: &str) {
    let line = format!("SKIPPED ({what})\n");
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
}

fn is_there(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok()
}

/// Standard output of a program that must succeed.
fn told(program: &str, args: &[&str]) -> String {
    let ended = Command::new(program).args(args).output().unwrap();
    let err = String::from_utf8_lossy(&ended.stderr).into_owned();
    let out = String::from_utf8_lossy(&ended.stdout).into_owned();
    assert!(ended.status.success(), "{program} {args:?}: {out}{err}");
    assert_eq!(err, "", "{program} {args:?}");
    out
}

/// The script for a shell, in a file.
fn script(folder: &Path, shell: &str, name: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, onebit(&["completions", shell]).ok()).unwrap();
    path.to_str().unwrap().to_string()
}

/// Every command has an example that begins with its own name; groups have commands below them.
#[test]
fn every_command_has_help_with_an_example() {
    for Known { words, help, below, .. } in commands() {
        let example = format!(
            "Examples:\n  {}",
            [vec!["onebit".to_string()], words.clone()].concat().join(" ")
        );
        let top_or_leaf = words.is_empty() || below.is_empty();
        assert!(
            !top_or_leaf || help.contains(&example),
            "{words:?} has an example: {help}"
        );
        assert!(help.lines().count() > 5, "{words:?}: {help}");
    }
}

/// What bash offers for the last of `words`, through the function that it calls itself.
fn in_bash(script: &str, words: &[&str]) -> Vec<String> {
    let (current, before) = words.split_last().unwrap();
    let quoted = |words: &[&str]| {
        words
            .iter()
            .map(|word| format!("'{word}'"))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let program = format!(
        "source '{script}'; complete -p onebit >/dev/null || exit 1
         COMP_WORDS=({}); COMP_CWORD={}; compopt() {{ :; }}
         f=$(complete -p onebit); f=${{f#*-F }}; f=${{f%% *}}
         $f onebit '{current}' '{}'; printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        quoted(words),
        words.len() - 1,
        before.last().unwrap(),
    );
    let text = told("bash", &["--norc", "-c", &program]);
    text.split_whitespace().map(str::to_string).collect()
}

#[test]
fn bash_completes_every_command_and_option() {
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), "bash", "onebit");
    for Known {
        words, options, below, ..
    } in commands()
    {
        let line: Vec<&str> = ["onebit"].into_iter().chain(words.iter().map(String::as_str)).collect();
        let mut offered: BTreeSet<String> = in_bash(&script, &[&line[..], &["--"]].concat()).into_iter().collect();
        if words.is_empty() {
            assert!(offered.remove("--version"), "{offered:?}");
        }
        assert_eq!(offered, options, "{words:?}");
        let offered = in_bash(&script, &[&line[..], &[""]].concat());
        for name in below {
            assert!(offered.contains(&name), "{words:?} offers {name}: {offered:?}");
        }
    }
    assert_eq!(
        in_bash(&script, &["onebit", "generate", "--device", "c"]),
        ["cpu", "cuda"]
    );
    assert_eq!(
        in_bash(&script, &["onebit", "tokenizer", "train", "--kind", ""]),
        ["bpe", "word"]
    );
    // A value is not taken for a command.
    let offered = in_bash(&script, &["onebit", "train", "--config", "quickstart", "--output-di"]);
    assert_eq!(offered, ["--output-dir"]);
    // Files, where a file is wanted.
    fs::write(folder.path().join("some.1bit"), "").unwrap();
    let path = folder.path().join("so").to_str().unwrap().to_string();
    assert_eq!(
        in_bash(&script, &["onebit", "generate", "--model", &path]),
        [format!("{path}me.1bit")]
    );
}

#[test]
fn zsh_takes_its_script() {
    if !is_there("zsh") {
        return skipped("no zsh: its completions");
    }
    let folder = tempfile::tempdir().unwrap();
    script(folder.path(), "zsh", "_onebit");
    // A shell of its own in a pseudo-terminal, in which the tabulator is pressed.
    let program = format!(
        "zmodload zsh/zpty; zpty z zsh -f -i; expect() {{ local all part; repeat 100; do zpty -r -t z part && all+=$part || sleep 0.05; [[ $all == *$1* ]] && return 0; done; print -r -- \"no $1 in $all\"; return 1 }}
         zpty -w z \"PS1=; fpath=({} \\$fpath); autoload -U compinit; compinit -u -D; print re''ady\"
         expect ready || exit 1
         zpty -w -n z $'onebit quick\\t'; expect quickstart || exit 1
         zpty -w -n z $'--minu\\t'; expect --minutes || exit 1
         zpty -w -n z $'\\x15onebit generate --device cu\\t'; expect cuda || exit 1; zpty -d z",
        folder.path().display()
    );
    told("zsh", &["-f", "-c", &program]);
}

#[test]
fn fish_completes_every_command_and_option() {
    if !is_there("fish") {
        return skipped("no fish: its completions");
    }
    let folder = tempfile::tempdir().unwrap();
    let script = script(folder.path(), "fish", "onebit.fish");
    let offered = |line: &str| -> BTreeSet<String> {
        let text = told(
            "fish",
            &["--no-config", "-c", &format!("source '{script}'; complete -C '{line}'")],
        );
        text.lines()
            .map(|line| line.split('\t').next().unwrap().to_string())
            .collect()
    };
    for Known {
        words, options, below, ..
    } in commands()
    {
        let line = [vec!["onebit".to_string()], words.clone()].concat().join(" ");
        let found = offered(&format!("{line} --"));
        assert!(options.is_subset(&found), "{words:?}: {options:?} of {found:?}");
        let found = offered(&format!("{line} "));
        assert!(
            below.iter().all(|name| found.contains(name)),
            "{words:?}: {below:?} of {found:?}"
        );
    }
    assert!(offered("onebit generate --device c").is_superset(&["cpu", "cuda"].map(String::from).into()));
}

#[test]
fn other_shells_are_refused() {
    onebit(&["completions", "tcsh"]).refused(2, &["bash, zsh or fish", "tcsh"]);
    onebit(&["completions"]).refused(2, &["shell"]);
}

#[test]
fn the_version_says_what_runs_and_never_fails() {
    let told = onebit(&["--version"]).ok();
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], format!("onebit {}", env!("CARGO_PKG_VERSION")));
    let path = lines[1].strip_prefix("CPU path: ").expect("the path");
    assert_eq!(onebit_with(&["-V"], "ONEBIT_ISA", path).ok(), told);
    let forced = onebit_with(&["--version"], "ONEBIT_ISA", "scalar").ok();
    assert_eq!(forced.lines().nth(1), Some("CPU path: scalar"));
    let unknown = onebit_with(&["--version"], "ONEBIT_ISA", "mmx").ok();
    assert!(unknown.contains("CPU path: none (ONEBIT_ISA"), "{unknown}");
    assert!(lines.len() == 2 || lines[2].starts_with("GPU driver: "), "{told}");
}

#[test]
fn the_doctor_says_what_a_bug_report_should_hold() {
    let mut doctor = command(&["doctor", "--json", "--threads", "1"]);
    doctor.envs([
        ("ONEBIT_ISA", "scalar"),
        ("ONEBIT_SECRET", "hunter2"),
        ("HF_TOKEN", "hunter2"),
        ("RAYON_NUM_THREADS", "7"),
        ("NO_COLOR", "1"),
    ]);
    let text = String::from_utf8(doctor.output().unwrap().stdout).unwrap();
    assert!(!text.contains("hunter2"), "{text}");
    let report: serde_json::Value = serde_json::from_str(&text).unwrap();
    let variables = &report["environment"];
    assert_eq!(
        (&variables["ONEBIT_SECRET"], &variables["HF_TOKEN"]),
        (&"set".into(), &"set".into())
    );
    assert_eq!(
        (&variables["ONEBIT_ISA"], &variables["RAYON_NUM_THREADS"]),
        (&"scalar".into(), &"7".into())
    );
    let chosen = report["will_use"].as_array().unwrap();
    let of = |what: &str| chosen.iter().find(|choice| choice["what"] == what).unwrap();
    assert_eq!(of("path")["chosen"], "scalar");
    assert!(
        of("path")["why"].as_str().unwrap().contains("ONEBIT_ISA forces it"),
        "{report}"
    );
    assert_eq!(
        (&of("threads")["chosen"], &of("threads")["why"]),
        (&"1".into(), &"--threads says so".into())
    );
    assert!(!of("device")["why"].as_str().unwrap().is_empty());
    for key in [
        "version",
        "os",
        "arch",
        "features",
        "physical_cores",
        "hardware_threads",
        "paths",
        "bandwidth_gb_s",
    ] {
        assert!(!report[key].is_null(), "{key}: {report}");
    }
    if cfg!(target_os = "linux") {
        for key in ["system", "kernel", "cpu", "memory_bytes", "memory_available_bytes"] {
            assert!(!report[key].is_null(), "{key}: {report}");
        }
    }
    let shown = onebit(&["doctor", "--threads", "1"]).ok();
    for part in [
        "onebit ",
        "system ",
        "cpu ",
        "self-test passed",
        "will use   device ",
        "will use   path ",
    ] {
        assert!(shown.contains(part), "{part:?} is not in {shown}");
    }
}

/// What a terminal gets from a command that fails.
fn on_a_terminal(variables: &[(&str, &str)]) -> String {
    let line = format!("'{}' inspect nothing-here", env!("CARGO_BIN_EXE_onebit"));
    let mut terminal = Command::new("script");
    terminal
        .args(["-qec", &line, "/dev/null"])
        .env("TERM", "xterm")
        .env_remove("NO_COLOR");
    let ended = terminal
        .envs(variables.iter().copied())
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    String::from_utf8(ended.stdout).unwrap()
}

#[test]
fn colour_is_for_terminals_and_can_be_refused() {
    let piped = onebit(&["inspect", "nothing-here"]);
    assert!(
        piped.stderr.starts_with("error: ") && !piped.stderr.contains('\x1b'),
        "{piped:?}"
    );
    if !is_there("script") {
        return skipped("no `script`: colour on a terminal");
    }
    let colour = "\x1b[1;31merror:\x1b[0m ";
    assert!(on_a_terminal(&[]).contains(colour), "{:?}", on_a_terminal(&[]));
    assert!(
        on_a_terminal(&[("NO_COLOR", "")]).contains(colour),
        "an empty NO_COLOR is none"
    );
    for refusal in [("NO_COLOR", "1"), ("TERM", "dumb")] {
        let told = on_a_terminal(&[refusal]);
        assert!(
            told.contains("error: ") && !told.contains('\x1b'),
            "{refusal:?}: {told:?}"
        );
    }
}
