"""Export to Core ML: an .mlpackage folder for Apple's devices, which only macOS can run."""

from __future__ import annotations

import logging
import platform
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from landmarks_fastai.export.job import (
    FP16,
    INT8,
    ExportJob,
    Images,
    NotRunnableError,
    Writer,
    network_inputs,
)
from landmarks_fastai.inference.backends import Backend
from landmarks_fastai.model_files.header import ModelHeader

MAX_BATCH = 64
"""Largest batch that the model accepts."""


def convert(job: ExportJob) -> Writer:
    """Convert a network; with fp16, it computes in float16, with int8, its weights are 8-bit integers."""
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import coremltools
        import torch

        batch = torch.export.Dim("batch", min=1, max=MAX_BATCH)
        program = torch.export.export(job.network, (job.example(2),), dynamic_shapes=({0: batch},))
        half = coremltools.precision.FLOAT16 if job.precision == FP16 else coremltools.precision.FLOAT32
        model = coremltools.convert(
            _without_aliases(program.run_decompositions({})),
            inputs=[
                coremltools.TensorType(
                    "image", (coremltools.RangeDim(1, MAX_BATCH, default=1), *job.example().shape[1:])
                )
            ],
            outputs=[coremltools.TensorType(name) for name in job.output_names()],
            convert_to="mlprogram",
            compute_precision=half,
            minimum_deployment_target=coremltools.target.iOS16,
        )
        if job.precision == INT8:
            model = _with_integer_weights(model)

    def write(path: Path, metadata: Mapping[str, str]) -> None:
        model.user_defined_metadata.update(metadata)
        model.save(str(path))

    return write


def _without_aliases(program: Any) -> Any:
    """Remove operators that return their input, which coremltools does not know; return the program."""
    import torch

    graph = program.graph_module.graph
    for node in list(graph.nodes):
        if node.target in (torch.ops.aten.alias.default, torch.ops.aten.detach.default):
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
    program.graph_module.recompile()
    return program


def _with_integer_weights(model: Any) -> Any:
    """Return a model whose weights are 8-bit integers, with a scale per channel."""
    from coremltools.optimize import coreml

    settings = coreml.OpLinearQuantizerConfig(mode="linear_symmetric")
    return coreml.linear_quantize_weights(model, coreml.OptimizationConfig(global_config=settings))


def open_backend(path: Path, header: ModelHeader) -> Backend:
    """Open a file with Core ML.

    Raises
    ------
    NotRunnableError
        If this is not macOS.
    """
    if platform.system() != "Darwin":
        raise NotRunnableError("Core ML models run on macOS only")
    import coremltools

    model = coremltools.models.MLModel(str(path), compute_units=coremltools.ComputeUnit.CPU_ONLY)
    names = [output.name for output in model.get_spec().description.output]

    def run(images: Images) -> tuple[NDArray[np.float32], ...]:
        results = model.predict({"image": network_inputs(images)})
        return tuple(np.asarray(results[name], np.float32) for name in names)

    return run


def read_metadata(path: Path) -> Mapping[str, str]:
    """Return the metadata of a file."""
    import coremltools

    specification = coremltools.utils.load_spec(str(path))
    entries = specification.description.metadata.userDefined
    return {key: value for key, value in entries.items() if key.startswith("landmarks_fastai")}
