"""What to say when an image is in no repository."""

from __future__ import annotations

import difflib
from typing import Sequence

from ..core import errors
from ..core.model import Base, BaseName, Image
from ..core.wanted import Wanted
from .document import Index


def wanted_error(
    wanted: Wanted,
    indexes: Sequence[Index],
    with_template: Sequence[Index],
    others: Sequence[Image],
) -> errors.TemplateNotFound:
    """Return the error for a template that is in no repository.

    Args:
        indexes: all of the environment.
        with_template: those that have other versions of it.
        others: images of that name that have another digest.
    """
    if others:
        other = others[0]
        return errors.TemplateNotFound(
            f'{other.ref.short} of repository {other.ref.repository} is not '
            f'the image that is wanted:'
            f'\n  expected {wanted.digest}\n  found {other.digest}',
            hint='It was published again under the same name.',
        )
    if with_template:
        return _not_found(
            f'Version {wanted.version!r} of template {wanted.template!r}',
            with_template, str(wanted.version),
            [version for each in with_template
             for version in each.versions(wanted.template)],
        )
    asked = [
        each for each in indexes
        if wanted.repository in (None, each.name, each.location)
    ]
    if not asked:
        return _not_found(
            f'{wanted}: repository {wanted.repository!r}', indexes,
            str(wanted.repository), [each.name for each in indexes],
        )
    return _not_found(
        f'Template {wanted.template!r}', asked, wanted.template,
        [name for each in asked for name in each.templates()],
    )


def base_error(
    image: Image, base: Base, indexes: Sequence[Index]
) -> errors.BaseNotFound:
    """Return the error for a base that is in no repository."""
    near = ''
    hint = 'The index is wrong; tell the admin of the repository.'
    if isinstance(base, BaseName):
        if base.repository not in (None, *(each.name for each in indexes)):
            hint = (
                f'Name the repository {base.repository} in "template-repo" '
                f'of the init file.'
            )
        versions = [
            version for each in indexes
            for version in each.versions(base.template)
        ]
        near = nearest(base.version or '', versions) if versions else (
            nearest(base.template, [
                name for each in indexes for name in each.templates()
            ])
        )
    return errors.BaseNotFound(
        f'{image.ref.short} stands on {base}, which is not in '
        f'{_places(indexes)}.{near}',
        hint=hint,
    )


def _places(indexes: Sequence[Index]) -> str:
    return ', '.join(
        f'repository {each.name} ({each.location})' for each in indexes
    ) or 'any repository'


def nearest(name: str, known: Sequence[str]) -> str:
    """Return a sentence with the names that are like a misspelt one."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f' Nearest: {", ".join(near)}.' if near else ''


def _not_found(
    what: str, indexes: Sequence[Index], name: str, known: Sequence[str]
) -> errors.TemplateNotFound:
    return errors.TemplateNotFound(
        f'{what} is not in {_places(indexes)}.{nearest(name, known)}',
        hint='See what there is with: lago template-repo list',
    )
