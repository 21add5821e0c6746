"""The command ``edgejoule-agent`` itself. Also runs under Python 3.6."""

import json

import pytest

from edgejoule_agent import host
from edgejoule_agent.__main__ import main


def test_probe_prints_what_the_device_says_of_itself_and_needs_no_gateway(capsys, monkeypatch):
    monkeypatch.delenv("EDGEJOULE_GATEWAY", raising=False)
    assert main(["--probe"]) == 0
    assert json.loads(capsys.readouterr().out) == host.probe()


def test_no_gateway_is_told(capsys, monkeypatch):
    monkeypatch.delenv("EDGEJOULE_GATEWAY", raising=False)
    with pytest.raises(SystemExit):
        main([])
    assert "give --gateway URL" in capsys.readouterr().err
