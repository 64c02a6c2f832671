"""What every test shares: Hypothesis's two profiles.

``ci`` tries the same examples on every run, so that a red run is red again; ``dev`` looks for new ones each time.
``HYPOTHESIS_PROFILE`` chooses; without it, ``CI`` in the environment does.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

settings.register_profile("ci", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("dev", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))
