"""Reading XML: its limits, refused declarations, and recognition by the first bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarks_fastai.errors import UserError
from landmarks_fastai.utils import xml_reader
from landmarks_fastai.utils.xml_reader import leading_tags, parse_fragment, read_xml, starts_as_xml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "a.xml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_read_xml_returns_elements_attributes_and_text(tmp_path: Path) -> None:
    root = read_xml(write(tmp_path, '<?xml version="1.0"?><a x="1"><b>é &amp; text</b><b/></a>'))
    assert (root.tag, root.attrib) == ("a", {"x": "1"})
    assert [each.text for each in root.iter("b")] == ["é & text", None]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_read_xml_reads_encodings(tmp_path: Path, encoding: str) -> None:
    declared = "latin-1" if encoding == "latin-1" else encoding.removesuffix("-sig")
    text = f'<?xml version="1.0" encoding="{declared}"?><a>é</a>'
    path = write(tmp_path, text.encode(encoding))
    assert read_xml(path).text == "é"
    assert starts_as_xml(path)
    assert leading_tags(path) == ["a"]


@pytest.mark.parametrize("prolog", ["<!DOCTYPE a>", '<?xml-stylesheet type="text/xsl" href="x.xsl"?>'])
def test_read_xml_accepts_prolog_without_declarations(tmp_path: Path, prolog: str) -> None:
    assert read_xml(write(tmp_path, f"{prolog}<a/>")).tag == "a"


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "text">]>',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE a SYSTEM "http://example.com/a.dtd">',
        '<!DOCTYPE a PUBLIC "-//W3C//DTD" "a.dtd">',
        "<!DOCTYPE a []>",
        '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;"><!ENTITY c "&b;&b;&b;">]>',
    ],
)
def test_read_xml_document_type_with_declarations_raises(tmp_path: Path, doctype: str) -> None:
    path = write(tmp_path, f"{doctype}<a>&c;</a>")
    with pytest.raises(UserError, match=r"a\.xml, line 1: the document type .* remove it"):
        read_xml(path)
    assert len(leading_tags(path)) <= 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "line 1: not valid XML"),
        ("text", "line 1: not valid XML"),
        ("<a>\n<b></a>", "line 2: not valid XML .mismatched tag"),
        ("<a>" * 101 + "</a>" * 101, "nested deeper than 100"),
        ("<a>&undefined;</a>", "undefined entity"),
        (b'<?xml version="1.0" encoding="nonsense-9"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="utf-8"?><a>\xff</a>', "line 1: not valid XML"),
        (b"<a>\0</a>", "not valid XML"),
    ],
)
def test_read_xml_bad_file_raises(tmp_path: Path, text: str | bytes, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as error:
        read_xml(path)
    assert "a.xml" in str(error.value)
    assert "\n" not in str(error.value)
    leading_tags(path)


def test_read_xml_checks_limits_while_parsing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "<a>" + "<b/>" * 50 + "not closed")  # the limit is reached before the error
    monkeypatch.setattr(xml_reader, "MAX_ELEMENTS", 50)
    with pytest.raises(UserError, match="more than 50 elements"):
        read_xml(path)
    monkeypatch.setattr(xml_reader, "MAX_BYTES", 10)
    with pytest.raises(UserError, match="larger than"):
        read_xml(path)


def test_read_xml_missing_file_or_folder_raises(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.xml", tmp_path):
        with pytest.raises(UserError, match="cannot be read"):
            read_xml(path)
        assert not starts_as_xml(path)
        assert leading_tags(path) == []


def test_starts_as_xml_ignores_other_files(tmp_path: Path) -> None:
    assert starts_as_xml(write(tmp_path, "\n  <a>"))
    for text in ("", "{}", "image,x\n", b"\xff\xfe{\0", b"\x89PNG"):
        assert not starts_as_xml(write(tmp_path, text))
        assert leading_tags(write(tmp_path, text)) == []


def test_parse_fragment_returns_elements_or_none() -> None:
    fragment = parse_fragment('<line a="1"/><circle/>')
    assert fragment is not None
    assert [each.tag for each in fragment] == ["line", "circle"]
    assert parse_fragment("<line>") is None
    assert parse_fragment("<a>" * 200) is None
    assert parse_fragment('</fragment><!DOCTYPE a [<!ENTITY x "y">]><a>') is None
