"""What lets a property-based test judge the code, and not how much else runs on this machine. Valid on Python 3.6.

Hypothesis fails an example that took over 200 ms by the clock on the wall, and a test whose examples are drawn slowly.
What must be fast has a test of its own, and pytest's timeout bounds every test.
"""

from hypothesis import HealthCheck, settings

settings.register_profile("crowded", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("crowded")
