"""Forbids connections to other machines in this process, and records every attempt.

Python imports a module of this name when it starts. The folder is put on PYTHONPATH by the test of commands
without a network, so that child processes are included.
"""

from __future__ import annotations

import os
import sys

LOOPBACK = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "")
HOST_FIRST = ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr")
ADDRESS_SECOND = ("socket.connect", "socket.sendto", "socket.sendmsg")


def forbid(event: str, arguments: tuple[object, ...]) -> None:
    """Raise OSError for a connection or look-up of a name that is not of this machine."""
    if event in HOST_FIRST:
        host = arguments[0]
    elif event in ADDRESS_SECOND and isinstance(arguments[1], tuple):  # else a Unix socket, or connected
        host = arguments[1][0]
    else:
        return
    name = host.decode() if isinstance(host, bytes) else host
    if name is None or name in LOOPBACK:
        return
    with open(os.environ["OFFLINE_LOG"], "a") as log:
        log.write(f"{event} {name}\n")
    raise OSError(f"the network is forbidden in this test: {name}")


if "OFFLINE_LOG" in os.environ:
    sys.addaudithook(forbid)
