"""What a board or a host tells of its power, heat, load and throttling.

Every sensor here is found by looking for it under a root that a test can choose, and gives a value with a unit or
raises SensorError with a reason. What is wrong, missing, stuck or absurd is such a reason; it is never a 0.
"""

from edgejoule_agent.sensors.rails import Rail, find_rails, pick_rails
from edgejoule_agent.sensors.rapl import Rapl, find_rapl
from edgejoule_agent.sensors.reading import Sensor, try_read
from edgejoule_agent.sensors.state import find_states
from edgejoule_agent.sensors.thermal import Zone, find_zones, temperature_c
from edgejoule_agent.sensors.throttle import Snapshot, Verdict, snapshot, throttle_counts, throttled, verdict

__all__ = [
    "Rail",
    "Rapl",
    "Sensor",
    "Snapshot",
    "Verdict",
    "Zone",
    "find_rails",
    "find_rapl",
    "find_states",
    "find_zones",
    "pick_rails",
    "snapshot",
    "temperature_c",
    "throttle_counts",
    "throttled",
    "try_read",
    "verdict",
]
