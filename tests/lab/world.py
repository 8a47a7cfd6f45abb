"""A repository, its server and an environment, to spoil and to mend.

Everything is in order at first; a test spoils some of it, runs ``lago init``,
mends all of it, and runs the same ``lago init`` in the same directory again.
"""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Dict, List, Mapping, Optional, Type

from .environments import Disks, Finished, LagoSandbox
from .images import DiskImage, guest_digest
from .publish import Publisher, checksums, compress
from .rude_server import RudeServer

#: What Lago prints last when it fails, after the last of its tasks.
_MESSAGE = re.compile(r'(?s)(?:.*\(in [\d:]+\)\n)?(.+)\n\Z')

#: Fail soon; a test that needs more patience says so.
HASTE = {'retries': 0, 'timeout': 3, 'patience': 0, 'lock_timeout': 5}


class World:
    """A context manager; everything is below ``root``.

    Args:
        published: a repository directory, which is copied.
        vms: as for ``LagoSandbox``.
        store: of templates; default: in ``root``.
        box: the class of the environment.
    """

    def __init__(
        self,
        root: Path,
        published: Publisher,
        vms: Mapping[str, Disks],
        *,
        store: Optional[Path] = None,
        box: Type[LagoSandbox] = LagoSandbox,
    ) -> None:
        self.root = root
        self.www = root / 'www'
        self.index: Dict[str, Any] = {}
        self._published = published
        self._clock = 1500000000
        self.www.mkdir(parents=True, exist_ok=True)
        self.server = RudeServer(self.www)
        self.server.start()
        self.index_url = f'{self.server.url}/repo.metadata'
        self.box = box(
            root / 'box', vms, repo=self.index_url, store=store,
            config={'template_repo': HASTE},
        )
        self._order = copy.deepcopy((
            self.box.init_data, self.box.repo, self.box.config,
            self.box.extra_env, self.box.store,
        ))
        self.mend()

    def __enter__(self) -> World:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self.server.close()

    def mend(self) -> None:
        """Put repository, server and environment in order again."""
        self.server.stop()
        self.server.heal()
        shutil.copytree(
            self._published.root, self.www, dirs_exist_ok=True,
            copy_function=shutil.copyfile,
        )
        self.index = copy.deepcopy(self._published.index())
        for source in self.index['sources'].values():
            source['args'] = {'baseurl': self.server.url}
        self.write_index()
        (
            self.box.init_data, self.box.repo, self.box.config,
            self.box.extra_env, self.box.store,
        ) = copy.deepcopy(self._order)
        self.box.write()
        self.server.start()

    def write_index(self) -> None:
        """Serve the index as it is now."""
        self.write_raw_index(json.dumps(self.index).encode())

    def write_raw_index(self, data: bytes) -> None:
        """Serve any bytes as the index, with an ETag of their own."""
        path = self.www / 'repo.metadata'
        path.write_bytes(data)
        self._clock += 1
        os.utime(path, (self._clock, self._clock))

    def entry(self, template: str) -> Dict[str, Any]:
        """Return what the index says of an image; ``write_index`` follows."""
        entry: Dict[str, Any] = (
            self.index['templates'][template]['versions']['v1']
        )
        return entry

    def edit(self, template: str, **changes: Any) -> None:
        """Change keys of an image in the index; ``...`` removes one."""
        entry = self.entry(template)
        entry.update(changes)
        for key in [key for key, value in entry.items() if value is ...]:
            del entry[key]
        self.write_index()

    def url_path(self, template: str) -> str:
        """Return the path of an image on the server."""
        return self._published.images[f'{template}:v1'].url_path

    def file(self, template: str) -> Path:
        """Return the file of an image in the served directory."""
        return self.www / self.url_path(template).lstrip('/')

    def take_image(self, template: str) -> Path:
        """Return a copy of an uncompressed image as it was published."""
        copied = self.root / f'{template}.spoiled'
        shutil.copyfile(
            self._published.images[f'{template}:v1'].image, copied
        )
        return copied

    def publish(
        self,
        template: str,
        image: Path,
        compression: Optional[str] = 'xz',
        **changes: Any,
    ) -> Path:
        """Publish an image in the place of another; the index fits it.

        Args:
            changes: of the index' entry beyond sizes and digests.

        Returns:
            The file in the served directory.
        """
        suffix = f'.{compression}' if compression else ''
        file = self.www / f'{self.entry(template)["handle"]}{suffix}'
        compress(image, file, compression, 1)
        self.edit(template, **{
            'compression': compression,
            'size': image.stat().st_size,
            'compressed_size': file.stat().st_size,
            **checksums(image), **changes,
        })
        return file

    def fail(self) -> str:
        """Run ``lago init``, see it fail as it should, return the message.

        Whatever went wrong: Lago's status for its errors, one message that
        can be read in 80 columns and no traceback, and no broken prefix.
        """
        done = self.box.init()
        assert done.code == 2, done.output
        check_leftovers(self.box)
        message = message_of(done)
        print(message)
        return message

    def succeed(self, forest: Mapping[str, DiskImage]) -> Finished:
        """Run ``lago init``, see it succeed with the right bytes."""
        done = self.box.init()
        assert done.code == 0, done.output
        for vm, domain in self.box.init_data['domains'].items():
            name = domain['disks'][0]['template_name']
            digest = guest_digest(self.box.disk(vm))
            assert digest == forest[name].guest_sha256, (vm, name)
        return done

    def complete(self, forest: Mapping[str, DiskImage]) -> List[str]:
        """Return the templates in the store; all must be complete."""
        names = []
        for name in self.box.stored():
            template = name.split(':')[1]
            digest = guest_digest(self.box.store / name)
            assert digest == forest[template].guest_sha256, name
            names.append(template)
        return names


def check_leftovers(box: LagoSandbox) -> None:
    """Check that no prefix is left for the next ``lago init`` to trip on."""
    assert not (box.workdir / 'default').exists()


def message_of(done: Finished) -> str:
    """Return Lago's error message, which must be fit to be read."""
    for word in ('Traceback', '.py"', 'Error occured', 'Exception'):
        assert word not in done.output, done.output
    assert '\x1b' not in done.output, done.output
    found = _MESSAGE.match(done.stderr)
    assert found, done.output
    message = found[1]
    assert done.output.count(message.splitlines()[0]) == 1, done.output
    for line in message.splitlines():
        # A URL or a path is not broken, even if it is longer than a line.
        longest = max(map(len, line.split()), default=0)
        assert len(line) < 80 or longest > 40, line
    return message
