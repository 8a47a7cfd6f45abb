"""Let libguestfs (virt-sparsify and its kin) run on a machine of any kind.

Its small virtual machine, the "appliance", is built by supermin(1) from the
packages that are installed here, and from a kernel. The kernel is the one of
`kernel`, which need not be installed; KVM is not used, since a /dev/kvm that
is there may be unusable.
"""

from __future__ import annotations

from pathlib import Path
from typing import Dict

from .commands import require, run, unavailable
from .kernel import get_kernel

#: supermin looks at its mode, whatever kernel it is told to take.
HOST_MODULES = Path('/lib/modules')


def guestfs_environment(cache: Path) -> Dict[str, str]:
    """Return the environment variables that libguestfs needs.

    Args:
        cache: directory that keeps the kernel and the built appliance.
    """
    require('virt-sparsify', 'depmod')
    if not HOST_MODULES.is_dir():
        unavailable(f'no {HOST_MODULES}; supermin needs it: make it (mkdir)')
    kernel = get_kernel(cache)
    if not (kernel.modules / 'modules.dep').exists():
        # A package that is only unpacked has none.
        root = kernel.modules.parents[2]
        run('depmod', '-b', root, kernel.version)
    appliance = cache / 'guestfs'
    appliance.mkdir(parents=True, exist_ok=True)
    return {
        'LIBGUESTFS_BACKEND': 'direct',
        'LIBGUESTFS_BACKEND_SETTINGS': 'force_tcg',
        'LIBGUESTFS_CACHEDIR': str(appliance),
        'SUPERMIN_KERNEL': str(kernel.image),
        'SUPERMIN_KERNEL_VERSION': kernel.version,
        'SUPERMIN_MODULES': str(kernel.modules),
    }
