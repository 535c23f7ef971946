"""The scanners say of a body in parts what the whole-body parsers say of it at once, wherever it is cut."""

import json
import random
from collections.abc import Iterator

import pytest

from vllama.api.body import model_of
from vllama.api.formscan import FormScan, boundary_of
from vllama.api.jsonscan import TOKEN_MAX, JsonScan, checked_model
from vllama.errors import BadRequest


def scanned(scan: JsonScan | FormScan, data: bytes, cuts: Iterator[int]) -> str | None:
    """The model, or None where the scanner refuses."""
    at = 0
    try:
        while at < len(data):
            size = next(cuts)
            scan.feed(data[at : at + size])
            at += size
        return scan.end()
    except BadRequest:
        return None


def parsed(data: bytes) -> str | None:
    try:
        data.decode()
        return checked_model(model_of(data))
    except (BadRequest, UnicodeDecodeError):
        return None


def pieces(draw: random.Random, largest: int) -> Iterator[int]:
    while True:
        yield draw.randint(1, largest)


STRINGS = [
    "",
    "a",
    "model",
    'quo"te',
    "back\\slash",
    "caf\u00e9",
    "\U0001f600",
    "\n",
    "}{][",
    "x" * 50,
    "\u2028",
]
SCALARS = [0, -1, 1.5, -2.5e-10, 1e300, True, False, None, 10**30, float("inf"), float("-inf"), float("nan")]


def value(draw: random.Random, depth: int):
    kind = draw.random()
    if depth and kind < 0.25:
        return [value(draw, depth - 1) for _ in range(draw.randint(0, 4))]
    if depth and kind < 0.5:
        return {draw.choice(STRINGS): value(draw, depth - 1) for _ in range(draw.randint(0, 4))}
    return draw.choice(STRINGS) if kind < 0.75 else draw.choice(SCALARS)


def body(draw: random.Random) -> bytes:
    tree = {draw.choice(STRINGS): value(draw, 3) for _ in range(draw.randint(0, 4))}
    if draw.random() < 0.9:
        tree["model"] = draw.choice(["org/name", "m\u00fcller", 'a"b', "\\", "a", "", 1, None, ["x"], "\n"])
    text = json.dumps(tree, ensure_ascii=draw.random() < 0.5, indent=draw.choice([None, None, 1]))
    if draw.random() < 0.1:
        text = text[:-1] + ', "mod\\u0065l": "twice"}'
    return text.encode()


def broken(draw: random.Random, data: bytes) -> bytes:
    at = draw.randrange(len(data) + 1)
    match draw.randrange(4):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + data[at + 1 :]
        case 2:
            return (
                data[:at]
                + draw.choice(list(b'{}[]",:\\0123 -+.eE\x00\x1f\xff\xc3tfnNI/u')).to_bytes(1, "big")
                + data[at:]
            )
        case _:
            return data[:at] + draw.choice(list(b'{}[]",:\\ 09eunlt')).to_bytes(1, "big") + data[at + 1 :]


@pytest.mark.parametrize("seed", range(16))
def test_the_scanner_and_the_parser_agree_on_every_body(seed: int):
    draw = random.Random(seed)
    for _ in range(100):
        data = body(draw)
        if draw.random() < 0.6:
            data = broken(draw, data)
        expected = parsed(data)
        for largest in (1, 7, 10_000):
            found = scanned(scan := JsonScan(), data, pieces(draw, largest))
            assert found == expected, data
            if expected is not None:
                start, end = scan.span
                assert json.loads(data[start:end]) == expected, data


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b" ",
        b"{",
        b"[" * 100_000,
        b'{"a":' * 600 + b"1" + b"}" * 600,
        b'{"model": "a"} x',
        b'{"x": ' + b"1" * 10_000,
    ],
)
def test_what_never_ends_or_goes_too_deep_is_refused(data: bytes):
    assert scanned(JsonScan(), data, pieces(random.Random(1), 4096)) is None


@pytest.mark.parametrize("kind", ["one string", "numbers", "strings", "small lists", "escapes"])
@pytest.mark.slow
def test_nothing_of_a_large_body_is_kept_or_read_twice(kind: str):
    inside = {
        "one string": b'"' + b"A" * 8_000_000 + b'"',
        "numbers": b"[" + b"1.25," * 1_600_000 + b"0]",
        "strings": b"[" + b'"word",' * 1_100_000 + b"0]",
        "small lists": b"[" + b"[1,2]," * 1_300_000 + b"0]",
        "escapes": b'"' + b"\\u00e9\\n" * 1_000_000 + b'"',
    }[kind]
    data = b'{"input": ' + inside + b', "model": "a"}'
    scan = JsonScan()
    for at in range(0, len(data), 2**16):
        scan.feed(data[at : at + 2**16])
        assert len(scan._rest) <= TOKEN_MAX
    assert scan.end() == "a"


def form(*fields: tuple[str, bytes], boundary: str = "XbX", newline: bytes = b"") -> bytes:
    parts = [
        f"--{boundary}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode() + data + b"\r\n"
        for head, data in fields
    ]
    return newline + b"".join(parts) + f"--{boundary}--\r\n".encode()


FILE = ('name="file"; filename="a.wav"\r\nContent-Type: audio/wav', b"RIFF\r\n--Xb\r\n\r\n--XbY\x00" * 50)
MODEL = ('name="model"', b"org/name")


@pytest.mark.parametrize("largest", [1, 5, 64, 100_000])
@pytest.mark.parametrize(
    ("data", "model"),
    [
        (form(MODEL, FILE), "org/name"),
        (form(FILE, MODEL), "org/name"),
        (form(("name=prompt", b"org/name"), FILE, MODEL, newline=b"preamble\r\n"), "org/name"),
        (form(FILE, ('name="model"', "m\u00fcller".encode())), "m\u00fcller"),
        (form(FILE) + b"epilogue", None),
        (form(FILE, ('name="model"', b"")), None),
        (form(MODEL, FILE, MODEL), None),
        (form(('name="model"; filename="x"', b"a")), None),
        (form(("name=model", b"a\nb")), None),
        (form(("name=model", b"a" * 5000)), None),
        (form(MODEL)[:-6], None),
        (form(MODEL, boundary="other"), None),
        (b"--XbX junk\r\n\r\n", None),
        (b"--XbX\r\n" + b"a: b\r\n" * 10_000, None),
        (b"", None),
    ],
)
def test_the_model_is_a_field_of_the_form_wherever_it_stands(data: bytes, model: str | None, largest: int):
    found = scanned(scan := FormScan(b"XbX"), data, pieces(random.Random(largest), largest))
    assert found == model
    if model is not None:
        assert data[slice(*scan.span)].decode() == model


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        ("multipart/form-data; boundary=abc", b"abc"),
        ('Multipart/Form-Data; charset=utf-8; boundary="a b"', b"a b"),
        ("multipart/form-data", None),
        ("multipart/form-data; boundary=", None),
        ("multipart/mixed; boundary=abc", None),
        ("application/json", None),
        ("", None),
    ],
)
def test_the_boundary_is_in_the_content_type(content_type: str, boundary: bytes | None):
    assert boundary_of(content_type) == boundary
