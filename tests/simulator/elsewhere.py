"""A device that is not the processor, for machines without one: its tensors may not be mixed with the processor's.

Run as a program, for torch is changed for the whole process: `python -m tests.simulator.elsewhere lora` trains the tiny
encoder by this adaptation on either device and prints both courses of losses and the devices of the weights as JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

from simulator.encoders.settings import RobustnessSettings
from simulator.encoders.text import encode_with, load_encoder
from simulator.encoders.tuning import one_thread
from tests.simulator import test_encoder_tuning as tuning
from tests.simulator.tiny_bert import tiny_bert

NAME = "elsewhere"


class There(torch.Tensor):
    """A tensor of that device; `raw` holds its numbers."""

    raw: torch.Tensor

    @staticmethod
    def __new__(cls, raw: torch.Tensor) -> There:
        made = torch.Tensor._make_wrapper_subclass(
            cls, raw.shape, strides=raw.stride(), storage_offset=raw.storage_offset(), dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )  # fmt: skip
        made.raw = raw
        return made  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.raw.tolist()

    def item(self) -> Any:
        return self.raw.item()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        return computed_there(func, args, dict(kwargs or {}))


def is_there(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def computed_there(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """What the processor makes of the numbers, as tensors of the device; no operation but a copy reads both."""
    name, device = func.name(), kwargs.get("device")
    copies = "copy_" in name or "_to_copy" in name

    def raw(x: Any) -> Any:
        if isinstance(x, There):
            return x.raw
        if isinstance(x, torch.Tensor) and x.dim() > 0 and not copies:
            raise RuntimeError(f"{name}: tensors of two devices")
        return x

    given = tree_map(raw, kwargs)
    if device is not None:
        given["device"] = torch.device("cpu")
    out = func(*tree_map(raw, args), **given)
    if device is not None and not is_there(device):
        return out
    if func._schema.is_mutable and func._schema.returns and func._schema.returns[0].alias_info is not None:
        return args[0]
    return tree_map(lambda x: There(x) if isinstance(x, torch.Tensor) else x, out)


class Elsewhere(TorchDispatchMode):
    """Operations that make tensors of the device from nothing come by here alone."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if is_there(kwargs.get("device")) or any(isinstance(x, There) for x in tree_leaves((args, kwargs))):
            return computed_there(func, args, kwargs)
        return func(*args, **kwargs)


class Backend(_DummyBackendModule):
    """What torch asks of a device."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def add_device() -> list[Any]:
    """Make the device known to torch; what is returned has to live as long as it is used.

    Wrapped tensors know no inference mode, so that it is made one without gradients.
    """
    _setup_privateuseone_for_python_backend(NAME, backend_module=Backend())
    made = torch.library.Library("aten", "IMPL")

    def strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> There:
        return There(torch.empty_strided(size, stride, dtype=dtype, device="cpu"))

    def empty(size: Any, *, dtype: Any = None, **_: Any) -> There:
        return There(torch.empty(size, dtype=dtype, device="cpu"))

    def copy(source: torch.Tensor, target: torch.Tensor, non_blocking: bool = False) -> torch.Tensor:
        one, other = (x.raw if isinstance(x, There) else x for x in (source, target))
        other.copy_(one)
        return target

    made.impl("empty_strided", strided, "PrivateUse1")
    made.impl("_copy_from", copy, "PrivateUse1")
    made.impl("empty.memory_format", empty, "PrivateUse1")
    torch.inference_mode = torch.no_grad  # type: ignore[misc,assignment]
    return [made]


def course(folder: Path, adaptation: str, device: str) -> dict[str, Any]:
    """Losses of the passes, vectors of all texts afterwards, and where the weights lie."""
    how = tuning.QUICK.model_copy(update={"epochs": 2, "device": device})
    robust = RobustnessSettings(adversarial="fgm", r_drop=0.1) if adaptation == "top_layers" else None
    with one_thread(4):
        encoder = tuning.tunable(folder, adaptation, how, dropout=0.0)
        losses = tuning.learn(encoder, how, robust)
        read = encoder.read()
        where = sorted({weight.device.type for weight in encoder.adapted.parameters()})
    plain = None
    if encoder.adapted.plain is not None:
        tokenizer, _ = load_encoder(str(folder))
        plain = encode_with(tokenizer, encoder.plain(), tuning.TEXTS, 16, device=device).tolist()
    return {"losses": losses, "read": read.tolist(), "where": where, "plain": plain}


def refuses_two_devices(where: Callable[[], Any]) -> bool:
    try:
        where()
    except RuntimeError as error:
        return "two devices" in str(error)
    return False


if __name__ == "__main__":
    kept = add_device()
    with Elsewhere(), tempfile.TemporaryDirectory() as made:
        assert refuses_two_devices(lambda: torch.ones(2).to(NAME) + torch.ones(2))
        encoder_folder = tiny_bert(Path(made) / "bert")
        found = {device: course(encoder_folder, sys.argv[1], device) for device in ("cpu", NAME)}
    assert np.isfinite(found["cpu"]["losses"]).all()
    sys.stdout.write(json.dumps(found) + "\n")
