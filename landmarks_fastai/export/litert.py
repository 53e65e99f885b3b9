"""Export to LiteRT (TensorFlow Lite): one .tflite file for phones and embedded devices.

Its input is one image, (1, C, S, S) float32.
"""

from __future__ import annotations

import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.export.job import ExportJob, Images, Writer, network_inputs
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import ModelHeader

FILE_IDENTIFIER = b"TFL3"
"""First bytes, after the offset, of every .tflite file."""


def convert(job: ExportJob) -> Writer:
    """Convert a network."""
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        import litert_torch

        path = Path(folder, "model.tflite")
        litert_torch.convert(job.network, (job.example(),)).export(str(path))
        content = path.read_bytes()

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        path.write_bytes(_with_metadata(content, metadata))

    return write


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    """Return a model with other metadata: a named buffer for each entry."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(content, 0))
    model.metadata = model.metadata or []
    for key, value in metadata.items():
        buffer, entry = schema.BufferT(), schema.MetadataT()
        buffer.data = np.frombuffer(value.encode(), np.uint8)
        entry.name, entry.buffer = key, len(model.buffers)
        model.buffers.append(buffer)
        model.metadata.append(entry)
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), file_identifier=FILE_IDENTIFIER)
    return bytes(builder.Output())


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file with LiteRT's interpreter."""
    with _quiet():
        from ai_edge_litert.interpreter import Interpreter

        interpreter = Interpreter(str(path))
    runner = interpreter.get_signature_runner()

    def run(images: Images) -> tuple[NDArray[np.float32], ...]:
        rows = [runner(args_0=image) for image in np.split(network_inputs(images), len(images))]
        return tuple(np.concatenate([row[name] for row in rows]) for name in sorted(rows[0]))

    return run


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    from ai_edge_litert import schema_py_generated as schema

    model = schema.Model.GetRootAs(path.read_bytes(), 0)
    entries = {}
    for index in range(model.MetadataLength()):
        entry = model.Metadata(index)
        name, data = entry.Name().decode(), model.Buffers(entry.Buffer()).DataAsNumpy()
        if name.startswith("landmarks_fastai"):
            entries[name] = bytes(data).decode()
    return entries


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out the messages of the conversion, which name no error."""
    disabled: Any = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
