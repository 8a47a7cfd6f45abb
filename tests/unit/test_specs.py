"""Specs of images: what they say, and in which order they are built."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lago_layered_provider.core import errors
from lago_layered_provider.core.errors import IndexFaults
from lago_layered_provider.publishing import specs
from lago_layered_provider.publishing.build_log import (
    BuildLog, describe_failure,
)
from lago_layered_provider.publishing.specs import (
    Job, Spec, arrange, parse_spec,
)

from . import strategies

#: The forms of lago-images, before and after it had versions.
OLD_BASE = """\
#base=libguestfs:tiny-7.2
#name=lab Tiny® 7
#osinfo=tiny7.2
#distro=el7
#arch=x86_64
#expand=/dev/sda3
#root-partition=/dev/sda3
root-password password:123456
update
install qemu-guest-agent

# fix for bz#1
edit /usr/lib/x.service:\\
    $_ = "" if /StandardInput=tty/d
"""
OLD_LAYER = """\
#base=el7-base
#name=lab Tiny® 7
#distro=el7
install \\
    lvm2,\\
    targetcli

write /etc/multipath.conf:\\
#base=nothing-of-the-kind\\
defaults {\\
}\\

"""
NEW_BASE = """\
#base=libguestfs:tiny-26
#version=v1
#name=fc26-base
#distro=fc26
#lvexpand=/dev/cl/root
#root-partition = /dev/cl/root
uninstall *firmware*
edit /boot/grub2/grub.cfg:s/set timeout=5/set timeout=0/g
selinux-relabel
"""


def spec(name: str, text: str) -> Spec:
    return parse_spec(name, text.encode())


def test_specs_of_2015() -> None:
    base = spec('el7-base', OLD_BASE)
    assert (base.kind, base.base) == (specs.BUILDER, 'tiny-7.2')
    # Several images share the title; the file's name is the template's.
    assert (base.id, base.name, base.file) == (
        'el7-base', 'el7-base', 'el7-base.qcow2'
    )
    assert base.keys['name'] == 'lab Tiny® 7'
    assert base.keys['root-partition'] == '/dev/sda3'
    assert base.digest == hashlib.sha256(OLD_BASE.encode()).hexdigest()
    layer = spec('el7-iscsi', OLD_LAYER)
    assert (layer.kind, layer.base) == (specs.LAYER, 'el7-base')
    assert layer.commands
    jobs, faults = arrange([layer, base], [])
    assert faults == []
    assert jobs == [Job(base), Job(layer, parent='el7-base')]
    assert specs.make_metadata(jobs[1]) == {
        'id': 'el7-iscsi', 'name': 'lab Tiny® 7', 'distro': 'el7',
        'base': 'el7-base',
    }


def test_specs_with_versions() -> None:
    base = spec('fedora-26', NEW_BASE)
    assert (base.id, base.name) == ('fedora-26', 'fc26-base')
    assert base.keys['root-partition'] == '/dev/cl/root'
    assert specs.make_metadata(Job(base)) == {
        **base.keys, 'id': 'fedora-26', 'name': 'fc26-base', 'version': 'v1',
    }


@pytest.mark.parametrize('value, kind, base', [
    ('libguestfs:centos-7', specs.BUILDER, 'centos-7'),
    ('libguestfs:"centos-7"', specs.BUILDER, 'centos-7'),
    ('simple:http://x/y.qcow2.xz', specs.READY, 'http://x/y.qcow2.xz'),
    ('simple:"http://x:80/y"', specs.READY, 'http://x:80/y'),
    ('layer:../x.qcow2', specs.LAYER, '../x.qcow2'),
    ('el7-base', specs.LAYER, 'el7-base'),
])
def test_values_of_base(value: str, kind: str, base: str) -> None:
    read = spec('x', f'#base={value}\n')
    assert (read.kind, read.base, read.commands) == (kind, base, False)


@pytest.mark.parametrize('name, data, words', [
    ('x', b'\xff\xfe', ['no text']),
    ('x', b'install vim\n', ['#base=']),
    ('x', b'#base=\ninstall vim\n', ['#base=']),
    ('x', b'install vim\n#base=libguestfs:y\n', ['#base=']),
    ('x', b'#base=docker:y\n', ["'docker'", 'libguestfs']),
    ('x', b'#base=simple:\n', ["'simple:'"]),
    ('x', b'#base=libguestfs:--list\n', ["'libguestfs:--list'"]),
    ('a b', b'#base=libguestfs:y\n', ["'a b'"]),
    ('a b', b'#base=docker:y\n#version=1/2\n', ["'a b'", "'docker'"]),
    ('x', b'#base=libguestfs:y\n#name=x\n#version=1/2\n', ["'1/2'"]),
])
def test_faults_of_a_spec(name: str, data: bytes, words: List[str]) -> None:
    with pytest.raises(IndexFaults) as caught:
        parse_spec(name, data)
    assert all(word in str(caught.value) for word in words)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_a_spec_or_faulty(data: bytes) -> None:
    try:
        read = parse_spec('x', data)
    except IndexFaults:
        return
    assert read.base and read.kind in specs.KINDS


def layer(name: str, base: str, called: Optional[str] = None) -> Spec:
    return Spec(name, called or name, specs.LAYER, base)


@pytest.mark.parametrize('base, present, expected', [
    ('base', [], 'title'),
    ('title', [], 'title'),
    ('/srv/base.qcow2.xz', [], 'title'),
    ('http://x/base.qcow2?a=b/c', [], 'title'),
    ('base', ['base.qcow2'], 'title'),
    ('old', ['old.qcow2'], 'old.qcow2'),
    ('old.img', ['old.img'], 'old.img'),
    ('../elsewhere/old.qcow2.xz', ['old.qcow2'], 'old.qcow2'),
])
def test_the_base_of_a_layer(
    base: str, present: List[str], expected: str
) -> None:
    one = layer('x', base)
    jobs, faults = arrange(
        [one, Spec('base', 'title', specs.BUILDER, 'y')], present
    )
    assert faults == []
    job = next(each for each in jobs if each.spec == one)
    assert (job.parent or job.base_file) == expected


def test_a_base_of_elsewhere_is_fetched() -> None:
    for place in ('http://x/old.qcow2.xz', '/srv/old.qcow2'):
        one = layer('x', place)
        jobs, faults = arrange([one, layer('y', place)], [])
        assert faults == []
        assert [job.spec.name for job in jobs] == ['old', 'x', 'y']
        assert jobs[0].spec.untouched and not jobs[0].spec.commands
        assert (jobs[0].spec.kind, jobs[0].spec.base) == (specs.READY, place)
        assert jobs[1] == Job(one, parent='old')


def test_all_faults_at_once() -> None:
    _, faults = arrange([
        layer('a', 'bse'), layer('b', 'c'), layer('c', 'b'), layer('d', 'd'),
        layer('e', 'b'), layer('f', 'base'), layer('g', 'x', 'f'),
        layer('h', 'twice'), layer('twice', 'base'),
        layer('other', 'base', 'twice'),
    ], ['base.qcow2'])
    text = '\n'.join(faults)
    assert "a: its base 'bse' is neither" in text
    assert 'the directory; there is base' in text
    assert 'b -> c -> b' in text
    assert 'd -> d' in text
    assert 'f and g would both be called f' in text
    assert "g: its base 'x'" in text
    assert 'twice and other would both be called twice' in text
    assert 'h: base' in text
    assert text.count('circle') == 2
    assert len(faults) == 7


@st.composite
def forests(draw: st.DrawFn) -> Tuple[List[Spec], Dict[str, Optional[str]]]:
    """Draw specs in any order, each on an earlier one or on none."""
    names = draw(st.lists(
        strategies.names, min_size=1, max_size=8, unique=True
    ))
    bases: Dict[str, Optional[str]] = {}
    found = []
    for number, name in enumerate(names):
        lower: List[Optional[str]] = [None, *names[:number]]
        below = draw(st.sampled_from(lower))
        bases[name] = below
        found.append(
            Spec(name, name, specs.BUILDER, 'x') if below is None
            else layer(name, below)
        )
    return draw(st.permutations(found)), bases


@given(forests())
def test_any_forest_is_ordered_base_first(
    forest: Tuple[List[Spec], Dict[str, Optional[str]]]
) -> None:
    found, bases = forest
    jobs, faults = arrange(found, [])
    assert faults == []
    order = [job.spec.name for job in jobs]
    assert sorted(order) == sorted(bases)
    for job in jobs:
        assert job.parent == bases[job.spec.name]
        if job.parent is not None:
            assert order.index(job.parent) < order.index(job.spec.name)


@given(forests(), st.data())
def test_any_circle_is_named(
    forest: Tuple[List[Spec], Dict[str, Optional[str]]], data: st.DataObject
) -> None:
    found, bases = forest
    ring = data.draw(st.lists(
        st.sampled_from(sorted(bases)), min_size=1, unique=True
    ))
    on = dict(zip(ring, ring[1:] + ring[:1]))
    found = [
        layer(each.name, on[each.name]) if each.name in on else each
        for each in found
    ]
    _, faults = arrange(found, [])
    circles = [fault for fault in faults if 'circle' in fault]
    assert len(circles) == 1
    path = circles[0].partition(': ')[2].split(' -> ')
    assert path[0] == path[-1] and sorted(path[1:]) == sorted(ring)
    assert all(on[one] == other for one, other in zip(path, path[1:]))


LIBGUESTFS = '''\
[   0.0] Examining the guest ...
virt-customize: error: libguestfs error: guestfs_launch failed.
This usually means the libguestfs appliance failed to start or crashed.
Do:
  export LIBGUESTFS_DEBUG=1 LIBGUESTFS_TRACE=1
and run the command again.  For further information, read:
  http://libguestfs.org/guestfs-faq.1.html#debugging-libguestfs
You can also run 'libguestfs-test-tool' and post the *complete* output
into a bug report or message to the libguestfs mailing list.

If reporting bugs, run virt-customize with debugging enabled and include:

  virt-customize -v -x [...]
'''


def test_the_reason_of_a_failed_tool_is_shown(tmp_path: Path) -> None:
    log = BuildLog(str(tmp_path), 'nfs')
    said = describe_failure('nfs', errors.ToolError(
        ['virt-customize'], status=1, stderr=LIBGUESTFS,
    ), log)
    lines = said.splitlines()
    assert lines[1].endswith('libguestfs error: guestfs_launch failed.')
    assert 'Examining' not in said and 'reporting bugs' not in said
    assert lines[-1] == f'all of it: {log.path}'
    # A program that has no such line has its reason at the end.
    said = describe_failure('nfs', errors.ToolError(
        ['sh'], status=1, stderr='\n'.join(map(str, range(20))),
    ), log)
    assert '\n19\n' in said and '\n3\n' not in said
