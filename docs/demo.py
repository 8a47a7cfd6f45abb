"""Show layered templates at work: publish, serve, ``lago init``, look.

Run it from the root of the checkout: ``make demo`` or ``python -m docs.demo``.

Everything is real: bootable images, nginx, ``lago``, qemu. All files stay in
``.cache/demo``; the images are built once, the rest is made anew each time.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict

from tests.lab import (
    LagoSandbox, Nginx, backing_chain, boot, guest_digest, have,
    image_requests, markers_of, max_in_flight, run,
)
from tests.lab.commands import MissingTool
from tests.lab.environments import lago_command
from tests.lab.report import (
    INDENT, Steps, bold, mib, quote, say, show_table, tell, tree,
)
from tests.lab.showcase import (
    BASES, Showcase, get_showcase, init_file, init_file_domain,
)

CACHE = Path(__file__).resolve().parent.parent / '.cache'
WORK = CACHE / 'demo'
STORE = WORK / 'store'

#: VM -> template, in the two environments.
FIRST = {'web': 'tiny-web', 'shop': 'tiny-shop', 'db': 'tiny-db'}
SECOND = {'shop-test': 'tiny-shop', 'db-test': 'tiny-db'}
DEEPEST = 'shop'

#: Bytes per second for a connection, so that there is something to see.
LINE_RATE = 12 << 20

TOOLS = (
    'qemu-img', 'qemu-io', 'qemu-system-x86_64', 'nginx', 'zstd', 'syslinux',
    'mcopy', 'mkfs.vfat', 'busybox', 'ssh-keygen',
)

INFO_KEYS = (
    'image', 'file format', 'disk size', 'backing file', 'backing file format'
)


def show_images(showcase: Showcase) -> None:
    """Print the forest of images and what each of them takes."""
    tell('''A tiny Linux that boots, and three layers over it. A layer is a
         qcow2 file with only what differs from its base:''')
    quote('\n'.join(tree(BASES)))
    say('')
    show_table(('image', 'base', 'size', 'compressed'), [
        (name, BASES[name] or '-', mib(size), mib(packed))
        for name, (size, packed) in showcase.layers.items()
    ], left=2)


def publish(showcase: Showcase, url: str) -> str:
    """Put the server's address into the index, show an entry of it."""
    showcase.point_to(url)
    tell(f'''nginx serves a directory at {url}: the index repo.metadata and
         the compressed images. One of its entries; a plain Lago ignores the
         keys that it does not know:''')
    index = json.loads(showcase.index_path.read_text())
    entry = index['templates']['tiny-shop']['versions']['v1']
    keys = ('source', 'handle', 'timestamp', 'base', 'compression', 'size')
    lines = [f'    "{key}": {json.dumps(entry[key])},' for key in keys]
    quote('\n'.join([
        '"tiny-shop": {"versions": {"v1": {', *lines,
        f'    "sha256": "{entry["sha256"][:24]}...", ...',
    ]))
    return f'{url}/repo.metadata'


def make_environment(
    name: str, vms: Dict[str, str], repo: str
) -> LagoSandbox:
    """Write the LagoInitFile of a new environment."""
    shutil.rmtree(WORK / name, ignore_errors=True)
    terminal = {
        'TERM': os.environ.get('TERM', 'dumb'),
        'COLUMNS': str(shutil.get_terminal_size().columns),
    }
    box = LagoSandbox(WORK / name, vms, repo=repo, store=STORE, env=terminal)
    box.init_file.write_text(init_file(vms))
    return box


def lago_init(box: LagoSandbox) -> None:
    """Run the real ``lago init`` and show all that it prints.

    Raises:
        SystemExit: it failed.
    """
    say(bold(f'{INDENT}{box.root.name}$ lago init'), '')
    started = time.monotonic()
    if sys.stdout.isatty():
        process = box.popen(
            'init', stdout=None, stderr=None, start_new_session=False
        )
    else:
        process = box.popen(
            'init', stderr=subprocess.STDOUT, start_new_session=False
        )
        assert process.stdout is not None
        for line in process.stdout:
            say(f'{INDENT}{line}'.rstrip())
    if process.wait():
        sys.exit(f'\nlago init failed with status {process.returncode}; '
                 'the demo ends here.')
    say('', f'Done in {time.monotonic() - started:.1f} seconds.')


def show_disks(box: LagoSandbox) -> None:
    """Print the chain of each VM's disk, as qemu-img tells it."""
    disk = box.disk(DEEPEST)
    quote(bold(f'$ qemu-img info --backing-chain {disk.name}'))
    out = run('qemu-img', 'info', '--backing-chain', disk)
    for line in out.splitlines():
        if not line or line.split(':')[0] in INFO_KEYS:
            line = line.split(' (actual path')[0]
            line = re.sub(r'/(\./)+', '/', line)
            quote('  ' + line.replace(f'{WORK}{os.sep}', ''))
    say('')
    tell('The same in short, for all three:')
    for vm in FIRST:
        names = [Path(str(one['filename'])).name.replace('demo:', '')
                 for one in backing_chain(box.disk(vm))]
        quote(' -> '.join(names))


