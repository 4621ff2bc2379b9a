"""Encoders: item text to vectors, each distinct text once."""

from simulator.encoders.text import ENCODERS, encode_texts, resolve_encoder

__all__ = ["ENCODERS", "encode_texts", "resolve_encoder"]
