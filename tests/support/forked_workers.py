"""The worker processes of a forked `ratchet` are forks too, so they need not import torch again.

`Spawner` replaces what tasks.shipping.workers uses of `subprocess`. A process forked before any
thread starts forks each worker; a second one between them waits for the worker's exit code.
"""

from __future__ import annotations

import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import traceback
from typing import IO, Any

_NUMBER = struct.Struct("q")


class Spawner:
    """In place of the module `subprocess`; make it while the process has a single thread."""

    PIPE = subprocess.PIPE

    def __init__(self) -> None:
        self._requests, serves = socket.socketpair()
        if os.fork() == 0:
            self._requests.close()
            _serve(serves)
        serves.close()

    def Popen(self, command: list[str], **options: Any) -> ForkedWorker:  # noqa: N802
        """Start `python -m MODULE SETTING`."""
        worker_in, to_worker = os.pipe()
        from_worker, worker_out = os.pipe()
        status, status_end = os.pipe()
        request = {"command": command, "cwd": str(options["cwd"]), "environment": dict(os.environ)}
        text = json.dumps(request).encode()
        theirs = (worker_in, worker_out, options["stderr"].fileno(), status_end)
        socket.send_fds(self._requests, [_NUMBER.pack(len(text))], theirs)
        self._requests.sendall(text)
        for end in (worker_in, worker_out, status_end):
            os.close(end)
        return ForkedWorker(command, to_worker, from_worker, status)


class ForkedWorker:
    """What tasks.shipping.workers uses of `subprocess.Popen`.

    status  where the process's id is to be read, and its exit code when it ends
    """

    def __init__(self, command: list[str], to_worker: int, from_worker: int, status: int) -> None:
        self.args = command
        self.stdin: IO[str] = os.fdopen(to_worker, "w", encoding="utf-8")
        self.stdout: IO[str] = os.fdopen(from_worker, encoding="utf-8")
        self._status = os.fdopen(status, "rb", buffering=0)
        self.pid = _NUMBER.unpack(self._status.read(_NUMBER.size))[0]
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code; None while the process runs."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Block until it ends; its exit code."""
        if self.returncode is None:
            self.returncode = _NUMBER.unpack(self._status.read(_NUMBER.size))[0]
            self._status.close()
        return self.returncode

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        os.kill(self.pid, signal.SIGKILL)


def _serve(requests: socket.socket) -> None:
    """Start a worker for each request; end when the process that asks has ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those that wait
    while True:
        size, ends, _, _ = socket.recv_fds(requests, _NUMBER.size, 4)
        if not size:
            os._exit(0)
        text = requests.recv(_NUMBER.unpack(size)[0], socket.MSG_WAITALL)
        request = json.loads(text)
        if os.fork() == 0:
            requests.close()
            _start(request, *ends)
        for end in ends:
            os.close(end)


def _start(request: dict[str, Any], *ends: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = ends
    if (pid := os.fork()) == 0:
        os.close(status)
        _become_worker(request, streams)
    for stream in streams:
        os.close(stream)
    os.write(status, _NUMBER.pack(pid))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.write(status, _NUMBER.pack(code))
    os._exit(0)


def _become_worker(request: dict[str, Any], streams: list[int]) -> None:
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])
    _, _, module, *arguments = request["command"]
    sys.argv = [module, *arguments]
    code: Any = 0
    try:
        runpy.run_module(module, run_name="__main__")
    except SystemExit as done:
        code = done.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
