"""`make test-boards`: the images for boards, their agents behind the real stack, and a board from nothing to removed.

It builds the images for JetPack 4 and 6 on stand-in bases, both for arm64 under emulation, the first also for this
machine; has the agents in them take jobs from the stack's gateway, and holds their records against the schemas; and
calls `make jetson-deploy` and its kin against a container with sshd that plays a board, over a real ssh, with a real
engine, also where the board is not as it must be and where the connection breaks off. It leaves nothing behind but what
Docker keeps in its build cache.

Played, since no Jetson is here: the bases, NVIDIA's runtime, TensorRT's and cuDNN's files (empty), TensorRT's Python
module (the double of the agent's tests), the device tree, the board's files, that it lacks the runtime or room on its
disk. And since no Python 3.6 is to be had for arm64, the image for JetPack 4 has there, by its own Dockerfile, the
packages of that for JetPack 6. So it shows neither that an image starts on NVIDIA's bases, nor Python 3.6 on arm64, nor
an engine of TensorRT, nor what a board's figures are.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import jsonschema

sys.path.insert(0, str(Path(__file__).parents[2] / "l4t"))
import played_tensorrt
from compose import COMMAND, HERE, ROOT, Failed, Stack, call, check, generate_pictures, say, stack_of_a_test
from network import Network
from servers import free_ports

from edgejoule.stack.accounts import AGENTS as AGENTS_OF_THE_STACK
from edgejoule_agent.simulation import trees
from images import IMAGES

SPEC = HERE / "boards.yaml"
SERVICES = ("conductor", "trainer", "evaluator", "analyst", "gateway")
OURS = "edgejoule-boards"  # of images and containers of this test
AGENT = "edgejoule-agent"  # of all that a deployment leaves on a board
SOCKET = Path("/var/run/docker.sock")
CELL = "nanodet_m_128/fp32"
RUN_LIMIT_S = 1500.0  # an emulated processor is tens of times slower
PASSED_ON = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_TRUSTED_HOST")


class Kind(NamedTuple):
    """One image, and the board of the fixtures that it is for."""

    name: str
    l4t: str
    tree: str
    base: str
    platform: str
    machine: str
    buildkit: bool
    """Whether the board's Docker builds by it; JetPack 4's does not."""
    packages_of: str | None = None
    """The line whose packages it has, where the base's Python cannot have its own line's; then no board gets it."""

    @property
    def image(self) -> str:
        return f"{OURS}:{self.name}"


class Agent(NamedTuple):
    """One agent of the second part."""

    device: str
    kind: str
    simulates: str | None


AGENTS = (
    Agent("played-nano", "r32.7", "nano"),
    Agent("played-nano-arm64", "r32.7-arm64", "nano"),
    Agent("played-orin-nano", "r36.4", "orin-nano"),
    Agent("this-host", "r32.7", None),
)

REFUSALS = (
    (
        "an L4T that no image fits",
        "sed -i.whole 's/REVISION: [0-9.]*/REVISION: 9.9/' /etc/nv_tegra_release",
        "mv /etc/nv_tegra_release.whole /etc/nv_tegra_release",
        r"L4T 3\d\.9\.9 ",
    ),
    ("no nvidia runtime", "touch /no-nvidia", "rm /no-nvidia", "no runtime called nvidia .* nvidia-container-runtime"),
    ("a full disk", "touch /full", "rm /full", r"/ on the board has 0\.2 GB free, and .* are asked for: make room"),
)
"""What is wrong with a board, what makes it so, what mends it, and what the deployment says."""


def docker(*words: str, check_it: bool = True, **streams: Any) -> str:
    """What docker printed."""
    ended = subprocess.run(
        ["docker", *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, **streams
    )
    if check_it and ended.returncode:
        raise Failed(f"docker {shlex.join(words)} ended with {ended.returncode}:\n{ended.stdout[-4000:]}")
    return ended.stdout


def build_arguments() -> list[str]:
    return [f"{name}={os.environ[name]}" for name in PASSED_ON if os.environ.get(name)]


# --- the images -------------------------------------------------------------------------------------


def wheels_are_there_for_arm64(folder: Path) -> None:
    """Have pip find all that an image installs as a board's pip would: wheels for arm64 may ask for other things.

    No base with Python 3.6 is for arm64, so for JetPack 4's own packages this is the only sight of them.
    """
    for line, python in sorted({(image.folder, image.python) for image in IMAGES}):
        requirements, tag = ROOT / "l4t" / line / "requirements.txt", python.replace(".", "")
        words = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", tag]
        words += ["--implementation", "cp", "--abi", f"cp{tag}{'m' if tag == '36' else ''}", "--abi", "abi3"]
        words += ["--abi", "none", "--dest", str(folder / "wheels" / line), "--requirement", str(requirements)]
        newest = {"36": 17, "38": 28, "310": 28}[tag]  # that a wheel may ask of the C library
        for age in ("manylinux2014", "manylinux_2_17", *(f"manylinux_2_{minor}" for minor in range(18, newest + 1))):
            words += ["--platform", f"{age}_aarch64"]
        if "--no-deps" in next(
            row for row in (requirements.parent / "Dockerfile").read_text().splitlines() if "--requirement" in row
        ):
            words.append("--no-deps")
        ended = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
        if ended.returncode:
            raise Failed(f"pip finds no wheels for arm64 and Python {python} ({requirements}):\n{ended.stdout[-2000:]}")
        say(f"  {line}: {len(list((folder / 'wheels' / line).iterdir()))} wheels for arm64 and Python {python}")


def with_packages_of(line: str, context: bytes, folder: Path) -> bytes:
    """The build context with another requirements.txt: what pip found for that line, with all that it asks for."""
    found = sorted(path.name.split("-")[:2] for path in (folder / "wheels" / line).iterdir())
    pins = [f"{name}=={version}" for name, version in found]
    say(f"  instead of packages for Python 3.6, those of {line} and what they ask for: {', '.join(pins)}")
    out = BytesIO()
    with tarfile.open(fileobj=BytesIO(context)) as given, tarfile.open(fileobj=out, mode="w") as changed:
        for entry in given:
            file = given.extractfile(entry)
            assert file
            data = "\n".join([*pins, ""]).encode() if entry.name == "requirements.txt" else file.read()
            entry.size = len(data)
            changed.addfile(entry, BytesIO(data))
    return out.getvalue()


def build(kind: Kind, folder: Path) -> None:
    """As the board's Docker does, which has the old builder on JetPack 4."""
    began = time.monotonic()
    made = subprocess.run(
        [sys.executable, str(ROOT / "l4t" / "deploy.py"), "context", kind.l4t],
        env={**os.environ, "BASE_IMAGE": kind.base},
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    if kind.packages_of is not None:
        made = with_packages_of(kind.packages_of, made, folder)
    words = ["build", "--network", "host", "--platform", kind.platform, "--tag", kind.image]
    for argument in build_arguments():
        words += ["--build-arg", argument]
    ended = subprocess.run(
        ["docker", *words, "-"],
        env={**os.environ, "DOCKER_BUILDKIT": str(int(kind.buildkit))},
        input=made,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if ended.returncode:
        raise Failed(f"the image {kind.name} is not built:\n{ended.stdout.decode(errors='replace')[-4000:]}")
    found = json.loads(docker("image", "inspect", kind.image))[0]
    say(
        f"  built for L4T {kind.l4t} on {kind.base} by {'BuildKit' if kind.buildkit else 'the old builder'}: "
        f"{found['Os']}/{found['Architecture']}, {found['Size'] / 1e6:.0f} MB, {time.monotonic() - began:.0f} s"
    )


def agent_tells_the_truth(kind: Kind, tree: Path) -> None:
    """By its probe in a container that sees the release file of a board and no TensorRT."""
    release = f"{tree}/etc/nv_tegra_release:/etc/nv_tegra_release:ro"
    words = ["run", "--rm", "--platform", kind.platform, "--volume", release, kind.image, "--probe"]
    probe = json.loads(subprocess.run(["docker", *words], stdout=subprocess.PIPE, check=True).stdout)
    told, absent = probe["environment"], probe["environment"]["absent"]
    check(
        probe["hardware"]["machine"] == kind.machine and told["l4t"] is not None,
        f"{kind.name}: its agent starts, Python {told['python']} on {probe['hardware']['machine']}, L4T {told['l4t']}",
    )
    check(
        "tensorrt" not in probe["hardware"]["runtimes"] and told["tensorrt"] is None, "it has no TensorRT, and says so:"
    )
    say(f"    {absent['tensorrt']}; {probe['precisions']['learnt']}")


# --- the agents behind the stack --------------------------------------------------------------------


@contextmanager
def agents(kinds: Mapping[str, Kind], stack: Stack, folder: Path, certificate: Path) -> Iterator[Sequence[Agent]]:
    """Every agent of ``AGENTS`` whose image is there in a container of its own, confined as on a board."""
    found = [agent for agent in AGENTS if agent.kind in kinds]
    names = [f"{OURS}-{agent.device}" for agent in found]
    try:
        for agent, name in zip(found, names, strict=True):
            token = folder / f"{agent.device}.token"
            call(stack, folder, "devices", "create", agent.device, "--file", str(token))
            kind = kinds[agent.kind]
            words = ["run", "--detach", "--name", name, "--platform", kind.platform, "--init", "--network", "host"]
            words += ["--read-only", "--tmpfs", "/tmp:uid=10001,mode=0700,size=256m", "--cap-drop", "ALL"]
            words += ["--security-opt", "no-new-privileges", "--volume", f"{certificate}:/gateway.crt:ro"]
            settings = {
                "EDGEJOULE_GATEWAY": gateway_of(stack),
                "EDGEJOULE_GATEWAY_CA": "/gateway.crt",
                "EDGEJOULE_TOKEN": token.read_text().strip(),
                **({"EDGEJOULE_SIMULATE": agent.simulates} if agent.simulates else {}),
            }
            for each in settings:
                words += ["--env", each]
            docker(*words, kind.image, env={**os.environ, **settings})
        wait_until(
            lambda: all(device["agent"] for device in devices(stack, folder).values()), "the agents register", 180
        )
        say(f"  registered: {', '.join(sorted(set(devices(stack, folder)) - {'host'}))}")
        yield found
    except Failed:
        for name in names:
            say(f"{name} said:\n{docker('logs', '--tail', '30', name, check_it=False)[-3000:]}")
        raise
    finally:
        docker("rm", "--force", "--volumes", *names, check_it=False)


def gateway_of(stack: Stack) -> str:
    return f"https://127.0.0.1:{stack.settings['GATEWAY_PORT']}"


def devices(stack: Stack, folder: Path) -> dict[str, dict[str, Any]]:
    """What the store knows of each device but those of the stack itself, whose agents are not up here."""
    found = json.loads(call(stack, folder, "devices", "list", "--json"))
    return {device["name"]: device for device in found if device["name"] not in AGENTS_OF_THE_STACK}


def wait_until(holds: Any, what: str, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            raise Failed(f"not within {limit_s:.0f} s: {what}")
        time.sleep(2)


def boards_carry_out_their_steps(
    agents_there: Sequence[Agent], kinds: Mapping[str, Kind], stack: Stack, folder: Path
) -> None:
    """Each builds an engine, measures it and predicts with it; its records are valid by their schemas."""
    began = time.monotonic()
    out = folder / "out"
    devices_there = f"devices=[{', '.join(agent.device for agent in agents_there)}]"
    with open(folder / "run.log", "wb") as log:
        ended = subprocess.run(
            [COMMAND, "run", str(SPEC), "--on", "stack", "--out", str(out), "--set", devices_there],
            env={**os.environ, **stack.operator, "DATA": str(folder / "data")},
            stdout=log,
            stderr=subprocess.STDOUT,
            timeout=RUN_LIMIT_S,
            check=False,
        )
    if not (out / "results.json").exists():
        raise Failed(f"the run ended with {ended.returncode}:\n{(folder / 'run.log').read_text()[-3000:]}")
    say(f"  the run took {time.monotonic() - began:.0f} s; its rows:")
    rows = json.loads((out / "results.json").read_text())["rows"]
    for row in rows:
        say(f"    {row['device']} {row['variant']}: {row['status']}{': ' + row['reason'] if row['reason'] else ''}")
    for agent in agents_there:
        engine = record_of(stack, folder, f"build/{CELL}/{agent.device}", "engine_record")
        trial = record_of(stack, folder, f"benchmark/{CELL}/{agent.device}/0", "benchmark_record")
        simulated = agent.simulates is not None
        hardware, median_ms = engine["hardware"], trial["latency_ms"]["p50"]
        of_it = engine["simulated"] == trial["simulated"] == simulated
        of_it = of_it and hardware["machine"] == kinds[agent.kind].machine
        check(of_it, f"{agent.device}: two valid records, of")
        runtime = f"{hardware['runtime']} {hardware['runtime_version']}"
        say(f"    {hardware['machine']}, {hardware['processor']}, {runtime}: median {median_ms:.2f} ms")
    for row in rows:
        if row["variant"] == "fp32":
            check(row["status"] == "ok", f"{row['device']}: AP50 {row['ap50']:.3f} by its own predictions")
        elif row["device"].startswith("played-nano"):
            check(row["status"] == "unsupported" and "SM 5.3" in row["reason"], f"{row['device']} refuses INT8")
        elif row["device"] == "this-host":
            check(row["status"] == "ok" and row["int8_share"] > 0, "ONNX Runtime 1.10 runs INT8 under Python 3.6")
    for agent in agents_there:
        asked = ("inspect", "--format", "{{.State.Health.Status}}", f"{OURS}-{agent.device}")
        well = f"{agent.device}: by its image's own check it is healthy"
        wait_until(lambda asked=asked: docker(*asked).strip() == "healthy", well, 90)
        say(f"  {well}")


def record_of(stack: Stack, folder: Path, step: str, schema: str) -> dict[str, Any]:
    """A step's record, once it is valid."""
    file = folder / "record.json"
    call(stack, folder, "get", "boards", step, "record", "--into", str(file))
    found: dict[str, Any] = json.loads(file.read_text())
    valid = json.loads((ROOT / "docs" / "reference" / "schemas" / f"{schema}.json").read_text())
    try:
        jsonschema.Draft202012Validator(valid).validate(found)
    except jsonschema.ValidationError as error:
        raise Failed(f"the record of {step} is not valid at {error.json_path}: {error.message[:300]}") from error
    return found


# --- a board from nothing to removed ----------------------------------------------------------------


class PlayedBoard:
    """A container with sshd whose docker reaches this host's engine; ``with PlayedBoard(...) as board``."""

    name = f"{OURS}-board"
    _double = "/played/double/unit/agent/tensorrt_double.py"  # as far from the names as in tests/

    def __init__(self, kind: Kind, tree: Path, folder: Path) -> None:
        self.kind = kind
        self._tree = tree
        self._folder = folder / f"board-{kind.tree}"
        self._folder.mkdir()
        self._key = self._folder / "key"
        self.port = 0

    def __enter__(self) -> PlayedBoard:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self._key)], check=True)
        context = self._folder / "context"
        self._write(context)
        docker("build", "--network", "host", "--tag", f"{OURS}:board", str(context))
        words = ["run", "--detach", "--name", self.name, "--publish", "127.0.0.1::22"]
        docker(*words, "--volume", f"{SOCKET}:{SOCKET}", f"{OURS}:board")
        self.port = int(docker("port", self.name, "22/tcp").split(":")[-1])
        wait_until(self._answers, "sshd of the played board answers", 30)
        return self

    def __exit__(self, *_: object) -> None:
        docker("rm", "--force", "--volumes", self.name, check_it=False)
        docker("image", "rm", f"{OURS}:board", check_it=False)

    def ssh_options(self, port: int | None = None) -> str:
        known = self._folder / "known_hosts"
        return (
            f"-F none -p {port or self.port} -i {self._key} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=accept-new"
        )

    def shell(self, script: str) -> None:
        """Have root carry something out on it."""
        docker("exec", self.name, "sh", "-c", script)

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                return connection.recv(4) == b"SSH-"
        except OSError:
            return False

    def _write(self, context: Path) -> None:
        """What the board's image is built from, and what its runtime brings."""
        played_tensorrt.write(self._folder / "nvidia", self.kind.tree, self._double)
        for path in ("etc", "var/lib/nvpmodel"):
            shutil.copytree(self._tree / path, context / "root" / path, symlinks=True)
        shutil.copytree(self._tree / "proc" / "device-tree", context / "root" / "device-tree")
        shutil.copy(HERE / "board" / "Dockerfile", context)
        shutil.copy(self._key.with_suffix(".pub"), context / "authorized_keys")
        (context / "played").mkdir()
        for name in ("start-board", "cat", "uname", "df", "docker"):
            text = (HERE / "board" / name).read_text()
            for placeholder, value in self._values().items():
                text = text.replace(f"@{placeholder}@", value)
            (context / "played" / name).write_text(text)
            (context / "played" / name).chmod(0o755)

    def _values(self) -> dict[str, str]:
        libraries = self._tree / trees.LIBRARIES
        mounts = {path: f"/{trees.LIBRARIES}/{path.name}" for path in libraries.iterdir() if not path.is_symlink()}
        mounts[(self._tree / "usr/local/cuda").resolve()] = "/usr/local/cuda"
        mounts[(self._tree / "proc/device-tree").resolve()] = "/played/device-tree"
        mounts[HERE / "board" / "sitecustomize.py"] = "/played/sitecustomize.py"
        mounts[self._folder / "nvidia/tensorrt/__init__.py"] = "/played/tensorrt/__init__.py"
        mounts[played_tensorrt.DOUBLE] = self._double
        mounts[played_tensorrt.NAMES] = f"/played/double/fixtures/{played_tensorrt.NAMES.name}"
        words = [f"--volume {path}:{target}:ro" for path, target in mounts.items()]
        return {
            "TREE": str(self._tree),
            "PLATFORM": self.kind.platform,
            "BUILDKIT": str(int(self.kind.buildkit)),
            "NVIDIA": " ".join([*words, "--env PYTHONPATH=/played"]),
        }


