"""GGUF files as the `gguf` package of PyPI reads them: the other half of model/tests/malformed/gguf_differential.rs, which runs it.

    pip install gguf
    python model/tests/gguf_differential.py DIR

prints a line for each file of DIR: its name, a tab, and either `refused: WHY` or what was read, entry by entry. Exits 3 without the package.
"""
import math
import os
import resource
import signal
import struct
import sys

try:
    from gguf import GGUFReader, GGUFValueType as T
except ImportError:
    sys.exit(3)

UNSIGNED = {T.UINT8, T.UINT16, T.UINT32, T.UINT64}
SIGNED = {T.INT8, T.INT16, T.INT32, T.INT64}


def value(field):
    # Parts: length and letters of the key, the type; then length and letters, or the value, or element type, count and elements.
    kind, parts = field.types[0], field.parts[3:]
    if kind == T.ARRAY:
        elements = b"".join(part.tobytes() for part in parts[2:])
        return f"array {int(parts[0][0])} {int(parts[1][0])} {elements.hex()}"
    if kind == T.STRING:
        return f"text {parts[1].tobytes().hex()}"
    number = parts[0][0]
    if kind == T.BOOL:
        return f"bool {parts[0].tobytes().hex()}"
    if kind == T.FLOAT32:
        return f"f32 {struct.unpack('<I', parts[0].tobytes())[0]}"
    if kind == T.FLOAT64:
        return f"f64 {struct.unpack('<Q', parts[0].tobytes())[0]}"
    return f"{'unsigned' if kind in UNSIGNED else 'signed'} {int(number)}"


def read(path):
    reader = GGUFReader(path)
    if reader.byte_order == "S":
        raise ValueError("of a machine with the other byte order")
    said = [f"key {name.encode().hex()} {value(field)}" for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    for tensor in reader.tensors:
        shape = [int(n) for n in tensor.shape]
        sizes = f"{len(shape)} {math.prod(shape[1:])} {shape[0]}"
        said.append(f"tensor {tensor.name.encode().hex()} {int(tensor.tensor_type)} {sizes} {tensor.data.tobytes().hex()}")
    return ";".join(sorted(said))


def too_long(*_):
    raise TimeoutError("not read within half a second")


def main(directory):
    # The package trusts every count: a header bomb is stopped here.
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    signal.signal(signal.SIGALRM, too_long)
    for name in sorted(os.listdir(directory)):
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        try:
            said = read(os.path.join(directory, name))
        except Exception as error:  # whatever it is, the file was not read
            said = "refused: " + " ".join(f"{type(error).__name__}: {error}".split())[:200]
        signal.setitimer(signal.ITIMER_REAL, 0)
        print(f"{name}\t{said}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
