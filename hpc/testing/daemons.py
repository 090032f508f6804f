"""How is each daemon of a cluster started by hand, known to be ready, and ended?

Every daemon stays in the foreground as a child of the test process, so its process id is known from the moment
it exists and no pid file or name is ever trusted. Each lives in a network namespace of the cluster: what it
listens on cannot meet another cluster, nor the services that Debian's packages may have started.
"""

from __future__ import annotations

import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc.testing.configuration import CONTROLLER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from hpc.testing.network import Network

READY_SECONDS = 60
"""How long a daemon may take to be ready; each takes a second or two, more on a machine that is busy."""

STOP_SECONDS = 10
"""How long a daemon may take to end after SIGTERM before it is killed."""

SLURMDBD_PORT = 6819
"""Slurm's default: the controller has a port space of its own."""

DATABASE_OPTIONS = ("--debug-no-sync", "--innodb-flush-method=nosync", "--innodb-buffer-pool-size=16M")
"""Small, and nothing waits for the disk, which takes a start from 8 s to 3: the data live as long as the cluster."""

ENTER_HOST = 'hostname "$1" && mount --bind "$2" /etc/hosts && shift 2 && exec "$@"'
"""Shell that gives a process its host name and names for its peers; UTS and mount namespaces keep both private."""


def tail(path: Path, lines: int) -> str:
    """The last lines of a file, or a remark that there is none."""
    if not path.is_file():
        return f"(no file {path})"
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:])


def wait_until(
    condition: Callable[[], bool], story: Callable[[], str], timeout_seconds: float, interval_seconds: float = 0.05
) -> None:
    """Poll until a condition holds.

    Args:
        condition: Asked at least once.
        story: Asked for the error's message when time is up.
        timeout_seconds: When to give up.
        interval_seconds: Time between two questions.

    Raises:
        TimeoutError: The condition does not hold in time.
    """
    give_up = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > give_up:
            raise TimeoutError(story())
        time.sleep(interval_seconds)


@dataclass(frozen=True)
class Site:
    """What all daemons of a cluster share.

    Attributes:
        directory: The cluster's own folder.
        network: The cluster's network, open.
        environment: The whole environment of a daemon, and of a client command.
    """

    directory: Path
    network: Network
    environment: Mapping[str, str]


class Daemon:
    """One running daemon.

    Args:
        site: The cluster that it belongs to.
        name: The program's name, or the node's for slurmd; names its log files.
        host: Whose network namespace and host name it gets.
        command: What to run there.

    Attributes:
        name: As given.
    """

    def __init__(self, site: Site, name: str, host: str, command: list[str]) -> None:
        self.name = name
        self._site = site
        self._log = site.directory / "log" / f"{name}.out"
        hosts = str(site.directory / "etc" / "hosts")
        enter = ["unshare", "--uts", "--mount", "sh", "-c", ENTER_HOST, name, host, hosts]
        self._command = [*site.network.place(host), *enter, *command]
        self._process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        with self._log.open("ab") as log:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self._site.environment),
                cwd=self._site.directory,
                start_new_session=True,  # Ctrl-C is for the tests, which then end the daemons in order
            )

    @property
    def pid(self) -> int:
        """Its process id; another one once it was started again."""
        return self._process.pid

    def start_again(self) -> None:
        """Start one that has ended; one that runs goes on. Whether it serves already is another question."""
        if self.has_ended:
            self._process = self._begin()

    def kill(self) -> None:
        """End it as a crash does, by SIGKILL, and wait until it is gone. Its children go on."""
        self._process.kill()
        self._process.wait()

    def wait_ready(self, is_ready: Callable[[], bool]) -> None:
        """Return as soon as the daemon serves.

        Raises:
            RuntimeError: It ended instead; carries the end of its output.
            TimeoutError: It is not ready after `READY_SECONDS`.
        """
        wait_until(lambda: self.has_ended or is_ready(), lambda: self._story("is not ready"), READY_SECONDS)
        if self.has_ended:
            raise RuntimeError(self._story(f"ended with {self._process.returncode} while starting"))

    def stop(self) -> None:
        """End it and wait until it is gone; one that has ended already is no error."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    @property
    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self._process.poll() is not None

    def _story(self, what: str) -> str:
        return f"{self.name} {what}; the end of its output:\n{tail(self._log, 20)}"


def start_daemons(site: Site, nodes: tuple[str, ...], accounting: bool) -> Iterator[Daemon]:
    """Start everything in the order of need; each daemon is yielded as soon as it exists, ready or not.

    Args:
        site: The cluster, its configuration written.
        nodes: Host names of the nodes.
        accounting: Whether to start MariaDB and slurmdbd.

    Raises:
        RuntimeError: A daemon ended while it started.
        TimeoutError: A daemon is not ready in time.
    """
    yield from _start_munged(site)
    if accounting:
        yield from _start_database(site)
        yield from _start_slurmdbd(site)
    yield from _start_controller(site)
    for node in nodes:
        yield Daemon(site, node, node, ["slurmd", "-D", "-N", node])


def _start_munged(site: Site) -> Iterator[Daemon]:
    """Root, as all of this cluster, because pytest's folders are closed to others; munged calls that insecure."""
    directory = site.directory
    command = ["munged", "--foreground", "--force", f"--key-file={directory}/etc/munge.key"]
    command += [f"--socket={directory}/munge.socket", f"--pid-file={directory}/munged.pid"]
    command += [f"--seed-file={directory}/munged.seed"]
    daemon = Daemon(site, "munged", CONTROLLER, command)
    yield daemon
    daemon.wait_ready(lambda: _serves(directory / "munge.socket"))


