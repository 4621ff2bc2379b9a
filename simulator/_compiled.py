"""How the numba functions over arrays are compiled, and the types of their arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]
I32 = NDArray[np.int32]
U32 = NDArray[np.uint32]
U16 = NDArray[np.uint16]
U8 = NDArray[np.uint8]
Flags = NDArray[np.bool_]

PLAIN: dict[str, Any] = {"cache": True, "error_model": "numpy", "_nrt": False}
"""How the functions are compiled. Division by zero is not tested for: the test keeps loops from being vectorised.
Arrays are borrowed from the caller, without numba's count of references, which costs some thousand cycles a call."""
