"""Reading CSV files: encoding, line numbers, values, error messages."""

from __future__ import annotations

import io
import math

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import csv_reader
from landmarks_fastai.utils.csv_reader import CsvReader, check_point_range


def read(text: str | bytes) -> CsvReader:
    content = text if isinstance(text, bytes) else text.encode()
    return CsvReader(io.BytesIO(content), "data.csv")


@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"], ids=["plain", "byte order mark"])
def test_csv_reader_reads_columns_and_rows(start: bytes) -> None:
    reader = read(start + "name,größe\r\nä,1\r\n".encode())
    assert reader.columns == ["name", "größe"]
    assert list(reader.rows()) == [(2, ["ä", "1"])]


def test_csv_reader_counts_blank_lines_and_line_breaks_in_fields() -> None:
    reader = read('a,b\n\n1,2\n"3\n3",4\n5,6\n')
    assert list(reader.rows()) == [(3, ["1", "2"]), (5, ["3\n3", "4"]), (6, ["5", "6"])]
    assert reader.at(5) == "data.csv, line 5"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "data.csv: the file is empty; its first line must name the columns"),
        (b"\n\n", "data.csv: the file is empty; its first line must name the columns"),
        (b"a,b,a\n", "data.csv: duplicate column 'a'; remove one of them"),
        (b"\xff\xfe\x00", "data.csv: not a CSV in UTF-16 text (near line 1)"),
        (b"a\xff,b\n", "data.csv: not a CSV in UTF-8 text (near line 1)"),
    ],
)
def test_csv_reader_invalid_header_raises(content: bytes, message: str) -> None:
    with pytest.raises(UserError) as error:
        read(content)
    assert str(error.value) == message


@pytest.mark.parametrize(("row", "count"), [("1", 1), ("1,2,3", 3)])
def test_csv_reader_rows_with_wrong_number_of_fields_raise(row: str, count: int) -> None:
    reader = read(f"a,b\n1,2\n{row}\n")
    with pytest.raises(UserError) as error:
        list(reader.rows())
    expected = f"data.csv, line 3: {count} fields, but the header has 2; correct or remove the row"
    assert str(error.value) == expected


@pytest.mark.parametrize(
    ("text", "value"), [("1.5", 1.5), (" -2e1 ", -20.0), ("", math.nan), ("nan", math.nan)]
)
def test_csv_reader_number_parses_text(text: str, value: float) -> None:
    assert read("x\n").number(text, 2, "x") == pytest.approx(value, nan_ok=True)


@pytest.mark.parametrize("text", ["one", "1,5", "inf", "-inf"])
def test_csv_reader_number_not_finite_raises(text: str) -> None:
    with pytest.raises(UserError) as error:
        read("x\n").number(text, 2, "x")
    assert str(error.value) == (
        f"data.csv, line 2: x is {text!r}; enter a number, or leave it empty if the landmark is unlabeled"
    )


def test_csv_reader_pair_is_complete_or_nan() -> None:
    reader = read("nose_x,nose_y\n")
    assert reader.pair(2, "nose", "1", "2") == (1.0, 2.0)
    assert reader.pair(2, "nose", "", "") == pytest.approx((math.nan, math.nan), nan_ok=True)


@pytest.mark.parametrize(("x", "y", "empty", "filled"), [("1", "", "y", "x"), ("", "2", "x", "y")])
def test_csv_reader_pair_with_one_empty_field_raises(x: str, y: str, empty: str, filled: str) -> None:
    with pytest.raises(UserError) as error:
        read("nose_x,nose_y\n").pair(2, "nose", x, y)
    assert str(error.value) == (
        f"data.csv, line 2: nose_{empty} is empty but nose_{filled} is not; fill in both or neither"
    )


@pytest.mark.parametrize("point", [(0, 0), (-30, -20), (90, 60), (math.nan, math.nan)])
def test_check_point_range_accepts_half_the_size_beyond_the_edges(point: tuple[float, float]) -> None:
    check_point_range("data.csv, line 2", "nose", point, (60, 40))


@pytest.mark.parametrize(
    ("point", "coordinate"),
    [((90.5, 0), "x is 90.5"), ((-30.5, 0), "x is -30.5"), ((0, 60.5), "y is 60.5"), ((0, -21), "y is -21")],
)
def test_check_point_range_beyond_raises(point: tuple[float, float], coordinate: str) -> None:
    with pytest.raises(UserError) as error:
        check_point_range("data.csv, line 2", "nose", point, (60, 40))
    assert str(error.value) == (
        f"data.csv, line 2: nose_{coordinate}, far outside the image of 60 × 40 px; correct the value, or"
        " leave it empty if the landmark is unlabeled"
    )


@pytest.mark.parametrize(
    ("content", "separator", "line"),
    [
        ("a,b\n1,2\n", ",", 2),
        ("a;b\n1;2\n", ";", 2),
        ("a\tb\n1\t2\n", "\t", 2),
        ("sep=;\na;b\n1;2\n", ";", 3),
        ('"sep=\t"\r\na\tb\r\n1\t2\r\n', "\t", 3),
        ('"a;;;",b\n1,2\n', ",", 2),
        (" a , b \n1,2,,\n", ",", 2),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_csv_reader_detects_separator_and_encoding(
    content: str, separator: str, line: int, encoding: str
) -> None:
    reader = read(content.encode(encoding))
    assert reader.separator == separator
    assert reader.columns[1] == "b"
    assert list(reader.rows()) == [(line, ["1", "2"])]


def test_csv_reader_accepts_decimal_commas_between_semicolons() -> None:
    assert read(b"a;b\n").number("1,5", 2, "a") == 1.5
    with pytest.raises(UserError, match="enter a number"):
        read(b"a,b\n").number("1,5", 2, "a")


def test_csv_reader_too_long_line_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_reader, "MAX_LINE", 100)
    with pytest.raises(UserError, match="line 2 is too long"):
        list(read(b"a,b\n" + b"x" * 200).rows())
