"""Draw what was measured: seconds per way and line, bytes on the disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any, List

from . import ways
from .figures import MEGABYTE, Figures, middle

#: From dark to light, the others' in greys; ours stand out.
COLOURS = {
    'lago-xz': '#4d4d4d',
    'curl-xz': '#8c8c8c',
    'aria2-xz': '#bfbfbf',
    'curl-zst': '#d9c9a3',
    'ours-xz': '#1f6fb4',
    'ours-zst': '#e08a1e',
}
IMAGE_COLOURS = ('#1f6fb4', '#6aa9d9', '#b5d4ec')


def draw(figures: Figures, path: Path) -> None:
    """Write a PNG."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot

    canvas, (left, right) = pyplot.subplots(
        1, 2, figsize=(13, 5), width_ratios=(4, 1), layout='constrained',
    )
    _draw_seconds(left, figures)
    _draw_disk(right, figures)
    canvas.savefig(path, dpi=110)
    pyplot.close(canvas)


def _draw_seconds(axes: Any, figures: Figures) -> None:
    """Draw groups of bars: a line each; whiskers from least to most."""
    shown = [way for way in COLOURS if any(
        figures.walls(case.name, way) for case in figures.cases
    )]
    width = 0.85 / len(shown)
    for number, way in enumerate(shown):
        places: List[float] = []
        heights: List[float] = []
        below: List[float] = []
        above: List[float] = []
        for group, case in enumerate(figures.cases):
            walls = figures.walls(case.name, way)
            height = middle(walls)
            if height is None:
                continue
            places.append(group + (number - len(shown) / 2 + 0.5) * width)
            heights.append(height)
            below.append(height - min(walls))
            above.append(max(walls) - height)
        bars = axes.bar(
            places, heights, width * 0.95, yerr=(below, above),
            color=COLOURS[way], label=ways.TITLES[way],
            error_kw={'elinewidth': 0.8, 'ecolor': '#333333'},
        )
        axes.bar_label(bars, fmt='%.0f' if max(heights) >= 10 else '%.1f',
                       fontsize=7, padding=2)
    label = 'floor, .xz'
    for group, case in enumerate(figures.cases):
        floor = middle(figures.floors(case, 'xz'))
        if floor:
            axes.hlines(floor, group - 0.45, group + 0.45, label=label,
                        colors='#c0392b', linestyles='dashed', linewidth=1)
            label = '_'
    axes.set_xticks(range(len(figures.cases)), [
        case.title.replace(', ', ',\n').replace(' per', '\nper')
        for case in figures.cases
    ], fontsize=8)
    total = sum(figures['image_bytes'].values()) / MEGABYTE
    axes.set_title(f'A chain of three images, {total:.0f} MB, into an empty '
                   'store: seconds, less is better', fontsize=10)
    axes.set_ylabel('seconds')
    axes.margins(y=0.2)
    axes.legend(fontsize=8, ncols=3, loc='upper left')
    axes.spines[['top', 'right']].set_visible(False)


def _draw_disk(axes: Any, figures: Figures) -> None:
    """Draw what the store takes, image by image."""
    disk = figures['transfers']['disk_bytes']
    sides = [
        (title, disk[way]) for title, way in
        (('flat\n(Lago)', 'lago-xz'), ('layered\n(ours)', 'ours-xz'))
        if way in disk
    ]
    for place, (_, images) in enumerate(sides):
        bottom = 0.0
        for colour, (name, size) in zip(IMAGE_COLOURS, images.items()):
            axes.bar(place, size / 1e9, 0.6, bottom=bottom, color=colour,
                     label=name if place == 0 else '_')
            bottom += size / 1e9
        axes.text(place, bottom, f'{bottom:.2f}', ha='center', va='bottom',
                  fontsize=8)
    axes.set_xticks(range(len(sides)), [title for title, _ in sides],
                    fontsize=8)
    axes.set_title('All three in the store: GB', fontsize=10)
    axes.legend(fontsize=8)
    axes.spines[['top', 'right']].set_visible(False)
