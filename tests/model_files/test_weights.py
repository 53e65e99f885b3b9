"""The weights in a file are checked against its header before memory is allocated for them."""

from __future__ import annotations

import json
import os
import resource
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from landmarks_fastai.errors import UserError
from landmarks_fastai.model_files.header import HEADER_KEY, MAX_HEADER_BYTES, ModelHeader
from landmarks_fastai.model_files.loading import open_model
from landmarks_fastai.networks.build import build_meta_network, build_network
from landmarks_fastai.networks.heads import HEADS
from landmarks_fastai.schemas import KAGGLE15

Change = Callable[[dict[str, Any]], None]
ChangeWeights = Callable[[dict[str, Tensor]], None]


def write_model(
    path: Path,
    header: ModelHeader,
    network: nn.Module,
    change: Change | None = None,
    change_weights: ChangeWeights | None = None,
) -> Path:
    """Write a model file whose header or weights are changed."""
    entries, weights = header.to_dict(), dict(network.state_dict())
    if change is not None:
        change(entries)
    if change_weights is not None:
        change_weights(weights)
    save_file(weights, path, metadata={HEADER_KEY: json.dumps(entries)})
    return path


def refusal(path: Path) -> str:
    """Return the message with which a file is refused."""
    with pytest.raises(UserError) as caught:
        open_model(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    assert len(message) < len(str(path)) + 300
    return message.removeprefix(str(path))


def ask_for_wide_head(entries: dict[str, Any]) -> None:
    entries["head"] = {"name": "soft-argmax", "width": 65_536, "scales": True}


def ask_for_many_landmarks(entries: dict[str, Any]) -> None:
    entries["schema"] = {"name": "many", "names": [f"p{k}" for k in range(10_000)]}
    entries["head"] = {"name": "simcc", "width": 1024}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (ask_for_wide_head, "1.hidden.bias is not part of resnet18"),
        (ask_for_many_landmarks, "1.hidden.bias is not part of resnet18"),
        (lambda entries: entries["head"].update(hidden=65_536), r"1.hidden.bias is \(16,\), but"),
        (lambda entries: entries.update(arch="wide_resnet101_2"), r"bn1.bias is \(64,\), but .* \(128,\)"),
        (lambda entries: entries.update(arch="resnet34"), "0.4.2.bn1.bias is missing"),
        (lambda entries: entries.update(arch="fasterrcnn_resnet50_fpn"), "torchvision has no ResNet"),
        (lambda entries: entries.update(arch="fcn_resnet101"), "torchvision has no ResNet"),
        (lambda entries: entries.update(head={"name": "transformer"}), "no such head 'transformer'; known"),
        (lambda entries: entries.update(head={"name": "linear", "depth": 3}), "unexpected keyword"),
        (lambda entries: entries["head"].update(hidden=True), "cannot be built|no network|1.hidden"),
        (lambda entries: entries["head"].update(hidden="wide"), "cannot be built|no network"),
    ],
)
def test_header_that_does_not_match_weights_is_refused_without_allocating(
    tmp_path: Path,
    header: ModelHeader,
    network: nn.Module,
    monkeypatch: pytest.MonkeyPatch,
    change: Change,
    words: str,
) -> None:
    path = write_model(tmp_path / "m.safetensors", header, network, change)

    def allocate(*args: object, **options: object) -> None:
        raise AssertionError("memory was allocated")

    monkeypatch.setattr(nn.Module, "to_empty", allocate)
    monkeypatch.setattr("safetensors.torch.load_file", allocate)
    assert_matches(refusal(path), words)