def left_on_engine() -> list[str]:
    """What a deployment may have left."""
    found = docker("ps", "--all", "--filter", f"name=^{AGENT}", "--format", "container {{.Names}}").split("\n")
    found += docker("volume", "ls", "--filter", f"name=^{AGENT}$", "--format", "volume {{.Name}}").split("\n")
    found += docker("image", "ls", AGENT, "--format", "image {{.Repository}}:{{.Tag}}").split("\n")
    return [line for line in found if line]


def deploy_and_remove(kind: Kind, tree: Path, stack: Stack, folder: Path, certificate: Path) -> None:
    name = kind.tree.replace("_", "-")
    with PlayedBoard(kind, tree, folder) as board:
        settings = {
            "HOST": "jetson@127.0.0.1",
            "NAME": name,
            "GATEWAY": gateway_of(stack),
            "CA": str(certificate),
            "SSH_OPTIONS": board.ssh_options(),
            "BASE_IMAGE": kind.base,
            "BUILD_ARGS": shlex.join(build_arguments()),
        }

        def start(target: str, **more: str) -> subprocess.Popen[str]:
            return subprocess.Popen(
                ["make", "--no-print-directory", f"jetson-{target}"],
                cwd=ROOT,
                env={**os.environ, **stack.operator, **settings, **more},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )

        def make(target: str) -> str:
            began = time.monotonic()
            process = start(target)
            said, _ = process.communicate()
            if process.returncode:
                raise Failed(f"make jetson-{target} ended with {process.returncode}:\n{said[-6000:]}")
            say(f"  make jetson-{target}: {time.monotonic() - began:.0f} s")
            return said

        def is_refused(what: str, broken: str, mended: str, sentence: str) -> None:
            board.shell(broken)
            process = start("deploy")
            said, _ = process.communicate()
            board.shell(mended)
            if not process.returncode or not re.search(sentence, said):
                raise Failed(f"make jetson-deploy does not refuse {what}:\n{said[-6000:]}")
            changed = left_on_engine() or name in devices(stack, folder)
            check(not changed, f"refused, with nothing changed: {what}")

        def is_cut() -> None:
            """While the agent waits for a gateway that is nowhere, so that it is sure to be there still."""
            network = Network(board.port)
            nowhere = f"https://127.0.0.1:{free_ports(1)[0]}"
            process = start("deploy", SSH_OPTIONS=board.ssh_options(network.port), GATEWAY=nowhere)
            assert process.stdout
            said = ""
            for line in process.stdout:
                said += line
                if line.startswith("  test:"):
                    network.cut()
            network.close()
            named = "Not taken back on the board: the container, the volume, the image. The same command goes on"
            if not process.wait() or named not in said:
                raise Failed(f"make jetson-deploy does not name what a cut connection leaves:\n{said[-6000:]}")
            left = {line.partition(" ")[0] for line in left_on_engine()}
            check(left == {"container", "volume", "image"}, "cut off: what is left is named, and left")
            check(devices(stack, folder)[name]["token"] == "revoked", "its token is void")

        try:
            for refusal in REFUSALS:
                is_refused(*refusal)
            if kind.machine == os.uname().machine:  # under emulation it takes long
                is_cut()
            said = make("deploy")
            tell_of(said)
            check(f"{name} is registered and served" in said, f"{name} is registered and served")
            device = devices(stack, folder)[name]
            check(
                device["token"] == "valid" and bool(device["seen_at"]), f"the store knows it, agent {device['agent']}"
            )
            found = json.loads(docker("inspect", AGENT))[0]
            host = found["HostConfig"]
            confined = (
                host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and found["Config"]["User"] == "10001:10001"
            )
            check(confined, "its container runs read-only, without root and capabilities")
            keep = 'touch "$CUDA_CACHE_PATH/of-this-test" && echo "$CUDA_CACHE_PATH"'
            cache = docker("exec", AGENT, "sh", "-c", keep).strip()
            (volume,) = (mount["Destination"] for mount in found["Mounts"] if mount["Type"] == "volume")
            check(cache.startswith(f"{volume}/"), f"CUDA's cache lies in its volume, {cache}")
            check("stand already" in make("deploy"), "again: image, token and container stand already")
            check("container running" in make("status"), "status: its container runs")
            check("serves this board" in make("logs"), "logs: the gateway serves it")
            check("nothing of ours is left" in make("remove"), "removed")
            check(not left_on_engine(), "on the engine is no container, volume or image of it")
            check(devices(stack, folder)[name]["token"] == "revoked", "its token is void")
        finally:
            docker("rm", "--force", AGENT, f"{AGENT}-before", check_it=False)
            docker("volume", "rm", "--force", AGENT, check_it=False)
            for image in docker("image", "ls", "--quiet", AGENT).split():
                docker("image", "rm", "--force", image, check_it=False)


