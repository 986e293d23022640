"""Run lengths as annotation tools compress them. What they mean in an image is in drawing.py."""

import numpy as np

LENGTH_BITS = (3, 4, 8, 16)
"""Of a brush stroke's runs, as Label Studio writes them."""


def decompressed(text: str) -> list[int]:
    """Run lengths from COCO's compressed form.

    A number is written in digits of 5 bits, the lowest first, as characters from "0" on; 32 marks that more
    follow, and 16 in the last one the sign. From the fourth number on it is the difference to the run two
    before.
    """
    runs: list[int] = []
    number = shift = 0
    for digit in (ord(character) - 48 for character in text):
        number |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    return runs


def brush_strokes(packed: bytes, width: int, height: int) -> np.ndarray:
    """Where Label Studio's brush painted, bool [height, width].

    A stream of bits: 32 of the number of values, 5 of a value's bits less one, four times 4 of the lengths'
    bits less one; then blocks of a bit (1: one value is repeated), 2 that choose among the four, a length
    less one, and one value or as many as the length. The values are the pixels' red, green, blue and alpha.

    Raises:
        ValueError: It ends early, or is for another size.
    """
    bits = np.unpackbits(np.frombuffer(packed, np.uint8))
    place = 0

    def number(count: int) -> int:
        nonlocal place
        if place + count > len(bits):
            raise ValueError("the brush strokes end early")
        value = int("".join(map(str, bits[place : place + count].tolist())), 2)
        place += count
        return value

    total, value_bits = number(32), number(5) + 1
    length_bits = [number(4) + 1 for _ in range(4)]
    if total != 4 * width * height or value_bits != 8:
        raise ValueError(f"the brush strokes are {total} values long, not four for {width} x {height} pixels")
    values, done = np.empty(total, np.uint8), 0
    while done < total:
        is_repeated, count = number(1), 1
        count += number(length_bits[number(2)])
        if is_repeated:
            values[done : done + count] = number(8)
        else:
            literal = bits[place : place + 8 * count]
            if len(literal) < 8 * count or done + count > total:
                raise ValueError("the brush strokes end early")
            values[done : done + count] = np.packbits(literal)
            place += 8 * count
        done += count
    return values.reshape(height, width, 4)[..., 3] > 0


def packed_brush(inside_HW: np.ndarray) -> bytes:
    """Pixels as Label Studio's brush strokes, which `brush_strokes` reads.

    Args:
        inside_HW: Where the brush painted, bool.
    """
    flat = inside_HW.ravel()
    ends = [*(np.flatnonzero(flat[1:] != flat[:-1]) + 1).tolist(), flat.size]
    parts = [f"{4 * flat.size:032b}", f"{7:05b}", *(f"{bits - 1:04b}" for bits in LENGTH_BITS)]
    start = 0
    for end in ends:
        value = "1" * 8 if flat[start] else "0" * 8
        for length in _pieces(4 * (end - start)):
            choice = next(i for i, bits in enumerate(LENGTH_BITS) if length <= 1 << bits)
            parts.append(f"1{choice:02b}{length - 1:0{LENGTH_BITS[choice]}b}{value}")
        start = end
    text = "".join(parts)
    return np.packbits(np.frombuffer(text.encode(), np.uint8) - ord("0")).tobytes()


def _pieces(length: int) -> list[int]:
    longest = 1 << LENGTH_BITS[-1]
    return [longest] * (length // longest) + [length % longest] * (length % longest > 0)
