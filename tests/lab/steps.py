"""Kill a command at places, not at times: before a step of its own.

A step is a change of the file system, as `dying/sitecustomize.py` counts
them. Which one a kill hits depends on nothing but the command.
"""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path
from typing import Callable, Dict, Iterator, List, Mapping

from .environments import kill
from .starting import DYING

#: Starts the command with some environment variables more.
Start = Callable[[Mapping[str, str]], 'subprocess.Popen[str]']


def variables(log: Path, kill_at: int = 0) -> Dict[str, str]:
    """Return what makes a Python process count its steps, and die at one.

    Args:
        log: gets a line for each step.
        kill_at: number of the step that shall not be done; 0: none.
    """
    return {
        'PYTHONPATH': str(DYING),
        'LAB_STEPS': str(log),
        'LAB_KILL_AT': str(kill_at),
    }


def record(start: Start, log: Path) -> List[str]:
    """Run a command to its good end; return its steps."""
    log.unlink(missing_ok=True)
    process = start(variables(log))
    output = ''.join(filter(None, process.communicate()))
    assert process.returncode == 0, output
    return log.read_text().splitlines()


def killed_at_steps(
    start: Start, log: Path, steps: List[str], most: int, within: str = ''
) -> Iterator[str]:
    """Run a command again and again, each time killed before another step.

    Yields after each kill, what was not done any more.

    Args:
        steps: of a whole run, as `record` returns them.
        most: kills; of more steps these are spread evenly, the last one
            among them.
        within: the first step of interest holds this text.
    """
    before = next(
        number for number, step in enumerate(steps) if within in step
    )
    count = min(most, len(steps) - before)
    for number in range(1, count + 1):
        at = before + (len(steps) - before) * number // count
        log.unlink(missing_ok=True)
        process = start(variables(log, at))
        try:
            output = ''.join(filter(None, process.communicate()))
        finally:
            kill(process)
        # With threads a run may have a few steps less, and come to its end.
        usual = (-signal.SIGKILL,) if number <= count // 2 else (
            -signal.SIGKILL, 0
        )
        assert process.returncode in usual, output
        yield log.read_text().splitlines()[-1]
