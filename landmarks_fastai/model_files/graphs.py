"""Graphs: what ONNX Runtime runs for a .safetensors file, whose weights are taken from that file.

A graph depends only on the architecture: models that differ in weights, landmark names, normalization or
calibration have the same one. Those of the released models come with the package. Others are built by torch
once (`graph_building`), and kept in the user's cache folder.

The file of a graph is one line of JSON, which says what is to be done with the weights, followed by an ONNX
model whose initializers have names, types and shapes, but no values.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.errors import LandmarksError
from landmarks_fastai.model_files.discovery import PACKAGE_DIR, RELEASED_DIR
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.weights import StoredTensor, StoredWeights, check_tensors, needed_tensors
from landmarks_fastai.utils.cache_folder import default_cache_dir
from landmarks_fastai.utils.files import atomic_write

Floats = NDArray[np.float32]

GRAPH_FORMAT = 1
"""Version of the files of graphs."""

RELEASED_GRAPHS = RELEASED_DIR / "graphs"
"""Folder of the graphs that come with the package."""


@dataclass(frozen=True)
class FoldedNormalization:
    """A batch normalization that is folded into the convolution before it.

    ONNX Runtime would fold it as well, but needs twice the memory and time for that.

    Parameters
    ----------
    bias
        Name of the bias of the convolution after folding; if the convolution had none before, that of the
        normalization's bias.
    weight, shift, mean, variance
        Names of the parameters of the normalization.
    epsilon
        Added to the variance.
    """

    bias: str
    weight: str
    shift: str
    mean: str
    variance: str
    epsilon: float


@dataclass(frozen=True)
class Graph:
    """A graph without weights.

    Parameters
    ----------
    content
        Serialized ONNX model.
    initializers
        Names of its initializers: tensors of the file, and constants of the header (`_constants`).
    tensors
        The tensors that the model file must contain.
    normalizations
        Folded normalizations by the name of the convolution's weight.
    """

    content: bytes
    initializers: tuple[str, ...]
    tensors: Mapping[str, StoredTensor]
    normalizations: Mapping[str, FoldedNormalization]

    def to_bytes(self) -> bytes:
        """Return the content of a file from which `from_bytes` reads this graph."""
        entries = {
            "initializers": self.initializers,
            "tensors": {name: [tensor.dtype, tensor.shape] for name, tensor in self.tensors.items()},
            "normalizations": {name: asdict(one) for name, one in self.normalizations.items()},
        }
        return json.dumps(entries).encode() + b"\n" + self.content

    @classmethod
    def from_bytes(cls, content: bytes) -> Graph:
        """Read the output of `to_bytes`.

        Raises
        ------
        ValueError, TypeError, KeyError
            If it is another file, or damaged.
        """
        line, _, onnx_model = content.partition(b"\n")
        entries = json.loads(line)
        tensors = {
            name: StoredTensor(tuple(shape), dtype) for name, (dtype, shape) in entries["tensors"].items()
        }
        normalizations = {name: FoldedNormalization(**one) for name, one in entries["normalizations"].items()}
        return cls(onnx_model, tuple(entries["initializers"]), tensors, normalizations)

    def values(self, weights: dict[str, Floats], header: ModelHeader) -> dict[str, Floats]:
        """Return the values of the initializers.

        Parameters
        ----------
        weights
            The weights of the model file (`StoredWeights.read`); emptied and modified, to save memory.
        header
            Header of the model file.
        """
        for name, one in self.normalizations.items():
            mean, shift = weights.pop(one.mean), weights.pop(one.shift)
            factor = weights.pop(one.weight) / np.sqrt(weights.pop(one.variance) + np.float32(one.epsilon))
            bias = weights.pop(one.bias, np.float32(0))
            weights[name] *= factor[:, None, None, None]
            weights[one.bias] = np.asarray(shift + (bias - mean) * factor, np.float32)
        constants = _constants(header)
        return {name: weights.pop(name) if name in weights else constants[name] for name in self.initializers}


def open_graph(weights: StoredWeights, note: Callable[[str], None] | None = None) -> Graph:
    """Return the graph of a model file, whose tensors are checked against it.

    Parameters
    ----------
    weights
        Contents of the model file.
    note
        Called with one line if the graph has to be built first, which takes seconds.

    Raises
    ------
    UserError
        If the tensors in the file are not those of the network that its header describes.
    RunError
        If torch cannot export the network.
    """
    header, path = weights.header, weights.path
    cached = default_cache_dir() / "graphs" / _version_of_networks() / graph_name(header)
    for folder in (RELEASED_GRAPHS, cached.parent):
        graph = _read(folder / cached.name)
        if graph is not None:
            check_tensors(graph.tensors, weights.tensors, header.arch, path)
            return graph
    check_tensors(needed_tensors(header, path), weights.tensors, header.arch, path)
    if note is not None:
        note(f"{path}: preparing {header.arch} for ONNX Runtime with torch, once for all models like it")
    from landmarks_fastai.model_files.graph_building import build_graph

    graph = build_graph(header)
    try:
        with atomic_write(cached) as partial:
            partial.write_bytes(graph.to_bytes())
    except LandmarksError as error:  # for example, a home folder that cannot be written to
        if note is not None:
            note(f"{error}; therefore, the next start takes as long")
    return graph


def graph_name(header: ModelHeader) -> str:
    """Return the name of the file of a graph, with a hash of everything that the graph depends on."""
    parts = [GRAPH_FORMAT, header.arch, header.head, len(header.landmark_schema), header.channels]
    text = json.dumps([*parts, header.input_size], sort_keys=True)
    arch = header.arch if header.arch.isidentifier() else ""
    return f"{arch}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.graph"


def _version_of_networks() -> str:
    """Return a hash of the code of the networks, so that a graph in the cache is never that of other code."""
    digest = hashlib.sha256()
    for file in sorted((PACKAGE_DIR / "networks").glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _read(path: Path) -> Graph | None:
    """Return the graph in a file; None if there is none, or it is damaged."""
    try:
        return Graph.from_bytes(path.read_bytes())
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _constants(header: ModelHeader) -> dict[str, Floats]:
    """Return what a header contributes to the initializers, as `networks.build.PixelNetwork` names it."""
    slope, intercept = header.visibility_calibration
    return {
        "mean": np.array(header.mean, np.float32).reshape(1, -1, 1, 1),
        "std": np.array(header.std, np.float32).reshape(1, -1, 1, 1),
        "scale": np.array(header.scale_factor * header.input_size, np.float32),
        "slope": np.array(slope, np.float32),
        "intercept": np.array(intercept, np.float32),
    }
