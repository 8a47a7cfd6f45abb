"""`add-layer` and `flatten`: from full images to layers, and back."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Iterator, List, Optional, Tuple

from ..core import errors
from ..core.sizes import size_text
from ..core.wanted import Wanted
from ..environments import provision
from ..publishing import layering, scratch
from ..publishing.local_images import LocalImage, examine
from ..publishing.original import ENDINGS, strip_endings
from ..report import console as report
from ..report.display import Display
from ..store import Usage
from ..tools import qemu_img
from .context import Context
from .planning import parse_word


def run_add_layer(context: Context) -> int:
    """Make a layer of a full image."""
    qemu_img.require()
    args = context.args
    is_file = _means_file(args.base)
    output = args.output or os.path.join(
        os.path.dirname(args.base) if is_file else '',
        f'{strip_endings(os.path.basename(args.image))}.qcow2',
    )
    image, base = _examine_all(
        args.image, args.base if is_file else None, output
    )
    say = report.make_console(sys.stderr).print
    with _found_base(context, base, output) as (below, name):
        layer = layering.make_layer(image, below, name, output, say)
    for warning in layer.warnings:
        context.warn(f'{output}: {warning}')
    context.show({
        'layer': layer.path,
        'base': layer.base,
        'base_format': layer.base_format,
        'virtual_size': layer.virtual_size,
        'image_size': layer.image_size,
        'layer_size': layer.size,
        'saved_percent': round(layer.saved_percent, 1),
        'warnings': layer.warnings,
    }, lambda: _print_layer(layer, args.image, output))
    return 0


def _print_layer(layer: layering.Layer, image: str, output: str) -> None:
    console = report.make_console(sys.stdout)
    console.print(f'{output}: a layer on {layer.base}')
    console.print(f'  image  {size_text(layer.image_size):>9}  {image}')
    console.print(
        f'  layer  {size_text(layer.size):>9}  {layer.saved_percent:.0f} % '
        f'saved'
    )


def _means_file(base: str) -> bool:
    """Tell whether a base is a file, there or missing, or a template."""
    return os.path.exists(base) or base.startswith(
        ('/', './', '../')
    ) or base.endswith(ENDINGS)


@contextlib.contextmanager
def _found_base(
    context: Context, base: Optional[LocalImage], output: str
) -> Iterator[Tuple[LocalImage, str]]:
    """Give the base, and what the header of a layer calls it.

    Args:
        base: None where a template is meant.
    """
    word = context.args.base
    if base is not None:
        yield base, _name_from(output, word)
        return
    wanted = parse_word(word)
    try:
        with _provisioned(context, wanted) as (image, template):
            yield image, f'./{template}'
    except errors.TemplateNotFound as error:
        error.hint = error.hint or f'And there is no file {word}.'
        raise


def _examine_all(
    image_path: str, base_path: Optional[str], output: str
) -> Tuple[LocalImage, Optional[LocalImage]]:
    """Look at all files, and say all that is wrong with them."""
    faults: List[str] = []
    found: List[Optional[LocalImage]] = []
    for path in (image_path, base_path):
        try:
            found.append(None if path is None else examine(path))
        except errors.PublishError as error:
            found.append(None)
            faults += [f'{path}: {fault}' for fault in error.faults]
    image, base = found
    if image and base and os.path.samefile(image.path, base.path):
        faults.append(f'{image_path} is the base itself')
    faults += _check_output(output)
    if faults or image is None:
        raise errors.PublishError(
            f'Cannot make a layer of {image_path}', faults
        )
    return image, base


def _check_output(output: str) -> List[str]:
    if os.path.lexists(output):
        return [f'{output}: {scratch.EXISTS}']
    directory = os.path.dirname(os.path.abspath(output))
    if not os.path.isdir(directory):
        return [f'{output}: there is no directory {directory}']
    return []


def _name_from(output: str, base: str) -> str:
    """Return the relative path from an image to its base.

    qemu resolves it against the directory of the path it is given; `..` is
    taken as the file system does it, so links must be resolved before.
    """
    name = os.path.relpath(
        os.path.join(
            os.path.realpath(os.path.dirname(base)), os.path.basename(base)
        ),
        os.path.realpath(os.path.dirname(os.path.abspath(output))),
    )
    return name if name.startswith('../') else f'./{name}'


@contextlib.contextmanager
def _provisioned(
    context: Context, wanted: Wanted
) -> Iterator[Tuple[LocalImage, str]]:
    """Bring a chain into the store; give its top, and its TEMPLATE:VERSION.

    No prune takes it away meanwhile.
    """
    store = context.store
    sources = context.repository.sources(store)
    with Usage(store.root).using(
        sources.settings.lock_timeout,
        lambda holder: context.warn(f'{store.root}: waiting for {holder}'),
    ):
        plan = provision.provision(
            [wanted], store, sources, Display(sys.stderr)
        )
        layer = plan.layer(plan.tops[0])
        template = (
            layer.image.ref.short if layer.image
            else layer.name.partition(':')[2]
        )
        yield examine(store.path(layer.name)), template


def run_flatten(context: Context) -> int:
    """Write a chain as one image without a base."""
    qemu_img.require()
    args = context.args
    wanted = parse_word(args.template)
    if args.output:
        _refuse_output(args.template, args.output)
    say = report.make_console(sys.stderr).print
    with _provisioned(context, wanted) as (image, template):
        output = args.output or f'{template.replace(":", "-")}.qcow2'
        _refuse_output(template, output)
        size = layering.flatten(image, output, say)
    context.show({
        'image': os.path.abspath(output),
        'template': template,
        'layers': len(image.chain),
        'size': size,
        'virtual_size': image.virtual_size,
    }, lambda: report.make_console(sys.stdout).print(
        f'{output}: {template} without a base, {size_text(size)}'
    ))
    return 0


def _refuse_output(template: str, output: str) -> None:
    faults = _check_output(output)
    if faults:
        raise errors.PublishError(f'Cannot flatten {template}', faults)
