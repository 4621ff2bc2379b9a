"""The stages of a run: each reads frozen results of those before it."""
