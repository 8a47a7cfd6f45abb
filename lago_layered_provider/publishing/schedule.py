"""Run jobs side by side: THREADS. Each after the one it stands on."""

from __future__ import annotations

import threading
from typing import Callable, List, Optional, Sequence, Set

from ..tools import threads
from .specs import Job


def run_jobs(
    jobs: Sequence[Job], action: Callable[[Job], bool], count: int
) -> List[Job]:
    """Run an action for each job; those that do not need it go on.

    Args:
        jobs: a base before its layers.
        action: tells whether it went well; called from several threads.
        count: how many at the same time, at most.

    Returns:
        the jobs that were not run, since what they stand on has failed.
    """
    schedule = _Schedule(jobs)

    def work(_: int) -> None:
        while True:
            job = schedule.take()
            if job is None:
                return
            succeeded = False
            try:
                succeeded = action(job)
            finally:
                schedule.end(job, succeeded)

    workers = min(count, len(jobs))
    threads.run_all(work, range(workers), workers)
    return schedule.skipped


class _Schedule:
    def __init__(self, jobs: Sequence[Job]) -> None:
        self._waiting = list(jobs)
        #: Names of those that wait, run or have failed.
        self._unfinished: Set[str] = {job.spec.name for job in jobs}
        self._failed: Set[str] = set()
        self._changed = threading.Condition()
        self.skipped: List[Job] = []

    def take(self) -> Optional[Job]:
        """Return a job that can be run, once there is one; None at the end."""
        with self._changed:
            while self._waiting:
                for job in self._waiting:
                    if job.parent not in self._unfinished:
                        self._waiting.remove(job)
                        return job
                self._changed.wait()
            return None

    def end(self, job: Job, succeeded: bool) -> None:
        """Note that a job has ended; who stands on a failed one goes too."""
        with self._changed:
            if succeeded:
                self._unfinished.discard(job.spec.name)
            else:
                self._failed.add(job.spec.name)
                for each in list(self._waiting):
                    if each.parent in self._failed:
                        self._failed.add(each.spec.name)
                        self._waiting.remove(each)
                        self.skipped.append(each)
            self._changed.notify_all()
