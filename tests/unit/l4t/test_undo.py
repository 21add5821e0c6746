"""What a deployment that fails does to tokens, by the real store and its command."""

from __future__ import annotations

import os
from pathlib import Path

from deploy import Host, Undo
from edgejoule.folder_store import FolderStore


def test_token_that_was_there_before_stays_and_a_new_one_goes(tmp_path: Path) -> None:
    host = Host({**os.environ, "EDGEJOULE_STORE": FolderStore(tmp_path / "store").where})
    undo = Undo()
    undo.revoke("nano", host, None)  # stopped before there was any
    host.make_token("nano")
    first = host.device("nano")
    assert first
    undo.revoke("nano", host, first["made_at"])
    assert host.device("nano") == first
    host.make_token("nano")
    undo.revoke("nano", host, first["made_at"])
    second = host.device("nano")
    assert second
    assert (second["token"], undo.valid, undo.told()) == ("revoked", None, "The board is as it was")
