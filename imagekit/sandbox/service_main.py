"""The program that is the file-system service; started by the helper in its user namespace.

The first packet is the `sys.path` of the engine, so that both import the same code.
"""

import importlib
import signal
import socket
import sys


def start() -> None:
    """Read the arguments (socket fd, package folder) and serve until the socket ends."""
    requests = socket.socket(fileno=int(sys.argv[1]))
    requests.set_inheritable(False)
    sys.path.insert(0, sys.argv[2].rpartition("/")[0])
    wire = importlib.import_module("imagekit.sandbox.wire")
    data, _ = wire.receive_packet(requests)
    if not data:
        return
    sys.path[:] = wire.decode(data)
    importlib.import_module("imagekit.disk")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    importlib.import_module("imagekit.sandbox.service").serve(requests)


if __name__ == "__main__":
    start()
