#!/usr/bin/env bash
# Tests the emulator itself, with several orders of threads and blocks, and with both ways to switch stacks.
#
#   kernels-cuda/emulator/test.sh [OUTDIR]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$(mktemp -d)}
for flags in "" -DEMULATOR_UCONTEXT; do
    EMULATOR_FLAGS=$flags "$here/build.sh" "$out/emulator$flags" "$here/selftest"
    "${CXX:-g++}" -std=c++17 -O1 -Wall -Wextra "$here/selftest/main.cpp" -L "$out/emulator$flags" -lcuda -o "$out/selftest$flags"
    for seed in 0 1 2 3; do
        echo "== seed $seed $flags"
        LD_LIBRARY_PATH="$out/emulator$flags" ONEBIT_EMULATOR_SEED=$seed "$out/selftest$flags" 2>"$out/messages" >"$out/report" ||
            { grep -v '^ok' "$out/report"; cat "$out/messages"; exit 1; }
        grep -v '^ok' "$out/report"
    done
done
