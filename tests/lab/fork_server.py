"""Fork for each command of Lago or of the product, with both imported.

The one part of the lab that imports what it tests, as a shell would by
starting it. It is told over a socket, as `starting.ForkServer` writes it:
the files of the command's input, output and error, and one that holds the
command's words, directory and environment.
"""

from __future__ import annotations

import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import sys
import warnings
from pathlib import Path
from typing import Any, Dict, List

PRODUCT = 'lago_layered_provider'

#: The files of an order: three of the command, one of its words.
FILES = 4

ANSWER_BYTES = 64

#: Imported when they are first used; a command has them from the beginning.
LIBRARIES = (
    'requests', 'yaml', 'rich.console', 'rich.progress', 'rich.table',
    'rich.tree', 'rich.live', 'lago.sdk', 'lago.providers.libvirt.vm',
)


def load() -> None:
    """Import Lago, its plugins, and all modules of the product."""
    import lago.plugins

    for kind in ('cli', 'out', 'vm', 'vm-service', 'vm-provider'):
        lago.plugins.load_plugins(
            lago.plugins.PLUGIN_ENTRY_POINTS[kind],
            instantiate=kind in ('cli', 'out'),
        )
    product = importlib.import_module(PRODUCT)
    modules = pkgutil.walk_packages(product.__path__, f'{PRODUCT}.')
    for name in (*LIBRARIES, *(each.name for each in modules)):
        importlib.import_module(name)


def serve(control: socket.socket) -> Dict[str, Any]:
    """Fork for each order; return in a child, with the order.

    Ends when nobody orders any more.
    """
    while True:
        files: List[int]
        data, files, _, _ = socket.recv_fds(control, 1, FILES)
        if not data:
            sys.exit(0)
        with open(files.pop(), encoding='utf-8') as stream:
            order: Dict[str, Any] = json.load(stream)
        reading, writing = os.pipe()
        helper = os.fork()
        if not helper:
            child = os.fork()
            if child:
                os.write(writing, str(child).encode())
                os._exit(0)
            control.close()
            os.close(reading)
            os.close(writing)
            for own, given in enumerate(files):
                os.dup2(given, own)
                os.close(given)
            return order
        for each in (*files, writing):
            os.close(each)
        # Not before its end the command has the parent that it shall have.
        os.waitpid(helper, 0)
        control.send(os.read(reading, ANSWER_BYTES))
        os.close(reading)


def become(order: Dict[str, Any]) -> None:
    """Make this process what the start of Python would have made it."""
    os.setsid()
    os.umask(order['umask'])
    os.chdir(order['cwd'])
    os.environ.clear()
    os.environ.update(order['env'])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unbuffered = bool(os.environ.get('PYTHONUNBUFFERED'))
    for number, name in enumerate(('stdin', 'stdout', 'stderr')):
        before = getattr(sys, name)
        buffering = 0 if number and unbuffered else -1
        stream = io.TextIOWrapper(
            open(number, 'wb' if number else 'rb', buffering, closefd=False),
            before.encoding, before.errors,
            line_buffering=number == 2 or os.isatty(number),
            write_through=buffering == 0,
        )
        setattr(sys, name, stream)
        setattr(sys, f'__{name}__', stream)
    if 'LAB_STEPS' in os.environ:
        runpy.run_path(str(
            Path(__file__).with_name('dying') / 'sitecustomize.py'
        ))


def run_lago(words: List[str]) -> Any:
    """Run `lago`, with the configuration that belongs to this process."""
    import lago.cmd
    from lago.config import config
    from lago.constants import CONFIG_DEFAULTS
    from xdg import BaseDirectory

    sys.argv = words
    # They have read the environment when they were imported.
    importlib.reload(BaseDirectory)
    config.__init__(defaults=CONFIG_DEFAULTS)
    return lago.cmd.main()


def run_module(words: List[str]) -> Any:
    """Run what `python -m NAME` would."""
    main = importlib.import_module(f'{PRODUCT}.__main__')
    sys.argv = [str(main.__file__), *words[3:]]
    return main.main()


if __name__ == '__main__':
    # The lab's modules have the names of others.
    del sys.path[0]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        load()
    gc.freeze()
    ORDER = serve(socket.socket(fileno=int(sys.argv[1])))
    become(ORDER)
    sys.exit((run_lago if ORDER['program'] == 'lago' else run_module)(
        ORDER['words']
    ))
