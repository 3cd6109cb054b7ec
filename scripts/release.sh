#!/usr/bin/env bash
# Makes what a release offers for download: static programs for Linux, an archive a target, and their checksums.
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    cat <<TEXT
usage: scripts/release.sh [TARGET…]

Builds the command \`onebit\` with its model and its server, without trainer and CUDA, as one static program for each TARGET and puts it, with the licences, into
  dist/onebit-VERSION-TARGET.tar.gz
and the checksums of all into dist/SHA256SUMS. TARGET is x86_64-unknown-linux-musl or aarch64-unknown-linux-musl; without any, both.

The same sources and toolchain give the same bytes: no path of this machine and no time goes in. What \`scripts/cross.sh\` says of toolchains
holds here too. Training and GPUs need the C library of the system: \`cargo install --path cli\` builds that.
TEXT
}

all=(x86_64-unknown-linux-musl aarch64-unknown-linux-musl)
case ${1:-} in
-h | --help)
    usage
    exit
    ;;
"") targets=("${all[@]}") ;;
*) targets=("$@") ;;
esac
for target in "${targets[@]}"; do
    [[ " ${all[*]} " == *" $target "* ]] || {
        echo "error: unknown target '$target'; expected one of: ${all[*]}" >&2
        exit 2
    }
done

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[[ -n $version ]] || {
    echo "error: Cargo.toml: no version of the workspace; give it one" >&2
    exit 1
}
# Messages of panics name source files: without the folders above them.
sysroot=$(rustc --print sysroot)
RUSTFLAGS="${RUSTFLAGS:-} --remap-path-prefix=$PWD=onebit --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=cargo --remap-path-prefix=$sysroot=rust"
export RUSTFLAGS
mkdir -p dist
for target in "${targets[@]}"; do
    name=onebit-$version-$target
    scripts/cross.sh "$target" --no-default-features --features inference,bundled,completions,serve
    program=${CARGO_TARGET_DIR:-target}/$target/board/onebit
    if command -v readelf >/dev/null && readelf --program-headers "$program" | grep -q INTERP; then
        echo "error: $program asks for a dynamic loader; it should be static" >&2
        exit 1
    fi
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir "$work/$name"
    install -m 755 "$program" "$work/$name/onebit"
    install -m 644 LICENSE-MIT LICENSE-APACHE README.md CHANGELOG.md "$work/$name"
    # The same order, owner and time always.
    tar --sort=name --mtime=@"${SOURCE_DATE_EPOCH:-0}" --owner=0 --group=0 --numeric-owner --format=ustar -C "$work" -cf - "$name" |
        gzip -9 --no-name >"dist/$name.tar.gz"
    rm -rf "$work"
    echo "dist/$name.tar.gz: $(stat -c %s "dist/$name.tar.gz") bytes"
done
# Of this version, whatever was made before.
(cd dist && sha256sum "onebit-$version-"*.tar.gz >SHA256SUMS && cat SHA256SUMS)
