"""docs/bench.md and docs/bench.svg, made from the figures that are kept."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from tests.bench import figures
from tests.bench.figures import FLOOR, PORT, SHELL, TARGETS, Figures, Runs, Target

DOCS = figures.FOLDER.parent
HEAD = """\
# How fast

The shell launcher and the port, paired and alternating in one run on the same engine, with the same stub agent and the
same sidecar; the session ends as soon as it is up. But for row k the token goes into the bottle, as the shell launcher
has it. What is measured is a whole command on a terminal, from outside. The
*floor* is what a start and a teardown ask of the engine, issued by a script as early as each call can begin, with no
launcher around it (`tests/bench/floor.sh`): the distance to it is what a launcher costs.

    scripts/bench --rows 0,a,b --pairs 3                  # a look: prints a table, and changes nothing
    scripts/bench --engine 28 --rows 0,a,b,c,n --write    # keeps these rows, and makes this page anew
    scripts/bench --engine 28 --rows d --at-once 15 --rounds 15 --write

| row | what | how often |
| --- | --- | --- |
| 0 | start to the question | `--pairs`, 15 |
| a | `y` to the session's first byte | the same runs |
| b | end of the session to the launcher's end | the same runs |
| c | `--help`, `list`, `info`, `start --dry-run` | `--pairs` |
| d | bottles at once (`--at-once`): until all are up, until all are gone, and their memory | `--rounds`, 3 |
| e | `cleanup` of a hundred leftovers; others must have no bottles on that engine meanwhile | `--rounds` |
| k | what a broker adds to (a), from a pair of starts; the sidecar must open TLS, which the stub does not | `--pairs` |
| r | a whole start over ssh beside a local one; 50 ms each way, and 250, which counts round trips | `--pairs` |
| s | the bottle's self-test, by its own clock | `--pairs` |
| n | docker calls, counted in a run of its own | once |
| p | when each of them begins and ends, in a run of its own, which the looking at makes a little longer | once |

The shell launcher has room for fifteen bottles on an engine as it comes, so beyond that there is none of it. Memory is
that of the launchers and their reapers, what they share counted once, with the docker clients apart. The most memory
is looked for in a run of its own. Every run is in `docs/bench/`. A cell has the median, and in brackets the least, the
quartiles and the most; a ratio is the median of the pairs'. A machine that has other work to do tells little.

The sidecar is a stub that starts in milliseconds, as the real one does (`tests/bench/sidecar`); another one is
measured with `CLAUDE_BOTTLE_PIPELOCK_IMAGE`. What a request costs in it and in the broker, processor time for each MB
with it, `scripts/traffic` measures: [traffic.md](bench/traffic.md). For row r the address names the engine's socket
where that is not the usual one: where the host has to be asked for it, a start over ssh on 28 took 1.4 of a local one,
and seven round trips more.

## Where a target is not met

- Start to the question: two docker calls, one after the other, are most of it (0.13 s on 20.10, 0.23 s on 28); the
  shell makes more of them, but begins sooner than Python does. It was 0.48 in an earlier run, of a slower hour.
- `y` to the first byte: the floor itself takes 0.78 of the shell's time on 20.10 and 0.62 on 28, and the port is
  within a seventh of the floor. What it waits for one after the other is in the table of calls: a network, two
  containers, a copy, two starts, the self-test and the session's own exec; what waits for nothing runs beside that,
  and two processors are busy with it. The self-test alone listens for a quarter of a second, and the shell has none.
- End of the session: on 20.10 the floor takes 0.85 of the shell's time.
- Fifteen at once: both processors are the engine's from the first start to the last; who asks makes little
  difference. The self-tests of fifteen bottles are in it, which the shell has not. On 28 other work went on beside
  some rounds; beside those of other numbers, on both engines, small work did.
- Docker calls: two are the look for what killed launches have left; they are made beside the self-test, and nothing
  waits for them but the session. One puts the bottle's authority into the sidecar.
- What a broker adds, with the real sidecar, where 150 ms are wanted: 131 ms on 20.10 (8 pairs: -107 to 311), 93 ms on
  28 with docker's own client 28.2.2 (12 pairs: -89 to 321), 182 ms with Debian's 28.5.2 (14 pairs: -137 to 603), with
  which the rows of 28 below are measured: that client takes 52 ms of processor time for a `ps`, docker's own 19 ms,
  and a start makes twenty calls. 238 ms before images were built only where that could make another one.
- `cleanup`: both launchers ask for all networks in one call, and the engine removes them one after the other, a tenth
  of a second each; four calls side by side took as long as one.

