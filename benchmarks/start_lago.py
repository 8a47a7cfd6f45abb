"""Start `lago` as its console script does.

    start_lago.py as-it-is|repaired ARGUMENTS...

With `repaired`, `plugin.repair` is applied first: no plugin, no other hooks.
"""

from __future__ import annotations

import sys


def main() -> int:
    if sys.argv.pop(1) == 'repaired':
        from lago_layered_provider.plugin import repair
        repair.repair()
    from lago.cmd import main as lago_main
    return int(lago_main() or 0)


if __name__ == '__main__':
    sys.exit(main())
