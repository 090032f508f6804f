"""How does each pretended node get an address, a host name and a port space of its own on one machine?

One network namespace per host. The nodes' namespaces are joined by a bridge that lives in the controller's
namespace, so no firewall rule of the machine sees their traffic. The machine's own namespace is the login
side; it holds a single interface, which leads to that bridge::

    machine (login)   controller's namespace           a node's namespace
    hpc-net<x> ────── login ─ bridge ─ node1 ───────── eth0
    10.77.x.254       10.77.x.253                      10.77.x.1

Several clusters keep apart because x is claimed by creating the interface named after it, which only one can.
What remains on a machine after its first namespace is iproute2's own: /run/netns, empty, mounted on itself.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import time
from pathlib import Path

NAMESPACES = Path("/run/netns")
"""Where iproute2 keeps named network namespaces."""


def ip(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run iproute2's ip.

    Raises:
        RuntimeError: It failed and `check` is true; carries what it printed.
    """
    command = ["ip", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if check and done.returncode:
        raise RuntimeError(f"`{' '.join(command)}` failed ({done.returncode}): {done.stderr.strip()}")
    return done


class Network:
    """The namespaces, addresses and interfaces of one cluster.

    Args:
        controller: Host name of the controller.
        nodes: Host names of the nodes, at most 252.

    Attributes:
        name: Unique on this machine; a namespace is called `<name>-<host>`.
        addresses: Host name to IPv4 address, for the controller and the nodes. Empty before `open`.
    """

    def __init__(self, controller: str, nodes: tuple[str, ...]) -> None:
        self.name = f"hpc-{secrets.token_hex(3)}"
        self.addresses: dict[str, str] = {}
        self._controller = controller
        self._nodes = nodes
        self._login_interface: str | None = None

    def open(self) -> None:
        """Create everything. After a failure, `close` removes what had been made.

        Raises:
            RuntimeError: No namespace or interface may be created here, or all 10.77.x.0/24 are in use.
        """
        for host in (self._controller, *self._nodes):
            ip("netns", "add", self.namespace(host))
            ip("-n", self.namespace(host), "link", "set", "lo", "up")
        subnet = self._claim_subnet()
        self._join_login(subnet)
        for number, node in enumerate(self._nodes, start=1):
            self._join_node(node, f"{subnet}.{number}")

    def namespace(self, host: str) -> str:
        """Name of a host's network namespace."""
        return f"{self.name}-{host}"

    def place(self, host: str) -> list[str]:
        """The words that, put before a command, enter a host's network namespace; the process id stays the same.

        Not `ip netns exec`: that mounts a new /sys, in which slurmd finds no cgroup file system.
        """
        return ["nsenter", f"--net={NAMESPACES / self.namespace(host)}"]

    def cut(self, node: str) -> None:
        """Unplug a node: no other host hears it, and it hears none."""
        ip("-n", self.namespace(self._controller), "link", "set", node, "down")

    def heal(self, node: str) -> None:
        """Plug a node in again."""
        ip("-n", self.namespace(self._controller), "link", "set", node, "up")

    def processes(self, host: str) -> list[int]:
        """Process ids of everything that lives in a host's namespace."""
        inode = (NAMESPACES / self.namespace(host)).stat().st_ino
        numbers = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
        return sorted(pid for pid in numbers if _namespace_of(pid) == inode)

    def close(self) -> None:
        """End every process in the namespaces and remove all that `open` made; nothing made is no error."""
        with contextlib.ExitStack() as removals:  # what fails, or is interrupted, keeps no other from being removed
            hosts = [host for host in (self._controller, *self._nodes) if self._exists(host)]
            for host in hosts:
                removals.callback(ip, "netns", "delete", self.namespace(host))
            if self._login_interface:
                removals.callback(ip, "link", "delete", self._login_interface)
            for host in hosts:
                removals.callback(self._end_processes, host)
        self._login_interface = None

    def _exists(self, host: str) -> bool:
        return (NAMESPACES / self.namespace(host)).exists()

    def _claim_subnet(self) -> str:
        """First three numbers of a network that no route of the machine names and nobody else claimed."""
        routes = ip("-4", "route", "show", "table", "all").stdout
        controller = self.namespace(self._controller)
        claim = None
        for number in range(256):
            subnet, interface = f"10.77.{number}", f"hpc-net{number}"
            if f"{subnet}." in routes:
                continue
            link = ("link", "add", interface, "type", "veth", "peer", "name", "login", "netns", controller)
            claim = ip(*link, check=False)
            if claim.returncode == 0:
                self._login_interface = interface
                return subnet
        why = claim.stderr.strip() if claim else "every one has a route"
        raise RuntimeError(f"None of the networks 10.77.0.0/24 to 10.77.255.0/24 could be claimed: {why}")

    def _join_login(self, subnet: str) -> None:
        controller = self.namespace(self._controller)
        interface = str(self._login_interface)
        ip("-n", controller, "link", "add", "bridge", "type", "bridge")
        ip("-n", controller, "address", "add", f"{subnet}.253/24", "dev", "bridge")
        ip("-n", controller, "link", "set", "bridge", "up")
        ip("-n", controller, "link", "set", "login", "master", "bridge", "up")
        ip("address", "add", f"{subnet}.254/24", "dev", interface)
        ip("link", "set", interface, "alias", self.name, "up")
        self.addresses[self._controller] = f"{subnet}.253"

    def _join_node(self, node: str, address: str) -> None:
        controller, own = self.namespace(self._controller), self.namespace(node)
        ip("-n", controller, "link", "add", node, "type", "veth", "peer", "name", "eth0", "netns", own)
        ip("-n", controller, "link", "set", node, "master", "bridge", "up")
        ip("-n", own, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", own, "link", "set", "eth0", "up")
        self.addresses[node] = address

    def _end_processes(self, host: str) -> None:
        """Kill until none is left, because one that is being killed may just have forked."""
        inode = (NAMESPACES / self.namespace(host)).stat().st_ino
        give_up = time.monotonic() + 30
        while left := self.processes(host):
            if time.monotonic() > give_up:
                raise RuntimeError(f"The processes {left} in {self.namespace(host)} survive SIGKILL.")
            for pid in left:
                _kill_inside(pid, inode)
            time.sleep(0.02)


def _namespace_of(pid: int) -> int | None:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:  # it has ended, in one of several ways that the kernel reports differently
        return None


def _kill_inside(pid: int, inode: int) -> None:
    """Send SIGKILL to a process unless its number now belongs to one outside the namespace."""
    with contextlib.suppress(ProcessLookupError):
        handle = os.pidfd_open(pid)
        try:
            if _namespace_of(pid) == inode:
                signal.pidfd_send_signal(handle, signal.SIGKILL)
        finally:
            os.close(handle)
