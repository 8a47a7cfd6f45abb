"""What people see of plans, findings and verdicts, on a terminal and in a log.
"""

from __future__ import annotations

import io
import threading
from typing import Any, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lago_layered_provider.core.plan import Layer, Plan, Room, State
from lago_layered_provider.environments.survey import Survey
from lago_layered_provider.lint.findings import Finding as LintFinding
from lago_layered_provider.lint.run import Report
from lago_layered_provider.report import (
    console as report, image as report_image, lint, plan as report_plan,
    store, tables, verify,
)
from lago_layered_provider.store import Unfinished
from lago_layered_provider.store.audit_rules import Fault, Finding, Part, judge
from lago_layered_provider.store.usage_notes import UsageNote
from tests.lab.terminal import ScreenStream

MIB = 2**20
SECONDS = 30
GONE = UsageNote('/gone/.lago/default', 'uuid', ())
USED = UsageNote('/home/.lago/default', 'uuid', ())


def log(print_it: Any, *arguments: Any, **options: Any) -> List[str]:
    """Return what is written into a log."""
    stream = io.StringIO()
    print_it(*arguments, report.make_console(stream), **options)
    return stream.getvalue().splitlines()


def terminal(
    columns: int, print_it: Any, *arguments: Any, **options: Any
) -> List[str]:
    """Return what a person sees on a terminal."""
    stream = ScreenStream(columns, 60)
    print_it(*arguments, report.make_console(stream, columns), **options)
    return stream.shown()


@pytest.fixture(autouse=True)
def usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('TERM', 'xterm-256color')
    for name in ('NO_COLOR', 'FORCE_COLOR', 'COLUMNS'):
        monkeypatch.delenv(name, raising=False)


def make_plan(*layers: Layer, free: int = 2**40) -> Plan:
    return Plan(layers, (layers[-1].name,), Room('/store', free))


def make_layer(
    name: str, state: State = State.MISSING, fetch: Optional[int] = 10 * MIB,
    keep: Optional[int] = 30 * MIB, base: Optional[str] = None,
    exact: bool = True,
) -> Layer:
    return Layer(
        f'lab:{name}:v1', f'lab:{base}:v1' if base else None, state, None,
        fetch, keep, exact=exact,
    )


CHAIN = make_plan(
    make_layer('base', State.PRESENT, 0, 0),
    make_layer('nfs', State.PARTIAL, base='base'),
    make_layer('iscsi', base='nfs', exact=False),
    free=1024 * MIB,
)


def test_a_plan_in_a_log() -> None:
    assert log(report_plan.print_plan, CHAIN) == [
        'LAYER                     FETCH       KEEP  STATE',
        'lab:base:v1                   -          -  present',
        '└── lab:nfs:v1         10.0 MiB   30.0 MiB  partly here',
        '    └── lab:iscsi:v1   10.0 MiB  ≤30.0 MiB  missing',
        '',
        '3 layers: 1 present, 1 partly here, 1 missing',
        '  to fetch   20.0 MiB',
        '  to keep    at most 60.0 MiB',
        '  room left  964 MiB',
        '',
    ]


def test_a_plan_has_no_room_for_columns_on_a_narrow_terminal() -> None:
    assert terminal(40, report_plan.print_plan, CHAIN)[:9] == [
        'LAYER', 'FETCH, KEEP, STATE',
        'lab:base:v1', '-, -, present',
        '└── lab:nfs:v1', '    10.0 MiB, 30.0 MiB, partly here',
        '    └── lab:iscsi:v1', '        10.0 MiB, ≤30.0 MiB, missing', '',
    ]
    assert terminal(80, report_plan.print_plan, CHAIN) == log(
        report_plan.print_plan, CHAIN
    )[:-1]


