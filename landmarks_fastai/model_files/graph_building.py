"""Building the graph of an architecture with torch, and comparing its output with that of torch."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from landmarks_fastai.errors import RunError
from landmarks_fastai.model_files.graphs import FoldedNormalization, Graph
from landmarks_fastai.model_files.header import ModelHeader
from landmarks_fastai.model_files.onnx_sessions import graph_session
from landmarks_fastai.model_files.weights import StoredTensor
from landmarks_fastai.utils.text import shorten

if TYPE_CHECKING:
    from landmarks_fastai.networks.build import PixelNetwork

OPSET = 17

PREFIX = "network."
"""Beginning of the names of the network's tensors in a `PixelNetwork`."""

TOLERANCE = 1e-3
"""Largest accepted difference between ONNX Runtime and torch for random weights, relative to the side."""


def build_graph(header: ModelHeader) -> Graph:
    """Return the graph of the network that a header describes.

    Raises
    ------
    RunError
        If torch cannot export the network, or ONNX Runtime predicts something else than torch.
    """
    import onnx
    import torch

    network = _random_network(header)
    example = torch.rand(2, header.channels, header.input_size, header.input_size) * 255
    with torch.inference_mode():
        expected = [output.numpy() for output in network(example)]
    try:
        model = onnx.load_from_string(_export(network, example, network.output_names(len(expected))))
    except Exception as error:  # torch raises various types for operators that it cannot export
        reason = shorten(" ".join(str(error).split()), 200)
        raise RunError(f"torch cannot export {header.arch} to ONNX: {reason}; use --backend torch") from error
    _strip_names(model.graph)
    weights = {name.removeprefix(PREFIX): value for name, value in network.state_dict().items()}
    constants = {name for name, _ in network.named_buffers(recurse=False)}
    tensors = {
        name: StoredTensor(tuple(value.shape), "F32" if value.is_floating_point() else "I64")
        for name, value in weights.items()
        if name not in constants
    }
    normalizations = _fold_normalizations(model.graph)
    _remove_values(model.graph)
    names = tuple(initializer.name for initializer in model.graph.initializer)
    graph = Graph(model.SerializeToString(), names, tensors, normalizations)
    stored = {name: weights[name].numpy().copy() for name, tensor in tensors.items() if tensor.dtype == "F32"}
    session = graph_session(graph, stored, header, "cpu")
    outputs = session.run(None, {"image": example.numpy()})
    difference = max(float(np.abs(a - b).max()) for a, b in zip(expected, outputs, strict=True))
    if not difference < TOLERANCE * header.input_size:  # also true for NaN
        raise RunError(
            f"ONNX Runtime differs from torch by {difference:.3g} px for {header.arch}; use --backend torch"
        )
    return graph


def _random_network(header: ModelHeader) -> PixelNetwork:
    """Return a network in which no two tensors are equal, because the exporter would merge them."""
    import torch

    from landmarks_fastai.networks.build import PixelNetwork, build_network

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = build_network(header.arch, header.head, len(header.landmark_schema), header.channels)
        visibility = header.visibility_calibration if header.predicts_visibility else None
        wrapped = PixelNetwork(
            network, header.mean, header.std, header.input_size, header.scale_factor, visibility
        )
        for tensor in network.state_dict().values():
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape), alpha=1e-3)
    return wrapped.eval()


def _export(network: PixelNetwork, example: Any, outputs: list[str]) -> bytes:
    """Return the ONNX model of a network, with all parameters under their names in the state dict."""
    import torch

    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that it is deprecated, and of sizes that become constant
        torch.onnx.export(
            network,
            (example,),
            file,  # type: ignore[arg-type] # the exporter of dynamo=False accepts it
            dynamo=False,
            opset_version=OPSET,
            input_names=["image"],
            output_names=outputs,
            dynamic_axes={name: {0: "batch"} for name in ("image", *outputs)},
            # anything else folds the batch normalizations of these weights
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
    return file.getvalue()


def _strip_names(graph: Any) -> None:
    """Give the initializers the names of the tensors in a file, and remove the exporter's notes."""
    for initializer in graph.initializer:
        initializer.name = initializer.name.removeprefix(PREFIX)
    for node in graph.node:
        node.ClearField("doc_string")
        for index, name in enumerate(node.input):
            node.input[index] = name.removeprefix(PREFIX)


def _fold_normalizations(graph: Any) -> dict[str, FoldedNormalization]:
    """Remove each batch normalization of the output of a convolution, and return how to fold its weights."""
    producers = {output: node for node in graph.node for output in node.output}
    folded = {}
    for node in [node for node in graph.node if node.op_type == "BatchNormalization"]:
        convolution = producers[node.input[0]]
        others = [user for user in graph.node if node.input[0] in user.input and user is not node]
        weight = convolution.input[1] if convolution.op_type == "Conv" else ""
        uses = sum(weight in user.input for user in graph.node)
        if not weight or uses > 1 or any(user.op_type != "Shape" for user in others):
            continue
        for user in others:  # the shape is the same
            user.input[0] = node.output[0]
        scale, shift, mean, variance = node.input[1:5]
        if len(convolution.input) == 2:
            convolution.input.append(shift)
        epsilon = next(a.f for a in node.attribute if a.name == "epsilon")
        folded[weight] = FoldedNormalization(convolution.input[2], scale, shift, mean, variance, epsilon)
        convolution.output[0] = node.output[0]
        graph.node.remove(node)
        for name in {scale, shift, mean, variance} - {convolution.input[2]}:
            graph.initializer.remove(next(one for one in graph.initializer if one.name == name))
    return folded


def _remove_values(graph: Any) -> None:
    """Make every initializer one whose values are given when a session is created."""
    import onnx

    for initializer in graph.initializer:
        initializer.ClearField("raw_data")
        initializer.data_location = onnx.TensorProto.EXTERNAL
        initializer.external_data.add(key="location", value="given")
