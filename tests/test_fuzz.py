"""Random damage to configs, images and masks: nothing but InputError comes out, and nothing hangs."""

import copy
import io
import json
import random
import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from pos_hf.data import DataArguments, load_data
from pos_hf.data.decoding import RowDecoder
from pos_hf.data.validation import require_known_ids, require_same_size
from pos_hf.errors import InputError
from pos_hf.runs.config import GROUPS, parse_config

CONFIGS, FILES = 10_000, 2_000
LONGEST = 10  # seconds of computing one input may take
LONGEST_WAIT = 120  # seconds by the clock, which a busy machine stretches
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 2, 3, 255, 256, 65536, 1 << 31, 1 << 63, 10**30, -(10**30)),
    *(0.0, 0.5, 1.0, -0.5, 1e-30, 1e300, float("nan"), float("inf"), -float("inf")),
    *(
        "",
        "a",
        "true",
        "none",
        "pos",
        "../..",
        "/",
        "\0",
        "%s",
        "{}",
        "[1]",
        "é" * 50,
        "x" * 5000,
        "1e-3",
        "0x",
    ),
    *([], [0], [1, 2], [2, 1], [None], [[]], ["a", "b"], {}, {"a": 1}, {1: 2}, {"threshold": 2}, {"": {}}),
]
TEXT_EDITS = [
    "&a ",
    "*a",
    "!!python/name:os.system ",
    "!!binary ",
    "? ",
    ": ",
    "- ",
    "\t",
    "\x00",
    "'",
    '"',
    "[",
    "}",
    "|",
]


@contextmanager
def only_input_errors(what: object) -> Iterator[None]:
    """Fails on any other exception, on a warning that becomes one, and on an input that hangs."""

    def hang(*arguments: object) -> None:
        raise AssertionError(f"{what!r} takes longer than {LONGEST} s")

    signal.signal(signal.SIGPROF, hang)
    signal.signal(signal.SIGALRM, hang)
    signal.setitimer(signal.ITIMER_PROF, LONGEST)
    signal.alarm(LONGEST_WAIT)
    try:
        yield
    except InputError as error:
        assert "\n" not in str(error) and str(error), what
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} for {what!r}: {error}") from error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.alarm(0)