def tell_of(said: str) -> None:
    """What a deployment said, without what its build said."""
    tested = False
    for line in said.splitlines():
        tested = tested or line.startswith("  test:")
        if tested or not line.startswith("    "):
            say(f"    | {line}")


# --- all of it --------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--py36-base", default="python:3.6-slim", help="base with Python 3.6, of this host's machine")
    parser.add_argument("--arm64-base", default="arm64-debian:bookworm-slim", help="base for arm64, by apt")
    parser.add_argument("--no-emulation", action="store_true", help="leave out what is for another machine than this")
    options = parser.parse_args(arguments)
    with stack_of_a_test() as (stack, folder):
        machine = os.uname().machine
        here = "linux/arm64" if machine == "aarch64" else "linux/amd64"
        arm64 = (options.arm64_base, "linux/arm64", "aarch64")
        kinds = [
            Kind("r32.7", "32.7.1", "nano_jp4", options.py36_base, here, machine, buildkit=False),
            Kind("r32.7-arm64", "32.7.1", "nano_jp4", *arm64, buildkit=False, packages_of="r36"),
            Kind("r36.4", "36.4.3", "orin_nano_jp6", *arm64, buildkit=True),
        ]
        if options.no_emulation:
            kinds = [kind for kind in kinds if kind.machine == machine]
        only_where_it_can(kinds)
        try:
            carry_out({kind.name: kind for kind in kinds}, stack, folder)
        finally:
            docker("image", "rm", *(kind.image for kind in kinds), check_it=False)
    check(OURS not in docker("ps", "--all") + docker("image", "ls"), "and no container and no image of this test")


