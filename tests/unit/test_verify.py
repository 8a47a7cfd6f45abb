"""What a staged image must be like before anybody opens it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Dict, List, Optional

import pytest

from lago_layered_provider.core.errors import UnsafeImage
from lago_layered_provider.core.model import BaseName, Image, ImageRef
from lago_layered_provider.transfer.verify import Verified, verify_staged
from tests.unit.test_store import make_qcow2

#: The virtual size of `make_qcow2`.
MIB = 2**20

RAW = bytes(512) * 8


@dataclass(frozen=True)
class Staged:
    """An image that is here as a whole."""

    content: bytes

    @property
    def size(self) -> int:
        return len(self.content)

    def head(self, length: int) -> bytes:
        return self.content[:length]

    def tail(self, length: int) -> bytes:
        return self.content[-length:]


def image_of(name: str, base: Optional[str] = None, **keys: Any) -> Image:
    return Image(
        ref=ImageRef('lab', name, 'v1'), source='web', handle=f'{name}.img',
        timestamp=1, base=BaseName(base, 'v1') if base else None, **keys,
    )


BASE = image_of('base', format='qcow2')


def verify(
    content: bytes, base: Optional[Image] = None,
    base_size: Optional[int] = None, **keys: Any
) -> Verified:
    return verify_staged(
        image_of('top', 'base' if base else None, **keys), base,
        Staged(content), url='http://a/top', base_virtual_size=base_size,
    )


def refused(*arguments: Any, **keys: Any) -> List[str]:
    with pytest.raises(UnsafeImage) as caught:
        verify(*arguments, **keys)
    assert 'http://a/top' in caught.value.message
    return list(caught.value.reasons)


def test_what_is_good() -> None:
    assert verify(RAW) == Verified('raw', len(RAW))
    assert verify(RAW, format='raw') == Verified('raw', len(RAW))
    for content, base in [
        (make_qcow2(), None), (make_qcow2('base.img', 'qcow2'), BASE)
    ]:
        assert verify(content, base) == Verified('qcow2', MIB)
        assert verify(
            content, base, format='qcow2', virtual_size=MIB
        ) == Verified('qcow2', MIB)


@pytest.mark.parametrize('content, base, keys, words', [
    (RAW, BASE, {}, 'cannot stand on base:v1'),
    (RAW, None, {'format': 'qcow2'}, 'qcow2'),
    (make_qcow2(), None, {'format': 'raw'}, 'qcow2'),
    (make_qcow2(), None, {'virtual_size': MIB + 512}, f'{MIB + 512}'),
    (make_qcow2(), BASE, {}, 'base:v1'),
    (make_qcow2('base.img', 'qcow2'), None, {}, "'base.img'"),
    (make_qcow2('other.img', 'qcow2'), BASE, {}, "'other.img'"),
    (make_qcow2('/etc/passwd', 'raw'), BASE, {}, "'/etc/passwd'"),
    (make_qcow2('base.img', 'raw'), BASE, {}, 'raw'),
    (make_qcow2()[:90], None, {'format': 'qcow2'}, ''),
])
def test_what_must_not_be_used(
    content: bytes, base: Optional[Image], keys: Dict[str, Any], words: str
) -> None:
    reasons = refused(content, base, **keys)
    assert words in ' '.join(reasons)


@pytest.mark.parametrize('size, odd', [
    (None, False), (MIB - 512, False), (MIB, False), (MIB + 512, True),
])
def test_a_base_that_is_larger_is_odd(
    size: Optional[int], odd: bool
) -> None:
    """A guest sees less than what the base holds."""
    content = make_qcow2('base.img', 'qcow2')
    assert bool(verify(content, BASE, size).oddities) is odd
