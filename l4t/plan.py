"""What a deployment does, decided from what the board says of itself. Pure: nothing here reaches a board."""

from __future__ import annotations

import hashlib
import json
import os.path
import re
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import power
from context import HASH
from edgejoule_agent import boards, l4t
from images import MOUNTS, Image

NAME = "edgejoule-agent"
"""Of the container, the volume and the image's repository: all that a deployment leaves on a board."""

BEFORE = f"{NAME}-before"
"""The container that a new one replaces, until the new one has passed its test."""

DEVICE, TOKEN, SETTINGS = (f"edgejoule.{word}" for word in ("device", "token", "settings"))
STATE = "/var/lib/edgejoule"
METRICS = "0.0.0.0:9464"  # shown to the network: they hold no secret, and nobody can change anything there
GPU_FILES = ("/dev/nvmap", "/dev/nvhost-gpu", "/dev/nvhost-ctrl-gpu", "/dev/nvgpu/igpu0/ctrl", "/dev/dri/renderD128")
SMALL_GB = 1.0
"""Free disk we ask for where the base image is there. Chosen, not measured."""


class Refused(Exception):
    """Why a board is left as it is, and what to do; in one sentence."""


CLOCK_S = 86400.0
"""How far a board's clock may be off."""


class Facts(NamedTuple):
    """What a board says of itself before anything is done."""

    release: str
    compatible: tuple[str, ...]
    dts: tuple[str, ...]
    model: str
    machine: str
    clock_s: int | None
    """Seconds since 1970 by the board's clock."""
    there: tuple[str, ...]
    groups: tuple[int, ...]
    docker: dict[str, Any] | None
    docker_error: str
    container: dict[str, Any] | None
    before: bool
    volume: bool
    images: tuple[str, ...]
    helper: dict[str, str]
    """What lies there of root's part of power modes: path to SHA-256."""
    listens: bool
    """Whether its socket is there, and will be after the next start."""
    disk: str
    free_gb: float


class Device(NamedTuple):
    """What the gateway's store says of a device.

    Attributes:
        made_at: when its token was made.
        agent: the version that has spoken to the gateway under this name, if any ever did.
        seen_at: when it last did, where that is known.
        used: whether it has with this very token.
    """

    valid: bool
    made_at: str | None
    agent: str | None = None
    seen_at: str | None = None
    used: bool = False


class Wanted(NamedTuple):
    """What is to stand in the end."""

    name: str
    gateway: str
    ca_sha256: str | None
    image: str
    """Hash of the build context, or of the archive."""
    power_modes: bool = False
    """Whether the agent is to put them on."""


class Step(NamedTuple):
    """One thing to do, and why."""

    name: str
    why: str


def facts_command(extra: Sequence[str] = ()) -> str:
    """A shell command that prints what ``parse_facts`` reads. It changes nothing."""
    there, gpu = " ".join([*MOUNTS, *extra]), " ".join(GPU_FILES)
    parts = {
        "release": "cat /etc/nv_tegra_release",
        "compatible": "cat /proc/device-tree/compatible | tr '\\0' '\\n'",
        "dts": "cat /proc/device-tree/nvidia,dtsfilename | tr '\\0' '\\n'",
        "model": "cat /proc/device-tree/model | tr '\\0' '\\n'",
        "machine": "uname -m",
        "clock": "date +%s",
        "there": f"ls -d {there}",
        "groups": f"stat -c %g {gpu}",
        "docker": "docker info --format '{{json .}}' 2>&1",
        "container": f"docker container inspect {NAME}",
        "before": f"docker container inspect --format '{{{{.Id}}}}' {BEFORE}",
        "volume": f"docker volume inspect --format '{{{{.Name}}}}' {NAME}",
        # one that lost its name to a newer one has an id alone
        "images": f"docker image ls --filter label={HASH} --format "
        """'{{if eq .Tag "<none>"}}{{.ID}}{{else}}{{.Repository}}:{{.Tag}}{{end}}'""",
        "helper": f"sha256sum {' '.join(power.PLACES)}",
        "listens": f"systemctl is-active {power.UNIT}; systemctl is-enabled {power.UNIT}",
        "disk": "df -Pk \"$(docker info --format '{{.DockerRootDir}}')\" || df -Pk /",
        "end": "true",
    }
    return "; ".join(f"echo; echo =={name}==; {{ {command}; }} 2>/dev/null" for name, command in parts.items())


