"""Signatures taken apart and put together; gpgv's answers."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core.errors import SignatureRefused
from lago_layered_provider.formats import openpgp
from lago_layered_provider.formats.openpgp import Verdict
from lago_layered_provider.tools import gpg, processes

#: Made by gpg 2.2.40.
ARMORED = b'''-----BEGIN PGP SIGNATURE-----

iHUEABYIAB0WIQS8gjEdCxJ1FJ39PzND99eXDRm+aQUCawNxqQAKCRBD99eXDRm+
aZASAQCjvRtTgn7gvydQlPHjJg6xeIlkJtq/n1uiffDr9vZFHQD/VCDS9ZN4mMTl
t/5KB7okDJiBjWnsz8f0CIdDZYRAyAs=
=LgpR
-----END PGP SIGNATURE-----
'''

GOOD = '''\
[GNUPG:] NEWSIG
[GNUPG:] KEY_CONSIDERED BC82 0
[GNUPG:] SIG_ID QvgTrj33LrldTQ910R50Dn4OhUs 2026-11-22 1795387817
[GNUPG:] GOODSIG 43F7D7970D19BE69 Ann <ann@x>
[GNUPG:] VALIDSIG BC82311D 2026-11-22 1795387817 0 4 0 22 8 00 BC82311D
'''

BAD = {
    'nothing': ('', 'cannot be checked'),
    'bad': (GOOD.replace('GOODSIG', 'BADSIG'), 'not what Ann <ann@x>'),
    'expired': (GOOD.replace('GOODSIG', 'EXPSIG'), 'signature of Ann'),
    'expired key': (GOOD.replace('GOODSIG', 'EXPKEYSIG'), 'has expired'),
    'revoked key': (GOOD.replace('GOODSIG', 'REVKEYSIG'), 'was revoked'),
    'unknown key': (
        '[GNUPG:] ERRSIG 43F7 22 8 00 1795387817 9 BC82\n'
        '[GNUPG:] NO_PUBKEY 43F7\n', 'key 43F7, which is not in the keyring'
    ),
    'cannot be read': (
        '[GNUPG:] ERRSIG 43F7 22 8 00 1795387817 4 BC82\n', 'key 43F7 cannot'
    ),
    'good, but not valid': (GOOD.replace('VALIDSIG', 'X'), 'cannot be'),
    'valid, but not good': (GOOD.replace('GOODSIG', 'X'), 'cannot be'),
    'two at once': (GOOD + GOOD, 'cannot be checked'),
    'in another form': (GOOD.replace('[GNUPG:] ', ''), 'cannot be checked'),
    'SHA-1': (GOOD.replace(' 22 8 00', ' 22 2 00'), 'of Ann <ann@x> (43F7'),
    'MD5': (GOOD.replace(' 22 8 00', ' 22 1 00'), 'of a weak digest'),
    'no digest': (GOOD.replace(' 8 00 BC82311D', ''), 'cannot be checked'),
    'no time': (GOOD.replace(' 1795387817 0 4', ' x 0 4'), 'time of its'),
}


@pytest.mark.parametrize('name', ['LF', 'CRLF', 'no checksum', 'header'])
def test_what_gpg_writes(name: str) -> None:
    text = {
        'LF': ARMORED,
        'CRLF': ARMORED.replace(b'\n', b'\r\n'),
        'no checksum': ARMORED.replace(b'=LgpR\n', b''),
        'header': ARMORED.replace(b'\n\n', b'\nComment: x\n\n', 1),
    }[name]
    [packet] = openpgp.split_signatures(text)
    assert len(packet) == 0x75 + 2
    assert openpgp.armor(packet) == ARMORED


def test_several_blocks_and_one_block_of_several() -> None:
    [packet] = openpgp.split_signatures(ARMORED)
    for text in (
        ARMORED * 3, openpgp.armor(packet * 3), packet * 3
    ):
        assert openpgp.split_signatures(text) == [packet] * 3


DAMAGED = {
    'empty': b'',
    'text': b'hello',
    'cut armor': ARMORED[:120],
    'cut packet': base64.b64decode(ARMORED.split(b'\n')[2]),
    'checksum': ARMORED.replace(b'LgpR', b'LgpS'),
    'no base64': ARMORED.replace(b'aZAS', b'a!!S'),
    'a page': b'<html><body>Welcome</body></html>',
    'a signed message': b'\xa3\x01\x00',
    'partial length': b'\xc2\xe1\x00\x00',
    'no length': b'\x8b\x00\x00',
}


@pytest.mark.parametrize('data', DAMAGED.values(), ids=DAMAGED)
def test_what_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        openpgp.split_signatures(data)


def packet(body: bytes, form: int) -> bytes:
    """Return a signature packet with its length in one of five forms."""
    size = len(body)
    if form < 3:
        return bytes([0x88 + form]) + size.to_bytes(1 << form, 'big') + body
    if form == 3 and 192 <= size < 8384:
        more = size - 192
        return bytes([0xc2, 192 + (more >> 8), more & 255]) + body
    return b'\xc2\xff' + size.to_bytes(4, 'big') + body


@given(st.lists(st.tuples(
    st.one_of(st.binary(max_size=255), st.binary(min_size=192, max_size=255)),
    st.integers(0, 4),
), min_size=1, max_size=4))
def test_packets_come_apart_as_they_were(
    parts: 'List[tuple[bytes, int]]'
) -> None:
    packets = [packet(body, form) for body, form in parts]
    text = openpgp.armor(b''.join(packets))
    assert openpgp.split_signatures(text) == packets
    assert max(map(len, text.splitlines())) <= 64


@given(st.binary(max_size=400))
def test_any_bytes_are_taken_apart_or_refused(data: bytes) -> None:
    assert openpgp.dearmor(openpgp.armor(data)) == data
    try:
        found = openpgp.split_signatures(data)
    except ValueError:
        return
    assert b''.join(found) == openpgp.dearmor(data)


def test_a_good_signature_has_a_time() -> None:
    assert openpgp.read_verdict(GOOD) == Verdict(1795387817)


@pytest.mark.parametrize('status, reason', BAD.values(), ids=BAD)
def test_all_else_has_a_reason(status: str, reason: str) -> None:
    verdict = openpgp.read_verdict(status)
    assert verdict.time is None
    assert reason in verdict.reason


def test_one_good_one_is_enough_and_else_the_most_telling_counts() -> None:
    verdicts = {name: openpgp.read_verdict(status)
                for name, (status, _) in BAD.items()}
    good = openpgp.read_verdict(GOOD)
    assert openpgp.most_telling([*verdicts.values(), good]) == good
    for name, others in [
        ('expired', ['bad', 'unknown key', 'nothing']),
        ('bad', ['unknown key', 'cannot be read']),
        ('unknown key', ['nothing', 'cannot be read']),
    ]:
        assert openpgp.most_telling(
            [verdicts[each] for each in [*others, name]]
        ) == verdicts[name]


def test_only_so_many_signatures_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A program is started for each."""
    started: List[Any] = []

    def run(command: List[str], **_: Any) -> str:
        started.append(command)
        return BAD['bad'][0]

    monkeypatch.setattr(processes, 'run', run)
    (tmp_path / 'keys').write_bytes(b'keys')
    for count in (32, 33):
        packets = b''.join(packet(bytes([n]), 0) for n in range(count))
        with pytest.raises(SignatureRefused) as caught:
            gpg.check(b'{}', packets, str(tmp_path / 'keys'))
        assert ('more than 32' in caught.value.message) == (count > 32)
    assert len(started) == 32