![bars](bench.svg)
"""
COLUMNS = ("", "shell", "port", "floor", "of the shell", "of the floor", "target", "met")
MET = {True: "yes", False: "**no**", None: ""}


def table(found: Figures) -> str:
    """Return one engine's rows as a table."""
    rows = found.counted()
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(_row(name, rows[name]) for name in sorted(rows, key=figures.order))]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _row(name: str, runs: Runs) -> tuple[str, ...]:
    ratios = [figures.ratio(runs, PORT, to) for to in (SHELL, FLOOR)]
    target = TARGETS.get(name, Target())
    return (
        figures.title(name),
        *(_cell(name, runs.get(side, [])) for side in (SHELL, PORT, FLOOR)),
        *("" if each is None else f"{each:.2f}" for each in ratios),
        _asked(name, target),
        MET[target.held(runs)],
    )


def _cell(name: str, values: list[float]) -> str:
    if not values:
        return ""
    each = figures.spread(values)
    middle = figures.shown(name, each.median)
    if len(values) == 1:
        return middle
    scale = 1 << 20 if name.startswith(figures.MEMORY) else 1
    digits = 0 if scale > 1 else 3 if each.median < 1 else 2
    rest = (each.least, each.lower, each.upper, each.most)
    return f"{middle} ({', '.join(f'{value / scale:.{digits}f}' for value in rest)})"


def _asked(name: str, target: Target) -> str:
    words = [
        f"{target.shell} of the shell" if target.shell is not None else "",
        f"{target.floor} of the floor" if target.floor is not None else "",
        figures.shown(name, target.value) if target.value is not None else "",
    ]
    return ", ".join(filter(None, words))


def page(every: Sequence[Figures]) -> str:
    """Return the page."""
    parts = [HEAD]
    for found in every:
        runs = found.rows.get("session", {}).get(PORT, [])
        parts.append(
            f"\n## Engine {found.server}\n\nClient {found.client}, {found.cores} cores, {len(runs)} pairs.\n\n"
        )
        parts += [table(found), profile(found)]
    return "".join([*parts, large()])


def large() -> str:
    """Return what ``scripts/large`` has kept."""
    kept = figures.FOLDER / "large.md"
    return f"\n{kept.read_text()}" if kept.exists() else ""


def profile(found: Figures) -> str:
    """Return when each docker call of one start began and ended, as a table; nothing where that was not looked at."""
    if not found.profile:
        return ""
    lines = ["", "One start and teardown of the port, milliseconds from the `y`:", ""]
    lines += ["| call | from | to |", "| --- | --- | --- |"]
    lines += [f"| {what} | {began * 1000:.0f} | {ended * 1000:.0f} |" for what, began, ended in found.profile]
    return "\n".join(lines) + "\n"


COLOURS = {SHELL: "#9a9a9a", PORT: "#2f6fb5", FLOOR: "#d9a441"}
PICTURED = ("question", "session", "end", "help", "list", "up 15", "gone 15", "up 50", "gone 50", "cleanup")
WIDTH, LEFT, BAR, LINE, GAP, TOP = 880, 390, 360, 16, 12, 60


def picture(every: Sequence[Figures]) -> str:
    """Return bars of the medians, in each row as long as they are to that row's longest."""
    height, parts = TOP, [_legend()]
    for found in every:
        parts.append(_text(10, height + 12, f"engine {found.server}", "bold"))
        height += LINE + GAP
        for name in PICTURED:
            if name in found.rows:
                lines = _bars(name, found.rows[name], height)
                parts += lines
                height += len(found.rows[name]) * LINE + GAP
        height += GAP
    size = f'width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}"'
    style = 'font-family="sans-serif" font-size="12"'
    ground = f'<rect width="{WIDTH}" height="{height}" fill="white"/>'
    return "\n".join([f'<svg xmlns="http://www.w3.org/2000/svg" {size} {style}>', ground, *parts, "</svg>"]) + "\n"


def _text(x: float, y: float, words: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(words)}</text>'


def _legend() -> str:
    parts = [_text(10, 24, "Seconds from outside, median; shorter is better", "bold")]
    for place, (side, colour) in enumerate(COLOURS.items()):
        x = LEFT + place * 90
        parts += [f'<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/>', _text(x + 18, 24, side)]
    return "\n".join(parts)


def _bars(name: str, runs: Runs, top: int) -> list[str]:
    medians = {side: figures.spread(runs[side]).median for side in COLOURS if runs.get(side)}
    longest = max(medians.values())
    parts = [_text(10, top + 12, figures.title(name).replace("`", ""))]
    for place, (side, value) in enumerate(medians.items()):
        y, width = top + place * LINE, max(1.0, BAR * value / longest)
        parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{LINE - 3}" fill="{COLOURS[side]}"/>')
        parts.append(_text(LEFT + width + 6, y + 11, figures.shown(name, value)))
    return parts


def write() -> None:
    """Write both from what is kept."""
    every = figures.load_all()
    (DOCS / "bench.md").write_text(page(every))
    (DOCS / "bench.svg").write_text(picture(every))
