"""Why a board is not served, as an HTTP status and a sentence for its log."""

from __future__ import annotations


class Refusal(Exception):
    """The answer to a request that is refused."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def unknown_job() -> Refusal:
    """A job that does not exist and one of another board are the same to whoever asks."""
    return Refusal(404, "this board has no such job")
