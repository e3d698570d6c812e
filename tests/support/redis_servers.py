"""The servers that the Redis backend is tested with, as parameters of a fixture."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.redis_server import flavours


def servers() -> list[Any]:
    """One parameter for each program. The second flavour is `thorough`: it repeats what the first one shows."""
    return [
        pytest.param(program, id=program.rsplit("/", 1)[-1], marks=[pytest.mark.thorough] if number else [])
        for number, program in enumerate(flavours())
    ]
