//! C programs against the static library and the header: they generate the tokens of the golden file, and misuse every function.
#![allow(missing_docs)]

use std::ffi::OsStr;
use std::mem::{offset_of, size_of};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fs};

use onebit_c::{Failure, KV_F16, KV_F32, KV_INT8, MESSAGE_SIZE, Options, Sampling, Status};

const HERE: &str = env!("CARGO_MANIFEST_DIR");

/// The library, which lies beside the test: cargo builds all types of it at once.
fn library() -> PathBuf {
    let folder = env::current_exe().unwrap().parent().unwrap().to_path_buf();
    let entries = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let name = |path: &Path| path.file_name().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    let ours =
        entries.filter(|path| name(path).starts_with("libonebit_c") && path.extension() == Some(OsStr::new("a")));
    let newest = ours.max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.unwrap_or_else(|| panic!("no static library in {}", folder.display()))
}

/// A program of this C source.
fn compiled(source: &Path, program: &Path) {
    let output = Command::new(env::var_os("CC").unwrap_or("cc".into()))
        .args(["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-O1", "-I"])
        .arg(Path::new(HERE).join("include"))
        .arg(source)
        .arg(library())
        .args(["-lpthread", "-ldl", "-lm", "-o"])
        .arg(program)
        .output()
        .expect("a C compiler: install one, or name it in CC");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn run(name: &str, arguments: &[PathBuf]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join(name);
    compiled(&Path::new(HERE).join("tests").join(format!("{name}.c")), &program);
    shown(Command::new(program).args(arguments).output().unwrap())
}

fn shown(output: Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn model(name: &str) -> PathBuf {
    Path::new(HERE).join("../models/stories-mcu").join(name)
}

#[test]
fn a_c_program_generates_the_tokens_of_the_golden_file() {
    let found = run("golden", &[model("stories-mcu.1bit"), model("golden.txt")]);
    let cases = fs::read_to_string(model("golden.txt"))
        .unwrap()
        .matches("\nids ")
        .count();
    assert!(found.ends_with(&format!("{cases} cases, 0 failed\n")), "{found}");
}

#[test]
fn misuse_and_damage_are_statuses_with_a_message() {
    let found = run("misuse", &[model("stories-mcu.1bit")]);
    assert!(found.contains("damaged models refused"), "{found}");
}

/// The C type of one of the interface.
fn c_type(rust: &str) -> String {
    let named = |rust: &str| match rust {
        "u8" => "uint8_t".to_owned(),
        "u32" => "uint32_t".to_owned(),
        "i32" => "int32_t".to_owned(),
        "usize" => "size_t".to_owned(),
        "c_char" => "char".to_owned(),
        "Status" => "onebit_status".to_owned(),
        other => format!("onebit_{}", other.to_lowercase()),
    };
    match rust.split_once(' ') {
        Some(("*const", inner)) => format!("const {} *", c_type(inner)),
        Some(("*mut", inner)) if inner.starts_with('*') => format!("{}*", c_type(inner)),
        Some(("*mut", inner)) => format!("{} *", named(inner)),
        _ => named(rust),
    }
    .replace("const const", "const")
}

/// The prototypes of the exported functions of a Rust source, as C spells them.
fn prototypes(source: &str) -> Vec<String> {
    let exported = source.split("#[unsafe(no_mangle)]").skip(1);
    let prototype = |rest: &str| {
        let signature = rest
            .split_once("extern \"C\" fn ")
            .unwrap()
            .1
            .split_once('{')
            .unwrap()
            .0;
        let (name, rest) = signature.split_once('(').unwrap();
        let (arguments, result) = rest.rsplit_once(')').unwrap();
        let arguments = arguments
            .split(',')
            .map(str::trim)
            .filter(|argument| !argument.is_empty());
        let arguments: Vec<String> = arguments
            .map(|argument| {
                let (name, kind) = argument.split_once(": ").unwrap();
                let kind = c_type(kind);
                let space = if kind.ends_with('*') { "" } else { " " };
                format!("{kind}{space}{name}")
            })
            .collect();
        let result = result.trim().strip_prefix("-> ").map_or("void".to_owned(), c_type);
        let space = if result.ends_with('*') { "" } else { " " };
        let arguments = if arguments.is_empty() {
            "void".to_owned()
        } else {
            arguments.join(", ")
        };
        format!("{result}{space}{name}({arguments});")
    };
    exported.map(prototype).collect()
}

#[test]
fn the_header_has_the_functions_of_the_library_and_no_others() {
    let header = fs::read_to_string(Path::new(HERE).join("include/onebit.h")).unwrap();
    let mut expected = Vec::new();
    for file in ["generator.rs", "status.rs"] {
        expected.extend(prototypes(
            &fs::read_to_string(Path::new(HERE).join("src").join(file)).unwrap(),
        ));
    }
    assert!(expected.len() >= 13, "{expected:#?}");
    for prototype in &expected {
        assert!(header.contains(prototype.as_str()), "the header lacks: {prototype}");
    }
    let code = header
        .lines()
        .filter(|line| !line.starts_with(" *") && !line.starts_with("/*"));
    let declared = code
        .filter(|line| line.contains("onebit_") && line.ends_with(");"))
        .count();
    assert_eq!(declared, expected.len());
    let every = fs::read_dir(Path::new(HERE).join("src"))
        .unwrap()
        .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
    let exported: usize = every.map(|source| source.matches("#[unsafe(no_mangle)]").count()).sum();
    assert_eq!(
        exported,
        expected.len(),
        "a file with exported functions that is not read here"
    );
}

/// Sizes, places and numbers, by the C compiler's own account.
#[test]
fn structs_and_constants_are_the_same_on_both_sides() {
    let mut expected: Vec<(String, usize)> = Vec::new();
    let mut add = |c: &str, value: usize| expected.push((c.to_owned(), value));
    macro_rules! fields {
        ($c:literal, $rust:ty, $($field:ident),+) => {
            add(concat!("sizeof(onebit_", $c, ")"), size_of::<$rust>());
            $(add(&format!("offsetof(onebit_{}, {})", $c, stringify!($field)), offset_of!($rust, $field));)+
        };
    }
    fields!("failure", Failure, status, message);
    fields!(
        "sampling",
        Sampling,
        seed,
        temperature,
        top_p,
        min_p,
        repetition_penalty,
        top_k
    );
    fields!("options", Options, sampling, context, chunk, kv, slides);
    add("ONEBIT_MESSAGE_SIZE", MESSAGE_SIZE);
    add("ONEBIT_ABI_VERSION", onebit_c::ABI_VERSION as usize);
    for (name, value) in [("F32", KV_F32), ("F16", KV_F16), ("INT8", KV_INT8)] {
        add(&format!("ONEBIT_KV_{name}"), value as usize);
    }
    for status in Status::ALL {
        add(&format!("ONEBIT_{status:?}").to_uppercase(), status as usize);
    }
    let lines: String = expected
        .iter()
        .map(|(c, _)| format!("    printf(\"%lu\\n\", (unsigned long)({c}));\n"))
        .collect();
    let source = format!("#include <stdio.h>\n#include \"onebit.h\"\nint main(void) {{\n{lines}    return 0;\n}}\n");
    let folder = tempfile::tempdir().unwrap();
    let (file, program) = (folder.path().join("layout.c"), folder.path().join("layout"));
    fs::write(&file, source).unwrap();
    compiled(&file, &program);
    let found = shown(Command::new(program).output().unwrap());
    let found: Vec<usize> = found.lines().map(|line| line.parse().unwrap()).collect();
    assert_eq!(found.len(), expected.len());
    for ((c, value), found) in expected.iter().zip(found) {
        assert_eq!(found, *value, "{c}");
    }
}