def parse_facts(text: str) -> Facts:
    """The answer to ``facts_command``.

    Raises:
        Refused: it is not whole, so no shell as we know it answered.
    """
    parts = dict(re.findall(r"^==(\w+)==\n(.*?)(?=^==\w+==\n|\Z)", text + "\n", re.MULTILINE | re.DOTALL))
    if "end" not in parts:
        raise Refused("the board's login shell does not answer as sh does: let that user have /bin/sh or bash")
    lines = {name: [line for line in part.strip().splitlines() if line.strip()] for name, part in parts.items()}
    docker, docker_error = _docker(parts["docker"].strip())
    disk = lines["disk"][-1].split() if lines["disk"] else []
    inspected = _json(parts["container"])
    return Facts(
        release=parts["release"].strip(),
        compatible=tuple(lines["compatible"]),
        dts=tuple(lines["dts"]),
        model=(lines["model"] or ["unknown model"])[0],
        machine=(lines["machine"] or ["?"])[0],
        clock_s=int(lines["clock"][0]) if lines["clock"] and lines["clock"][0].isdigit() else None,
        there=tuple(lines["there"]),
        groups=tuple(sorted({int(line) for line in lines["groups"] if line.isdigit()})),
        docker=docker,
        docker_error=docker_error,
        container=inspected[0] if isinstance(inspected, list) and inspected else None,
        before=bool(lines["before"]),
        volume=bool(lines["volume"]),
        images=tuple(lines["images"]),
        helper={path: sha256 for sha256, path in (line.split() for line in lines["helper"])},
        listens=lines["listens"] == ["active", "enabled"],
        disk=disk[5] if len(disk) > 5 else "/",
        free_gb=int(disk[3]) * 1024 / 1e9 if len(disk) > 5 and disk[3].isdigit() else 0.0,
    )


def _docker(text: str) -> tuple[dict[str, Any] | None, str]:
    """``docker info`` as JSON, or what was said instead. Docker may print warnings before, and errors inside."""
    for line in text.splitlines():
        found = _json(line) if line.startswith("{") else None
        if isinstance(found, dict) and found.get("ServerErrors"):
            return None, str(found["ServerErrors"][0])
        if isinstance(found, dict) and found.get("DockerRootDir"):
            return found, ""
    return None, text.splitlines()[-1] if text else ""


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


# --- checks -----------------------------------------------------------------------------------------


def l4t_of(facts: Facts) -> str:
    """The board's release.

    Raises:
        Refused: it says none.
    """
    found = l4t.parse_release(facts.release)
    if found is None:
        said = f"says {facts.release[:60]!r}" if facts.release else "is not there"
        raise Refused(f"this is no Jetson of ours: /etc/nv_tegra_release {said} ({facts.model}, {facts.machine})")
    return found


def board_of(facts: Facts) -> str:
    """The board's name, as the agent has it too, or its own words.

    What an AGX Xavier or a TX2 is compatible with names no module, but its device tree's file name does.
    """
    found = _known_board(facts)
    return found[0].name if found else facts.model


def _known_board(facts: Facts) -> tuple[boards.Board, str] | None:
    return boards.board_of(boards.parts_in([*facts.compatible, *map(os.path.basename, facts.dts)]))


def check_board(facts: Facts, now_s: float) -> None:
    """See that it is one whose rails and limits are known, and that certificates will be valid by its clock.

    Args:
        now_s: by this host's clock, seconds since 1970.

    Raises:
        Refused: it is not, or its clock is off by over a day.
    """
    if _known_board(facts) is None:
        raise Refused(
            f"{facts.model} is no board that Edgejoule knows the power rails of: its agent would not know it either "
            "(docs/how-to/boards.md lists those that it knows)"
        )
    if facts.clock_s is not None and abs(facts.clock_s - now_s) > CLOCK_S:
        there, here = (time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(each)) for each in (facts.clock_s, now_s))
        raise Refused(
            f"the board's clock says {there}, this host's {here}, and by such a clock certificates are not valid: set "
            f'it there (sudo date --set "{here}", or sudo timedatectl set-ntp true), then try again'
        )


