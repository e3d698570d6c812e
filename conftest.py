"""What all tests share: the profiles of hypothesis.

`ci` is the default; `HYPOTHESIS_PROFILE=nightly python -m pytest` looks further.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

_SLOW_MACHINE = [HealthCheck.too_slow, HealthCheck.data_too_large]

# No deadline: shared machines stall for longer than any useful one. The same cases each time, so
# that a red run is red again.
settings.register_profile(
    "ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_SLOW_MACHINE
)
settings.register_profile(
    "nightly", max_examples=3000, deadline=None, print_blob=True, suppress_health_check=_SLOW_MACHINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))
