"""Make layers of full images, and full images of layers.

The originals are only read. What is made has its name when it is complete
and was compared with them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable, List

from ..core import errors
from ..core.sizes import size_text
from ..formats import qcow2_safety
from ..tools import files, qemu_img
from .local_images import LocalImage, read_header, used_bytes
from .scratch import disk_errors, scratch_directory, show_file

#: A layer of that share of its image saves nothing worth a base.
HARDLY_SMALLER_PERCENT = 90

#: Of the hidden directories where the work is done.
WORD = 'layered'

Say = Callable[[str], None]


@dataclass(frozen=True)
class Layer:
    """A layer that was made; sizes in bytes.

    Attributes:
        base: the name of the base in its header.
        warnings: what people should know of it.
    """

    path: str
    base: str
    base_format: str
    virtual_size: int
    image_size: int
    size: int
    warnings: List[str]

    @property
    def saved_percent(self) -> float:
        """How much smaller it is than its image."""
        return 100 * (1 - self.size / max(self.image_size, 1))


def make_layer(
    image: LocalImage, base: LocalImage, name: str, output: str, say: Say
) -> Layer:
    """Write what an image has and its base has not as a layer.

    Args:
        name: what the header calls the base.
        say: told what is being done.

    Raises:
        PublishError: the disk is full, or there is such a file.
        ToolError: qemu-img failed.
        VerifyError: the layer is not equal to the image.
    """
    output = os.path.abspath(output)
    directory = os.path.dirname(output)
    with scratch_directory(directory, WORD) as scratch, disk_errors(
        directory
    ):
        overlay = os.path.join(scratch, 'overlay')
        layer = os.path.join(scratch, 'layer')
        say(f'{image.path}: comparing it with {base.path}')
        qemu_img.create_layer(overlay, image.path, image.format)
        qemu_img.keep_difference(overlay, base.path, base.format)
        qemu_img.repack_layer(overlay, layer, base.path, base.format)
        os.unlink(overlay)
        say(f'{output}: comparing the layer on its base with the image')
        _check_equal(layer, 'qcow2', image, output)
        qemu_img.rename_base(layer, 'qcow2', name, base.format)
        header = read_header(layer)
        show_file(layer, output)
    made = Layer(
        path=output, base=name, base_format=base.format,
        virtual_size=header.virtual_size, image_size=image.used,
        size=used_bytes(output), warnings=qcow2_safety.find_oddities(
            header, base_virtual_size=base.virtual_size
        ),
    )
    if made.size * 100 >= made.image_size * HARDLY_SMALLER_PERCENT:
        made.warnings.append(
            f'the layer is hardly smaller than the image '
            f'({size_text(made.size)} of {size_text(made.image_size)}): the '
            f'image was probably not made from this base'
        )
    return made


def flatten(image: LocalImage, output: str, say: Say) -> int:
    """Write a chain as one qcow2 without a base; return its bytes.

    Raises:
        NotEnoughSpace: it would not fit.
        PublishError: the disk is full, or there is such a file.
        ToolError: qemu-img failed.
        VerifyError: the result is not equal to the chain.
    """
    output = os.path.abspath(output)
    directory = os.path.dirname(output)
    _check_room(image, output)
    with scratch_directory(directory, WORD) as scratch, disk_errors(
        directory
    ):
        flat = os.path.join(scratch, 'flat')
        count = len(image.chain)
        layers = f'{count} layers' if count > 1 else '1 layer'
        say(f'{output}: writing {layers} as one image')
        qemu_img.convert(image.path, image.format, flat)
        say(f'{output}: comparing it with the chain')
        _check_equal(flat, 'qcow2', image, output)
        show_file(flat, output)
    return used_bytes(output)


def _check_room(image: LocalImage, output: str) -> None:
    needed = qemu_img.measure(image.path, image.format)
    directory = os.path.dirname(output)
    free = files.measure(directory)[0]
    if needed > free:
        raise errors.NotEnoughSpace(
            f'{directory}: not enough room for {output}:'
            f'\n  needed {needed} bytes ({size_text(needed)})'
            f'\n  free {free} bytes ({size_text(free)})',
            needed=needed, free=free, short=needed - free,
            hint='Free some room there, or name another file with --output.',
        )


def _check_equal(
    made: str, fmt: str, image: LocalImage, output: str
) -> None:
    difference = qemu_img.find_difference(
        made, fmt, image.path, image.format
    )
    if difference is not None:
        raise errors.VerifyError(
            output, what='it is not what it was made of, and was removed',
            expected=f'the content of {image.path}', found=difference,
            hint='Does somebody write to one of the images?',
        )
