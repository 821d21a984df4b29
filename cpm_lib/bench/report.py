"""The result of a benchmark for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cpm_lib import ledger

Row = dict[str, Any]

_COLUMNS = {
    "": lambda row: row["name"],
    "median ms": lambda row: _number(row["median_s"], 1e3, 2),
    "from": lambda row: _number(row["low_s"], 1e3, 2),
    "to": lambda row: _number(row["high_s"], 1e3, 2),
    "CPU ms": lambda row: _number(row.get("cpu_s"), 1e3, 2),
    "share": lambda row: _number(row.get("share"), 100, 1, " %"),
    "GFLOP": lambda row: _number(row["flops"], 1e-9, 2),
    "GFLOP/s": lambda row: _number(row["flops_per_s"], 1e-9, 1),
    "images/s": lambda row: _number(row.get("images_per_s"), 1, 1),
    "peak MB": lambda row: _number(row["peak_mb"], 1, 0),
    "waits": lambda row: _number(row.get("synchronisations"), 1, 0),
    "ratio": lambda row: _number(row["ratio"], 1, 3),
    "against": lambda row: row["against"] or "",
}


def table(content: dict[str, Any]) -> list[list[str]]:
    """Rows of text for an aligned table, a head first; columns that nothing fills are left out."""
    cells = {head: [cell(row) for row in content["rows"]] for head, cell in _COLUMNS.items()}
    filled = {head: column for head, column in cells.items() if any(column)}
    return [list(filled), *map(list, zip(*filled.values(), strict=True))]


def details(record: str, beginning: str = "") -> ledger.Table:
    """The whole table of one kept benchmark, for a page; `beginning` of the names chooses rows."""
    content = ledger.read(record).metrics
    rows = [row for row in content["rows"] if row["name"].startswith(beginning)]
    first, *rest = table(content | {"rows": rows})
    return ledger.Table(first, rest, head(content))


def overview(records: Sequence[str]) -> ledger.Table:
    """One row for each kept comparison: seconds of both sides and the ratios of time, CPU time, operations, memory; in
    brackets the bound of memory, see `comparison.memory_ratios`."""
    columns = ["", "against", "RoIs", "seconds", "time", "either order", "CPU", "operations", "memory"]
    rows = []
    for id in records:
        content = ledger.read(id).metrics
        ours, theirs = (row for row in content["rows"] if "stage_rois" in row)
        orders = f"{ours['ratio_first']:.2f}, {_number(ours['ratio_second'], 1, 2) or '–'}"
        seconds = " / ".join(f"{row['median_s']:.1f}" for row in (ours, theirs))
        ratios = [f"{ours['ratio']:.2f}", orders, f"{ours['cpu_ratio']:.2f}", f"{ours['flop_ratio']:.2f}"]
        name = f"{ours['name']}, {content['work']}" + (f", {content['batch']} images" if content["batch"] > 1 else "")
        rois = " / ".join(str(number) for number in dict.fromkeys(content["rois"]))
        memory = _number(content.get("memory_ratio"), 1, 2) or "–"
        if content.get("memory_bound"):
            memory += f" ({content['memory_bound']:.2f})"
        rows.append([name, theirs["name"], rois, seconds, *ratios, memory])
    caption = (
        "Seconds of both; then ratios, ours over theirs, medians of one run in which both take turns. Memory in "
        "brackets: what weights, gradients and moments alone would make it."
    )
    return ledger.Table(columns, rows, caption)


def head(content: dict[str, Any]) -> str:
    """One line: what ran where."""
    facts = [content["work"], content.get("preset") or content.get("data")]
    if "image" in content:
        facts.append("{} x {}".format(*content["image"]))
    facts += [f"{key} {content[key]}" for key in ("batch", "rois") if key in content]
    facts += [content["dtype"], f"{content['device']} ({content['processor']})", f"{content['threads']} threads"]
    return ", ".join(map(str, facts))


def conclusions(content: dict[str, Any]) -> list[str]:
    """Sentences below the table."""
    lines = []
    ours = next((row for row in content["rows"] if "ratio_first" in row), None)
    if ours is not None:
        orders = f"ours first {ours['ratio_first']:.3f}, second {_number(ours['ratio_second'], 1, 3) or '-'}"
        lines.append(
            f"{ours['name']} over {ours['against']}: time {ours['ratio']:.3f} ({orders}; CPU time "
            f"{ours['cpu_ratio']:.3f}), operations {ours['flop_ratio']:.3f}"
        )
    layouts = {row["name"]: row["channels_last"] for row in content["rows"] if "channels_last" in row}
    if len(set(layouts.values())) > 1:
        lines.append(
            "; ".join(f"{name}: channels {'last' if last else 'first'}" for name, last in layouts.items())
            + " (torchvision's is the faster of both)"
        )
    if content.get("memory_ratio"):
        held = " and ".join(f"{row['held_mb']:.0f}" for row in content["rows"] if "held_mb" in row)
        kept = "weights, gradients and moments" if content["work"] == "training" else "weights"
        lines.append(
            f"peak memory: {content['memory_ratio']:.3f}; {kept} ({held} MB) alone would make it "
            f"{content['memory_bound']:.3f}"
        )
    lines += [f"{name}: {source}" for name, source in content.get("sources", {}).items()]
    if "speed_table" in content:
        needed, found = content["speed_table"]["rois_needed"], content["speed_table"]
        enough = f"at {needed:.0f} RoIs per image" if needed is not None else "at no number of RoIs"
        lines.append(f"{content['against']} would take {found['printed_ratio']:.2f} times as long (Table 8) {enough}")
    if "fit" in content and content["fit"]["slope_s"] is not None:
        fit = content["fit"]
        unit, r2 = "10^6 pixels" if fit["x"] == "area" else fit["x"], _number(fit["r2"], 1, 4) or "-"
        sign = "-" if fit["slope_s"] < 0 else "+"
        lines.append(f"{1e3 * fit['intercept_s']:.2f} ms {sign} {1e3 * abs(fit['slope_s']):.4g} ms x {unit}, R^2 {r2}")
    if "decoding_share" in content:
        lines.append(f"decoding: {content['decoding_share']:.0%} of the work on an image")
    targets = next((row for row in content["rows"] if "share_of_forward" in row), None)
    if targets is not None:
        lines.append(f"targets: {targets['share_of_forward']:.2%} of the forward pass of their branch")
    if targets is not None and "speedup" in targets:
        lines.append(f"{targets['speedup']:.0f} times as fast as the loop; {'' if targets['equal'] else 'NOT '}equal")
    return [*lines, *([content["note"]] if "note" in content else [])]


def _number(value: float | None, factor: float, digits: int, unit: str = "") -> str:
    return "" if value is None else f"{value * factor:.{digits}f}{unit}"
