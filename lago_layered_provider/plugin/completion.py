"""What a shell may complete: all of `lago`, and the names that it takes.

A shell that completes runs `lago` itself; argcomplete then answers from
Lago's own parser, and the program ends. No server is asked: names come from
indexes on this machine, or kept ones.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from typing import Any, Callable, Dict, Iterable, Iterator, List

from .config import Options, find_repos_directory
from .context import make_context

Function = Callable[..., Any]
Names = Callable[[argparse.Namespace], Iterable[str]]


def answer_shells(create_parser: Function) -> Function:
    """Wrap Lago's function so that its parser answers a shell's question."""
    @functools.wraps(create_parser)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        import argcomplete

        parser = create_parser(*args, **kwargs)
        _add_completers(parser)
        argcomplete.autocomplete(parser, always_complete_options=False)
        return parser

    return wrapper


def _add_completers(parser: argparse.ArgumentParser) -> None:
    """Tell argcomplete, action by action, what completes the names."""
    verb = _subparsers(parser).get('template-repo')
    for command, each in _subparsers(verb).items():
        for action in each._actions:
            key = command if action.dest in ('name', 'names') else action.dest
            if key in COMPLETERS:
                completer = functools.partial(_complete, COMPLETERS[key])
                setattr(action, 'completer', completer)


def _subparsers(parser: Any) -> Dict[str, argparse.ArgumentParser]:
    actions = parser._actions if parser else ()
    return next((
        action.choices for action in actions
        if isinstance(action, argparse._SubParsersAction)
    ), {})


def _complete(
    names: Names, prefix: str, parsed_args: argparse.Namespace, **_: Any
) -> List[str]:
    """Answer argcomplete; nobody wants to see an error now."""
    with contextlib.suppress(Exception):
        return [
            name for name in names(parsed_args) if name.startswith(prefix)
        ]
    return []


def _templates(args: argparse.Namespace) -> Iterator[str]:
    """Yield `NAME` and `NAME:VERSION` of all repositories that are here."""
    from ..core.errors import LayeredError

    Options.offline = True
    context = make_context(args)
    for each in context.repository.repositories:
        with contextlib.suppress(LayeredError):
            index = each.read(
                context.settings, lambda _: None, context.store, keep=False
            )
            for template in index.templates():
                yield template
                for version in index.versions(template):
                    yield f'{template}:{version}'


def _stored(args: argparse.Namespace) -> Iterator[str]:
    """Yield the names of the images in the store."""
    from ..store import Inventory

    root = make_context(args).store.root
    for name in Inventory(root).images()[0]:
        yield name
        yield name.partition(':')[2]  # without its repository


def _added(args: argparse.Namespace) -> Iterator[str]:
    """Yield the names of the repositories that were added."""
    from ..repositories.added_files import ReposDirectory

    directory = ReposDirectory(find_repos_directory())
    yield from (each.name for each in directory.added())


#: The destination of an argument, or the command that it belongs to.
COMPLETERS: Dict[str, Names] = {
    'template': _templates,
    'wanted': _templates,
    'image': _stored,
    'images': _stored,
    'remove': _added,
    'update': _added,
}
