"""Bring the agent onto a Jetson, see how it fares there, and take it away: `make jetson-deploy` and its kin.

    python deploy.py deploy | status | logs | remove        settings by environment, as the Makefile hands them on
    python deploy.py context L4T > context.tar.gz           what the image for a release is built from

docs/how-to/boards.md says what is left on the board and on the host in every case.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, NoReturn

import power
from board import Answer, Board, Unreachable, tell
from context import MADE_FOR, context_of
from edgejoule_agent import l4t
from edgejoule_agent.power_mode import FILE as KEPT
from images import IMAGES, Image, NoImage, image_for
from plan import (
    BEFORE,
    DEVICE,
    NAME,
    REAL_TIME,
    SMALL_GB,
    STATE,
    Device,
    Facts,
    Refused,
    Step,
    Wanted,
    board_of,
    ca_file,
    check_board,
    check_disk,
    check_docker,
    check_power_modes,
    facts_command,
    is_its_token,
    is_running,
    l4t_of,
    labels_of,
    make_plan,
    parse_facts,
    run_arguments,
)

DEVICE_NAME = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
ARCHIVE_FACTOR = 3  # what a compressed archive may need on the board; chosen, not measured
STOP = f"docker stop -t 30 {NAME} > /dev/null"  # time to give a step back and to put a power mode back
OF_THE_STACK = ("GATEWAY_NAMES", "GATEWAY_PORT", "COMPOSE_PROFILES", "GRAFANA_PORT", "DASHBOARD")  # taken from .env


class Settings(NamedTuple):
    """What the person asks for."""

    host: str
    name: str
    gateway: str
    ca: str
    archive: str
    base: str
    build_arguments: tuple[str, ...]
    ssh_options: tuple[str, ...]
    wait_s: float
    """For the gateway to serve the board."""
    follow: bool
    dashboard: str
    power_modes: bool


class Host:
    """The training host's side: devices and their tokens, by the command ``edgejoule devices``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        beside = Path(sys.executable).with_name("edgejoule")
        self._command = str(beside) if beside.exists() else "edgejoule"

    def device(self, name: str, seen: bool = True) -> dict[str, Any] | None:
        """What is known of a device; None if nothing is.

        Args:
            seen: with when it was last heard of, for which the stack's Redis is asked.
        """
        found = json.loads(self._ask("list", "--json", without=() if seen else ("EDGEJOULE_BROKER",)))
        return next((device for device in found if device["name"] == name), None)

    def make_token(self, name: str) -> tuple[bytes, str]:
        """A new token, which only passes through a file of ours that is gone again, and when it was made."""
        with tempfile.TemporaryDirectory(prefix="ej-") as folder:
            file = Path(folder) / "token"
            self._ask("create", name, "--file", str(file))
            token = file.read_bytes()
        device = self.device(name, seen=False)
        assert device
        return token, device["made_at"]

    def known(self, name: str, seen: bool = True) -> Device | None:
        """The same, as a plan takes it."""
        found = self.device(name, seen)
        if found is None:
            return None
        return Device(found["token"] == "valid", found["made_at"], found["agent"], found["seen_at"], found["used"])

    def revoke(self, name: str) -> None:
        self._ask("revoke", name)

    def _ask(self, *words: str, without: Sequence[str] = ()) -> str:
        try:
            done = subprocess.run(
                [self._command, "devices", *words],
                env={name: value for name, value in self._environment.items() if name not in without},
                capture_output=True,
                text=True,
                check=False,
                start_new_session=True,
            )
        except FileNotFoundError:
            raise Refused("there is no command edgejoule: make setup") from None
        if done.returncode != 0:
            said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
            raise Refused(f"edgejoule devices {words[0]} failed on this host: {said}")
        return done.stdout