def assert_matches(message: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        raise UserError(message)


def set_value(name: str, value: float) -> ChangeWeights:
    def change(weights: dict[str, Tensor]) -> None:
        weights[name] = weights[name].clone()
        weights[name].view(-1)[-1] = value

    return change


def convert(name: str, dtype: torch.dtype) -> ChangeWeights:
    def change(weights: dict[str, Tensor]) -> None:
        weights[name] = weights[name].to(dtype)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (set_value("1.points.bias", float("nan")), "1.points.bias contains NaN or infinity"),
        (set_value("0.0.weight", float("-inf")), "0.0.weight contains NaN or infinity"),
        (set_value("0.1.running_var", -1e-3), "0.1.running_var contains a negative variance"),
        (convert("0.0.weight", torch.int32), "0.0.weight has the data type I32, but must be floating point"),
        (convert("0.0.weight", torch.float8_e5m2), "0.0.weight has the data type F8_E5M2"),
        (convert("0.1.num_batches_tracked", torch.float32), "num_batches_tracked has the data type F32"),
        (lambda weights: weights.update({"x" * 100_000: torch.zeros(1)}), "x…x.* is not part of resnet18"),
        (lambda weights: weights.update({"0.0.weight": torch.zeros([1] * 500)}), r"0.0.weight is \(1, 1.*…"),
    ],
)
def test_unusable_weights_are_refused(
    tmp_path: Path, header: ModelHeader, network: nn.Module, change: ChangeWeights, words: str
) -> None:
    assert_matches(refusal(write_model(tmp_path / "m.safetensors", header, network, None, change)), words)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_float_types_are_used_as_float32(
    tmp_path: Path, header: ModelHeader, network: nn.Module, dtype: torch.dtype
) -> None:
    path = write_model(tmp_path / "m.safetensors", header, network, None, convert("0.0.weight", dtype))
    loaded = open_model(path).network
    assert loaded is not None
    weight = loaded.state_dict()["0.0.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, network.state_dict()["0.0.weight"].to(dtype).float())


@pytest.mark.parametrize("visibility", [False, True])
@pytest.mark.parametrize("head", sorted(HEADS))
def test_meta_network_has_the_tensors_of_the_network(head: str, visibility: bool) -> None:
    options: dict[str, Any] = {"name": head, "scales": head != "simcc", "visibility": visibility}
    options |= {"hidden": 8} if head == "lin-relu-lin" else {} if head == "linear" else {"width": 8}
    real = build_network("resnet18", options, len(KAGGLE15), 1)
    meta = build_meta_network("resnet18", options, len(KAGGLE15), 1)
    assert all(tensor.is_meta for tensor in meta.state_dict().values())
    shapes = {name: (tensor.shape, tensor.dtype) for name, tensor in real.state_dict().items()}
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in meta.state_dict().items()} == shapes
    # a tensor that is not in the state dict would keep what happens to be in its memory
    assert {name for name, _ in (*real.named_parameters(), *real.named_buffers())} == shapes.keys()


def test_opening_a_model_leaves_random_numbers_unchanged(model_path: Path) -> None:
    state = torch.get_rng_state()
    open_model(model_path)
    assert torch.equal(torch.get_rng_state(), state)


# --- headers of safetensors ----------------------------------------------------------------------


def write_sparse(path: Path, header_size: int, file_size: int) -> Path:
    """Write a file that is a safetensors header with a lot of spaces, without using space on the disk."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", header_size) + b"{")
    os.truncate(path, file_size)
    return path


@pytest.mark.parametrize("megabytes", [11, 100, 1000])
def test_huge_header_is_refused_without_reading_it(tmp_path: Path, megabytes: int) -> None:
    size = megabytes * 10**6
    message = refusal(write_sparse(tmp_path / "m.safetensors", size, size + 8))
    assert f"its header has {megabytes:,} MB, but that of a model has at most 10 MB" in message


@pytest.mark.parametrize(
    "content",
    [
        b"\1",
        b"\xff" * 8,
        struct.pack("<Q", 1000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 60) + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(60),
        struct.pack("<Q", 70) + b'{"a":{"dtype":"F32","shape":[99999999999],"data_offsets":[0,4]}}'.ljust(70),
        struct.pack("<Q", 20_000) + b"[" * 20_000,
    ],
)
def test_damaged_safetensors_is_called_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.safetensors").write_bytes(content)
    assert "not a safetensors file, or truncated" in refusal(tmp_path / "m.safetensors")


@pytest.mark.parametrize("keep", [7, 8, 1000, 100_000, -1])
def test_file_truncated_anywhere_is_refused(tmp_path: Path, model_path: Path, keep: int) -> None:
    (tmp_path / "m.safetensors").write_bytes(model_path.read_bytes()[:keep])
    assert "truncated" in refusal(tmp_path / "m.safetensors")


def test_absurd_files_need_little_memory(tmp_path: Path, header: ModelHeader, network: nn.Module) -> None:
    """In a process with a limit on memory, files that ask for terabytes are refused as usual."""
    paths = [
        write_model(tmp_path / "wide.safetensors", header, network, ask_for_wide_head),
        write_model(tmp_path / "many.safetensors", header, network, ask_for_many_landmarks),
        write_sparse(tmp_path / "huge.safetensors", MAX_HEADER_BYTES, 10**10),
    ]
    code = """
        import resource, sys
        import torch, torchvision, safetensors.torch
        from landmarks_fastai.errors import UserError
        from landmarks_fastai.model_files.loading import open_model
        used = 4096 * int(open("/proc/self/statm").read().split()[0])
        limit = used + 600_000_000
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        for path in sys.argv[1:]:
            try:
                open_model(path)
            except UserError as error:
                print(error)
    """
    if not hasattr(resource, "RLIMIT_DATA") or not Path("/proc/self/statm").exists():
        pytest.skip("needs Linux")
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", textwrap.dedent(code), *map(str, paths)]
    output = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    assert output.stderr == ""
    assert [line.split(": ")[0] for line in output.stdout.splitlines()] == [str(path) for path in paths]
