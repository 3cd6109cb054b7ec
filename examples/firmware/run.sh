#!/usr/bin/env bash
# Builds the firmware for TARGET and runs it in QEMU: ./run.sh TARGET [story|damage …], by default both programs.
#
#   thumbv7em-none-eabihf          Cortex-M4F, mps2-an386
#   thumbv8m.main-none-eabihf      Cortex-M33, mps2-an505
#   riscv32imac-unknown-none-elf   RV32IMAC, virt
#
# QEMU is the system's where it is installed. Else Debian's packages are unpacked, not installed, into ONEBIT_QEMU (default:
# ~/.cache/onebit-qemu), so nothing of the system changes: its own package may replace other tools. FIRMWARE_MODEL names another folder of a
# stories-mcu.1bit and its golden.txt. Exit status: that of the first program that failed, or 77 if the target or QEMU cannot be had here.
set -euo pipefail
cd "$(dirname "$0")"
export CARGO_TERM_COLOR=never CARGO_INCREMENTAL=0
# They would take the place of those in .cargo/config.toml.
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
target=${1:-}
shift || true
case $target in
    thumbv7em-none-eabihf) qemu=qemu-system-arm packages="qemu-system-arm" machine="-M mps2-an386 -cpu cortex-m4" profile=release ;;
    thumbv8m.main-none-eabihf) qemu=qemu-system-arm packages="qemu-system-arm" machine="-M mps2-an505 -cpu cortex-m33" profile=release ;;
    riscv32imac-unknown-none-elf)
        qemu=qemu-system-riscv32 packages="qemu-system-riscv qemu-system-misc" machine="-M virt -bios none" profile=soft-float ;;
    *)
        sed -n '2,11s/^# \{0,1\}//p' "$0" >&2
        exit 2 ;;
esac
[ $# -gt 0 ] || set -- story damage

if ! rustup target list --installed | grep -qxF "$target" && ! rustup target add "$target"; then
    echo "Rust's library for $target cannot be had: 'rustup target add $target' must work" >&2
    exit 77
fi
if command -v "$qemu" >/dev/null; then
    emulator=("$qemu")
else
    folder=${ONEBIT_QEMU:-$HOME/.cache/onebit-qemu}
    if [ ! -x "$folder/usr/bin/$qemu" ]; then
        echo "unpacking $qemu into $folder" >&2
        debs=$(mktemp -d)
        trap 'rm -rf "$debs"' EXIT
        for package in $packages; do
            # What an installation would bring; a private copy may lie beside other versions.
            if list=$(apt-get install --simulate --no-install-recommends "$package" 2>/dev/null | awk '/^Inst/ { print $2 }') &&
                [ -n "$list" ] && (cd "$debs" && xargs apt-get download <<<"$list") >/dev/null 2>&1; then
                break
            fi
        done
        mkdir -p "$folder"
        find "$debs" -name '*.deb' -exec dpkg -x {} "$folder" \;
    fi
    if [ ! -x "$folder/usr/bin/$qemu" ]; then
        echo "$qemu is neither installed nor to be had from Debian's packages" >&2
        exit 77
    fi
    libraries=$folder/usr/lib/$(uname -m)-linux-gnu:$folder/lib/$(uname -m)-linux-gnu
    emulator=(env "LD_LIBRARY_PATH=$libraries" "$folder/usr/bin/$qemu" -L "$folder/usr/share/qemu")
fi

cargo build --quiet --profile "$profile" --target "$target"
built=${CARGO_TARGET_DIR:-target}/$target/$profile
for program in "$@"; do
    echo "-- $program on $target"
    # An instruction is a nanosecond of the board's time, by which the program counts them.
    # shellcheck disable=SC2086 # several words
    timeout "${FIRMWARE_TIMEOUT:-600}" "${emulator[@]}" $machine -nographic -monitor none -serial none -icount shift=0 \
        -semihosting-config enable=on,target=native -kernel "$built/$program" </dev/null
done