def check_docker(facts: Facts, user: str) -> None:
    """See that there is a Docker engine for us, with NVIDIA's runtime.

    Raises:
        Refused: there is not.
    """
    error = facts.docker_error
    if facts.docker is None and "permission denied" in error.lower():
        raise Refused(f"{user} may not use Docker there: sudo usermod -aG docker USER on the board, then try again")
    if facts.docker is None and ("not found" in error or not error):
        raise Refused("there is no Docker on the board: sudo apt install nvidia-jetpack there, then try again")
    if facts.docker is None:
        raise Refused(f"Docker on the board does not answer ({error[:200]}): sudo systemctl start docker there")
    runtimes = sorted(facts.docker.get("Runtimes") or {})
    if "nvidia" not in runtimes:
        raise Refused(
            f"Docker on the board has no runtime called nvidia (it has {', '.join(runtimes) or 'none'}): "
            "sudo apt install nvidia-container-runtime there, see that /etc/docker/daemon.json names it, "
            "sudo systemctl restart docker, then try again"
        )


def check_disk(facts: Facts, needed_gb: float) -> None:
    """See that there is room.

    Raises:
        Refused: there is not.
    """
    if facts.free_gb < needed_gb:
        raise Refused(
            f"{facts.disk} on the board has {facts.free_gb:.1f} GB free, and {needed_gb:.1f} GB are asked for: "
            "make room (docker system prune removes what no container uses), then try again"
        )


def check_power_modes(facts: Facts) -> None:
    """See that the agent in its container could have them put on, by a socket that is its user's.

    Raises:
        Refused: it could not.
    """
    absent = [path for path in power.NEEDED if path not in facts.there]
    if absent:
        raise Refused(f"POWER_MODES=1, but the board has no {' and no '.join(absent)}: leave POWER_MODES out")
    options = (facts.docker or {}).get("SecurityOptions") or []
    mapped = [name for name in ("userns", "rootless") if any(f"name={name}" in option for option in options)]
    if mapped:
        raise Refused(
            f"POWER_MODES=1, but Docker on the board maps users ({mapped[0]}), so that the agent's is nobody whom a "
            "socket of the board could be opened to: leave POWER_MODES out"
        )


REAL_TIME = ["--ulimit", "rtprio=1"]
"""Of ``docker run``. What a Docker that may not set it is started without."""


# --- the plan ---------------------------------------------------------------------------------------


def run_arguments(wanted: Wanted, image: Image, facts: Facts, token_made_at: str) -> list[str]:
    """The words of ``docker run``, but the image's; a label holds their hash, so that a later run knows its own.

    The network is the board's, so that names lead where they lead on the board. Docker hides the device tree
    (/sys/firmware) unless system paths are unconfined; who is not root and has no capabilities gains little else.
    The groups are those that own the GPU's device files. No limit on memory: on a Jetson the GPU's counts too.
    """
    words = ["--name", NAME, "--restart", "unless-stopped", "--runtime", "nvidia", "--init", "--network", "host"]
    words += [
        "--read-only",
        "--tmpfs",
        "/tmp:uid=10001,mode=0700,size=256m",
        "--cap-drop",
        "ALL",
        "--pids-limit",
        "512",
    ]
    words += ["--security-opt", "no-new-privileges", "--security-opt", "systempaths=unconfined"]
    # The lowest real-time priority, for the power's sampler, which a busy engine delays otherwise. A capability
    # (--cap-add SYS_NICE) would not reach a user that is not root, and would allow more.
    words += REAL_TIME
    words += ["--log-driver", "json-file", "--log-opt", "max-size=10m", "--log-opt", "max-file=3"]
    for group in facts.groups:
        words += ["--group-add", str(group)]
    words += ["--volume", f"{NAME}:{STATE}"]
    for path in (*MOUNTS, *image.mounts):
        if path in facts.there:
            words += ["--volume", f"{path}:{path}:ro"]
    if wanted.power_modes:
        words += ["--volume", f"{power.FOLDER}:{power.FOLDER}:ro"]  # nobody need write there to be heard
    settings = {
        "EDGEJOULE_GATEWAY": wanted.gateway,
        "EDGEJOULE_TOKEN_FILE": f"{STATE}/token",
        "EDGEJOULE_METRICS": METRICS,
    }
    if wanted.ca_sha256:
        settings["EDGEJOULE_GATEWAY_CA"] = f"{STATE}/{ca_file(wanted.ca_sha256)}"
    if wanted.power_modes:
        settings[power.SETTING] = power.SOCKET
    for name, value in settings.items():
        words += ["--env", f"{name}={value}"]
    labels = {DEVICE: wanted.name, TOKEN: token_made_at, "edgejoule.image": wanted.image}
    labels[SETTINGS] = hashlib.sha256(json.dumps([words, labels]).encode()).hexdigest()
    for name, value in labels.items():
        words += ["--label", f"{name}={value}"]
    return words


