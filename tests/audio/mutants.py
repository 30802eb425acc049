"""Files that something went wrong with, anything: seeded, endless."""

from collections.abc import Iterator

import numpy as np

EXTREMES = [b"\0", b"\1", b"\x7f", b"\x80", b"\xff"]


def mutants(whole: dict[str, bytes], seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Kind of a whole file, and the file with one to three mutations."""
    random = np.random.default_rng(seed)
    names = list(whole)
    while True:
        kind = names[random.integers(len(names))]
        data = whole[kind]
        for _ in range(random.integers(1, 4)):
            data = mutated(data, whole[names[random.integers(len(names))]], random)
        yield kind, data


def mutated(data: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One mutation, of headers as often as of all that follows them."""
    if len(data) < 2:
        return data
    near = min(len(data), 256) if random.random() < 0.5 else len(data)
    place, length = int(random.integers(near)), int(2 ** random.uniform(0, 12))
    before, after = data[:place], data[place:]
    match random.integers(8):
        case 0:  # a bit
            return before + bytes([after[0] ^ 1 << int(random.integers(8))]) + after[1:]
        case 1:  # a field of a header
            size = int(random.choice([1, 2, 4, 8]))
            new = bytes(EXTREMES[i][0] for i in random.integers(len(EXTREMES), size=size))
            return before + new + after[size:]
        case 2:  # a sector that was never written
            return before + bytes(min(length, len(after))) + after[length:]
        case 3:  # noise
            return before + random.bytes(min(length, len(after))) + after[length:]
        case 4:
            return before + after[length:]
        case 5:
            return before + after[:length] + after
        case 6:
            return data[: int(random.integers(len(data)))]
        case _:  # the rest of another file
            return before + other[int(random.integers(len(other))) :]
