#!/usr/bin/env bash
# Builds the emulator, and the kernels of the crate with it.
#
#   kernels-cuda/emulator/build.sh OUTDIR [FOLDER]
#
# writes OUTDIR/libcuda.so.1, OUTDIR/libnccl.so.2, and OUTDIR/kernels/NAME.so for every FOLDER/*/*.cu of target sm_80 (FOLDER: kernels-cuda/src).
# CXX names another compiler than g++. What is newer than its sources stays as it is.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
crate=$(dirname "$here")
[ $# -ge 1 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
mkdir -p "$1/kernels"
out=$(cd "$1" && pwd)
folder=$(cd "${2:-$crate/src}" && pwd)
CXX=${CXX:-g++}
common=$crate/src/common
# The compiler may use what this machine has (the result stays here), and joins products and sums as nvcc does.
flags=(-std=c++17 -O2 -g1 -march=native -ffp-contract=fast -fPIC -fno-strict-aliasing -pthread -Wall -Wextra)

# Whether $1 is there and newer than all that follow.
fresh() {
    local made=$1
    shift
    [ -e "$made" ] && [ -z "$(find "$@" -newer "$made" -print -quit)" ]
}

# Written elsewhere and moved, because a test may be running with the old one.
if ! fresh "$out/libcuda.so.1" "$here"/src/* "$here"/include/* "$0"; then
    "$CXX" "${flags[@]}" -O3 ${EMULATOR_FLAGS:-} -shared -fvisibility=default -Wl,-soname,libcuda.so.1 -Wl,-Bsymbolic "$here"/src/*.cpp -o "$out/libcuda.new" -ldl
    mv "$out/libcuda.new" "$out/libcuda.so.1"
    ln -sf libcuda.so.1 "$out/libcuda.so"
fi

if ! fresh "$out/libnccl.so.2" "$here"/nccl/* "$here"/src/*.h "$0"; then
    "$CXX" "${flags[@]}" -shared -fvisibility=hidden -Wl,-soname,libnccl.so.2 "$here"/nccl/*.cpp "$out/libcuda.so.1" -lrt -Wl,-rpath,'$ORIGIN' -o "$out/libnccl.new"
    mv "$out/libnccl.new" "$out/libnccl.so.2"
fi

# All of src/common that does not need nvcc, behind our own headers.
prelude=(-I "$common" -include "$here/include/cuda.h")
for header in "$here"/include/common/*.cuh; do prelude+=(-include "$header"); done

compile() { # SOURCE LIBRARY
    local names work=$2.work
    mkdir -p "$work"
    # Names of kernels from the preprocessed source, so that macros may write them.
    "$CXX" -x c++ -std=c++17 -E -P -D__global__=__emulated_kernel__ "${prelude[@]}" "$1" | tr '\n' ' ' |
        grep -oE 'extern "C" +(static +)?__emulated_kernel__ +void +[A-Za-z_0-9]+ *\(' | sed -E 's/ *\($//; s/.* //' >"$work/names" || true
    [ -s "$work/names" ] || { echo "$1: no extern \"C\" __global__ void kernel" >&2; return 1; }
    {
        echo "#include \"$1\""
        echo "#include \"$here/include/registry.h\""
        echo EMULATOR_KERNELS_BEGIN
        sed 's/.*/EMULATOR_KERNEL(&)/' "$work/names"
        echo "EMULATOR_KERNELS_END(\"${1#"$crate/"}\", \"$(cat "$1" "$common"/*.cuh | sha256sum | cut -d' ' -f1)\")"
    } >"$work/kernels.cpp"
    "$CXX" "${flags[@]}" -shared -fvisibility=hidden -fno-gnu-unique -Wno-unknown-pragmas -Wno-unused-parameter -Wno-unused-function \
        -fsanitize=alignment,bounds -fno-sanitize-recover=all -fno-sanitize=null "${prelude[@]}" "$work/kernels.cpp" \
        -nodefaultlibs "$out/libcuda.so.1" -lm -lc -lgcc -Wl,-rpath,'$ORIGIN/..' -o "$2.new" || return 1
    mv "$2.new" "$2"
    rm -r "$work"
}

status=0
keep=()
for source in "$folder"/*/*.cu; do
    [ -e "$source" ] && [ "$(head -1 "$source")" = '// target: sm_80' ] || continue
    name=${source#"$folder/"}
    name=${name%.cu}
    library=$out/kernels/${name//\//-}.so
    keep+=("$library")
    fresh "$library" "$(dirname "$source")"/*.cu* "$common" "$here/include" "$0" && continue
    echo "emulating ${source#"$crate/"}"
    compile "$source" "$library" || { rm -f "$library"; status=1; }
done
# Kernels whose source has gone would still be found.
for library in "$out"/kernels/*.so; do
    [[ " ${keep[*]-} " == *" $library "* ]] || rm -f "$library"
done
exit $status
