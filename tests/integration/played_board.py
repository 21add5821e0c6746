"""A Jetson that the tests play: a real ssh server on this host, its commands carried out in a sandbox folder.

Real: ssh, its client, its keys and connections, the shell, the agent that is started. Played: ``docker`` and
``systemctl`` (``*_stand_in.py`` in tests/fixtures), ``sudo``, which gives no rights, and the files of the board, which
``cat``, ``ls``, ``stat``, ``sha256sum``, ``df`` and ``uname`` show from a fixture tree, and ``tar`` and ``rm`` change
there.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncssh
import played_tensorrt

from edgejoule_agent.simulation import trees

PYTHON36 = Path(__file__).parents[2] / ".venv36" / "bin" / "python"
STAND_INS = Path(__file__).parents[1] / "fixtures"
FILES = """#!/bin/sh
for word; do
  case "$word" in
    /etc/*|/proc/*|/sys/*|/dev/nv*|/dev/dri/*|/var/lib/nvp*|/usr/lib/python*|/usr/local/lib/*|/run/*)
      set -- "$@" "$BOARD/root$word" ;;
    *) set -- "$@" "$word" ;;
  esac
  shift
done
"""
SCRIPTS = {
    "cat": FILES + 'exec /bin/cat "$@"\n',
    "stat": FILES + 'exec /usr/bin/stat "$@"\n',
    "ls": FILES + '/bin/ls "$@" | sed "s|^$BOARD/root||"\n',
    "sha256sum": FILES + '/usr/bin/sha256sum "$@" | sed "s|  $BOARD/root|  |"\n',
    "rm": FILES + 'exec /bin/rm "$@"\n',
    "tar": '#!/bin/sh\n[ "$*" = "-xf - -C /" ] && exec /bin/tar -xf - -C "$BOARD/root"\n',
    "sudo": """#!/bin/sh
[ "$1" = -n ] || exit 9
shift
echo "$*" >> "$BOARD/sudo.log"
grep -qs '"sudo": "asks"' "$BOARD/faults.json" && { echo "sudo: a password is required" >&2; exit 1; }
exec "$@"
""",
    "uname": "#!/bin/sh\necho aarch64\n",
    "df": '#!/bin/sh\necho "Filesystem 1024-blocks Used Available Capacity Mounted on"\n'
    'echo "/dev/mmcblk0p1 30000000 1 $(/bin/cat "$BOARD/free_kb") 50% /"\n',
}


PLAYED = ("docker", "systemctl")


class PlayedBoard:
    """``kind``: of `trees.BOARDS`; everything lies in ``folder``.

    On JetPack 4 the agent runs under a real Python 3.6, where `make test-py36` made one.
    """

    def __init__(self, folder: Path, kind: str) -> None:
        self.folder = folder
        self._python = str(PYTHON36) if kind.endswith("jp4") and PYTHON36.exists() else sys.executable
        (folder / "bin").mkdir(parents=True)
        (folder / "home").mkdir()
        (folder / "root").mkdir()
        trees.write(kind, folder / "root")
        if kind.rpartition("_")[2] in played_tensorrt.RELEASES:  # others are refused before
            self.tensorrt = played_tensorrt.write(self._modules(kind), kind)
        for device in ("nvmap", "nvhost-gpu"):
            (folder / "root" / "dev").mkdir(exist_ok=True)
            (folder / "root" / "dev" / device).touch()
        self._run = tempfile.mkdtemp(prefix="ej-")  # short: a socket's path has 107 characters at most
        (folder / "root" / "run").symlink_to(self._run)
        for part in ("etc/systemd/system", "usr/local/lib"):
            (folder / "root" / part).mkdir(parents=True)
        stand_ins = {
            name: f'#!/bin/sh\nexec {sys.executable} -I -S {STAND_INS}/{name}_stand_in.py "$@"\n' for name in PLAYED
        }
        for name, script in {**SCRIPTS, **stand_ins}.items():
            (folder / "bin" / name).write_text(script)
            (folder / "bin" / name).chmod(0o755)
        self.free(20)
        key = asyncssh.generate_private_key("ssh-ed25519")
        self.key = folder / "key"
        self.key.touch(0o600)
        self.key.write_bytes(key.export_private_key())
        self._public = key.export_public_key()
        self._shells: list[Any] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._serve(), self._loop).result(20)
        self.port: int = self._server.get_port()

    def remove_container(self) -> None:
        """As somebody on the board removes it by hand; the volume stays."""
        words = [str(self.folder / "bin" / "docker"), "rm", "--force", "edgejoule-agent"]
        subprocess.run(words, env={**os.environ, "BOARD": str(self.folder)}, check=True, stdout=subprocess.DEVNULL)

    def _modules(self, kind: str) -> Path:
        """Where the module tensorrt lies: on JetPack 4 on the board, whence it is mounted, else in the image's base."""
        return self.folder / ("root/usr/lib/python3.6/dist-packages" if kind.endswith("jp4") else "base")

    def free(self, gb: float) -> None:
        """So much room is on its disk."""
        (self.folder / "free_kb").write_text(str(int(gb * 1e9 / 1024)))

    def faults(self, **faults: Any) -> None:
        (self.folder / "faults.json").write_text(json.dumps(faults))

    def docker(self, kind: str) -> dict[str, Any]:
        """What the stand-in holds: ``images`` or ``containers``, by name."""
        file = self.folder / "docker" / f"{kind}.json"
        return dict(json.loads(file.read_text())) if file.exists() else {}

    def lose_image_name(self) -> None:
        """The image there loses its name to a newer one of the same content but its base, as a build does that."""
        ((name, old),) = self.docker("images").items()
        sha256 = hashlib.sha256(name.encode()).hexdigest()
        images = {name: {**old, "Id": f"sha256:{sha256}"}, old["Id"][7:19]: old}
        (self.folder / "docker" / "images.json").write_text(json.dumps(images))

    def volumes(self) -> list[str]:
        folder = self.folder / "docker" / "volumes"
        return sorted(os.listdir(folder)) if folder.exists() else []

    def asked(self) -> list[list[str]]:
        """Every call of docker."""
        log = self.folder / "docker.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    def is_untouched(self) -> bool:
        return not (self.docker("images") or self.docker("containers") or self.volumes() or self.helper())

    def helper(self) -> dict[str, str]:
        """What there is of root's part of power modes, by path; ``listens``, ``enabled`` where its socket is."""
        root, found = self.folder / "root", {}
        for folder in ("etc/systemd/system", "usr/local/lib", "run"):
            for path in sorted((root / folder).rglob("*")):
                found[f"/{path.relative_to(root)}"] = path.read_text() if path.is_file() else ""
        for word, file in (("listens", "systemd.json"), ("enabled", "systemd-enabled")):
            if (self.folder / file).exists():
                found[word] = (self.folder / file).read_text()
        return found

    def rights(self) -> list[str]:
        """Every command that was to be root's."""
        log = self.folder / "sudo.log"
        return log.read_text().splitlines() if log.exists() else []

    def ask_helper(self, request: bytes) -> dict[str, Any]:
        """What the program that was installed there answers."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(os.path.join(self._run, "edgejoule-power", "socket"))
            connection.sendall(request)
            return dict(json.loads(connection.makefile().read()))

    def ssh_options(self, port: int | None = None) -> str:
        known = self.folder / "known_hosts"
        return (
            f"-F none -p {port or self.port} -i {self.key} -o IdentitiesOnly=yes -o BatchMode=yes "
            f"-o UserKnownHostsFile={known} -o StrictHostKeyChecking=accept-new"
        )

    def close(self) -> None:
        for container in self.docker("containers").values():
            with suppress(ProcessLookupError, KeyError):
                os.kill(container["State"]["Pid"], signal.SIGKILL)
        if "listens" in self.helper():
            os.kill(json.loads(self.helper()["listens"])["pid"], signal.SIGKILL)
        shutil.rmtree(self._run)
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        for shell in self._shells:
            if shell.returncode is None:
                shell.kill()
            await shell.wait()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self) -> Any:
        return await asyncssh.create_server(
            asyncssh.SSHServer,
            "127.0.0.1",
            0,
            server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            authorized_client_keys=asyncssh.import_authorized_keys(self._public.decode()),
            process_factory=self._carry_out,
            encoding=None,
        )

    async def _carry_out(self, process: Any) -> None:
        """As sshd does: the user's shell is handed the command; it loses its streams when the connection breaks."""
        environment = {
            "BOARD": str(self.folder),
            "BOARD_PYTHON": self._python,
            "HOME": str(self.folder / "home"),
            "PATH": f"{self.folder / 'bin'}:/usr/bin:/bin",
            "TMPDIR": str(self.folder),
        }
        pipe = asyncio.subprocess.PIPE
        shell = await asyncio.create_subprocess_exec(
            *("sh", "-c", process.command or "true"), stdin=pipe, stdout=pipe, stderr=pipe, env=environment
        )
        self._shells.append(shell)
        feeding = asyncio.create_task(_feed(process.stdin, shell.stdin))
        try:
            await asyncio.gather(_tell(shell.stdout, process.stdout), _tell(shell.stderr, process.stderr))
            code = await shell.wait()
        except (OSError, asyncssh.Error):
            return  # the connection is gone; the shell finds its streams closed
        finally:
            feeding.cancel()
        process.exit(code if code >= 0 else 128 - code)


async def _feed(source: Any, sink: Any) -> None:
    """Also a stream that breaks off is an end to the one who reads it."""
    try:
        with suppress(OSError, asyncssh.Error):
            while data := await source.read(1 << 16):
                sink.write(data)
                await sink.drain()
    finally:
        sink.close()


async def _tell(source: Any, sink: Any) -> None:
    while data := await source.read(1 << 16):
        sink.write(data)
        await sink.drain()
