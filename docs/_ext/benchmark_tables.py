"""Tables of what a benchmark stored: a line for each case, with the mean and the range of its runs."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean
from typing import Any

Row = dict[str, Any]

#: Keys of a row that describe the run and not the case.
_OF_THE_RUN = ("seed", "measured", "environment", "seconds_total", "n_steps")
#: Numbers that are settings of a case, not what was measured.
_SETTINGS = ("pixel_fraction", "learning_rate", "class_floor", "degradation", "max_seconds")
#: A measure of more parts than this, such as the recall of ten classes, has a table of its own.
_MOST_PARTS = 6


def tables(rows: list[Row]) -> list[str]:
    """Give the lines of all tables of a file of results.

    Rows that measure the same things share a table. Of a fit that was scored after several epochs the last score stands
    for all. Lists within a measure, such as the cells of a map, are left out.
    """
    lines: list[str] = []
    for group in _alike([_flat(row) for row in _last_epochs(rows)]):
        lines += _table(group)
    return lines


def _last_epochs(rows: list[Row]) -> list[Row]:
    """Keep the last row of each fit; on another processor it is another fit."""
    kept: dict[str, Row] = {}
    for k, row in enumerate(rows):
        if "epoch" not in row:
            kept[f"row {k}"] = row
            continue
        case = {key: row[key] for key in row if key == "seed" or _is_case(key, row[key])}
        fit = str((case, row.get("measured", {}).get("processor")))
        if fit not in kept or kept[fit]["epoch"] <= row["epoch"]:
            kept[fit] = row
    return [{key: value for key, value in row.items() if key != "epoch"} for row in kept.values()]


def _is_case(key: str, value: Any) -> bool:
    return key not in (*_OF_THE_RUN, "epoch") and not isinstance(value, list) and not _is_measure(key, value)


def _flat(row: Row) -> Row:
    """Raise measures within measures by a level, and drop curves and maps."""
    flat: Row = {}
    for key, value in row.items():
        if key in _OF_THE_RUN or key == "settings" or not isinstance(value, dict):
            flat[key] = value
        elif not any(isinstance(part, list) for part in value.values()):
            flat[key] = _raised(value)
    return flat


def _raised(value: dict[str, Any]) -> dict[str, Any]:
    parts: dict[str, Any] = {}
    for name, part in value.items():
        if isinstance(part, dict):
            parts |= {f"{name} {inner}": number for inner, number in part.items()}
        else:
            parts[name] = part
    return parts


def _alike(rows: list[Row]) -> list[list[Row]]:
    """Part rows by what was measured, in the order in which the measures first occur."""
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        cases = tuple(sorted(key for key in row if not _is_measure(key, row[key]) and key not in _OF_THE_RUN))
        what = (str(row.get("what", "")), *cases)
        groups.setdefault(what, []).append(row)
    return list(groups.values())


def _is_measure(key: str, value: Any) -> bool:
    if key in (*_SETTINGS, "settings"):
        return False
    if isinstance(value, dict):
        return bool(value) and all(isinstance(part, int | float) for part in value.values())
    return isinstance(value, float)


def _table(rows: list[Row]) -> list[str]:
    """Give a line per case, what all cases share above it, and measures with many parts in tables below it."""
    cases = [key for key in rows[0] if key not in _OF_THE_RUN and not _is_measure(key, rows[0][key])]
    measures: dict[str, None] = {}
    for row in rows:
        measures |= {key: None for key in row if key not in _OF_THE_RUN and _is_measure(key, row[key])}
    groups: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(value_text(row.get(key)) for key in cases), []).append(row)
    told = [len(groups) == 1 or len({key[k] for key in groups}) > 1 for k in range(len(cases))]
    shared = [(case, value) for case, value, tell in zip(cases, next(iter(groups)), told, strict=True) if not tell]
    lines = []
    if any(value for _, value in shared):
        lines += ["In all rows: " + ", ".join(f"{_words(case)}: {value}" for case, value in shared if value) + ".", ""]
    named = {tuple(v for v, tell in zip(key, told, strict=True) if tell): members for key, members in groups.items()}
    wide = [name for name in measures if _parts(rows, name) > _MOST_PARTS]
    narrow = sorted((name for name in measures if name not in wide), key=lambda name: _parts(rows, name) > 0)
    head = [*(_words(case) for case, tell in zip(cases, told, strict=True) if tell), *map(_words, narrow), "runs"]
    lines += [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for key, members in named.items():
        cells = [_summary([row[name] for row in members if name in row]) for name in narrow]
        lines.append(f"| {' | '.join([*key, *cells, str(len(members))])} |")
    lines.append("")
    if len(named) == 1:
        together = {_words(name): [row[name] for row in rows if name in row] for name in wide}
        return [*lines, *_table_of_parts("", together), ""] if wide else lines
    labels = _labels(list(named))
    for name in wide:
        columns_of = {
            label: found
            for label, members in zip(labels, named.values(), strict=True)
            if (found := [row[name] for row in members if name in row])
        }
        lines += [*_table_of_parts(_words(name), columns_of), ""]
    return lines


def _parts(rows: list[Row], name: str) -> int:
    return max(len(row[name]) if isinstance(row.get(name), dict) else 0 for row in rows)


def _labels(keys: list[tuple[str, ...]]) -> list[str]:
    """Name cases by as few of their values as tell them apart."""
    for n in range(1, len(keys[0]) + 1):
        labels = [", ".join(value for value in key[:n] if value) for key in keys]
        if len({*labels}) == len(keys):
            break
    return labels


def _table_of_parts(title: str, columns: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Give a line for each part of a measure, with the mean over the runs of each column."""
    parts = dict.fromkeys(part for runs in columns.values() for value in runs for part in value)
    lines = [f"| {' | '.join([title, *columns])} |", "|" + "---|" * (1 + len(columns))]
    for part in parts:
        cells = (_mean([value[part] for value in runs if part in value]) for runs in columns.values())
        lines.append(f"| {' | '.join([_words(part), *cells])} |")
    return lines


