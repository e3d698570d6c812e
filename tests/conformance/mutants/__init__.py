"""Faults of components, each with the check of the kit that must see it."""

from tests.conformance.mutants import (
    application,
    broker,
    executor,
    global_config,
    pairings,
    storage,
    triggers,
    worker,
)
from tests.conformance.mutants.table import MUTANTS, Mutant

__all__ = [
    "MUTANTS",
    "Mutant",
    "application",
    "broker",
    "executor",
    "global_config",
    "pairings",
    "storage",
    "triggers",
    "worker",
]
