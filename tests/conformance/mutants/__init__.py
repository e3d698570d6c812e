"""Faults of the memory backend, each with the check of the kit that must see it."""

from tests.conformance.mutants import broker, global_config, pairings, storage
from tests.conformance.mutants.table import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant", "broker", "global_config", "pairings", "storage"]
