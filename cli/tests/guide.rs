//! The guide keeps its word: every command of its pages runs, and what it names is there.
#![cfg(feature = "train")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The pages of the book, which `docs/SUMMARY.md` names, in their order.
fn pages() -> Vec<PathBuf> {
    let docs = root().join("docs");
    let summary = fs::read_to_string(docs.join("SUMMARY.md")).unwrap();
    let pages: Vec<PathBuf> = links(&summary).into_iter().map(|(_, page)| docs.join(page)).collect();
    assert!(pages.len() > 10, "the summary has pages: {pages:?}");
    pages
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Line and target of each link in the text of a page, code left out.
fn links(page: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut found = Vec::new();
    for (number, line) in page.lines().enumerate() {
        fenced ^= line.starts_with("```");
        // Every second part of a line is code.
        let text: String = line.split('`').step_by(2).collect();
        for part in text.split("](").skip(1).filter(|_| !fenced) {
            found.push((number + 1, part.split(')').next().unwrap().to_string()));
        }
    }
    found
}

/// A block of commands.
struct Block {
    line: usize,
    text: String,
}

/// The blocks of a page that begin with a fence of exactly this kind.
fn blocks(page: &str, kind: &str) -> Vec<Block> {
    let mut all = Vec::new();
    let mut open: Option<(bool, Block)> = None;
    for (number, line) in page.lines().enumerate() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(found), None) => {
                let text = String::new();
                open = Some((found == kind, Block { line: number + 2, text }));
            }
            (Some(_), Some((wanted, block))) => all.extend(wanted.then_some(block)),
            (None, Some((wanted, mut block))) => {
                block.text += line;
                block.text += "\n";
                open = Some((wanted, block));
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a block is not closed");
    all
}

/// Held by the page that runs: a command takes all cores.
static RUNNING: Mutex<()> = Mutex::new(());

/// Runs the blocks of `docs/NAME.md`, in their order, in a new folder.
fn run(name: &str) {
    let _running = RUNNING.lock().unwrap_or_else(|failed| failed.into_inner());
    let page = fs::read_to_string(root().join(format!("docs/{name}.md"))).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // It lies beside the pages.
    fs::copy(root().join("docs/llama-cpp.json"), folder.path().join("llama-cpp.json")).unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_onebit")).parent().unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths([program.to_path_buf()].into_iter().chain(std::env::split_paths(&path))).unwrap();
    let blocks = blocks(&page, "sh");
    assert!(!blocks.is_empty(), "docs/{name}.md has commands");
    for Block { line, text } in blocks {
        let began = std::time::Instant::now();
        let ended = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &text])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env_remove("ONEBIT_ISA")
            .output()
            .expect("bash starts");
        println!("docs/{name}.md:{line}: {:.1} s", began.elapsed().as_secs_f64());
        assert!(
            ended.status.success(),
            "docs/{name}.md:{line}: {}\n{text}\n{}\n{}",
            ended.status,
            String::from_utf8_lossy(&ended.stdout),
            String::from_utf8_lossy(&ended.stderr)
        );
    }
}

#[test]
fn the_guide_itself() {
    run("guide");
}

#[test]
fn train_your_own() {
    run("train");
}

#[test]
fn run_others_models() {
    run("run");
}

#[test]
fn quantise_and_search() {
    run("quantise");
}

#[test]
fn embed() {
    run("embed");
}

#[test]
fn serve() {
    run("serve");
}

#[test]
fn llama_cpp() {
    run("llama-cpp");
}

#[test]
fn scale() {
    run("scale");
}

#[test]
fn every_page_with_commands_is_run() {
    let here = include_str!("guide.rs");
    let docs = root().join("docs").canonicalize().unwrap();
    let pages = pages().into_iter().map(|page| page.canonicalize().unwrap());
    for page in pages.filter(|page| page.parent() == Some(&docs)) {
        let text = fs::read_to_string(&page).unwrap();
        let name = page.file_stem().unwrap().to_str().unwrap();
        let run = here.contains(&format!("run(\"{name}\")"));
        assert_eq!(
            !blocks(&text, "sh").is_empty(),
            run,
            "{}: its commands are run, or it has none",
            page.display()
        );
    }
}

/// The anchor of a heading, as forges and mdBook make it.
fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

