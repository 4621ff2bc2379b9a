"""Simulated users. Importing this package registers the environment `windtunnel/Recommend-v0` and loads nothing else.

The entry points are strings, so the wiring in `pipeline` is loaded when an environment is made, and no import points
back.
"""

from __future__ import annotations

import gymnasium

if "windtunnel/Recommend-v0" not in gymnasium.registry:
    gymnasium.register(
        id="windtunnel/Recommend-v0",
        entry_point="pipeline:make_env",
        vector_entry_point="pipeline:make_vector_env",
    )
