"""Inputs that fuzzing has found, as small as possible: each is refused in one short line.

To add one: ``InputMaker(target, seed).make(number)`` returns the input of a failure that `make fuzz` reports;
remove what is not needed from it.
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence

import pytest

from fuzz import seeds
from fuzz.runner import REFUSED, SUCCESS, run_inputs
from fuzz.targets import all_targets

DEEP = b'{"a":' * 3000
BOMB = b"data:\n  limit: [&a0 [x,x],&a1 [*a0,*a0],&a2 [*a1,*a1]]\n"
TIMES = b"name,seconds\nframe_000001.png,1\nframe_000002.png,"


def schema_json(**entries: bytes) -> bytes:
    return b'{"name": "s", "names": ["a", "b"]%s}' % b"".join(
        b', "%s": %s' % (key.encode(), value) for key, value in entries.items()
    )


def table(name: bytes) -> bytes:
    """Return labels with a landmark of this name."""
    return b"image,%s_x,%s_y\na.png,1,2\n" % (name, name)


INPUTS = [
    # config: exceptions of the YAML parser's constructors, recursion, hangs
    *(("config", b"seed: " + value) for value in (b"!!int x", b"!!float y", b"!!bool x", b"!!timestamp z")),
    *(("config", b"seed: " + value) for value in (b"0b_", b"2001-13-45", b"9" * 5000, b"0x" + b"f" * 5000)),
    *(("config", b"seed: " + value) for value in (b"[" * 3000, b"[" * 60 + b"]" * 60, b"{a: 1, a: 2}")),
    *(("config", b"data: " + value) for value in (b"!!map [a]", b"!!set {a, b}", b"{? [a] : 1}", DEEP)),
    ("config", BOMB),
    ("config", b"training: {epochs: '" + b"x" * 5000 + b"'}"),
    ("config", b"a" * 5000 + b": 1"),
    ("config", b"model: {head: {name: " + b"x" * 5000 + b"}}"),
    ("config", b"data: {crop: " + b"x" * 5000 + b"}"),
    # --set
    *(
        ("--set option", b"training=" + value)
        for value in (b"2001-13-45", b"!!timestamp z", b"<: !!int", b"*a")
    ),
    *(("--set option", b"data.source=" + value) for value in (DEEP, b"[" * 3000, b"{" * 3000)),
    *(("--set option", key + b"=1") for key in (b".", b"a" * 5000, b"." * 5000, b"training.epochs.a.b")),
    ("--set option", b"training.schedule=" + b"x" * 5000),
    ("--set option", b"no equals sign" * 300),
    # models
    *(("model: header", value) for value in (DEEP, b"[" * 50_000, b"9" * 5000, b"", b"1", b'"a"')),
    *(("model: onnx", seeds.onnx_file(value)) for value in (b"\xff\xfe{", DEEP, b"9" * 5000)),
    # Kaggle
    ("kaggle: zip", seeds.zipped("training.csv", b"Image\n1,2\n", zipfile.ZIP_LZMA)),
    ("kaggle: zip", seeds.zipped("training.csv", bytes(70 << 20))),
    ("kaggle: zip", seeds.zipped("a" * 500, b"")),
    ("kaggle: test.csv", seeds.kaggle_table("test").replace("\n1,", "\n" + "9" * 30 + ",").encode()),
    ("kaggle: test.csv", seeds.kaggle_table("test").replace("\n1,", "\n" + "9" * 5000 + ",").encode()),
    # schemas
    *(("schema: json", schema_json(skeleton=value)) for value in (DEEP, b"[" * 90 + b"]" * 90, b"[[9e999]]")),
    *(("schema: json", schema_json(eyes=value)) for value in (b"[1, 2]", b'"ab"', b"[[], []]")),
    ("schema: json", b'{"name": "s", "names": ["' + b"x" * 5000 + b'"]}'),
    ("schema: yaml", b"names: [a, a]\nname: " + b"x" * 5000),
    # labels: names without an end
    ("labels: csv", table(b"a" * 5000)),
    ("labels: csv", table(b"a b " * 5000)),
    ("labels: csv", table("\ufeff".encode() * 80)),
    ("labels: csv", table(b"left_l_" * 28)),
    ("labels: lightning-pose", b"scorer,a,a\nbodyparts,n,n\ncoords,x,y\na/" + b"x" * 300 + b".png,1,2\n"),
    # boxes
    ("boxes: csv", b"image,x0,y0,x1,y1\n" + b"a" * 5000 + b",1,2,3,4,5\n"),
    # times.csv
    *(("times.csv", TIMES + value) for value in (b"1e-99999999", b"1e-9999999", b"1/0", b"A" * 5000)),
    # images
    ("image: webp", b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0/\xff\xff\xff\x0f" + bytes(9)),  # 16,384 × 16,384 px
]


def outcomes(name: str, contents: Sequence[bytes]) -> list[str]:
    """Return the outcomes of main files, beside the other files of the first seed, such as images."""
    target = all_targets()[name]
    others = target.seeds()[0]
    return run_inputs(target, [{**others, target.main: content} for content in contents])


@pytest.mark.parametrize("target", sorted({name for name, _ in INPUTS}))
def test_found_inputs_are_refused_in_one_line(target: str) -> None:
    contents = [content for name, content in INPUTS if name == target]
    found = outcomes(target, contents)
    assert len(found) == len(contents), f"{contents[len(found) - 1][:100]!r}: {found[-1]}"
    wrong = [(content[:100], one) for content, one in zip(contents, found, strict=True) if one != REFUSED]
    assert wrong == []


def test_box_of_an_impossible_image_name_is_left_out() -> None:
    names = (b"a\0.png", b"x" * 300, b"/" * 5000)
    contents = [b"image,x0,y0,x1,y1\n%s,1,2,3,4\n" % name for name in names]
    null, *others = outcomes("boxes: csv", contents)
    assert null in (SUCCESS, REFUSED)  # pandas 2 does not read a null byte
    assert others == [SUCCESS] * len(others)
