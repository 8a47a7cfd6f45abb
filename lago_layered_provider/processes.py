"""Run programs; nothing else here starts one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from typing import (
    IO, Collection, Iterable, List, Mapping, Optional, Sequence,
)

from .core.errors import ToolError


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
    process = _start(command, output, hint)
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
    command: Sequence[str], output: IO[bytes], hint: str
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, env={**os.environ, 'LC_ALL': 'C'},
            stdin=subprocess.PIPE, stdout=output, stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        raise ToolError(command, stderr='not found', hint=hint) from None
    except OSError as error:
        raise ToolError(command, stderr=str(error)) from error