def ask_guests(box: LagoSandbox, showcase: Showcase) -> None:
    """Compare the guests' bytes, and let one guest speak for itself."""
    tell('''What a VM sees through its chain is, byte for byte, the image as
         it was built (sha256 of the whole disk):''')
    for vm, template in FIRST.items():
        digest = guest_digest(box.disk(vm))
        same = digest == showcase.digests[template]
        quote(f'{vm:<5} {digest[:40]}...  {"same" if same else "DIFFERS"}')
        if not same:
            sys.exit('The guest sees other bytes than it should.')
    say('')
    tell(f'"{DEEPEST}", booted by qemu, says on its serial console:')
    console = boot(box.disk(DEEPEST))
    quote('\n'.join(
        f'| {line}' for line in console.splitlines()
        if line.startswith(('tiny linux', 'layer'))
    ))
    if markers_of(console) != ['tiny-base', 'tiny-web', 'tiny-shop']:
        sys.exit('The guest does not see its layers.')


def show_store() -> int:
    """Print the images of the store; return the bytes they take."""
    tell('''Every layer is there once, for all VMs and all environments,
         read-only and never converted:''')
    images = [
        (path.name, path.stat()) for path in sorted(STORE.iterdir())
        if path.name.count(':') == 2 and not path.suffix
    ]
    taken = sum(facts.st_blocks * 512 for _, facts in images)
    show_table(('image', 'mode', 'on disk'), [
        *((name, f'{facts.st_mode & 0o777:04o}', mib(facts.st_blocks * 512))
          for name, facts in images),
        ('sum', '', mib(taken)),
    ])
    return taken


def show_savings(showcase: Showcase, server: Nginx, on_disk: int) -> None:
    """Print what was fetched and kept, against flat templates."""
    requests = server.requests()
    images = image_requests(requests)
    small = len(requests) - len(images)
    tell(f'''The server's log: {small} request{'s' * (small != 1)} for the
         index, {len({one.path for one in images})} images, up to
         {max_in_flight(images)} of them at a time. Against the same three
         templates without layers, really flattened and compressed:''')
    flat = [showcase.flat[template] for template in FIRST.values()]
    flat_disk, flat_sent = (sum(sizes) for sizes in zip(*flat))
    sent = sum(request.sent for request in images)
    show_table(('', 'to fetch', 'on disk'), [
        ('three flat templates', mib(flat_sent), mib(flat_disk)),
        ('four layers', mib(sent), mib(on_disk)),
        ('saved', f'{1 - sent / flat_sent:.0%}',
         f'{1 - on_disk / flat_disk:.0%}'),
    ])


def main() -> None:
    """Go through all steps."""
    lago_command()
    missing = [tool for tool in TOOLS if not have(tool)]
    if missing:
        raise MissingTool(f'not installed: {", ".join(missing)}')
    shutil.rmtree(STORE, ignore_errors=True)
    steps = Steps()
    say(bold('Layered templates for Lago'), bold('=' * 26))
    steps.begin('Three layers on one base')
    showcase = get_showcase(WORK / 'images', CACHE / 'tiny', tell)
    show_images(showcase)
    with Nginx(showcase.www, limit_rate=LINE_RATE) as server:
        steps.begin('Published and served')
        repo = publish(showcase, server.url)
        steps.begin('One "lago init" for three VMs')
        tell('''The LagoInitFile is like any other: it names templates, not
             what they stand on.''')
        quote(init_file_domain(DEEPEST, FIRST[DEEPEST]))
        say('')
        box = make_environment('first', FIRST, repo)
        lago_init(box)
        steps.begin('The disks stand on their chains')
        show_disks(box)
        steps.begin('The guests see all layers')
        ask_guests(box, showcase)
        steps.begin('The store')
        on_disk = show_store()
        steps.begin('What layering saved')
        show_savings(showcase, server, on_disk)
    steps.begin('Another environment, without the server')
    tell('''The server is stopped now. Two more VMs need nothing but the
         store:''')
    lago_init(make_environment('second', SECOND, repo))
    say('', f'All of it is in {WORK.relative_to(CACHE.parent)}; '
        '"make demo" shows it again.')


if __name__ == '__main__':
    try:
        main()
    except (MissingTool, RuntimeError) as error:
        sys.exit(f'\nThe demo cannot go on: {error}\nSee "make setup".')
    except KeyboardInterrupt:
        sys.exit('\nStopped.')
