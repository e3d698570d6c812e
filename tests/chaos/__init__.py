"""Chaos: processes on real stores, faults while they work, and a judgement by what they wrote down elsewhere."""

from . import clock as clock  # first of all: what is imported later may keep `time.time` for itself
