"""Schema files: templates that can be read, shorthand, and one-line errors that name the file and the key."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from landmarks_fastai.errors import UserError
from landmarks_fastai.schema import LandmarkSchema
from landmarks_fastai.schemas import IBUG68, SCHEMAS
from landmarks_fastai.schemas.files import open_schema, read_schema, schema_template
from landmarks_fastai.schemas.matching import infer_schema


def write(folder: Path, text: str, name: str = "schema.yaml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=SCHEMAS)
def test_template_of_built_in_schema_reads_as_the_same(schema: LandmarkSchema, tmp_path: Path) -> None:
    assert read_schema(write(tmp_path, schema_template(schema, "labels.csv"))) == schema


@settings(max_examples=40)
@given(
    names=st.lists(
        st.text(st.characters(blacklist_categories=["Cs", "Cc", "Cn", "Co"]), min_size=1, max_size=12),
        min_size=1,
        max_size=8,
        unique=True,
    ),
    source=st.text(max_size=30),
)
def test_template_of_any_names_reads_as_the_same(
    names: list[str], source: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    schema = infer_schema("any", names)
    path = tmp_path_factory.getbasetemp() / "template.yaml"
    path.write_text(schema_template(schema, source.encode("utf-8", "ignore").decode()), encoding="utf-8")
    assert read_schema(path) == schema


def test_template_names_landmarks_without_partner_but_does_not_excuse_them(tmp_path: Path) -> None:
    schema = infer_schema("mine", ["left_eye", "right_eye", "leftMouth"])
    text = schema_template(schema, "labels.csv")
    assert "Pair leftMouth, or list them here." in text.replace("\n# ", " ")
    assert read_schema(write(tmp_path, text)).midline == ()


def test_read_schema_with_all_keys(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "names: [a, b, c, 1]\nflip_pairs: [[a, b]]\nmidline: [c]\nskeleton: [[a, c, b]]\n"
        "eyes: null\nnormalizer: [a, [b, 1]]\n",
        "tool.yaml",
    )
    assert read_schema(path) == LandmarkSchema(
        "tool",
        ("a", "b", "c", "1"),
        flip_pairs=(("a", "b"),),
        midline=("c",),
        skeleton=(("a", "c", "b"),),
        normalizer=(("a",), ("b", "1")),
    )


def test_read_schema_of_json(tmp_path: Path) -> None:
    path = write(tmp_path, '{"names": ["a", "b"], "eyes": [["a"], ["b"]]}', "face.json")
    assert read_schema(path) == LandmarkSchema("face", ("a", "b"), eyes=(("a",), ("b",)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("names: []", "'names' must be the list of landmark names"),
        ("name: x", "the key 'names' is missing; list the landmark names"),
        ("- a", "a schema is a mapping with the keys name, names"),
        ("", "a schema is a mapping"),
        ("names: [a]\nflip_pair: []", "unknown key 'flip_pair'; did you mean 'flip_pairs'?"),
        ("names: [a, yes]", "'names' has the value 'True', which is not a name; put names that YAML reads"),
        ("names: [a, 1.5]", "'names' has the value '1.5', which is not a name"),
        ("names: [a, ]\nname:", "'name' is empty or has an empty entry"),
        ("names: [a, b]\nflip_pairs: a", "'flip_pairs' must be a list"),
        ("names: [a, b]\nflip_pairs: [[a, c]]", "'c' is not one of its landmarks"),
        ("names: [a, b]\nflip_pairs: [[a]]", "a schema needs name and names"),
        ("names: [a, b]\neyes: [[a]]", "a schema needs name and names"),
        ("names: [a, a]", "names must be unique"),
        ("names: &x [a, *x]", "line 1, column 15: not usable as YAML"),
        ("names: [a", "not usable as YAML"),
    ],
)
def test_read_schema_of_bad_file_raises_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError) as error:
        read_schema(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300 + len(str(path))


def test_open_schema_by_name_or_file(tmp_path: Path) -> None:
    assert open_schema("ibug68") is IBUG68
    assert open_schema(str(write(tmp_path, "names: [a]", "mine.yaml"))) == LandmarkSchema("mine", ("a",))
    with pytest.raises(
        UserError, match=r"^--schema ibug67: no such file or built-in schema; did you mean 'ibug68'"
    ):
        open_schema("ibug67")
