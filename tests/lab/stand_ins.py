"""Stand-ins for the tools of libguestfs, which take half a minute each.

They change the image with qemu-io and know three commands in a spec::

    pattern BYTE OFFSET     write a cluster of BYTE at OFFSET
    sleep SECONDS
    fail TEXT               say it, and fail

The real ones are used by one test that takes as long as it takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

#: What the stand-in for virt-builder has.
TEMPLATE = 'tiny'

SCRIPT = f'''#!{sys.executable}
import os, subprocess, sys, time

tool = os.path.basename(sys.argv[0])
options = dict(
    word[2:].split('=', 1) for word in sys.argv[1:]
    if word.startswith('--') and '=' in word
)
image = options.get('add') or options.get('output') or sys.argv[-1]
with open(os.environ['STAND_IN_LOG'], 'a') as log:
    log.write(f'{{tool}} {{os.path.basename(image)}}\\n')
print(f'{{tool}} says hello')

def run(*command):
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

if tool == 'virt-builder':
    if sys.argv[-1] != {TEMPLATE!r}:
        sys.exit(f'{{tool}}: error: cannot find os-version {{sys.argv[-1]}}'
                 '\\n\\nIf reporting bugs, run it with -v -x')
    run('qemu-img', 'create', '-q', '-f', options['format'], image, '8M')
if not os.path.exists(image):
    sys.exit(f'{{tool}}: error: {{image}}: No such file or directory')
if tool == 'virt-sysprep':
    # Two builds never give the same bytes: times, seeds of random numbers.
    with open(f'{{image}}.seed', 'wb') as seed:
        seed.write(os.urandom(512))
    run('qemu-io', '-f', 'qcow2', '-c', f'write -q -s {{image}}.seed 4M 512',
        image)
    os.unlink(f'{{image}}.seed')
for line in open(options.get('commands-from-file', os.devnull)):
    word, _, rest = line.strip().partition(' ')
    if word == 'pattern':
        byte, offset = rest.split()
        run('qemu-io', '-f', 'qcow2', '-c',
            f'write -q -P {{byte}} {{offset}} 64k', image)
    elif word == 'sleep':
        time.sleep(float(rest))
    elif word == 'fail':
        sys.exit(rest)
'''


def install(directory: Path) -> Path:
    """Write the stand-ins into a directory, to be put into a PATH."""
    directory.mkdir(parents=True, exist_ok=True)
    for tool in (
        'virt-builder', 'virt-customize', 'virt-sysprep', 'virt-sparsify',
    ):
        path = directory / tool
        path.write_text(SCRIPT)
        path.chmod(0o755)
    return directory
