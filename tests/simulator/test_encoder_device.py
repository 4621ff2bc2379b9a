"""The encoder learns and reads on another device as on the processor, and no tensor is left on the wrong one.

A GPU is stood in for by `tests.simulator.elsewhere`, whose tensors cannot be mixed with the processor's.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from simulator.encoders.settings import TuningSettings
from simulator.encoders.text import check_device
from simulator.errors import InputError

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("adaptation", ["top_layers", "full", "lora", "adalora", "adapter", "prefix"])
def test_every_adaptation_learns_elsewhere_what_it_learns_here(adaptation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulator.elsewhere", adaptation],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    here, there = (json.loads(done.stdout.splitlines()[-1])[device] for device in ("cpu", "elsewhere"))
    assert (here["where"], there["where"]) == (["cpu"], ["elsewhere"])
    assert there["losses"] == pytest.approx(here["losses"], rel=1e-3)
    assert np.abs(np.array(there["read"]) - here["read"]).max() < 1e-2
    assert (here["plain"] is None) == (there["plain"] is None)
    if here["plain"] is not None:
        assert np.abs(np.array(there["plain"]) - here["plain"]).max() < 1e-2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there_is_one_line() -> None:
    check_device("cpu", "preference.tuning.device")
    said = "preference.tuning.device: 'cuda:1' is not there (torch sees no CUDA device); use cpu"
    with pytest.raises(InputError) as refused:
        check_device("cuda:1", "preference.tuning.device")
    assert str(refused.value) == said
    with pytest.raises(ValueError, match="device"):
        TuningSettings(device="gpu")
