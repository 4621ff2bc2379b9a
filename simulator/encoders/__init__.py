"""Encoders: item text to vectors, each distinct text once."""

from simulator.encoders.text import ENCODERS, encode_texts, encoder_for, resolve_encoder

__all__ = ["ENCODERS", "encode_texts", "encoder_for", "resolve_encoder"]
