"""Run a process and say what it cost, with all its children."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterator, Mapping, Sequence

SAMPLE_SECONDS = 0.05
KIB = 1024


@dataclass(frozen=True)
class Cost:
    """What a process took from its start to its end.

    Attributes:
        wall: seconds.
        cpu: seconds in user and system mode, children's included.
        peak: bytes of memory (RSS) of the process itself, at the worst
            moment.
        tree: the same of the process and its children together; a page
            shared by two counts twice.
        stderr: what it printed there.
    """

    wall: float
    cpu: float
    peak: int
    tree: int
    stderr: str = ''

    def to_json(self) -> Dict[str, float]:
        """Return the figures."""
        return {
            'wall_s': round(self.wall, 3),
            'cpu_s': round(self.cpu, 3),
            'peak_bytes': self.peak,
            'tree_peak_bytes': self.tree,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Cost:
        """Return what `to_json` made its data from."""
        return cls(data['wall_s'], data['cpu_s'], data['peak_bytes'],
                   data['tree_peak_bytes'])


def measure(
    command: Sequence[str], *, env: Mapping[str, str], cwd: Path
) -> Cost:
    """Run a command to its end.

    What is not yet on the disk of earlier runs is written first. It prints
    to nobody: stdout is /dev/null.

    Raises:
        RuntimeError: it failed; with its stderr.
    """
    os.sync()
    with tempfile.TemporaryFile() as stderr:
        began = time.monotonic()
        process = subprocess.Popen(
            command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=stderr, start_new_session=True,
        )
        watch = _Watch(process.pid)
        watch.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            # Stopped; what it has started shall not go on either.
            os.killpg(process.pid, signal.SIGKILL)
            raise
        wall = time.monotonic() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        watch.stop()
        stderr.seek(0)
        text = stderr.read().decode('utf-8', 'replace')
    if process.returncode:
        raise RuntimeError(
            f'{" ".join(command)}: exit status {process.returncode}\n{text}'
        )
    return Cost(
        wall, usage.ru_utime + usage.ru_stime, watch.peak,
        max(watch.tree, watch.peak), text,
    )


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process that runs."""
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class _Watch(threading.Thread):
    """Note the most memory that a process and its children have at once.

    What wait4 tells of a process (ru_maxrss) is that of the largest of it,
    its children and the one that started it.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self.tree = 0
        self._pid = pid
        self._ended = threading.Event()

    def run(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            self.tree = max(self.tree, sum(_memory_of_tree(self._pid)))
            self.peak = max(self.peak, peak_of(self._pid))

    def stop(self) -> None:
        self._ended.set()
        self.join()


def peak_of(pid: int) -> int:
    """Return the peak RSS in bytes of a process; 0 if it has ended."""
    try:
        for line in Path(f'/proc/{pid}/status').read_text().splitlines():
            if line.startswith('VmHWM:'):
                return int(line.split()[1]) * KIB
    except OSError:
        pass
    return 0


def _memory_of_tree(pid: int) -> Iterator[int]:
    """Yield the RSS in bytes of a process and all of its children."""
    try:
        pages = Path(f'/proc/{pid}/statm').read_text().split()[1]
        children = [
            int(child)
            for task in Path(f'/proc/{pid}/task').iterdir()
            for child in (task / 'children').read_text().split()
        ]
    except (OSError, IndexError):
        return  # it has ended meanwhile
    yield int(pages) * os.sysconf('SC_PAGE_SIZE')
    for child in children:
        yield from _memory_of_tree(child)
