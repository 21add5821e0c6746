"""What a deployment decides from what a board says of itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import power
from edgejoule_agent import jetson, power_mode
from edgejoule_agent.sampler import PRIORITY
from edgejoule_agent.simulation import trees
from images import image_for
from plan import (
    DEVICE,
    NAME,
    SETTINGS,
    TOKEN,
    Device,
    Facts,
    Refused,
    Wanted,
    board_of,
    check_board,
    check_disk,
    check_docker,
    check_power_modes,
    facts_command,
    is_its_token,
    l4t_of,
    labels_of,
    make_plan,
    parse_facts,
    run_arguments,
)

IMAGE = image_for("36.4.3")
WANTED = Wanted("nano", "https://gateway:8443", "ab" * 32, "cd" * 32)
DEVICE_THERE = Device(valid=True, made_at="2026-01-01T00:00:00Z")
DOCKER = {"DockerRootDir": "/var/lib/docker", "Runtimes": {"nvidia": {}, "runc": {}}}


def text(**parts: str) -> str:
    """What a shell prints for ``facts_command``."""
    answers = {
        "release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64",
        "compatible": "nvidia,p3768-0000+p3767-0005-super\nnvidia,p3767-0005\nnvidia,tegra234",
        "dts": "",
        "model": "NVIDIA Jetson Orin Nano",
        "machine": "aarch64",
        "clock": "1767225600",
        "there": "/etc/nv_tegra_release\n/var/lib/nvpmodel",
        "groups": "44\n44\n104",
        "docker": json.dumps(DOCKER),
        **dict.fromkeys(("container", "before", "volume", "images", "helper"), ""),
        "listens": "inactive",
        "disk": "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/nvme0n1p1 1 1 19531250 5% /",
        "end": "",
        **parts,
    }
    return "".join(f"\n=={name}==\n{answer}\n" for name, answer in answers.items())


def facts(**parts: str) -> Facts:
    return parse_facts(text(**parts))


def deployed(wanted: Wanted = WANTED, running: bool = True) -> Facts:
    """A board on which this stands."""
    words = run_arguments(wanted, IMAGE, facts(), str(DEVICE_THERE.made_at))
    labels = dict(word.split("=", 1) for word, flag in zip(words[1:], words, strict=False) if flag == "--label")
    container = [{"Config": {"Labels": labels}, "State": {"Running": running}}]
    return facts(container=json.dumps(container), volume=NAME)


def steps(found: Facts, wanted: Wanted = WANTED, there: bool = True, device: Device | None = DEVICE_THERE) -> list[str]:
    return [step.name for step in make_plan(found, wanted, IMAGE, there, device)]


def test_facts_are_read_from_one_answer() -> None:
    found = facts(images="edgejoule-agent:0123\n")
    assert l4t_of(found) == "36.4.3"
    assert found.groups == (44, 104)
    assert (found.disk, found.free_gb) == ("/", 20.0)
    assert found.container is None
    assert found.images == ("edgejoule-agent:0123",)


def test_facts_command_asks_for_all_that_is_parsed() -> None:
    names = [part.partition("==")[0] for part in facts_command().split("echo ==")[1:]]
    assert names == [line.strip("=") for line in text().splitlines() if line.startswith("==")]


def asked_of(root: str) -> Facts:
    """What a board with these files says of itself."""
    tree = Path(root) / "proc" / "device-tree"
    names = {"compatible": "compatible", "dts": "nvidia,dtsfilename", "model": "model"}
    found = {part: tree / name for part, name in names.items()}
    return facts(**{part: file.read_text().replace("\0", "\n") for part, file in found.items() if file.exists()})


@pytest.mark.parametrize("kind", trees.JETSONS)
def test_board_is_called_as_its_agent_calls_it(kind: str, tmp_path: Path) -> None:
    root = trees.write(kind, tmp_path)
    assert board_of(asked_of(root)) == jetson.probe(root)["board"]


@pytest.mark.parametrize(
    ("compatible", "dts", "name"),
    [
        (
            "nvidia,galen\0nvidia,jetson-xavier\0nvidia,p2972-0000\0nvidia,tegra194\0",
            "/hardware/nvidia/platform/t19x/galen/kernel-dts/tegra194-p2888-0001-p2822-0000.dts\0",
            "Jetson AGX Xavier",
        ),
        ("nvidia,quill\0nvidia,tegra186\0", "/p3448-0000/tegra186-quill-p3310-1000-c03-00-base.dts\0", "Jetson TX2"),
    ],
    ids=["agx-xavier", "tx2"],
)
def test_board_that_only_its_device_trees_file_names_is_known(
    compatible: str, dts: str, name: str, tmp_path: Path
) -> None:
    root = trees.write("xavier_nx_jp4", tmp_path)
    tree = tmp_path / "proc" / "device-tree"
    (tree / "compatible").write_text(compatible)
    (tree / "nvidia,dtsfilename").write_text(dts)
    assert jetson.probe(root)["board"] == name
    assert board_of(asked_of(root)) == name


@pytest.mark.parametrize(
    ("clock", "off"), [("1767225600", None), ("1767300000", None), ("", None), ("1534123200", "2018-08-13 01:20 UTC")]
)
def test_board_whose_clock_is_off_by_days_is_refused(clock: str, off: str | None) -> None:
    if off is None:
        check_board(facts(clock=clock), 1767225600.0)
    else:
        with pytest.raises(Refused, match=f"clock says {off}, this host's 2026-01-01 00:00 UTC.*sudo date --set"):
            check_board(facts(clock=clock), 1767225600.0)


def test_board_that_nobody_knows_is_refused_before_anything_is_built() -> None:
    with pytest.raises(Refused, match="NVIDIA Jetson TX1 is no board that Edgejoule knows the power rails of"):
        check_board(facts(compatible="nvidia,p2371-2180\nnvidia,tegra210", model="NVIDIA Jetson TX1"), 1767225600.0)


def test_answer_that_broke_off_is_refused() -> None:
    with pytest.raises(Refused, match="does not answer as sh does"):
        parse_facts(text().partition("==end==")[0])


def test_plan_of_a_bare_board_is_everything_and_of_a_deployed_one_nothing() -> None:
    assert steps(facts(), there=False, device=None) == ["image", "token", "container"]
    assert steps(deployed()) == []


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"wanted": WANTED._replace(gateway="https://other:8443")}, ["container"]),
        ({"wanted": WANTED._replace(ca_sha256="ef" * 32)}, ["container"]),
        ({"wanted": WANTED._replace(image="ef" * 32), "there": False}, ["image", "container"]),
        ({"there": False}, ["image"]),
        ({"device": None}, ["token", "container"]),
        ({"device": Device(valid=False, made_at=DEVICE_THERE.made_at)}, ["token", "container"]),
        ({"device": Device(valid=True, made_at="2026-02-02T00:00:00Z")}, ["token", "container"]),
    ],
)
def test_plan_is_what_changed(change: dict[str, Any], expected: list[str]) -> None:
    assert steps(deployed(), **change) == expected


def test_plan_starts_what_does_not_run_and_brings_a_token_where_the_volume_is_gone() -> None:
    assert steps(deployed(running=False)) == ["container"]
    assert steps(deployed()._replace(volume=False)) == ["token", "container"]


def test_plan_refuses_a_board_of_another_name() -> None:
    with pytest.raises(Refused, match="deployed as 'nano' already: make jetson-remove first"):
        steps(deployed(), WANTED._replace(name="orin"))


LIVE = DEVICE_THERE._replace(agent="0.1.0", seen_at="2026-01-02T00:00:00Z")


@pytest.mark.parametrize(
    ("device", "heard"),
    [(LIVE, "was last heard of at 2026-01-02T00:00:00Z"), (LIVE._replace(seen_at=None), "has been heard of")],
)
def test_plan_refuses_a_name_that_another_board_bears(device: Device, heard: str) -> None:
    with pytest.raises(
        Refused, match=f"a device nano is registered and {heard}, .*: choose another NAME, or edgejoule"
    ):
        steps(facts(), device=device)


def test_plan_refuses_a_name_that_another_board_bears_by_a_newer_token() -> None:
    newer = LIVE._replace(made_at="2026-02-02T00:00:00Z", used=True)
    with pytest.raises(Refused, match=r"a device nano was last heard of at 2026-01-02T00:00:00Z by a newer token than"):
        steps(deployed(), device=newer)
    assert steps(deployed(), device=newer._replace(used=False)) == ["token", "container"]
    assert steps(deployed(), device=newer._replace(valid=False)) == ["token", "container"]
    assert steps(deployed(), device=LIVE._replace(used=True)) == []


def test_plan_gives_a_board_its_own_name_again_and_one_that_was_revoked() -> None:
    assert steps(deployed(), device=LIVE) == []
    assert steps(deployed()._replace(volume=False), device=LIVE) == ["token", "container"]
    assert steps(facts(volume=NAME), device=LIVE) == ["token", "container"]
    assert steps(facts(), device=LIVE._replace(valid=False)) == ["token", "container"]
    assert steps(facts(volume=NAME, before="0123"), device=LIVE._replace(used=True)) == ["token", "container"]


def test_plan_does_not_void_a_token_in_use_for_a_board_whose_container_is_gone() -> None:
    in_use = LIVE._replace(used=True)
    with pytest.raises(Refused, match=r"a device nano was last heard of at 20\S+, and only this board's container"):
        steps(facts(volume=NAME), device=in_use)
    step, _ = make_plan(facts(volume=NAME), WANTED, IMAGE, True, in_use._replace(valid=False))
    assert step.why == "its last one was revoked; by a new one it is let in again"


def test_token_goes_with_what_is_removed_where_it_is_the_boards() -> None:
    assert is_its_token(deployed(), LIVE)
    assert is_its_token(facts(volume=NAME), LIVE)
    assert not is_its_token(facts(images=f"{NAME}:0123"), LIVE)
    assert not is_its_token(deployed(), LIVE._replace(made_at="2026-02-02T00:00:00Z"))


def test_container_is_hardened_and_sees_only_what_is_there() -> None:
    words = run_arguments(WANTED, image_for("32.7.1"), facts(), "then")
    joined = " ".join(words)
    for part in ("--runtime nvidia", "--restart unless-stopped", "--read-only", "--cap-drop ALL", "no-new-privileges"):
        assert part in joined
    assert f"--ulimit rtprio={PRIORITY}" in joined
    assert [words[i + 1] for i, word in enumerate(words) if word == "--group-add"] == ["44", "104"]
    volumes = [words[i + 1] for i, word in enumerate(words) if word == "--volume"]
    assert volumes[0] == f"{NAME}:/var/lib/edgejoule"
    assert volumes[1:] == [f"{path}:{path}:ro" for path in ("/etc/nv_tegra_release", "/var/lib/nvpmodel")]
    assert not {"--privileged", "--cap-add"} & set(words)
    assert f"{DEVICE}=nano" in words
    assert f"{TOKEN}=then" in words
    assert any(word.startswith(f"{SETTINGS}=") for word in words)


WITH_MODES = WANTED._replace(power_modes=True)
INSTALLED = {
    "helper": "\n".join(f"{sha256}  {path}" for path, sha256 in power.hashes().items()),
    "listens": "active\nenabled",
}


def test_helper_comes_before_the_container_that_needs_it_and_goes_after_the_one_that_did() -> None:
    assert steps(facts(), WITH_MODES, there=False, device=None) == ["image", "token", "helper", "container"]
    assert steps(deployed(), WITH_MODES) == ["helper", "container"]
    there = facts(**INSTALLED)
    stands = deployed(WITH_MODES)._replace(helper=there.helper, listens=there.listens)
    assert steps(stands, WITH_MODES) == []
    assert steps(stands) == ["container", "helper"]
    assert steps(stands._replace(listens=False), WITH_MODES) == ["helper"]
    other = {**there.helper, "/usr/local/lib/edgejoule_power.py": "0" * 64}
    assert steps(stands._replace(helper=other), WITH_MODES) == ["helper"]
    assert steps(deployed()._replace(helper=dict([*there.helper.items()][:1]))) == ["helper"], "half of it"


@pytest.mark.parametrize("said", ["active", "active\ndisabled", "inactive\nenabled", ""])
def test_helper_listens_where_it_does_now_and_after_a_restart_of_the_board(said: str) -> None:
    assert facts(**INSTALLED).listens
    assert not facts(**{**INSTALLED, "listens": said}).listens


def test_container_sees_the_helpers_folder_where_power_modes_are_asked_for() -> None:
    mount, setting = "/run/edgejoule-power:/run/edgejoule-power:ro", f"{power_mode.SOCKET}=/run/edgejoule-power/socket"
    words = run_arguments(WITH_MODES, IMAGE, facts(), "then")
    assert {mount, setting} < set(words)
    assert not {"--privileged", "--cap-add"} & set(words)
    assert not {mount, setting} & set(run_arguments(WANTED, IMAGE, facts(), "then"))


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        ({"there": "/etc/nvpmodel.conf"}, "the board has no /var/lib/nvpmodel: leave POWER_MODES out"),
        ({"there": ""}, "the board has no /etc/nvpmodel.conf and no /var/lib/nvpmodel"),
        (
            {"docker": json.dumps({**DOCKER, "SecurityOptions": ["name=seccomp", "name=userns"]})},
            r"maps users \(userns\)",
        ),
        ({"docker": json.dumps({**DOCKER, "SecurityOptions": ["name=rootless"]})}, r"maps users \(rootless\)"),
    ],
)
def test_board_on_which_no_helper_would_serve_is_refused(parts: dict[str, str], sentence: str) -> None:
    both = "/etc/nvpmodel.conf\n/var/lib/nvpmodel"
    check_power_modes(facts(there=both, docker=json.dumps({**DOCKER, "SecurityOptions": ["name=seccomp"]})))
    with pytest.raises(Refused, match=sentence):
        check_power_modes(facts(**{"there": both, **parts}))


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("permission denied while trying to connect to the Docker daemon socket", "usermod -aG docker"),
        ("sh: 1: docker: not found", "there is no Docker"),
        ("Cannot connect to the Docker daemon", "systemctl start docker"),
        (json.dumps({"ServerErrors": ["Cannot connect to the Docker daemon"]}), "systemctl start docker"),
        (json.dumps({**DOCKER, "Runtimes": {"runc": {}}}), r"no runtime called nvidia \(it has runc\)"),
    ],
)
def test_docker_that_cannot_serve_is_told_with_what_to_do(said: str, sentence: str) -> None:
    with pytest.raises(Refused, match=sentence):
        check_docker(facts(docker=said), "me@board")


def test_docker_and_disk_that_serve_pass() -> None:
    check_docker(facts(docker="WARNING: No blkio weight support\n" + json.dumps(DOCKER)), "me@board")
    check_disk(facts(), 20.0)
    with pytest.raises(Refused, match=r"/ on the board has 20\.0 GB free, and 20\.1 GB are asked for"):
        check_disk(facts(), 20.1)


def test_labels_of_no_container_are_none() -> None:
    assert labels_of(None) == {}
    assert labels_of({"Config": {"Labels": None}}) == {}
