//! The C header, compiled and compared with the file that it describes.

use std::io::Write as _;
use std::process::Command;

use super::*;

/// Reads the file of the header and prints of each tensor what the header says, and the first byte that lies there.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include "model.h"

int main(int argc, char **argv) {
    static unsigned char bytes[ONEBIT_FILE_BYTES];
    FILE *file = argc == 2 ? fopen(argv[1], "rb") : NULL;
    size_t i;
    if (file == NULL || fread(bytes, 1, sizeof bytes, file) != sizeof bytes || fgetc(file) != EOF) {
        return EXIT_FAILURE;
    }
    fclose(file);
    printf("%u %u %u %u %u %u %u %g %.0f %g %s\n", ONEBIT_VOCAB_SIZE, ONEBIT_HIDDEN_SIZE, ONEBIT_INTERMEDIATE_SIZE, ONEBIT_LAYERS, ONEBIT_HEADS,
           ONEBIT_KV_HEADS, ONEBIT_HEAD_DIM, (double)ONEBIT_RMS_NORM_EPS, (double)ONEBIT_ROPE_THETA,
           (double)ONEBIT_FINAL_LOGIT_SOFTCAPPING, ONEBIT_CHECKSUM);
    printf("%s\n", onebit_tensors[ONEBIT_TENSOR_MODEL_NORM_WEIGHT].name);
    for (i = 0; i < ONEBIT_TENSORS; i++) {
        const struct onebit_tensor *t = &onebit_tensors[i];
        printf("%s %lu %lu %u %u %d %.9g %u\n", t->name, (unsigned long)t->offset, (unsigned long)t->bytes, (unsigned)t->rows,
               (unsigned)t->cols, (int)t->layout, (double)t->scale, (unsigned)bytes[t->offset]);
        if (t->offset % ONEBIT_ALIGNMENT != 0 || t->offset + t->bytes > sizeof bytes) {
            return EXIT_FAILURE;
        }
    }
    return EXIT_SUCCESS;
}
"#;

#[test]
fn a_c_program_finds_every_tensor() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let model = packed(&capped(), FloatStorage::Int8).with_columns();
    let file = save(&dir, &model, &Parts::default());
    let opened = OneFile::open(&file).unwrap();
    fs::write(path("model.h"), opened.c_header().unwrap()).unwrap();
    fs::write(path("main.c"), PROGRAM).unwrap();
    let compiled = Command::new("cc")
        .args([
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-std=c99",
            "-o",
            "reader",
            "main.c",
        ])
        .current_dir(dir.path())
        .output();
    let compiled = match compiled {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Not `eprintln!`, which the test harness hides when a test passes.
            std::io::stderr()
                .write_all(b"SKIPPED (no C compiler): there is no cc\n")
                .unwrap();
            return;
        }
        other => other.unwrap(),
    };
    assert!(
        compiled.status.success(),
        "{}",
        String::from_utf8_lossy(&compiled.stderr)
    );
    let ran = Command::new(path("reader")).arg(&file).output().unwrap();
    assert!(ran.status.success(), "{ran:?}");
    let text = String::from_utf8(ran.stdout).unwrap();
    let mut lines = text.lines();
    let checksum = &opened.image.weights.metadata()["checksum"];
    assert_eq!(
        lines.next().unwrap(),
        format!("43 32 44 2 4 2 8 1e-05 {} 0.3 {checksum}", opened.config().rope_theta)
    );
    assert_eq!(lines.next().unwrap(), "model.norm.weight");
    let bytes = fs::read(&file).unwrap();
    let mut seen = std::collections::BTreeMap::new();
    for line in lines {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| fields[i].parse::<usize>().unwrap();
        let (_, range) = opened.image.weights.place(fields[0]).unwrap();
        assert_eq!((number(1), number(2)), (range.start, range.len()), "{line}");
        assert_eq!(number(7), usize::from(bytes[range.start]), "{line}");
        seen.insert(
            fields[0].to_string(),
            (number(3), number(4), number(5), fields[6].parse::<f32>().unwrap()),
        );
    }
    let named = opened.image.weights.names().filter(|name| !name.starts_with(PADDING));
    assert!(named.eq(seen.keys().map(String::as_str)));
    // Rows, columns, layout, γ.
    let scale = |block: usize, linear: usize| match model.blocks()[block].linears().nth(linear) {
        Some(Linear::Ternary { scale, .. }) => *scale,
        _ => panic!("ternary"),
    };
    let last = "model.layers.1.mlp.down_proj.weight";
    assert_eq!(seen[&format!("{last}.t2")], (32, 44, 5, scale(1, 6)));
    assert_eq!(seen[&format!("{last}.columns")], (32, 44, 7, scale(1, 6)));
    assert_eq!(
        seen["model.layers.0.self_attn.o_proj.weight.t2"],
        (32, 32, 5, scale(0, 3))
    );
    assert_eq!(seen["model.layers.0.self_attn.q_proj.weight.i8"], (32, 32, 3, 0.0));
    assert_eq!(seen["model.layers.0.self_attn.q_proj.weight.steps"], (1, 32, 0, 0.0));
    assert_eq!(seen["model.embed_tokens.weight.i8"], (43, 32, 3, 0.0));
    assert_eq!(seen["model.layers.0.mlp.ffn_sub_norm.weight"], (1, 44, 0, 0.0));
}