def _words(key: str) -> str:
    return key.replace("_", " ")


def _mean(values: list[Any]) -> str:
    if not values:
        return ""
    # A single count stays a whole number.
    return f"{values[0]:,}" if len(values) == 1 and isinstance(values[0], int) else _number(mean(values))


def _summary(values: list[Any]) -> str:
    if not values:
        return ""
    if isinstance(values[0], dict):
        return "<br>".join(f"{part}: {_mean([value[part] for value in values if part in value])}" for part in values[0])
    text = _number(mean(values))
    return text if len(values) == 1 else f"{text}<br>({_number(min(values))} – {_number(max(values))})"


def _number(value: float) -> str:
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        # Four digits near 1: accuracies of 0.9988 and 0.9995 are not the same.
        digits = (
            0 if abs(value) >= 1000 else 1 if abs(value) >= 20 else 2 if abs(value) > 1 else 4 if value > 0.95 else 3
        )
        return f"{value:,.{digits}f}"
    return f"{value:.2g}"


def value_text(value: Any) -> str:
    """Give a setting or a published value in words, for a cell of a table."""
    if isinstance(value, dict):
        return ", ".join(
            f"{key} ({value_text(part)})" if isinstance(part, dict) else f"{key}: {value_text(part)}"
            for key, part in value.items()
        )
    if isinstance(value, list):
        return ", ".join(f"{part:.3g}" if isinstance(part, float) else value_text(part) for part in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "" if value is None else str(value).replace("|", "\\|")


def origin(rows: list[Row], environment: dict[str, Any]) -> str:
    """Say on what, when and with which seeds the rows were measured; rows of one file may come from several runs."""
    runs = [{**environment, **(row.get("measured") or {})} for row in rows]
    machines = sorted({_machine(run) for run in runs})
    dates = sorted(run["date"][:10] for run in runs if run.get("date"))
    undated = sum(not run.get("date") for run in runs)
    seeds = sorted({row["seed"] for row in rows if "seed" in row})
    parts = [f"Measured on {'; '.join(machines)}"]
    if dates:
        parts.append(f"between {dates[0]} and {dates[-1]}" if dates[0] != dates[-1] else f"on {dates[0]}")
    text = ", ".join(parts)
    if undated:
        text += f"; {undated} of {len(rows)} rows carry no date" if dates else "; the rows carry no date"
    # Only what a row says of itself: the file's environment is that of the last run alone.
    commits = sorted({str(row["measured"]["commit"]) for row in rows if (row.get("measured") or {}).get("commit")})
    if commits:
        text += f"; commit {', '.join(commits)}"
    if seeds:
        text += f"; seeds {_ranges(seeds)}"
    return text + "."


def _ranges(numbers: list[int]) -> str:
    """Join sorted whole numbers; three or more that follow each other become a range."""
    ends = [0, *(k for k, (a, b) in enumerate(pairwise(numbers), 1) if b != a + 1), len(numbers)]
    runs = [numbers[start:stop] for start, stop in pairwise(ends)]
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _machine(run: dict[str, Any]) -> str:
    device = run.get("device", "cpu")
    where = str(run.get("processor", "an unnamed processor"))
    if device != "cpu":
        where += f" with {device}"
    threads = run.get("threads")
    torch = f", PyTorch {run['torch']}" if run.get("torch") else ""
    return where + (f" ({threads} thread{'s' if threads != 1 else ''}{torch})" if threads else "")
