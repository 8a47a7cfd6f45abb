"""Settings: what is read, and what an unusable value says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import SettingsError
from lago_layered_provider.settings import (
    PROGRESS,
    Reserve,
    Settings,
    read_settings,
)

MIB = 2**20

READ = {
    'jobs': ('jobs', '8', 8),
    'blanks': ('jobs', ' 8 ', 8),
    'connections': ('connections', '1', 1),
    'a number as it is': ('jobs', 8, 8),
    'no retries': ('retries', '0', 0),
    'seconds': ('timeout', '2.5', 2.5),
    'no waiting': ('lock_timeout', '0', 0.0),
    'patience': ('patience', '20', 20.0),
    'no patience': ('patience', '0', 0.0),
    'reserve in bytes': ('reserve', '1000', Reserve(1000)),
    'reserve of none': ('reserve', '0', Reserve(0)),
    'reserve in M': ('reserve', '64M', Reserve(64 * MIB)),
    'reserve in MiB': ('reserve', '64 MiB', Reserve(64 * MIB)),
    'reserve in GB': ('reserve', '1.5GB', Reserve(1.5 * 2**30)),
    'reserve in percent': ('reserve', '5%', Reserve(5, percent=True)),
    'reserve in percent, blank': (
        'reserve', '2.5 %', Reserve(2.5, percent=True)
    ),
    'progress': ('progress', 'line', 'line'),
    'keyring': ('keyring', '/etc/lago/keys.gpg', '/etc/lago/keys.gpg'),
    'no keyring': ('keyring', ' ', None),
    'local roots': ('local_roots', '/mnt/a: /mnt/b:', ('/mnt/a', '/mnt/b')),
    'no local roots': ('local_roots', '', ()),
}

REFUSED = {
    'no jobs': ('jobs', '0'),
    'no connections': ('connections', '0'),
    'jobs in words': ('jobs', 'many'),
    'half a job': ('jobs', '1.5'),
    'negative retries': ('retries', '-1'),
    'no timeout': ('timeout', '0'),
    'not a number': ('timeout', 'nan'),
    'for ever': ('timeout', 'inf'),
    'more than a float': ('lock_timeout', '1' + '0' * 400),
    'negative wait': ('lock_timeout', '-1'),
    'negative patience': ('patience', '-1'),
    'endless patience': ('patience', 'inf'),
    'all of the disk': ('reserve', '100%'),
    'negative reserve': ('reserve', '-5M'),
    'unknown unit': ('reserve', '5 parsecs'),
    'only a unit': ('reserve', 'M'),
    'percent of a unit': ('reserve', '5%M'),
    'endless reserve': ('reserve', '9' * 400),
    'unknown progress': ('progress', 'fireworks'),
    'keyring from somewhere': ('keyring', 'keys.gpg'),
    'local roots from somewhere': ('local_roots', '/mnt/a:images'),
}


@pytest.mark.parametrize('key, value, expected', READ.values(), ids=READ)
def test_read(key: str, value: Any, expected: Any) -> None:
    settings = read_settings({key: value})
    assert getattr(settings, key) == expected
    assert type(getattr(settings, key)) is type(expected)


@pytest.mark.parametrize('key, value', REFUSED.values(), ids=REFUSED)
def test_refused(key: str, value: str) -> None:
    with pytest.raises(SettingsError) as caught:
        read_settings({key: value})
    assert f'{key} = {value!r}' in str(caught.value)
    assert f'LAGO__TEMPLATE_REPO__{key.upper()}' in str(caught.value)
    assert 'expected ' in str(caught.value)


def test_nothing_set() -> None:
    assert read_settings({}) == Settings()
    assert read_settings({'jobs': None}) == Settings()


def test_keyring_at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('HOME', '/home/ann')
    settings = read_settings({'keyring': '~/keys.gpg'})
    assert settings.keyring == '/home/ann/keys.gpg'


def test_foreign_keys_are_left_alone() -> None:
    section = {'template_repo_path': 'http://host/', 'default': object()}
    assert read_settings(section) == Settings()


@given(st.sampled_from(sorted(READ)), st.text(max_size=12))
def test_any_text_is_read_or_refused(case: str, text: str) -> None:
    key = READ[case][0]
    try:
        settings = read_settings({key: text})
    except SettingsError as error:
        assert key in str(error)
        return
    assert settings.jobs >= 1
    assert settings.retries >= 0
    assert 1 <= settings.timeout < float('inf')
    assert 0 <= settings.lock_timeout < float('inf')
    assert settings.progress in PROGRESS
    assert settings.keyring is None or settings.keyring[0] == '/'
    assert 0 <= settings.reserve.of(100 * MIB)


@given(st.integers(0, 2**60), st.floats(0, 99.9))
def test_a_share_is_part_of_the_whole(total: int, percent: float) -> None:
    assert 0 <= Reserve(percent, percent=True).of(total) <= total
    assert Reserve(4096).of(total) == 4096
