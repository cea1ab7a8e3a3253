"""A real sshd, tunnel and PostgreSQL on this machine, for what docs/remote.md says about other machines."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
SECONDS = 120  # within which a server must answer
CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/key.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_for(condition, *processes):
    """Wait until the condition holds; it never will when one of the processes has ended."""
    until = time.monotonic() + SECONDS
    while not condition():
        ended = [process.args for process in processes if process.poll() is not None]
        assert not ended, f"ended: {ended}"
        assert time.monotonic() < until, "no answer"
        time.sleep(0.1)


@contextmanager
def started(*command, **options):
    """A process that is ended with the block, and whatever it has started."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
        process.wait(timeout=SECONDS)


@contextmanager
def ssh_server(folder: Path):
    """Yields the arguments of an ``ssh`` that logs in here, as this user, with a key of its own."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("there is no sshd here (apt-get install openssh-server)")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd demands it of root
    for name in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True)
    port = free_port()
    (folder / "sshd_config").write_text(CONFIG.format(port=port, folder=folder))
    options = {"UserKnownHostsFile": folder / "known_hosts", "StrictHostKeyChecking": "no", "BatchMode": "yes"}
    settings = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
    with started(SSHD, "-D", "-f", str(folder / "sshd_config")) as server:
        wait_for(lambda: answers(port), server)
        yield ["-F", "none", "-i", folder / "key", "-p", str(port), *settings, f"{getpass.getuser()}@127.0.0.1"]


@contextmanager
def tunnel(folder: Path, far: int):
    """Yields the near end of ``ssh -N -L near:localhost:far``."""
    near = free_port()
    with (
        ssh_server(folder) as arguments,
        started("ssh", "-N", "-L", f"{near}:localhost:{far}", *map(str, arguments)) as ssh,
    ):
        wait_for(lambda: answers(near), ssh)
        yield near


@contextmanager
def postgresql():
    """Yields the address of an empty database of a PostgreSQL of its own, which does not run as root."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        pytest.skip("there is no PostgreSQL here (apt-get install postgresql)")
    other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder, port = tempfile.mkdtemp(dir=tempfile.gettempdir()), free_port()
    try:
        if other:
            shutil.chown(folder, "postgres")
        made = [*other, programs[-1] / "initdb", "-D", folder, "-U", "mlflow", "-A", "trust"]
        subprocess.run(made, check=True, cwd="/", stdout=subprocess.DEVNULL)
        settings = [f"-cunix_socket_directories={folder}", "-clisten_addresses=127.0.0.1"]
        serve = [*other, str(programs[-1] / "postgres"), "-D", folder, "-p", str(port), *settings]
        with started(*serve, cwd="/", stderr=subprocess.DEVNULL) as server:
            wait_for(lambda: answers(port), server)
            yield f"postgresql://mlflow@127.0.0.1:{port}/postgres"
    finally:
        shutil.rmtree(folder, ignore_errors=True)