def test_colours_of_a_plan_are_the_terminals(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = ScreenStream(80, 24)
    report_plan.print_plan(CHAIN, report.make_console(stream))
    assert '\x1b[33mpartly here\x1b[0m' in stream.raw
    monkeypatch.setenv('NO_COLOR', '1')
    stream = ScreenStream(80, 24)
    report_plan.print_plan(CHAIN, report.make_console(stream))
    assert '\x1b' not in stream.raw


@pytest.mark.parametrize('layers, fetch, keep', [
    ([make_layer('a'), make_layer('b')], '20.0 MiB', '60.0 MiB'),
    ([make_layer('a'), make_layer('b', exact=False)],
     '20.0 MiB', 'at most 60.0 MiB'),
    ([make_layer('a'), make_layer('b', fetch=None, exact=False)],
     'at least 10.0 MiB', 'at most 60.0 MiB'),
    ([make_layer('a'), make_layer('b', keep=None, exact=False)],
     '20.0 MiB', 'at least 30.0 MiB'),
    ([make_layer('a'), make_layer('b', State.PRESENT, None, None,
                                  exact=False)], '10.0 MiB', '30.0 MiB'),
])
def test_how_far_sums_can_be_trusted(
    layers: List[Layer], fetch: str, keep: str
) -> None:
    lines = log(report_plan.print_plan, make_plan(*layers))
    assert f'  to fetch   {fetch}' in lines
    assert f'  to keep    {keep}' in lines


def test_a_long_name_does_not_move_the_columns_of_others() -> None:
    lines = log(report_plan.print_plan, make_plan(
        make_layer('a'), make_layer('b' * 90)
    ))
    assert lines[0].index('FETCH') < 80
    assert lines[1].index('10.0 MiB') < 60
    assert lines[2].startswith(f'lab:{"b" * 90}:v1  ')


def test_a_plan_that_does_not_fit() -> None:
    lines = log(
        report_plan.print_plan, make_plan(make_layer('a'), free=10 * MIB)
    )
    assert lines[-2:] == ['  room left  none, 20.0 MiB short', '']


def test_nothing_to_fetch() -> None:
    lines = log(report_plan.print_plan, make_plan(
        make_layer('a', State.PRESENT, 0, 0)
    ))
    assert lines[-2:] == ['1 layer, all present: nothing to fetch.', '']


@pytest.mark.parametrize('count, hidden', [
    (report_plan.LISTED_LAYERS - 1, 0), (report_plan.LISTED_LAYERS, 49),
])
def test_of_very_many_layers_the_missing_ones_are_listed(
    count: int, hidden: int
) -> None:
    present = [
        make_layer(f'there{number}', State.PRESENT, 0, 0)
        for number in range(count)
    ]
    lines = log(report_plan.print_plan, make_plan(
        *present, make_layer('top', base='there0')
    ))
    assert '└── lab:top:v1' in ' '.join(lines)
    assert sum('lab:there' in line for line in lines) == count - hidden
    assert (f'({hidden} more are present)' in lines) is bool(hidden)


def lint_report(message: str = 'text', **keys: Any) -> Report:
    return Report('/www/repo.metadata', 'lab', 2, (
        LintFinding('base-missing', message, 'a:v1'),
        LintFinding('digest-weak', message, 'b:v1'),
        LintFinding('index-changing', message, None),
        LintFinding('digest-weak', message, 'a:v1'),
    ))


def test_findings_are_grouped_by_image() -> None:
    assert log(lint.print_report, lint_report()) == [
        'repository lab, /www/repo.metadata',
        '  warning index-changing: text',
        'a:v1',
        '  error base-missing: text',
        '  note digest-weak: text',
        'b:v1',
        '  note digest-weak: text',
        '2 images: 1 error, 1 warning, 2 notes',
    ]
    assert log(lint.print_report, Report('/www', images=1)) == [
        '1 image: nothing is wrong'
    ]


@pytest.mark.parametrize('columns', [40, 79, 80, 200])
def test_a_finding_stays_in_its_lines(columns: int) -> None:
    hostile = 'a\x1b[2Jb\x9bc\r\nd\te\u202ef\u200bg' + ' word' * 40
    found = lint_report(hostile)
    for lines in (
        log(lint.print_report, found),
        terminal(columns, lint.print_report, found),
    ):
        assert ' '.join(' '.join(lines).split()).count(
            'a [2Jb c d e f g word word'
        ) == 4
        assert all(line[0] != ' ' or line.startswith('  ') for line in lines)
        assert max(map(len, lines)) <= 79
    assert not set('\x1b\x9b\r\t\u202e') & set(
        '\n'.join(log(lint.print_report, found))
    )


def test_no_terminal_is_too_narrow() -> None:
    terminal(1, lint.print_report, lint_report())
    terminal(1, verify.print_verdicts, VERDICTS)
    terminal(1, report_plan.print_plan, CHAIN)


VERDICTS = judge([
    Finding('lab:a:v1', 7, proven=True),
    Finding('lab:b:v1', 7, faults=(Fault(Part.IMAGE, 'it differs ' * 9),)),
    Finding('lab:c:v1', 7, backing='lab:b:v1', proven=True),
    Finding('lab:d:v1', skipped='it is locked by pid 1'),
])


def test_verdicts_and_why() -> None:
    for lines in (
        log(verify.print_verdicts, VERDICTS),
        terminal(80, verify.print_verdicts, VERDICTS),
    ):
        assert [line.split() for line in lines if line[0] != ' '] == [
            ['STATE', 'IMAGE'],
            ['intact', 'lab:a:v1'],
            ['damaged', 'lab:b:v1'],
            ['on-damaged', 'lab:c:v1'],
            ['skipped', 'lab:d:v1'],
        ]
        assert '            - it is locked by pid 1' in lines
        assert ' '.join(' '.join(lines).split()).count('it differs') == 9
        assert max(map(len, lines)) <= 79
    # Reasons are folded once, for the columns that are there.
    assert terminal(40, verify.print_verdicts, VERDICTS)[3:8] == [
        '            - it differs it differs it',
        '              differs it differs it',
        '              differs it differs it',
        '              differs it differs it',
        '              differs',
    ]


def test_the_end_of_a_check_in_one_line() -> None:
    assert verify.summary(VERDICTS, 5 * MIB, 1.25) == (
        '4 images: 1 intact, 1 damaged, 1 on-damaged, 1 skipped; 5.0 MiB '
        'read in 1.2 s'
    )
    assert verify.summary([], 0, 0) == '0 images; 0 B read in 0.0 s'


@pytest.mark.parametrize('quiet', [0.0, 3600.0])
def test_all_that_was_read_is_counted(
    quiet: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it is shown, because it takes long, or not."""
    monkeypatch.setattr(verify, 'QUIET_SECONDS', quiet)
    stream = io.StringIO()
    threads, each = 8, 200
    together = threading.Barrier(threads)
    with verify.Watch(
        'line', threads * each * MIB, report.make_console(stream)
    ) as watch:
        def read() -> None:
            together.wait(SECONDS)
            for _ in range(each):
                watch.advance(MIB)

        running = [threading.Thread(target=read) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join(SECONDS)
    assert watch.count == threads * each * MIB
    shown = stream.getvalue().splitlines()
    if quiet:
        assert shown == []
    else:
        assert shown[0] == 'checking: reading 1.6 GiB'


def test_a_reading_begins_anew_with_another_total(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, 'QUIET_SECONDS', 0.0)
    stream = io.StringIO()
    reading = lint.Reading('line', report.make_console(stream))
    for total in (MIB, MIB, 5 * MIB, 5 * MIB):
        reading(1, total)
    reading.close()
    assert stream.getvalue().splitlines() == [
        'checking: reading 1.0 MiB', 'checking: reading 5.0 MiB'
    ]
    lint.Reading('line', report.make_console(stream)).close()


def row(name: str, base: Optional[str] = None, **keys: Any) -> Any:
    return {
        'name': name, 'base': base, 'on_disk': MIB, 'chain_on_disk': 2 * MIB,
        'time': None, 'environments': [], 'images': [], 'held': None,
        'locked': None, **keys,
    }


ROWS = [
    row('lab:top:v1', 'lab:base:v1', environments=[{}, {}], held='by me'),
    row('lab:base:v1', images=['lab:top:v1'], locked='pid 1'),
    row('lab:lost:v1', 'lab:gone:v1'),
    row('lab:one:v1', 'lab:two:v1'), row('lab:two:v1', 'lab:one:v1'),
]


def show_store(tree: bool) -> List[str]:
    return log(
        lambda *given, tree: store.print_store(*given, tree=tree),
        '/store', ROWS, [
            Unfinished('lab:new:v1', 10, MIB, None),
            Unfinished('lab:now:v1', 10, MIB, 'pid 2'),
        ], Survey((USED,), (GONE,), ()), tree=tree,
    )


def test_what_a_store_holds() -> None:
    lines = show_store(tree=False)
    assert [line.split() for line in lines[:6]] == [
        ['IMAGE', 'OWN', 'CHAIN', 'DATE', 'NEEDED', 'BY'],
        ['lab:top:v1', '1.0', 'MiB', '2.0', 'MiB', '1970-01-01', 'held,',
         '2', 'disks'],
        ['lab:base:v1', '1.0', 'MiB', '2.0', 'MiB', '1970-01-01', 'locked,',
         '1', 'image'],
        *([name, '1.0', 'MiB', '2.0', 'MiB', '1970-01-01', 'unused']
          for name in ('lab:lost:v1', 'lab:one:v1', 'lab:two:v1')),
    ]
    assert lines[6:] == [
        '', '/store: 5 images, 5.0 MiB; 1 environment',
        'lab:base:v1: locked by pid 1',
        'lab:new:v1: unfinished, 1.0 MiB; nobody is at it',
        'lab:now:v1: unfinished, 1.0 MiB; pid 2',
        '/gone/.lago/default: this environment is gone',
    ]


def test_a_tree_of_a_store_has_no_circles() -> None:
    assert show_store(tree=True)[:4] == [
        'lab:base:v1  1.0 MiB  locked, 1 image',
        '└── lab:top:v1  1.0 MiB  held, 2 disks',
        'lab:lost:v1  1.0 MiB  unused on lab:gone:v1, which is missing',
        '',
    ]


def image(**keys: Any) -> Any:
    return {
        'repository': 'lab', 'template': 'nfs', 'version': 'v1',
        'timestamp': 0, 'base': 'base:v1', 'index': '/www/repo.metadata',
        'url': None, 'format': None, 'compression': None,
        'compressed_size': None, 'size': 2048, 'virtual_size': None,
        'digests': {'sha512': '0' * 100}, 'metadata': {}, 'stored': None,
        'above': [], **keys,
    }


@pytest.mark.parametrize('keys, fetch, packing', [
    ({}, '2.0 KiB (2048 bytes)', 'unknown, not compressed'),
    ({'compression': '?', 'format': 'qcow2'}, 'unknown',
     'qcow2, compression unknown'),
    ({'compression': 'xz', 'compressed_size': 9, 'format': 'raw'},
     '9 B (9 bytes)', 'raw, compressed as .xz'),
    ({'compression': 'xz', 'format': 'raw'}, 'unknown',
     'raw, compressed as .xz'),
])
def test_an_image(keys: Any, fetch: str, packing: str) -> None:
    assert log(report_image.print_image, image(**keys), None) == [
        'lab/nfs:v1',
        '',
        'date          1970-01-01',
        'base          base:v1',
        'index         /www/repo.metadata',
        'file          ?',
        f'format        {packing}',
        f'to fetch      {fetch}',
        'file size     2.0 KiB (2048 bytes)',
        'virtual size  unknown',
        'in the store  no',
        f'sha512        {"0" * 64}',
        f'              {"0" * 36}',
    ]


def test_an_image_that_is_here() -> None:
    lines = log(report_image.print_image, image(
        stored={'name': 'lab:nfs:v1', 'disk': 4096},
        metadata={'distro': 'el7', 'a-very-long-name': 'x', 'odd\nkey': ''},
        above=[{'name': 'lab:top:v1'}],
    ), make_plan(make_layer('nfs', State.PRESENT, 0, 0)))
    text = '\n'.join(lines)
    assert (
        'in the store  lab:nfs:v1\non disk       4.0 KiB (4096 bytes)\n'
    ) in text
    assert (
        '\n\nMETADATA\na-very-long-name\n              x\n'
        'distro        el7\nodd key\n\nLAYER '
    ) in text
    assert lines[-2:] == ['STANDING ON IT IN THE STORE', 'lab:top:v1']


COLUMNS = ['NAME', 'SIZE', 'NOTE']
cells = st.text(st.characters(
    min_codepoint=33, max_codepoint=126
), min_size=1, max_size=40)


@settings(max_examples=30)
@given(
    st.lists(st.tuples(cells, cells, cells), min_size=1, max_size=4),
    st.sampled_from([20, 40, 80, 120]),
)
def test_no_cell_of_a_table_is_lost(
    rows: List[Tuple[str, str, str]], columns: int
) -> None:
    """Folded or not, all is there; a number is never folded if it fits."""
    logged, seen = log(_table, rows), terminal(columns, _table, rows)
    for lines in (logged, seen):
        letters = ''.join(''.join(lines).split())
        for line in rows:
            for cell in line:
                assert all(
                    letters.count(each) >= cell.count(each) for each in cell
                )
    for name, size, note in rows:
        assert [name, size, note] in [line.split() for line in logged]
        if len(size) <= columns - 8:
            assert any(size in line for line in seen)


def _table(rows: Any, console: report.Screen) -> None:
    tables.print_table(COLUMNS, rows, console, right=['SIZE'])


def test_in_a_log_a_row_is_a_line_however_long() -> None:
    rows = [('a' * 90, '1', 'b' * 90), ('c', '22', 'd')]
    assert log(_table, rows) == [
        f'NAME{" " * 86}  SIZE  NOTE',
        f'{"a" * 90}     1  {"b" * 90}',
        f'c{" " * 89}    22  d',
    ]


@pytest.mark.parametrize('timestamp, text', [
    (None, '1970-01-01'), (1e18, '?'), (float('nan'), '?'),
    (1500000000, '2017-07-14'),
])
def test_dates(timestamp: Optional[float], text: str) -> None:
    assert tables.date_text(timestamp) == text
