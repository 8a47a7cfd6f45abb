"""Run programs; nothing else here starts one."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import (
    IO, Any, Collection, Iterable, List, Mapping, Optional, Sequence,
)

from ..core.errors import ToolError
from ..core.sizes import size_text

#: Kept of what a program says that works on data of strangers.
MOST_SAID_BYTES = 64 << 10


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    Attributes:
        memory: bytes of address space.
        cpu_seconds: of a processor.
        seconds: until it is killed.
    """

    memory: int
    cpu_seconds: int
    seconds: float

    def __str__(self) -> str:
        return (
            f'{size_text(self.memory)} of memory and {self.cpu_seconds} '
            f'seconds of a processor'
        )


def run(
    command: Sequence[str],
    *,
    timeout: float,
    hint: str = '',
    passed: Collection[int] = (0,),
    environment: Optional[Mapping[str, str]] = None,
) -> str:
    """Run a program to its end and return what it printed.

    Args:
        timeout: seconds after which it is killed.
        hint: what to do when there is no such program.
        passed: the exit statuses of success.
        environment: what it runs in; ours if none is given.

    Raises:
        ToolError: it is missing or failed; with what it said.
    """
    try:
        done = subprocess.run(
            command,
            env={**(environment or os.environ), 'LC_ALL': 'C'},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding='utf-8',
            errors='replace',
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        raise ToolError(command, stderr='not found', hint=hint) from None
    except subprocess.TimeoutExpired:
        raise ToolError(
            command, stderr=f'no answer within {timeout:g} seconds'
        ) from None
    except OSError as error:
        raise ToolError(command, stderr=str(error)) from error
    if done.returncode not in passed:
        raise ToolError(
            command, status=done.returncode, stderr=done.stderr.strip()
        )
    return done.stdout


def run_limited(
    command: Sequence[str], limits: Limits, *, hint: str = '',
    passed: Collection[int] = (0,),
) -> None:
    """Run a program on data of strangers, which may mislead it.

    Args:
        hint, passed: as for `run`.

    Raises:
        ToolError: it is missing or failed, or came to a limit; with the
            beginning of what it said.
    """
    with _start(
        command, hint, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    ) as process:
        try:
            _limit(process.pid, limits)
            said = _listen(process, time.monotonic() + limits.seconds)
            process.wait(limits.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            raise ToolError(
                command, stderr=f'no answer within {limits.seconds:g} seconds'
            ) from None
        except BaseException:
            process.kill()
            raise
    if process.returncode < 0:
        said += f'\nit was stopped; it may use {limits}'.encode()
    if process.returncode not in passed:
        raise ToolError(
            command, status=process.returncode,
            stderr=said.decode(errors='replace').strip(),
        )


def _limit(pid: int, limits: Limits) -> None:
    """Set limits of a program that has just begun.

    From here, as code between fork and exec may hang beside other threads;
    what the program has used before counts, too.
    """
    for which, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_CPU, limits.cpu_seconds),
    ):
        with contextlib.suppress(ProcessLookupError):
            _, hard = resource.prlimit(pid, which)
            if hard != resource.RLIM_INFINITY:
                most = min(most, hard)
            resource.prlimit(pid, which, (most, most))


def _listen(process: subprocess.Popen[bytes], deadline: float) -> bytes:
    """Return the beginning of what a program says, and read all of it."""
    assert process.stderr is not None
    said = b''
    with selectors.DefaultSelector() as selector:
        selector.register(process.stderr, selectors.EVENT_READ)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                raise subprocess.TimeoutExpired(process.args, left)
            data = os.read(process.stderr.fileno(), MOST_SAID_BYTES)
            if not data:
                return said
            said = (said + data)[:MOST_SAID_BYTES]


def pipe(
    command: Sequence[str], chunks: Iterable[bytes], output: IO[bytes], *,
    hint: str = '',
) -> None:
    """Send bytes through a program into an open file.

    Args:
        chunks: what it reads, as it comes; an error there ends the program.
        hint: what to do when there is no such program.

    Raises:
        ToolError: it is missing or failed; with what it said.
    """
    process = _start(
        command, hint, stdin=subprocess.PIPE, stdout=output
    )
    assert process.stdin is not None and process.stderr is not None
    said: List[bytes] = []
    # Read beside: a program that says much would else wait for us.
    reader = threading.Thread(
        target=lambda stream: said.append(stream.read()),
        args=[process.stderr], daemon=True,
    )
    reader.start()
    try:
        for chunk in chunks:
            process.stdin.write(chunk)
        process.stdin.close()
        process.wait()
    except BrokenPipeError:
        process.wait()  # it has ended, and has said why
    except BaseException:
        process.kill()
        process.wait()
        raise
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        reader.join()
        process.stderr.close()
    if process.returncode:
        raise ToolError(
            command, status=process.returncode,
            stderr=b''.join(said).decode(errors='replace').strip(),
        )


def _start(
    command: Sequence[str], hint: str, **streams: Any
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env={**os.environ, 'LC_ALL': 'C'},
            stderr=subprocess.PIPE, **streams,
        )
    except FileNotFoundError:
        raise ToolError(command, stderr='not found', hint=hint) from None
    except OSError as error:
        raise ToolError(command, stderr=str(error)) from error
