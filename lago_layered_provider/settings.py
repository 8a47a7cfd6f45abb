"""The settings of section `template_repo` and their meaning."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, fields
from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from .core.errors import SettingsError
from .core.sizes import UNITS

PROGRESS = ('auto', 'bar', 'line', 'none')


@dataclass(frozen=True)
class Reserve:
    """Room that shall stay free: bytes, or percent of the file system."""

    amount: float
    percent: bool = False

    def of(self, total: int) -> int:
        """Return the bytes for a file system of `total` bytes."""
        return int(total * self.amount / 100 if self.percent else self.amount)


@dataclass(frozen=True)
class Settings:
    """How to work; times in seconds.

    Attributes:
        jobs: layers that are worked on at the same time.
        connections: open at the same time to one server.
        retries: of a small request that can heal.
        patience: without a new byte of an image.
        keyring: who may sign indexes; None: they need no signature.
        local_roots: directories that an index from the network may use.
        max_index_age: days for which a signed index without "expires"
            counts; None: for ever.
    """

    jobs: int = 3
    connections: int = 4
    retries: int = 5
    timeout: float = 30
    patience: float = 120
    reserve: Reserve = Reserve(64 * 2**20)
    lock_timeout: float = 3600
    offline: bool = False
    progress: str = 'auto'
    keyring: Optional[str] = None
    local_roots: Tuple[str, ...] = ()
    max_index_age: Optional[float] = None

    @property
    def blocks(self) -> int:
        """How many may be received, or wait to be decoded, at one time.

        One for each connection and each processor keeps all of them busy;
        two more, so that none waits for another.
        """
        return self.connections + len(os.sched_getaffinity(0)) + 2


def read_settings(section: Mapping[str, Any]) -> Settings:
    """Read the section; what is not a setting of ours is left alone.

    Raises:
        SettingsError: a value cannot be used; says which are allowed.
    """
    values: Dict[str, Any] = {}
    for each in fields(Settings):
        if section.get(each.name) is not None:
            text = str(section[each.name]).strip()
            try:
                values[each.name] = _READERS[each.name](text)
            except ValueError as error:
                raise SettingsError(
                    f'Setting {each.name} = {text!r}: expected {error}',
                    hint=(
                        'It stands in section [template_repo] of lago.conf '
                        f'or in LAGO__TEMPLATE_REPO__{each.name.upper()}.'
                    ),
                ) from None
    return Settings(**values)


def read_flag(name: str, value: object) -> bool:
    """Return what an option without value means; lago.conf may have set it.

    Raises:
        SettingsError: it is neither yes nor no.
    """
    try:
        return value is not None and _yes_or_no(str(value).strip())
    except ValueError as error:
        raise SettingsError(
            f'Option {name} = {value!r}: expected {error}',
            hint=(
                f'It stands in section [init] of lago.conf or in '
                f'LAGO__INIT__{name.upper()}.'
            ),
        ) from None


def _number(low: int, kind: Callable[[str], float]) -> Callable[[str], float]:
    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = low - 1
        if not low <= value < float('inf'):
            raise ValueError(f'a number, {low} or more')
        return value

    return read


def _reserve(text: str) -> Reserve:
    # Every lago command dies of a percent sign in lago.conf, however it is
    # doubled: Lago reads its configuration twice. So there is a word for it.
    match = re.fullmatch(
        r'(\d+(?:\.\d+)?) ?(?:(%|percent)|([KMGT]?)i?B?)', text
    )
    if not match or (match[2] and float(match[1]) >= 100):
        raise ValueError(
            'bytes such as 64M or 2G, or a share such as 5 percent'
        )
    if float(match[1]) >= 2**50:
        raise ValueError('less than that')
    if match[2]:
        return Reserve(float(match[1]), percent=True)
    return Reserve(float(match[1]) * UNITS[match[3]])


def _progress(text: str) -> str:
    if text not in PROGRESS:
        raise ValueError(', '.join(PROGRESS[:-1]) + f' or {PROGRESS[-1]}')
    return text


def _path(text: str) -> Optional[str]:
    path = os.path.expanduser(text)
    # lago.conf and the environment hold for every working directory.
    if path and not os.path.isabs(path):
        raise ValueError('an absolute path, or one that begins with ~')
    return path or None


def _paths(text: str) -> Tuple[str, ...]:
    try:
        found = map(_path, map(str.strip, text.split(':')))
        return tuple(path for path in found if path)
    except ValueError as error:
        raise ValueError(f'{error}; several with ":" between them') from None


def _yes_or_no(text: str) -> bool:
    known = {'1': True, 'yes': True, 'true': True, 'on': True,
             '0': False, 'no': False, 'false': False, 'off': False}
    if text.lower() not in known:
        raise ValueError('yes or no')
    return known[text.lower()]


_READERS: Dict[str, Callable[[str], Any]] = {
    'jobs': _number(1, int),
    'connections': _number(1, int),
    'retries': _number(0, int),
    'timeout': _number(1, float),
    'patience': _number(0, float),
    'reserve': _reserve,
    'lock_timeout': _number(0, float),
    'offline': _yes_or_no,
    'progress': _progress,
    'keyring': _path,
    'local_roots': _paths,
    'max_index_age': _number(0, float),
}