def _start_database(site: Site) -> Iterator[Daemon]:
    """MariaDB on a fresh data folder; it listens on the loopback interface of the controller's namespace only."""
    directory = site.directory
    common = ["--no-defaults", "--user=root", f"--datadir={directory}/mariadb", *DATABASE_OPTIONS]
    install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
    done = subprocess.run(install, capture_output=True, text=True, timeout=READY_SECONDS, check=False)
    if done.returncode:
        raise RuntimeError(f"mariadb-install-db failed ({done.returncode}): {done.stdout}{done.stderr}")
    command = ["mariadbd", *common, "--skip-log-bin", "--skip-name-resolve", "--bind-address=127.0.0.1"]
    command += [f"--socket={directory}/mariadb.socket", f"--pid-file={directory}/mariadb.pid"]
    daemon = Daemon(site, "mariadbd", CONTROLLER, command)
    yield daemon
    daemon.wait_ready(lambda: _serves(directory / "mariadb.socket"))


def _start_slurmdbd(site: Site) -> Iterator[Daemon]:
    """Slurmctld refuses a cluster that the accounting database has never heard of, so it is told here."""
    daemon = Daemon(site, "slurmdbd", CONTROLLER, ["slurmdbd", "-D"])
    yield daemon
    daemon.wait_ready(lambda: _listens(site.network.addresses[CONTROLLER], SLURMDBD_PORT))
    done = _client(site, "sacctmgr", "--immediate", "add", "cluster", site.network.name)
    if done.returncode:
        raise RuntimeError(f"sacctmgr could not add the cluster ({done.returncode}): {done.stdout}{done.stderr}")


def _start_controller(site: Site) -> Iterator[Daemon]:
    """Slurmctld, which goes on from its state where it was killed."""
    daemon = Daemon(site, "slurmctld", CONTROLLER, ["slurmctld", "-D"])
    yield daemon
    daemon.wait_ready(lambda: _client(site, "scontrol", "ping").returncode == 0)


def _client(site: Site, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, timeout=READY_SECONDS, check=False, env=dict(site.environment)
    )


def _listens(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=1):
            return True
    except OSError:  # refused, unreachable or timed out: not yet
        return False


def _serves(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(path))
        except OSError:  # no such file, or refused: not yet
            return False
        return True
