"""The labels that a CVAT export declares: landmark names and edges of skeletons."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree.ElementTree import Element

from landmarks_fastai.data.formats.labeled_objects import MAX_LANDMARKS
from landmarks_fastai.utils.xml_reader import parse_fragment

Edge = tuple[str, str]


def read_edges(meta: Element | None) -> list[Edge]:
    """Return the edges of all skeletons as pairs of landmark names, each once.

    CVAT stores a skeleton as SVG text: circles with ``data-node-id`` and ``data-label-name``, and
    lines with ``data-node-from`` and ``data-node-to``.
    """
    edges: dict[frozenset[str], Edge] = {}
    for label in _skeletons(meta):
        for edge in _svg_edges(label.findtext("svg") or ""):
            edges.setdefault(frozenset(edge), edge)
    return list(edges.values())


def skeleton_landmarks(meta: Element | None) -> dict[str, list[str]]:
    """Return the landmark names of each skeleton in their declared order, by the label of the skeleton."""
    landmarks: dict[str, list[str]] = {}
    labels = [] if meta is None else list(meta.iter("label"))
    for label in labels:
        parent = (label.findtext("parent") or "").strip()
        name = (label.findtext("name") or "").strip()
        if parent and name and name not in landmarks.setdefault(parent, []):
            landmarks[parent].append(name)
    return landmarks


def _skeletons(meta: Element | None) -> Iterable[Element]:
    labels = [] if meta is None else meta.iter("label")
    return (label for label in labels if (label.findtext("type") or "").strip() == "skeleton")


def _svg_edges(text: str) -> list[Edge]:
    fragment = parse_fragment(text)
    if fragment is None:
        return []
    names = {
        node.get("data-node-id", ""): node.get("data-label-name", "").strip()
        for node in fragment.iter("circle")
        if node.get("data-label-name", "").strip()
    }
    edges = []
    for line in fragment.iter("line"):
        first, second = names.get(line.get("data-node-from", "")), names.get(line.get("data-node-to", ""))
        if first and second and first != second:
            edges.append((first, second))
    return edges[:MAX_LANDMARKS]