def ca_file(sha256: str) -> str:
    """Each certificate has a name of its own, so that a deployment that is undone leaves the one before in force."""
    return f"gateway-{sha256[:12]}.crt"


def labels_of(container: dict[str, Any] | None) -> dict[str, str]:
    """The labels of an inspected container; none where there is none."""
    return dict(((container or {}).get("Config") or {}).get("Labels") or {})


def is_running(container: dict[str, Any] | None) -> bool:
    return bool(((container or {}).get("State") or {}).get("Running"))


def make_plan(facts: Facts, wanted: Wanted, image: Image, image_there: bool, device: Device | None) -> list[Step]:
    """What is to be done, in its order; empty where everything stands already.

    Raises:
        Refused: the board is deployed under another name, or another board under this one.
    """
    labels = labels_of(facts.container)
    deployed = labels.get(DEVICE)
    if deployed is not None and deployed != wanted.name:
        raise Refused(f"the board is deployed as {deployed!r} already: make jetson-remove first, or NAME={deployed}")
    if device is not None and device.valid and device.agent is not None:
        heard = f"was last heard of at {device.seen_at}" if device.seen_at else "has been heard of"
        or_else = f"or edgejoule devices revoke {wanted.name} first, if this board is to take its place"
        if deployed is None and not facts.volume:
            raise Refused(
                f"a device {wanted.name} is registered and {heard}, and this board has nothing of ours: choose another "
                f"NAME, {or_else}"
            )
        if device.used and deployed is None and not facts.before:
            raise Refused(
                f"a device {wanted.name} {heard}, and only this board's container, which is gone, would tell whether "
                f"that was this board: choose another NAME, {or_else}"
            )
        if device.used and labels.get(TOKEN) not in (None, device.made_at):
            raise Refused(
                f"a device {wanted.name} {heard} by a newer token than this board's: make jetson-remove here and "
                f"choose another NAME, {or_else}"
            )
    steps = []
    if not image_there:
        steps.append(Step("image", "there is none of this content"))
    token = _why_token(facts, labels, device)
    if token:
        steps.append(Step("token", token))
    if wanted.power_modes and not (facts.listens and facts.helper == power.hashes()):
        why = "does not listen, or is another" if facts.helper else "is not there"
        steps.append(Step("helper", f"what puts power modes on for the agent {why}"))
    if facts.container is None:
        steps.append(Step("container", "there is none"))
    elif token:
        steps.append(Step("container", "it needs the new token"))
    else:
        words = run_arguments(wanted, image, facts, labels[TOKEN])
        if f"{SETTINGS}={labels.get(SETTINGS)}" not in words:
            steps.append(Step("container", "its image or its settings are others"))
        elif not is_running(facts.container):
            steps.append(Step("container", "it does not run"))
    if facts.helper and not wanted.power_modes:
        steps.append(Step("helper", "it goes, as POWER_MODES=1 is not asked for"))
    return steps


def is_its_token(facts: Facts, device: Device) -> bool:
    """Whether a device's token lies on this board, as far as the board can tell; then it goes with what is removed."""
    if facts.container is None and not facts.volume:
        return False
    return labels_of(facts.container).get(TOKEN) in (None, device.made_at)


def _why_token(facts: Facts, labels: dict[str, str], device: Device | None) -> str | None:
    if device is None or device.made_at is None:
        return "the gateway knows no such device"
    if not device.valid:
        return "its last one was revoked; by a new one it is let in again"
    if not facts.volume or labels.get(TOKEN) is None:
        return "the board has none"
    if labels[TOKEN] != device.made_at:
        return "a newer one was made elsewhere"
    return None