def near(rng: random.Random, value: Any) -> Any:
    """A value of the same type, or the value itself."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return rng.choice([value + 1, value - 1, 2 * value, -value, value])
    if isinstance(value, float):
        return rng.choice([2 * value, value / 2, -value, value, 0.3])
    if isinstance(value, str) and value and rng.random() < 0.5:
        return value.replace(rng.choice(value), rng.choice(["", "a", "/", "_"]))
    return value


def mutated_config(rng: random.Random, config: dict[str, Any], defaults: dict[str, Any]) -> bytes:
    """A config with a few values, keys or characters replaced."""
    config = copy.deepcopy(config)
    for name in rng.sample(list(defaults), rng.randint(1, 3)):
        config[name] = near(rng, defaults[name]) if rng.random() < 0.6 else rng.choice(VALUES)
    if rng.random() < 0.1:
        config[rng.choice(VALUES[:20])] = 1
    text = yaml.safe_dump(config, allow_unicode=True)
    for _ in range(rng.choice([0, 0, 1, 3])):
        place = rng.randrange(len(text))
        text = text[:place] + rng.choice(TEXT_EDITS) + text[place + rng.randint(0, 2) :]
    content = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        place = rng.randrange(len(content))
        content = content[:place] + bytes([rng.randrange(256)]) + content[place + 1 :]
    return content


@pytest.fixture
def dataset(tmp_path) -> Path:
    """Four labeled and two unlabeled images of 6 x 6 pixels."""
    root = tmp_path / "data"
    for name in ("images", "masks", "unlabeled"):
        (root / name).mkdir(parents=True)
    for index in range(4):
        Image.new("RGB", (6, 6), (index, 0, 0)).save(root / "images" / f"{index}.png")
        Image.new("L", (6, 6), index % 2).save(root / "masks" / f"{index}.png")
    for index in range(2):
        Image.new("RGB", (6, 6), (0, index, 0)).save(root / "unlabeled" / f"{index}.png")
    (root / "id2label.json").write_text('{"0": "a", "1": "b"}')
    return root


@pytest.mark.slow
def test_no_damaged_config_gets_through_as_anything_but_a_sentence(dataset, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("arrow_dataset.generate_fingerprint", "fingerprint.update_fingerprint"):
        monkeypatch.setattr(
            f"datasets.{name}", lambda *_: "0"
        )  # a fifth of the time, for a cache not used here
    rng, path = random.Random(0), tmp_path / "config.yaml"
    config = {"dataset": str(dataset), "output_dir": str(tmp_path / "run"), "use_cpu": True, "max_steps": 1}
    own = vars(GROUPS[0]()) | vars(GROUPS[1](dataset=str(dataset)))
    every = {**own, **{f.name: f.default for f in fields(GROUPS[2]) if f.init and f.default is not MISSING}}
    del every["full_determinism"]  # which would change how the tests after this one compute
    accepted = 0
    for number in range(CONFIGS):
        path.unlink(missing_ok=True)  # a file that is written over is flushed to the disk
        path.write_bytes(mutated_config(rng, config, own if number % 2 else every))
        with only_input_errors(path.read_bytes()):
            _, data_args, args = parse_config(path, [])
            load_data(data_args)
            json.dumps(args.to_dict(), default=str)
            accepted += 1
    assert 0.05 < accepted / CONFIGS < 0.8, accepted
    assert not (tmp_path / "run").exists()


def mutated_file(rng: random.Random) -> bytes:
    """A picture in a random mode and format, most of them damaged afterwards."""
    noise = np.random.default_rng(rng.randrange(1 << 30)).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    mode = rng.choice(["RGB", "L", "P", "1", "RGBA", "LA", "CMYK", "I", "I;16", "F", "YCbCr", "HSV", "LAB"])
    picture = Image.fromarray(noise)
    if mode == "I;16":
        picture = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    elif mode == "LAB":
        picture = Image.frombytes("LAB", (10, 12), noise.tobytes())
    else:
        picture = picture.convert("RGB").convert(mode) if mode != "LA" else picture.convert("L").convert("LA")
    file = io.BytesIO()
    options: dict[str, Any] = {}
    kind = rng.choice(["PNG", "TIFF", "BMP", "JPEG", "WEBP", "GIF"])
    if kind == "GIF":
        options = {"save_all": True, "append_images": [picture.rotate(90)]}
    if kind in ("PNG", "TIFF", "JPEG", "WEBP") and rng.random() < 0.5:
        exif = Image.Exif()
        exif[0x0112] = rng.choice([0, 3, 6, 9, 65535])
        options["exif"] = exif
    try:
        picture.save(file, kind, **options)
    except (OSError, ValueError):  # a mode that the format does not know
        picture.convert("RGB").save(file, "PNG")
    content = bytearray(file.getvalue())
    damage = rng.choice(["none", "bits", "bits", "cut", "swap", "pad"])
    if damage == "bits":
        for _ in range(rng.choice([1, 4, 40])):
            # headers are short, and where the surprises are
            place = rng.randrange(min(len(content), rng.choice([64, len(content)])))
            content[place] ^= 1 << rng.randrange(8)
    elif damage == "cut":
        del content[rng.randrange(len(content)) :]
    elif damage == "swap":
        first, second = sorted(rng.sample(range(len(content)), 2))
        content[first:second] = content[first:second][::-1]
    elif damage == "pad":
        content += bytes(rng.randrange(256) for _ in range(50))
    return bytes(content)


def mutated_array(rng: random.Random) -> bytes:
    """A stored array of a random type and shape, most of them damaged afterwards."""
    file = io.BytesIO()
    kind = rng.choice(
        ["uint8", "uint16", "float32", "float16", "bool", "complex64", "<U2", "datetime64[s]", "O"]
    )
    shape = rng.choice([(12, 10, 3), (12, 10), (12, 10, 1), (0, 10, 3), (), (12, 10, 3, 1)])
    np.save(file, np.zeros(shape, kind), allow_pickle=True)
    content = bytearray(file.getvalue())
    for _ in range(rng.choice([0, 1, 5])):
        content[rng.randrange(min(len(content), 130))] ^= 1 << rng.randrange(8)
    return bytes(content[: rng.choice([len(content), rng.randrange(len(content) + 1)])])


@pytest.mark.slow
def test_no_damaged_picture_gets_through_as_anything_but_a_sentence(tmp_path):
    rng, read = random.Random(1), 0
    decoders = [
        RowDecoder(),
        RowDecoder(image_range=(0.0, 1000.0), mask_values=((255, 1),)),
        RowDecoder(mask_colors=((0, 0, 0), (255, 255, 255)), reduce_labels=True),
    ]
    suffixes = [".png", ".jpg", ".tif", ".bmp", ".webp", ".npy", ".gif"]
    for number in range(FILES):
        is_array = number % 10 == 0
        path = tmp_path / f"file{'.npy' if is_array else rng.choice(suffixes)}"
        path.write_bytes(mutated_array(rng) if is_array else mutated_file(rng))
        stored = {"path": str(path), "bytes": None if rng.random() < 0.7 else path.read_bytes()}
        decoder = rng.choice(decoders)
        with only_input_errors(number), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # Pillow's own on damaged metadata
            image = np.asarray(decoder.image(stored))
            assert image.dtype == np.uint8 and image.ndim == 3
            read += 1
        with only_input_errors(number), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")
            mask = decoder.mask(stored)
            assert mask.mode == "L"
            require_same_size(mask, mask, "mask")
            require_known_ids(np.bincount(np.asarray(mask).ravel(), minlength=256), 2, "mask")
        path.unlink()
    assert 0.2 < read / FILES < 0.9, read


def test_the_guard_lets_no_other_error_pass():
    with pytest.raises(AssertionError, match="KeyError for 'this'"), only_input_errors("this"):
        raise KeyError("x")
    with pytest.raises(AssertionError), only_input_errors("this"):
        raise InputError("two\nlines")
    assert DataArguments().dataset == "shapes"