def only_where_it_can(kinds: Sequence[Kind]) -> None:
    """See that the bases are here and run, and that nothing is in the way.

    Raises:
        Failed: it cannot be done here.
    """
    for kind in kinds:
        if kind.machine not in docker(
            "run", "--rm", "--platform", kind.platform, kind.base, "uname", "-m", check_it=False
        ):
            raise Failed(
                f"the base {kind.base} does not run here as {kind.platform}: name another, and for arm64 install "
                "qemu-user-static and binfmt-support"
            )
    if not SOCKET.exists():
        raise Failed(f"there is no {SOCKET}, by which the played board reaches the engine")
    if left_on_engine():
        raise Failed(
            f"this engine has {', '.join(left_on_engine())} of somebody else: make jetson-remove, or take another"
        )


def carry_out(kinds: Mapping[str, Kind], stack: Stack, folder: Path) -> None:
    of_kinds = sorted({kind.tree for kind in kinds.values()})
    roots = {tree: Path(trees.write(tree, folder / "trees" / tree)) for tree in of_kinds}
    say("the images")
    wheels_are_there_for_arm64(folder)
    with ThreadPoolExecutor() as pool:  # emulated, each keeps one core busy
        list(pool.map(lambda kind: build(kind, folder), kinds.values()))
    for kind in kinds.values():
        agent_tells_the_truth(kind, roots[kind.tree])
    say("the stack, up --wait")
    generate_pictures(folder, 16, 8)
    stack("build", *SERVICES, "redis", "minio", "init")
    stack("up", "--detach", "--wait", *SERVICES)
    certificate = folder / "gateway.crt"
    stack("cp", "gateway:/etc/edgejoule/gateway.crt", str(certificate))
    certificate.chmod(0o644)
    say("the agents, each in its image")
    with agents(kinds, stack, folder, certificate) as agents_there:
        boards_carry_out_their_steps(agents_there, kinds, stack, folder)
    for kind in (kind for kind in kinds.values() if kind.packages_of is None):
        say(f"a played board, {kind.tree}, from nothing to removed")
        deploy_and_remove(kind, roots[kind.tree], stack, folder, certificate)


if __name__ == "__main__":
    try:
        main()
    except Failed as error:
        sys.exit(f"make test-boards failed: {error}")
    say("1 passed, 0 failed")
