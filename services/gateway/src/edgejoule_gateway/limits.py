"""How much a board may send, and how long it may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Tests take smaller ones.

    Attributes:
        poll_s: a request for a job is answered after so long, job or not.
        report_every_s: boards are asked to report their progress so often.
        silence_s: a board that is silent for so long loses its lease; its step waits for it in its queue.
        unreachable_s: steps that wait for so long for a board that is silent end as ``unreachable``.
        registry_s: a revoked token is served for at most so long.
        kept_s: what a board has not completed for so long is thrown away.
        head_s: a connection that has not sent a whole request head after so long is closed.
        body_s: so is one that sends nothing of a body, or takes nothing of an answer, for so long.
        requests: of one board, under way at once.
        connections: of everybody.
        json_bytes: of a message.
        record_bytes: of a record.
        log_bytes: of what a step printed.
        output_bytes: of any other file.
        outputs: files of one result.
        spare_bytes: what uploads leave free on the disk.
    """

    poll_s: float = 50.0
    report_every_s: float = 5.0
    silence_s: float = 60.0
    unreachable_s: float = 6 * 3600.0
    registry_s: float = 5.0
    kept_s: float = 7 * 24 * 3600.0
    head_s: float = 20.0
    body_s: float = 30.0
    requests: int = 6
    connections: int = 1024
    json_bytes: int = 1 << 20
    record_bytes: int = 8 << 20
    log_bytes: int = 32 << 20
    output_bytes: int = 2 << 30
    outputs: int = 64
    spare_bytes: int = 1 << 30
