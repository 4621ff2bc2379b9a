"""Learning curves for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agents.loading import Trained
    from scenarios.stages.training import Failure

TAG = "train world/reward a session"


def write_tensorboard(folder: Path, trained: Mapping[str, Sequence[Trained | Failure]]) -> int:
    """Write the curve of every agent and training seed as a run of its own, `folder/<agent>/seed-<n>`.

    Curves written there before are hidden, so that a run that is repeated shows each of its curves once. Agents that
    have no curve, because they learn nothing or failed, have no folder.

    Returns:
        Curves written.
    """
    from torch.utils.tensorboard import SummaryWriter

    written = 0
    for name, seeds in trained.items():
        for number, one in enumerate(seeds):
            points = getattr(one, "curve", ())
            if points:
                with SummaryWriter(str(folder / name / f"seed-{number}"), purge_step=0) as writer:
                    for steps, value in points:
                        writer.add_scalar(TAG, value, steps)
                written += 1
    return written