def main() -> int:
    """One command; the exit code."""
    words = sys.argv[1:]
    commands = {"deploy": deploy, "status": status, "logs": logs, "remove": remove}
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
            signal.signal(number, _interrupt)
    try:
        if len(words) == 2 and words[0] == "context":
            image = image_for(words[1])
            sys.stdout.buffer.write(context_of(image, os.environ.get("BASE_IMAGE") or image.base).archive)
            return 0
        if len(words) != 1 or words[0] not in commands:
            sys.stderr.write(__doc__ or "")
            return 2
        environment = _environment(os.environ, Path.cwd())
        commands[words[0]](_settings(environment, words[0]), Host(environment))
    except (Refused, Unreachable, NoImage) as error:
        sys.stderr.write(f"{error}.\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("stopped.\n")
        return 130
    return 0


def _interrupt(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _environment(given: Mapping[str, str], folder: Path) -> dict[str, str]:
    """What is set, and what `make up` wrote: where gateway and dashboards are, and how this host reaches the store."""
    found: dict[str, str] = {}
    for name in (".env", ".env.operator"):
        if name == ".env.operator" and given.get("EDGEJOULE_STORE"):
            continue
        with contextlib.suppress(FileNotFoundError):
            for line in (folder / name).read_text(encoding="utf-8").splitlines():
                key, equals, value = line.partition("=")
                if equals and (name == ".env.operator" or key in OF_THE_STACK):
                    found[key.strip()] = value.strip()
    return {**found, **given}


def _settings(environment: Mapping[str, str], command: str) -> Settings:
    """Checked settings.

    Raises:
        Refused: one is missing or wrong.
    """
    given = environment.get
    host = given("HOST") or ""
    if not host:
        raise Refused(f"which board? make jetson-{command} HOST=user@board")
    name = given("NAME") or ""
    if command == "deploy" and not re.fullmatch(DEVICE_NAME, name):
        what = f"NAME={name!r} is no device's name" if name else "NAME is missing"
        raise Refused(f"{what}: NAME=nano, the name by which specs call it (a-z, 0-9 and -, at most 40)")
    gateway, ca = given("GATEWAY") or _known_gateway(environment), given("CA") or "gateway.crt"
    if command == "deploy" and not re.fullmatch(r"https://[\w.\-\[\]:]+", gateway, re.ASCII):
        what = f"GATEWAY={gateway!r} is no address" if gateway else "it is not known where boards find the gateway"
        raise Refused(f"{what}: GATEWAY=https://HOST:8443, or GATEWAY_NAMES in .env")
    if command == "deploy" and ca != "system" and not Path(ca).is_file():
        raise Refused(
            f"there is no certificate {ca}: docker compose cp gateway:/etc/edgejoule/gateway.crt . or CA=FILE, or "
            "CA=system where the gateway's is from an authority that the board trusts"
        )
    archive = given("IMAGE") or ""
    if archive and not Path(archive).is_file():
        raise Refused(f"there is no file IMAGE={archive}: it is an archive that docker save wrote, gzip allowed")
    power_modes = given("POWER_MODES") or "0"
    if power_modes not in ("0", "1"):
        raise Refused(f"POWER_MODES={power_modes!r} is neither 1 nor 0")
    wait, options, arguments = given("GATEWAY_WAIT") or "90", given("SSH_OPTIONS") or "", given("BUILD_ARGS") or ""
    if not re.fullmatch(r"\d{1,5}", wait):
        raise Refused(f"GATEWAY_WAIT={wait!r} is no number of seconds")
    return Settings(
        *(host, name, gateway, ca, archive, given("BASE_IMAGE") or ""),
        build_arguments=tuple(_words("BUILD_ARGS", arguments)),
        ssh_options=tuple(_words("SSH_OPTIONS", options)),
        wait_s=float(wait),
        follow=bool(given("FOLLOW")),
        dashboard=given("DASHBOARD") or _known_dashboard(environment, name),
        power_modes=power_modes == "1",
    )


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise Refused(f"{name}={text!r} cannot be split into words ({error})") from None


def _known_gateway(environment: Mapping[str, str]) -> str:
    """The first name of the stack's gateway that is not this host's own, as an address; empty where there is none."""
    names = [name for name in environment.get("GATEWAY_NAMES", "").split() if name not in ("localhost", "127.0.0.1")]
    return f"https://{names[0]}:{environment.get('GATEWAY_PORT') or 8443}" if names else ""


def _known_dashboard(environment: Mapping[str, str], device: str) -> str:
    """The device's page in the stack's Grafana, on this host, as grafana/dashboards.py names it; empty without one."""
    if "grafana" not in environment.get("COMPOSE_PROFILES", "").split(","):
        return ""
    port = environment.get("GRAFANA_PORT") or 3000
    return f"http://127.0.0.1:{port}/d/edgejoule-device?var-device={device}"


# --- what is asked of a board -----------------------------------------------------------------------


def _facts(board: Board) -> Facts:
    return parse_facts(board.run(facts_command([path for image in IMAGES for path in image.mounts])).text)


def _do(board: Board, command: str, what: str, source: BinaryIO | None = None, talk: bool = False) -> str:
    """What a command on the board printed.

    Raises:
        Refused: it failed.
    """
    answer = board.run(command, source, (lambda line: tell(f"    {line}")) if talk else _only_clock, join=talk)
    if answer.code != 0:
        raise Refused(_failure(answer, what))
    return answer.text


def _check_sudo(board: Board, why: str, otherwise: str) -> None:
    """See that commands may be root's without anybody at the keyboard.

    Raises:
        Refused: they may not.
    """
    answer = board.run("sudo -n true")
    if answer.code != 0:
        said = (answer.text.splitlines() or [f"it ended with {answer.code}"])[-1]
        raise Refused(
            f"{why}, and on the board sudo says {said!r}: let {board.host} use it without a password as long as this "
            f'takes (echo "$USER ALL=(ALL) NOPASSWD: ALL" | sudo tee /etc/sudoers.d/edgejoule there, and sudo rm that '
            f"file afterwards), or {otherwise}; nothing was changed"
        )


def _take_away(board: Board, command: str, what: str) -> None:
    """Remove or rename something of Docker's; where it never came to be, nothing is to be done.

    Raises:
        Refused: it is still there.
    """
    answer = board.run(command)
    if answer.code != 0 and not re.search(r"\bno such (?:container|image|volume)\b", answer.text, re.IGNORECASE):
        raise Refused(_failure(answer, f"taking back {what}"))


def _only_clock(line: str) -> None:
    if line.startswith("... "):
        tell(f"    {line}")


def _failure(answer: Answer, what: str) -> str:
    if "no space left on device" in answer.text.lower():
        return f"{what} failed, because the board's disk is full: make room (docker system prune), then try again"
    said = [line for line in answer.text.splitlines() if line.strip()]
    return f"{what} failed on the board: {said[-1].strip()[:300] if said else f'it ended with {answer.code}'}"


class Undo:
    """What takes back what was done, last first.

    Attributes:
        left: what could not be taken back on the board, since that was out of reach or its Docker refused.
        valid: the device whose token may be valid, since this host's store did not answer.
    """

    def __init__(self) -> None:
        self.steps: list[tuple[str, Callable[[], object]]] = []
        self.left: list[str] = []
        self.valid: str | None = None

    def later(self, what: str, how: Callable[[], object]) -> None:
        if what not in [name for name, _ in self.steps]:
            self.steps.append((what, how))

    def now(self) -> None:
        """Take everything back. Nobody interrupts that."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        for what, how in reversed(self.steps):
            tell(f"  taken back: {what}")
            try:
                how()
            except (Unreachable, Refused) as error:
                tell(f"    not yet: {error}")
                self.left.append(what)

    def revoke(self, name: str, host: Host, before: str | None) -> None:
        """Make a device's new token void; what cannot be done is no thing on the board, so it is told apart.

        Args:
            before: when the one before it was made, which stays if no new one came to be; None if there was none.
        """
        try:
            device = host.known(name, seen=False)
            if device is not None and device.valid and device.made_at != before:
                host.revoke(name)
        except Refused as error:
            tell(f"    not yet: {error}")
            self.valid = name

    def told(self) -> str:
        """How things stand after it, and what to do."""
        words = "The board is as it was"
        if self.left:
            words = f"Not taken back on the board: {', '.join(self.left)}. The same command goes on from there; "
            words += "make jetson-remove clears it"
        if self.valid:
            words += f". The token of {self.valid} may still be valid, since this host's store did not answer: "
            words += f"edgejoule devices revoke {self.valid} when it answers again"
        return words


# --- commands ---------------------------------------------------------------------------------------


def deploy(settings: Settings, host: Host) -> None:
    """From a bare JetPack to a registered device."""
    tell(f"{settings.host}: connecting")
    with Board(settings.host, settings.ssh_options) as board:
        facts = _facts(board)
        version = l4t_of(facts)
        image = image_for(version)
        base = settings.base or image.base
        tell(f"  {board_of(facts)}, L4T {version}: image {image.name} on {base}, Python {image.python}")
        tell(f"  because {image.why}")
        check_board(facts, time.time())
        check_docker(facts, settings.host)
        if settings.power_modes:
            check_power_modes(facts)
        work = _Work(board, host, settings, facts, image)
        steps = work.plan()
        if not steps:
            helper = ", helper" if settings.power_modes else ""
            tell(f"  image, token{helper} and container stand already")
            work.test(anew=False)
            work.tidy()
        else:
            undo = Undo()
            try:
                for step in steps:
                    tell(f"  {step.name}: {step.why}")
                    work.carry_out(step, undo)
                work.test(anew=True)
            except BaseException as error:
                undo.now()
                reason = "stopped" if isinstance(error, KeyboardInterrupt) else str(error)
                if not isinstance(error, (Refused, Unreachable, KeyboardInterrupt)):
                    raise
                raise Refused(f"{reason}. {undo.told()}") from error
            work.tidy()
        tell(f"{settings.name} is registered and served. Name it in a spec: devices: [{settings.name}]")
        if settings.dashboard:
            tell(f"Dashboard: {settings.dashboard}")


class _Work:
    """One deployment: its decisions' inputs, and how each step is done and taken back."""

    def __init__(self, board: Board, host: Host, settings: Settings, facts: Facts, image: Image) -> None:
        self._board, self._host, self._settings, self._facts, self._image = board, host, settings, facts, image
        self._archive: BinaryIO = io.BytesIO()
        base = settings.base or image.base
        if settings.archive:
            with open(settings.archive, "rb") as file:
                sha256 = _hash(file)
        else:
            context = context_of(image, base)
            self._archive, sha256 = io.BytesIO(context.archive), context.sha256
        self._base = base
        self._ca = None if settings.ca == "system" else Path(settings.ca).read_bytes()
        ca_sha256 = None if self._ca is None else hashlib.sha256(self._ca).hexdigest()
        self._wanted = Wanted(settings.name, settings.gateway, ca_sha256, sha256, settings.power_modes)
        self._tag = f"{NAME}:{sha256[:12]}"
        self._made_at = ""

    def plan(self) -> list[Step]:
        """What is to be done; checks the disk where an image must come, and sudo where root is needed."""
        there = self._has(self._tag)
        device = self._host.known(self._settings.name)
        self._made_at = labels_of(self._facts.container).get("edgejoule.token", "")
        steps = make_plan(self._facts, self._wanted, self._image, there, device)
        if not there and self._settings.archive:
            check_disk(self._facts, ARCHIVE_FACTOR * os.path.getsize(self._settings.archive) / 1e9)
        elif not there:
            check_disk(self._facts, SMALL_GB if self._has(self._base) else self._image.spare_gb)
        if any(step.name == "helper" for step in steps):
            asked = self._settings.power_modes
            why = "POWER_MODES=1 has root install" if asked else "what POWER_MODES=1 left goes by root's hand alone"
            _check_sudo(self._board, why, "leave POWER_MODES out" if asked else "keep it by POWER_MODES=1")
        return steps

    def carry_out(self, step: Step, undo: Undo) -> None:
        how = {
            "image": self._bring_image,
            "token": self._bring_token,
            "helper": self._bring_helper if self._wanted.power_modes else self._take_helper,
            "container": self._start,
        }
        how[step.name](undo)

    def _has(self, image: str) -> bool:
        return self._board.run(f"docker image inspect --format '{{{{.Id}}}}' {shlex.quote(image)}").code == 0

    def _bring_image(self, undo: Undo) -> None:
        tag = self._tag
        undo.later("the image", lambda: _take_away(self._board, f"docker image rm {tag}", "the image"))
        if not self._settings.archive:
            tell("    built on the board; the base alone takes minutes the first time")
            words = ["docker", "build", "--network", "host", "--tag", tag]
            for argument in self._settings.build_arguments:
                words += ["--build-arg", argument]
            _do(self._board, shlex.join([*words, "-"]), "building the image", self._archive, talk=True)
            return
        with open(self._settings.archive, "rb") as file:
            said = _do(self._board, "docker load", f"loading {self._settings.archive}", file)
        found = re.search(r"^Loaded image(?: ID)?: (\S+)$", said, re.MULTILINE)
        if found is None:
            raise Refused(f"docker load on the board named no image in {self._settings.archive}: docker save one")
        loaded = shlex.quote(found.group(1))
        what = "the loaded image"
        undo.later(what, lambda: _take_away(self._board, f"docker image rm {loaded}", what))
        answer = _do(self._board, f"docker image inspect {loaded}", "looking at the loaded image")
        made_for = ((json.loads(answer)[0].get("Config") or {}).get("Labels") or {}).get(MADE_FOR)
        if made_for is None or not l4t.compatible(made_for, l4t_of(self._facts)):
            is_it = "is no image of ours" if made_for is None else f"was made for L4T {made_for}"
            raise Refused(
                f"{self._settings.archive} {is_it}, and the board has {l4t_of(self._facts)}: build it from "
                f"python l4t/deploy.py context {l4t_of(self._facts)}"
            )
        _do(self._board, f"docker tag {loaded} {tag}", "naming the image")

    def _bring_token(self, undo: Undo) -> None:
        name = self._settings.name
        known = self._host.known(name, seen=False)
        before = None if known is None else known.made_at
        # said before it is made, since it may be made when that is stopped
        undo.later(f"the token of {name}", lambda: undo.revoke(name, self._host, before))
        token, self._made_at = self._host.make_token(name)
        self._put("token", token, undo)

    def _put(self, name: str, data: bytes, undo: Undo) -> None:
        """A file of the volume: for the agent alone to read, whole or not at all, and in no command's words."""
        new = f"{STATE}/{name}.new"
        script = f"umask 077; cat > {new} && [ $(wc -c < {new}) -eq {len(data)} ] && mv {new} {STATE}/{name}"
        self._in_volume(script, f"writing {name}", io.BytesIO(data), undo)

    def _in_volume(self, script: str, what: str, source: BinaryIO, undo: Undo) -> None:
        """A small shell in the image, which has the volume and nothing else."""
        if not self._facts.volume:
            undo.later("the volume", lambda: _take_away(self._board, f"docker volume rm {NAME}", "the volume"))
        words = ["docker", "run", "--rm", "--interactive", "--network", "none", "--volume", f"{NAME}:{STATE}"]
        _do(self._board, shlex.join([*words, "--entrypoint", "sh", self._tag, "-c", script]), what, source)

    def _bring_helper(self, undo: Undo) -> None:
        self._keep_helper(undo)
        what = "installing what puts power modes on"
        _do(self._board, power.install_command(True), what, io.BytesIO(power.archive_of(power.files())))

    def _take_helper(self, undo: Undo) -> None:
        self._keep_helper(undo)
        _do(self._board, power.remove_command(), "removing what puts power modes on")

    def _keep_helper(self, undo: Undo) -> None:
        """Have it be as it is now, if this is undone: what there is of it, or nothing."""
        reading = {path: f"cat {path}" for path in self._facts.helper}
        before = {path: f"{_do(self._board, cat, cat)}\n".encode() for path, cat in reading.items()}
        command = power.install_command(self._facts.listens) if before else power.remove_command()
        what = "the helper for power modes"
        undo.later(what, lambda: _do(self._board, command, f"taking back {what}", io.BytesIO(power.archive_of(before))))

    def _start(self, undo: Undo) -> None:
        """The new container in place of the one before, which waits, stopped, for the new one's test."""
        board = self._board
        if self._facts.container is not None:
            undo.later("the stop of the container before", self._put_back)
            stop = f"{STOP} && docker rename {NAME} {BEFORE}"
            _do(board, f"docker rm --force {BEFORE} > /dev/null 2>&1; {stop}", "stopping the container before")
        self._in_volume(f"rm -f {STATE}/heard", "clearing what the agent before heard", io.BytesIO(), undo)
        if self._ca is not None:
            self._put(ca_file(str(self._wanted.ca_sha256)), self._ca, undo)
        undo.later("the container", lambda: _take_away(board, f"{STOP}; docker rm --force {NAME}", "the container"))
        words = run_arguments(self._wanted, self._image, self._facts, self._made_at)
        try:
            self._run(words)
        except Refused as error:  # a Docker without root's rights, or in a container itself
            if "setting rlimit" not in str(error):
                raise
            tell("  Docker on the board may not set a real-time limit: the power's sampler goes without")
            at = words.index(REAL_TIME[0])
            self._run(words[:at] + words[at + len(REAL_TIME) :])

    def _run(self, words: list[str]) -> None:
        run = shlex.join(["docker", "run", "--detach", *words, self._tag])
        _do(self._board, f"docker rm --force {NAME} > /dev/null 2>&1; {run}", "starting the container")

    def _put_back(self) -> None:
        """The container before under its name again, and running if it ran."""
        what = "the stop of the container before"
        _take_away(self._board, f"docker rename {BEFORE} {NAME}", what)
        if is_running(self._facts.container):
            _do(self._board, f"docker start {NAME}", f"taking back {what}")

    def test(self, anew: bool) -> None:
        """The gateway serves the agent, which, where it is new, knows its board: asking it takes memory of the GPU.

        Raises:
            Refused: it does not; said with the end of the agent's log.
        """
        tell(f"  test: {'what the agent says of the board, and ' if anew else ''}whether the gateway serves it")
        try:
            if anew:
                self._ask_agent()
            self._wait_for_gateway()
        except Refused:
            log = self._board.run(f"docker logs --tail 15 {NAME}", join=True).text
            tell("\n".join(["    the agent's log ends:", *(f"    | {line}" for line in log.splitlines())]))
            raise

    def _ask_agent(self) -> None:
        probe = json.loads(_do(self._board, f"docker exec {NAME} edgejoule-agent --probe", "asking the agent"))
        said = probe["environment"]
        wrong = _what_is_wrong(said, l4t_of(self._facts), board_of(self._facts))
        if wrong:
            raise Refused(f"the agent does not know its board: {wrong}")
        unusable = _why_no_tensorrt(probe, self._image)
        if unusable:
            raise Refused(f"the agent cannot use the board's GPU: {unusable}")
        tell(f"    {said['board']}, L4T {said['l4t']}, TensorRT {said['tensorrt']}, power mode {said['power_mode']}")
        tell(f"    fast INT8 and FP16: {(probe.get('precisions') or {}).get('learnt')}")
        if self._wanted.power_modes:
            refusal = probe.get("power_mode_refusal", "the image's agent is from before there was POWER_MODES=1")
            if refusal:
                raise Refused(f"the agent cannot put power modes on: {refusal}")
            tell("    power modes: put on as asked, by the board's root")

    def _wait_for_gateway(self) -> None:
        began = time.monotonic()
        heard = f"docker exec {NAME} find {STATE}/heard -mmin -2 | grep -q heard"
        while self._board.run(heard).code != 0:
            if time.monotonic() - began > self._settings.wait_s:
                gateway, wait_s = self._settings.gateway, self._settings.wait_s
                raise Refused(
                    f"the gateway {gateway} did not serve the board within {wait_s:.0f} s (GATEWAY_WAIT): "
                    "see that the board reaches that address, and that the certificate is the gateway's"
                )
            time.sleep(1.0)
        device = self._host.device(self._settings.name)
        if device is None or device["agent"] is None:
            raise Refused(f"the board is served at {self._settings.gateway}, but this host's store is another one's")
        tell(f"    the gateway heard of it at {device['seen_at'] or 'a time that only EDGEJOULE_BROKER would tell'}")

    def tidy(self) -> None:
        """What nothing needs any more: the container before, and images that were ours."""
        if self._board.run(f"docker container inspect {BEFORE}").code == 0:
            _do(self._board, f"docker rm --force {BEFORE}", "removing the container before")
        for name in self._facts.images:
            if name != self._tag:
                self._board.run(f"docker image rm {shlex.quote(name)}")


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    for chunk in iter(lambda: file.read(1 << 20), b""):
        digest.update(chunk)
    return digest.hexdigest()


def _what_is_wrong(said: Mapping[str, Any], version: str, board: str) -> str | None:
    """What the agent's facts lack of what we saw on the board; None if nothing."""
    absent = said.get("absent") or {}
    if said.get("l4t") != version:
        return f"L4T {said.get('l4t')} instead of {version} ({absent.get('l4t', 'no reason given')})"
    if said.get("board") is None or said["board"] != board:
        return f"{said.get('board')} instead of {board} ({absent.get('board', 'no reason given')})"
    return None


def _why_no_tensorrt(probe: Mapping[str, Any], image: Image) -> str | None:
    """Why the agent would not run on the GPU; None if TensorRT answered it."""
    said, asked = probe["environment"], probe.get("precisions") or {}
    if said.get("tensorrt") is None:
        why = f"no TensorRT for its Python in the container ({(said.get('absent') or {}).get('tensorrt')})"
    elif asked.get("tensorrt") is None:
        why = f"TensorRT {said['tensorrt']} in the container does not answer ({asked.get('learnt')})"
    else:
        return None
    if image.mounts:
        return f"{why}: sudo apt install nvidia-jetpack on the board, whose own is mounted"
    return f"{why}: it comes with the image, whose base must have it (BASE_IMAGE) and fit the board's driver"


def status(settings: Settings, host: Host) -> None:
    """What stands on the board, and what the gateway knows of it."""
    with Board(settings.host, settings.ssh_options) as board:
        facts = _facts(board)
        tell(f"{settings.host}: {board_of(facts)}, L4T {l4t_of(facts)}, {facts.free_gb:.1f} GB free on {facts.disk}")
        if facts.container is None:
            docker = f" (Docker: {facts.docker_error})" if facts.docker_error else ""
            raise Refused(f"no agent is deployed there{docker}: make jetson-deploy HOST={settings.host} NAME=...")
        labels, state = labels_of(facts.container), facts.container.get("State") or {}
        words = [state.get("Status") or "state unknown", (state.get("Health") or {}).get("Status") or "health unknown"]
        tell(f"  device {labels.get(DEVICE)}: container {', '.join(words)}, since {state.get('StartedAt')}")
        tell(f"  image {(facts.container.get('Config') or {}).get('Image')}")
        tell(f"  power modes: {_what_puts_power_modes_on(facts)}")
    device = host.device(labels.get(DEVICE, ""))
    if device is None:
        raise Refused("the gateway knows no such device: make jetson-deploy registers it")
    tell(f"  token {device['token']}, last heard of at {device['seen_at'] or 'unknown'}, agent {device['agent']}")


def _what_puts_power_modes_on(facts: Facts) -> str:
    environment = ((facts.container or {}).get("Config") or {}).get("Env") or []
    if not facts.helper and f"{power.SETTING}={power.SOCKET}" not in environment:
        return "left as they are (POWER_MODES=1 was not asked for)"
    if not facts.helper or not facts.listens:
        found = "is there and does not listen" if facts.helper else "is gone"
        return f"{power.UNIT} {found}: make jetson-deploy with POWER_MODES=1 again"
    old = "" if facts.helper == power.hashes() else ", of another version than this one's"
    return f"put on for the agent, {power.UNIT} listens{old}"


def logs(settings: Settings, host: Host) -> None:
    """The agent's log; FOLLOW=1 stays with it."""
    with Board(settings.host, settings.ssh_options) as board:
        follow = " --follow" if settings.follow else ""
        answer = board.run(f"docker logs --tail 200{follow} {NAME}", say=_line, join=True)
    if answer.code != 0:
        raise Refused("no agent is deployed there, or Docker does not answer: make jetson-status tells")


def _line(line: str) -> None:
    if not line.startswith("... "):
        tell(line)


def remove(settings: Settings, host: Host) -> None:
    """Void the token, then take container, volume and images off the board. Docker's base images stay in its cache."""
    with Board(settings.host, settings.ssh_options) as board:
        facts = _facts(board)
        if facts.docker is None:
            raise Refused(f"Docker on the board does not answer ({facts.docker_error[:200]}): nothing was changed")
        if facts.helper:
            why = "what POWER_MODES=1 left there goes by root's hand alone"
            _check_sudo(board, why, f"do it there by hand ({power.remove_command('sudo')}) and try again")
        name = labels_of(facts.container).get(DEVICE) or settings.name
        device = host.known(name, seen=False) if name else None
        if device is not None and device.valid:
            if is_its_token(facts, device):
                host.revoke(name)
                tell(f"  the token of {name} is void")
            else:
                tell(f"  the token of {name} stays valid, as it is not this board's: edgejoule devices revoke {name}")
        elif not name and facts.volume:
            tell("  whose token is in the volume only its container would tell: edgejoule devices revoke NAME voids it")
        nothing = not (facts.container or facts.before or facts.volume or facts.images or facts.helper)
        _end_agent(board, facts)
        for there, command, what in (
            (facts.container is not None, f"docker rm --force {NAME}", "the container"),
            (facts.before, f"docker rm --force {BEFORE}", "the container before"),
            (facts.volume, f"docker volume rm {NAME}", "the volume, with the board's token and results that wait"),
            *((True, f"docker image rm {shlex.quote(image)}", f"the image {image}") for image in facts.images),
            (bool(facts.helper), power.remove_command(), "the helper for power modes"),
        ):
            if there:
                _do(board, command, f"removing {what}")
                tell(f"  removed: {what}")
    tell(f"{settings.host}: {'nothing of ours was there' if nothing else 'nothing of ours is left'}")


def _end_agent(board: Board, facts: Facts) -> None:
    """Let the agent put back the power mode that it found; what it cannot is told, as its volume knows it alone."""
    if facts.container is None:
        return
    board.run(STOP)
    image = shlex.quote(str((facts.container.get("Config") or {}).get("Image")))
    kept = f"docker run --rm --network none --volume {NAME}:{STATE} --entrypoint sh {image} -c 'cat {STATE}/{KEPT}'"
    answer = board.run(kept) if facts.volume else Answer(1, "")
    if answer.code == 0:
        tell(f"  a power mode was not put back ({answer.text.strip()}): sudo nvpmodel -q there tells which is on")


if __name__ == "__main__":
    sys.exit(main())