#[test]
fn every_link_leads_somewhere() {
    let more = ["docs/SUMMARY.md", "models/stories-mcu/README.md"].map(|name| root().join(name));
    let book: BTreeSet<PathBuf> = pages().into_iter().map(|page| page.canonicalize().unwrap()).collect();
    let docs = root().join("docs").canonicalize().unwrap();
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "NOTES.md"] {
        assert!(
            book.contains(&root().canonicalize().unwrap().join(name)),
            "the book has {name}"
        );
    }
    let mut count = 0;
    for page in pages().into_iter().chain(more) {
        let text = fs::read_to_string(&page).unwrap_or_else(|e| panic!("{}: {e}", page.display()));
        for (line, link) in links(&text) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() {
                page.clone()
            } else {
                page.parent().unwrap().join(file)
            };
            assert!(target.exists(), "{}:{line}: {link} is not there", page.display());
            // `scripts/book.sh` takes pages, and what is no page from beside them.
            let there = target.canonicalize().unwrap();
            let is_carried = there.extension().is_some_and(|kind| kind == "svg" || kind == "json");
            let in_book = book.contains(&there) || is_carried && there.parent() == Some(&docs);
            assert!(in_book, "{}:{line}: {link} is not in the book", page.display());
            if !heading.is_empty() {
                let text = fs::read_to_string(&target).unwrap();
                let anchors = text.lines().filter(|line| line.starts_with('#'));
                let there = anchors
                    .map(|line| anchor(line.trim_start_matches('#').trim()))
                    .any(|a| a == heading);
                assert!(there, "{}:{line}: {link}: no such heading", page.display());
            }
            count += 1;
        }
    }
    assert!(count > 60, "{count} links");
}

/// What looks like a path of this repository, in the code of a page's text.
fn paths(page: &str) -> BTreeSet<String> {
    let folders: Vec<String> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.path().is_dir())
        .map(|entry| format!("{}/", entry.file_name().to_str().unwrap()))
        .collect();
    let code = page.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    code.flat_map(|code| code.split_whitespace())
        .filter(|word| folders.iter().any(|folder| word.starts_with(folder)))
        .filter(|word| !word.starts_with("target/") && !word.contains("BOARD"))
        .map(|word| word.trim_end_matches(',').to_string())
        .collect()
}

#[test]
fn every_path_that_a_page_names_is_there() {
    let mut count = 0;
    for name in ["add-an-operation", "embed", "guide", "scale", "run"] {
        let page = fs::read_to_string(root().join(format!("docs/{name}.md"))).unwrap();
        for path in paths(&page) {
            // Made by a build.
            if path != "web/dist" {
                assert!(
                    root().join(&path).exists(),
                    "docs/{name}.md names {path}, which is not there"
                );
                count += 1;
            }
        }
    }
    assert!(count > 30, "{count} paths");
}

/// What is on the guide's pages as an option is an option.
#[test]
fn every_option_that_a_page_names_exists() {
    let help = |command: &[&str]| {
        let ended = Command::new(env!("CARGO_BIN_EXE_onebit"))
            .args(command)
            .arg("--help")
            .output()
            .unwrap();
        String::from_utf8(ended.stdout).unwrap()
    };
    let mut known = BTreeSet::from(["--help".to_string(), "--version".to_string()]);
    let mut ask = vec![Vec::<String>::new()];
    while let Some(command) = ask.pop() {
        let text = help(&command.iter().map(String::as_str).collect::<Vec<_>>());
        let mut section = "";
        for line in text.lines() {
            if !line.starts_with(' ') {
                section = line;
            } else if let Some(first) = line
                .strip_prefix("  ")
                .filter(|l| !l.starts_with(' '))
                .and_then(|l| l.split_whitespace().next())
            {
                match section {
                    "Options:" => known.extend([first.trim_end_matches(',').to_string()]),
                    "Commands:" => ask.push([command.clone(), vec![first.to_string()]].concat()),
                    _ => {}
                }
            }
        }
    }
    assert!(known.len() > 100, "{} options", known.len());
    // Of cargo, torchrun, mpirun and scripts.
    let others = [
        "--release",
        "--path",
        "--workspace",
        "--no-default-features",
        "--features",
        "--target",
        "--directory",
        "--nnodes",
        "--nproc-per-node",
        "--rdzv-endpoint",
        "--no-python",
    ];
    for name in ["guide", "train", "run", "quantise", "embed", "llama-cpp", "scale"] {
        let page = fs::read_to_string(root().join(format!("docs/{name}.md"))).unwrap();
        let is_option = |word: &&str| word.starts_with("--") && word.len() > 3;
        for word in page
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
            .filter(is_option)
        {
            assert!(
                known.contains(word) || others.contains(&word),
                "docs/{name}.md: {word} is no option of any command"
            );
        }
    }
}
