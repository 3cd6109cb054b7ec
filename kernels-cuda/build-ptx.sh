#!/usr/bin/env bash
# Compiles every src/*/*.cu to PTX beside it, with exactly one version of nvcc, so that equal sources give equal bytes.
#
#   kernels-cuda/build-ptx.sh [FOLDER…]   write the .ptx of all folders of src/, or of those named
#   kernels-cuda/build-ptx.sh --check     compare instead of write, and assemble each: no spills, no serialised wgmma
#
# A source says what it is compiled for in its first line: `// target: sm_80` or `// target: sm_90a`.
# NVCC names a compiler that is already here; otherwise the pinned one is installed from PyPI below target/.
set -euo pipefail
cd "$(dirname "$0")"

version=13.0.88
if [ -z "${NVCC:-}" ]; then
    home=${CARGO_TARGET_DIR:-../target}/nvcc-$version
    if [ ! -x "$home/bin/python" ]; then
        python3 -m venv "$home"
        "$home/bin/pip" install --quiet nvidia-cuda-nvcc==$version nvidia-nvvm==$version nvidia-cuda-crt==$version \
            nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85
    fi
    NVCC=$(echo "$home"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc)
fi
"$NVCC" --version | grep -q "V$version" || { echo "$NVCC is not nvcc $version" >&2; exit 1; }
ptxas=$(dirname "$NVCC")/ptxas

check=false
if [ "${1:-}" = --check ]; then check=true; shift; fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

compile() { # SOURCE PTX
    local target
    target=$(sed -n '1s|^// target: ||p' "$1")
    [ -n "$target" ] || { echo "$1: its first line names no target" >&2; return 1; }
    # What is hashed is all that the PTX depends on, so that a change of a shared header shows too.
    local headers hash
    headers=$("$NVCC" -M -arch="compute_${target#sm_}" -std=c++17 -I src/common "$1" | tr -d '\\' | tr ' ' '\n' | grep '^src/common/' | sort)
    hash=$(cat "$1" $headers | sha256sum | cut -d' ' -f1)
    "$NVCC" -ptx -arch="compute_${target#sm_}" -O3 -std=c++17 -I src/common "$1" -o "$work/out.ptx" || return 1
    { echo "// nvcc $version, $target, sources $hash"; sed '/^\/\//d;/^$/d' "$work/out.ptx"; } >"$2"
    echo "$target"
}

status=0
if [ $# -eq 0 ]; then set -- src/*/; fi
for folder in "$@"; do
    for source in "$folder"/*.cu; do
        [ -e "$source" ] || continue
        source=${source//\/\//\/}
        ptx=${source%.cu}.ptx
        if $check; then
            target=$(compile "$source" "$work/new.ptx")
            cmp -s "$ptx" "$work/new.ptx" || { echo "$ptx is not what $source compiles to: run build-ptx.sh" >&2; status=1; }
            ptx=$work/new.ptx
        else
            target=$(compile "$source" "$ptx")
        fi
        "$ptxas" -v -arch="$target" "$ptx" -o "$work/out.cubin" 2>"$work/report" || { cat "$work/report"; exit 1; }
        # One line a kernel: its name, then what it takes.
        sed -n "s|.*Compiling entry function '\([^']*\)'.*|  \1|p; s|^ptxas info *: Used|    used|p; s|^ *\([0-9]* bytes stack frame.*\)|    \1|p" "$work/report" |
            sed "1i $source ($target)"
        if grep -qE '[1-9][0-9]* bytes spill' "$work/report" && ! grep -q '^// spills: allowed' "$source"; then
            echo "$source: a kernel spills registers" >&2
            status=1
        fi
        if grep -qiE 'C75[0-9]{2}|serializ' "$work/report"; then
            grep -iE 'C75[0-9]{2}|serializ' "$work/report" >&2
            status=1
        fi
    done
done
exit $status
