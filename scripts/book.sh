#!/usr/bin/env bash
# The guide as a book, in target/guide: scripts/book.sh. The pages are those of docs/SUMMARY.md, some of which lie outside docs/. In the book all of them keep their places, so that
# a link leads there where it leads in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."
command -v mdbook >/dev/null || { echo "error: mdbook; it is not installed; get it from https://rust-lang.github.io/mdBook" >&2; exit 1; }
target=$(mkdir -p "${CARGO_TARGET_DIR:-target}" && cd "${CARGO_TARGET_DIR:-target}" && pwd)
rm -rf "$target/book"
mkdir -p "$target/book/src"
# Seen from the root.
summary() { sed -E 's#\]\(#](docs/#; s#\(docs/\.\./#(#' docs/SUMMARY.md; }
summary >"$target/book/src/SUMMARY.md"
pages=$(summary | sed -nE 's#^.*\]\(([^)]+)\).*$#\1#p')
# Beside the pages lie pictures and data.
cp --parents $pages docs/*.svg docs/*.json "$target/book/src"
cp docs/book.toml "$target/book"
mdbook build "$target/book" --dest-dir "$target/guide"
