"""A real Prometheus for tests and benchmarks, with the project's rules and scrape configuration."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / "grafana"))
from queries import Prometheus
from servers import free_ports

ROOT = Path(__file__).resolve().parents[1]


class Running(NamedTuple):
    """A server and its process."""

    server: Prometheus
    pid: int


@contextmanager
def prometheus(folder: Path, ports: Mapping[str, int]) -> Iterator[Running]:
    """A server whose files lie in ``folder``, for as long as the block lasts.

    Args:
        ports: of this host, for the jobs conductor, gateway and worker; the gateway's tells of the devices. For an
            ``alertmanager`` too, where there is one.
    """
    program = shutil.which(os.environ.get("PROMETHEUS") or "prometheus")
    if program is None:
        sys.exit("there is no prometheus here: install it, or say where it is: PROMETHEUS=/path/prometheus")
    config = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text(encoding="utf-8"))
    config["global"].pop("external_labels")  # Grafana's address, of which older releases ask a flag
    config["rule_files"] = [str(ROOT / "grafana/prometheus/rules/*.yml")]
    places = [f"127.0.0.1:{ports['alertmanager']}"] if "alertmanager" in ports else []
    config["alerting"] = {"alertmanagers": [{"static_configs": [{"targets": places}]}]}
    (port,) = free_ports(1)
    for job in config["scrape_configs"]:
        if job.pop("dns_sd_configs", None):
            job["static_configs"] = [{"targets": [f"127.0.0.1:{ports[job['job_name']]}"]}]
        if job["job_name"] == "prometheus":
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        for found in job.get("http_sd_configs", ()):
            found["url"] = f"http://127.0.0.1:{ports['gateway']}/devices"
            found["refresh_interval"] = "5s"
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    words = [program, f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with open(folder / "prometheus.log", "wb") as log:
        process = subprocess.Popen([*words, f"--web.listen-address=127.0.0.1:{port}"], stdout=log, stderr=log)
    try:
        print(f"Prometheus is at http://127.0.0.1:{port}", flush=True)
        yield Running(Prometheus(f"http://127.0.0.1:{port}"), process.pid)
    finally:
        process.terminate()
        process.wait()
