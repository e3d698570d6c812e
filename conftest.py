"""What all tests share: the profiles of hypothesis, and a SIGINT that works.

`ci` is the default; `HYPOTHESIS_PROFILE=nightly python -m pytest` looks further.
"""

from __future__ import annotations

import os
import signal

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

# The background job of a shell ignores SIGINT, and so would every process that a test starts there and interrupts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
