"""The outer form of OpenPGP signatures: armor, packets, gpgv's answers.

What a signature is worth decides gpgv; here it is only taken apart and put
together (RFC 9580, sections 4.2 and 6).
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Iterable, Iterator, List, Optional, Tuple

SIGNATURE = 'SIGNATURE'
LINE_CHARACTERS = 64

#: The packet type of a signature.
SIGNATURE_TAG = 2

_BLOCK = re.compile(
    rb'^-----BEGIN PGP [A-Z ,/0-9]+-----[ \t\r]*\n(.*?)'
    rb'^-----END PGP [A-Z ,/0-9]+-----[ \t\r]*$',
    re.DOTALL | re.MULTILINE,
)

#: The digests of RFC 9580 (9.5) that nobody can forge, with SHA-3: not MD5,
#: SHA-1 and RIPEMD-160.
STRONG_DIGESTS = frozenset({'8', '9', '10', '11', '12', '14'})

#: The place of the digest's number among the words of VALIDSIG.
_DIGEST_WORD = 7

#: What a signature is not, when one of these words comes with it; the most
#: telling one first. `VALIDSIG` comes with most of them too.
_REASONS = (
    ('EXPSIG', 'the signature of {who} has expired'),
    ('EXPKEYSIG', 'the key of {who}, which signed it, has expired'),
    ('REVKEYSIG', 'the key of {who}, which signed it, was revoked'),
    ('BADSIG', 'it is not what {who} has signed'),
    ('NO_PUBKEY', 'it is signed with the key {who}, which is not in the '
                  'keyring'),
    ('ERRSIG', 'its signature with the key {who} cannot be checked'),
)


@dataclass(frozen=True)
class Verdict:
    """What gpgv says of one signature.

    Attributes:
        time: when it was made, in seconds since 1970; None: it is not good.
        rank: how telling `reason` is, the lowest one most.
    """

    time: Optional[float]
    reason: str = ''
    rank: int = len(_REASONS)


def armor(data: bytes, kind: str = SIGNATURE) -> bytes:
    """Return packets as the text that mails and files carry."""
    text = base64.b64encode(data).decode()
    lines = [
        text[at:at + LINE_CHARACTERS]
        for at in range(0, len(text), LINE_CHARACTERS)
    ]
    checksum = base64.b64encode(_crc24(data).to_bytes(3, 'big')).decode()
    return '\n'.join([
        f'-----BEGIN PGP {kind}-----', '', *lines, f'={checksum}',
        f'-----END PGP {kind}-----', '',
    ]).encode()


def dearmor(data: bytes) -> bytes:
    """Return the packets of all armored blocks; binary data as it is.

    Raises:
        ValueError: an armored block is damaged.
    """
    if b'-----BEGIN PGP ' not in data:
        return data
    blocks = _BLOCK.findall(data)
    if not blocks:
        raise ValueError('its armor has no end')
    return b''.join(map(_decode_block, blocks))


def _decode_block(block: bytes) -> bytes:
    lines = [line.strip() for line in block.splitlines()]
    # Headers such as "Version:" end with an empty line.
    if b'' in lines:
        lines = lines[lines.index(b'') + 1:]
    lines = [line for line in lines if line]
    checksum = b''
    if lines and lines[-1].startswith(b'=') and len(lines[-1]) == 5:
        checksum = lines.pop()[1:]
    try:
        data = base64.b64decode(b''.join(lines), validate=True)
        expected = base64.b64decode(checksum, validate=True)
    except binascii.Error as error:
        raise ValueError(f'its armor is damaged: {error}') from None
    if expected and expected != _crc24(data).to_bytes(3, 'big'):
        raise ValueError('its armor is damaged: the checksum does not fit')
    return data


def _crc24(data: bytes) -> int:
    crc = 0xb704ce
    for byte in data:
        crc ^= byte << 16
        for _ in range(8):
            crc <<= 1
            if crc & 0x1000000:
                crc ^= 0x1864cfb
    return crc


def split_signatures(data: bytes) -> List[bytes]:
    """Return the packets of detached signatures, one by one.

    Raises:
        ValueError: it is something else, or damaged.
    """
    found = []
    packets = dearmor(data)
    while packets:
        tag, end = _measure(packets)
        if tag != SIGNATURE_TAG:
            raise ValueError('it is no detached OpenPGP signature')
        if end > len(packets):
            raise ValueError('it is cut short')
        found.append(packets[:end])
        packets = packets[end:]
    if not found:
        raise ValueError('it is empty')
    return found


def _measure(packets: bytes) -> Tuple[int, int]:
    """Return the type of the first packet, and where it ends."""
    first = packets[0]
    if not first & 0x80:
        raise ValueError('it is no OpenPGP signature')
    rest = packets[1:6].ljust(5, b'\0')
    if not first & 0x40:
        length_type = first & 3
        if length_type == 3:
            raise ValueError('it has a packet without a length')
        octets = 1 << length_type
        length = int.from_bytes(rest[:octets], 'big')
        return first >> 2 & 15, 1 + octets + length
    tag = first & 63
    if rest[0] < 192:
        return tag, 2 + rest[0]
    if rest[0] < 224:
        return tag, 3 + (rest[0] - 192 << 8) + rest[1] + 192
    if rest[0] == 255:
        return tag, 6 + int.from_bytes(rest[1:5], 'big')
    raise ValueError('it has a packet without a length')


def read_verdict(status: str) -> Verdict:
    """Read what ``gpgv --status-fd`` says of a single signature.

    Good is what has GOODSIG and VALIDSIG and nothing of what speaks against
    it: gpgv's exit status is 0 for an expired key too (doc/DETAILS in
    GnuPG).
    """
    said = list(_status_words(status))
    words = {words[0]: words[1:] for words in said}
    for rank, (word, reason) in enumerate(_REASONS):
        if word in words:
            who = _who(words, word)
            return Verdict(None, reason.format(who=who), rank)
    count = sum(words[0] in ('GOODSIG', 'VALIDSIG') for words in said)
    valid = words.get('VALIDSIG', [])
    if count != 2 or 'GOODSIG' not in words or len(valid) <= _DIGEST_WORD:
        return Verdict(None, 'its signature cannot be checked')
    if valid[_DIGEST_WORD] not in STRONG_DIGESTS:
        return Verdict(
            None, f'the signature of {_who(words, "GOODSIG")} is of a weak '
            f'digest, such as SHA-1', 0,
        )
    try:
        return Verdict(float(valid[2]))
    except ValueError:
        return Verdict(None, 'the time of its signature cannot be read')


def _status_words(status: str) -> Iterator[List[str]]:
    for line in status.splitlines():
        mark, _, text = line.partition(' ')
        if mark == '[GNUPG:]' and text.split():
            yield text.split()


def _who(words: 'dict[str, List[str]]', word: str) -> str:
    """Return the user of a key, or its number where nobody knows him."""
    key, *user = words[word] or ['?']
    name = ' '.join(user)
    # ERRSIG is followed by numbers.
    if word in ('ERRSIG', 'NO_PUBKEY') or not name.isprintable():
        return key
    return f'{name} ({key})' if name else key


def most_telling(verdicts: Iterable[Verdict]) -> Verdict:
    """Return a good one if there is one, else the most telling reason."""
    return min(verdicts, key=lambda one: (
        -1 if one.time is not None else one.rank
    ))
