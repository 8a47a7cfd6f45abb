"""Finds the places of values in a YAML or JSON file, for messages."""

from __future__ import annotations

from typing import Any, Optional, Tuple

from ..core.initfile import Way
from ..tools import files


class Lines:
    """Finds the lines of a file's values; JSON is YAML.

    It is read only when somebody asks.
    """

    def __init__(self, path: Optional[str]) -> None:
        self._path = path
        self._root: Any = None

    def find(self, way: Way) -> Optional[int]:
        """Return the line of a value, None where that cannot be told."""
        import yaml

        if self._path and self._root is None:
            try:
                with files.open_text(self._path) as stream:
                    self._root = yaml.compose(stream, yaml.SafeLoader)
            except (OSError, ValueError, yaml.YAMLError):
                return None
        node, line = self._root, getattr(self._root, 'start_mark', None)
        for step in way:
            node, line = _child(node, step)
        return None if line is None else int(line.line) + 1


def _child(node: Any, step: object) -> Tuple[Any, Any]:
    """Return a value, and where it begins: of one in a mapping, its key."""
    value = getattr(node, 'value', None)
    if not isinstance(value, list):
        return None, None
    if isinstance(step, int):
        found = value[step] if step < len(value) else None
        return found, found and found.start_mark
    for pair in value:
        if isinstance(pair, tuple) and str(pair[0].value) == str(step):
            return pair[1], pair[0].start_mark
    return None, None
