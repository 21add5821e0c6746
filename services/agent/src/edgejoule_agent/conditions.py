"""Before a trial: rest, and wait until the device's temperature is within a band and hardly moves.

So that no trial starts on the heat of the one before, and trials of one device start alike. How it went is recorded;
a device that does not get there is measured all the same, and its record says so.
"""

import time
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgejoule_agent import sensors
from edgejoule_agent.isolate import Progress

LOOK_S = 1.0
SPAN_S = 20.0  # that a slope is taken over: steps of half a degree then move it by 0.3 °C/min

Reading = Tuple[float, float]  # s since the rest began, °C


class Judged(NamedTuple):
    """``reached`` is yes, no or unknown."""

    reached: str
    temp_c: Optional[float]
    slope_c_min: Optional[float]
    words: str


def settle(protocol: Mapping[str, Any], progress: Progress, root: str = "/") -> Tuple[Optional[Dict[str, Any]], str]:
    """Rest and wait as ``protocol`` says (cool_down_s, start_temp_c, start_slope_c_min, start_wait_s).

    Returns:
        A Preconditioning record; or None and why, where the protocol asks for neither rest nor waiting.
    """
    rest_s, limit_s = protocol["cool_down_s"], protocol["cool_down_s"] + protocol["start_wait_s"]
    if limit_s <= 0:
        return None, "the protocol takes the device as it is: cool_down_s and start_wait_s are 0"
    begin_s, reason = time.monotonic(), ""
    seen: List[Reading] = []
    while True:
        temp_c, why_not = sensors.temperature_c(root)
        waited_s = time.monotonic() - begin_s
        if temp_c is None:
            reason = why_not
        else:
            seen.append((waited_s, temp_c))
        judged = judge(seen, protocol["start_temp_c"], protocol["start_slope_c_min"])
        settled = judged.reached == "yes" or not seen  # without a temperature there is nothing to wait for
        if waited_s >= limit_s or (settled and waited_s >= rest_s):
            break
        progress(round(waited_s), round(limit_s), "seconds of rest at most")
        time.sleep(min(LOOK_S, max(0.0, (rest_s if settled else limit_s) - waited_s)))
    words = judged.words if seen else f"no temperature can be read: {reason}"
    return dict(judged._asdict(), words=words, waited_s=waited_s), ""


def judge(seen: Sequence[Reading], band_c: Sequence[float], limit_c_min: float) -> Judged:
    """Whether the last reading is within a band and the last ``SPAN_S`` are flat enough.

    >>> judge([(float(s), 40 + s / 60) for s in range(31)], (5, 60), 2.0).words
    '40.5 °C, changing by +1.0 °C/min'
    >>> judge([(float(s), 70.0) for s in range(31)], (5, 60), 2.0).words
    '70.0 °C, changing by +0.0 °C/min; asked for are 5 to 60 °C'
    """
    if not seen:
        return Judged("unknown", None, None, "no temperature")
    now_s, temp_c = seen[-1]
    long_ago = [number for number, reading in enumerate(seen) if reading[0] <= now_s - SPAN_S]
    words, within = f"{temp_c:.1f} °C", band_c[0] <= temp_c <= band_c[1]
    asked = "" if within else f"; asked for are {band_c[0]:g} to {band_c[1]:g} °C"
    if not long_ago:
        return Judged("unknown", temp_c, None, f"{words}, watched for too short to tell how it changes{asked}")
    recent = np.array(seen[long_ago[-1] :])
    slope_c_min = 60 * float(np.polyfit(recent[:, 0] - now_s, recent[:, 1], 1)[0])
    words += f", changing by {slope_c_min:+.1f} °C/min"
    flat = abs(slope_c_min) < limit_c_min
    asked += "" if flat else f"; asked for are under {limit_c_min:g} °C/min"
    return Judged("yes" if within and flat else "no", temp_c, slope_c_min, words + asked)
