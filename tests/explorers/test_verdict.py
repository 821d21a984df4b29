"""The explorer of verdicts: its rule is the library's, and it says whose setting it shows."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from typing import Any

import pytest

from cpm_lib import explorers
from cpm_lib.ablation import verdict as rule
from cpm_lib.claims import STATUSES, Claim, Tolerance
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record, read_all
from tests.explorers.conftest import Shown

SETTINGS: dict[str, dict[str, Any]] = {
    "table1.up": {"sign": "+", "interval": "images"},
    "table1.down": {"sign": "-", "min": 0.2, "interval": "images"},
    "table1.most": {"sign": "+", "max": 0.7, "interval": "images"},
    "table1.same": {"sign": "0", "within": 0.5, "interval": "seeds"},
    "table1.unknown": {"sign": "+", "interval": "images"},
}
INTERVALS: dict[str, list[tuple[float | None, float | None]]] = {
    "table1.up": [(0.2, 0.8), (0.4, 1.2)],
    "table1.down": [(-0.9, -0.5), (-0.3, -0.1)],
    "table1.most": [(0.1, 0.5), (0.8, 0.9)],
    "table1.same": [(-0.2, 0.4), (-0.6, 0.2)],
    "table1.unknown": [(None, None), (-0.4, -0.2)],
}


def quantity(low: float | None, high: float | None) -> dict[str, Any]:
    middle = None if low is None or high is None else (low + high) / 2
    return {"difference": middle, "low": low, "high": high, "samples": 3}


def claims() -> list[Claim]:
    paper = {"AP": 0.6, "AP75": None}
    tolerances = {id: Tolerance(level="E1", **given) for id, given in SETTINGS.items()}
    return [
        Claim(id, "Table 1, Sec. 4", "difference", "", "x > 0", paper, tolerance, (), "not run", "")
        for id, tolerance in tolerances.items()
    ]


def made() -> Record:
    """One record with two parts of every claim."""
    parts = {
        id.partition(".")[2]: {name: quantity(*ends) for name, ends in zip(("AP", "AP75"), both, strict=True)}
        for id, both in INTERVALS.items()
    }
    return Record("made", "", "E1", profile="quick", seed=0, differences={"table1": parts})


@pytest.fixture
def shown(show: Callable[..., Shown]) -> Shown:
    return show(explorers.verdict("table1.up", records=[made()], claims=claims()))


def choose(shown: Shown, id: str) -> None:
    shown.root.get_by_label("claim", exact=True).select_option(id)


def said(shown: Shown) -> str:
    """The verdict that the live text arrives at."""
    return shown.root.locator(".cpm-numbers b").last.inner_text()


def formulas(shown: Shown, name: str, cases: list[list[Any]]) -> list[Any]:
    """What one formula gives for many cases, asked in one go."""
    script = "(root, [name, cases]) => cases.map((given) => root.cpm.formulas[name](...given))"
    return list(shown.root.evaluate(script, [name, cases]))


def test_rule_is_the_librarys(shown: Shown) -> None:
    chance = random.Random(0)
    # Of few values, so that ends often lie exactly on a limit.
    values = [step / 10 for step in range(-10, 11)]
    cases, expected = [], []
    for _ in range(1000):
        sign = chance.choice(["+", "-", "0"])
        least, within = abs(chance.choice(values)), abs(chance.choice(values))
        most = None if sign == "0" else chance.choice([None, least + abs(chance.choice(values))])
        tolerance = Tolerance(sign=sign, min=least, max=most, within=within if sign == "0" else None)  # type: ignore[arg-type]
        ends: list[float | None] = sorted(chance.sample(values, 2))  # type: ignore[type-var]
        if chance.random() < 0.05:
            ends[chance.randrange(2)] = None
        asked = {key: getattr(tolerance, key) for key in ("sign", "min", "max", "within")}
        cases.append([asked, quantity(*ends)])
        expected.append(rule.outcome(tolerance, quantity(*ends)))
    assert formulas(shown, "outcome", cases) == expected
    seen = {(asked["sign"], outcome) for (asked, _), outcome in zip(cases, expected, strict=True)}
    assert len(seen) == 4 + 4 + 3, "sign 0 knows no 'sign only'"
    for reason in formulas(shown, "reason", cases):
        compared = re.findall(r"(?<![−\d.])(?=([−\d.]+) ([<=>]) (?:[−a-z]+ )?([−\d.]+))", reason)
        assert compared or reason == "the record has no interval"
        for one, between, other in compared:
            left, right = (float(number.replace("−", "-")) for number in (one, other))
            assert {"<": left < right, "=": left == right, ">": left > right}[between], reason


def test_status_is_the_librarys(shown: Shown) -> None:
    chance = random.Random(1)
    lists = [chance.choices(["holds", "sign only", "open", "other side"], k=chance.randint(1, 4)) for _ in range(200)]
    assert formulas(shown, "status", [[outcomes] for outcomes in lists]) == [rule.status(one) for one in lists]


def test_a_wider_interval_keeps_its_middle(shown: Shown) -> None:
    for factor in (0.25, 1, 2.5, 4):
        found = shown.formula("widened", {"difference": 0.3, "low": 0.1, "high": 0.6}, factor)
        assert found["difference"] == 0.3
        assert (found["low"], found["high"]) == pytest.approx((0.3 - factor * 0.2, 0.3 + factor * 0.3))
    assert shown.formula("widened", quantity(None, 0.2), 2)["high"] == 0.2


def test_every_claim_stands_as_the_register_has_it(show: Callable[..., Shown]) -> None:
    judged = {one.claim.id: one for one in rule.judge_all() if one.parts}
    explorer = explorers.verdict(next(iter(judged)))
    assert len(explorer._repr_html_()) < 300_000
    shown = show(explorer)
    for id, one in judged.items():
        choose(shown, id)
        assert said(shown) == one.status
        outcomes = shown.root.locator(".cpm-parts b").all_inner_texts()
        assert outcomes == [outcome for name in one.claim.values for _, part, _, outcome in one.parts if part == name]
        assert "The register's setting" in shown.numbers and "Your setting" not in shown.numbers
        drawn = shown.root.locator(".cpm-scene .cpm-interval").count()
        assert drawn == sum(part["low"] is not None for _, _, part, _ in one.parts)
    menu = shown.root.get_by_label("claim", exact=True)
    headings = menu.locator("optgroup").evaluate_all("(groups) => groups.map((group) => group.label)")
    counts = {status: sum(one.status == status for one in judged.values()) for status in STATUSES}
    assert headings == [f"{status} ({count})" for status, count in counts.items() if count]


def test_sliders_change_the_verdict_and_say_whose_it_is(shown: Shown) -> None:
    assert said(shown) == "reproduced"
    items = shown.root.locator(".cpm-parts li")
    assert items.nth(0).inner_text() == "AP, seed 0: low 0.20 > min 0: holds"
    shown.slide("least size (min)", 0.3)
    assert items.nth(0).inner_text() == "AP, seed 0: 0 < low 0.20 < min 0.30: sign only"
    assert said(shown) == "partly"
    assert "Your setting, not the register's: min 0.30 instead of 0." in shown.numbers
    assert "The register says: reproduced." in shown.numbers
    shown.slide("width factor", 2)
    assert items.nth(0).inner_text() == "AP, seed 0: low −0.10 < 0 and high 1.10 > 0: open"
    assert said(shown) == "not resolved"
    assert "intervals 2.00 times as wide as measured" in shown.numbers
    assert shown.root.locator(".cpm-scene .cpm-measured").count() == 2
    shown.root.get_by_role("button", name="start again").click()
    assert said(shown) == "reproduced" and "The register's setting" in shown.numbers
    assert not shown.root.locator(".cpm-scene .cpm-measured").count()


def test_keys_choose_and_move(shown: Shown) -> None:
    shown.press("width factor", "ArrowLeft")
    assert "intervals 0.75 times as wide" in shown.numbers
    before = shown.root.locator(".cpm-about").inner_text()
    shown.press("claim", "ArrowDown")
    assert shown.root.locator(".cpm-about").inner_text() != before
    assert "The register's setting" in shown.numbers, "another claim begins with its own"
    shown.press("claim", "ArrowUp")
    shown.press("least size (min)", "ArrowRight", 3)
    assert "min 0.06 instead of 0" in shown.numbers


@pytest.mark.parametrize(
    ("id", "verdict", "reasons"),
    [
        ("table1.down", "partly", ("−high 0.50 > min 0.20: holds", "0 < −high 0.10 < min 0.20: sign only")),
        ("table1.most", "partly", ("low 0.10 > min 0 and high 0.50 < max 0.70: holds", "low 0.80 > max 0.70: ")),
        ("table1.same", "partly", ("low −0.20 > −within −0.50 and high 0.40 < within 0.50", "low −0.60 < −with")),
        ("table1.unknown", "contradicted", ("the record has no interval: open", "high −0.20 < 0: other side")),
    ],
)  # fmt: skip
def test_every_kind_of_tolerance(shown: Shown, id: str, verdict: str, reasons: tuple[str, str]) -> None:
    choose(shown, id)
    assert said(shown) == verdict
    for reason, item in zip(reasons, shown.root.locator(".cpm-parts li").all_inner_texts(), strict=True):
        assert reason in item
    moved = "most size (within)" if id == "table1.same" else "least size (min)"
    shown.slide(moved, 0)
    assert shown.root.locator(".cpm-control input:visible").count() == 2


def test_the_range_is_where_an_interval_holds(shown: Shown) -> None:
    """Drawn: an interval that holds lies in the shaded range, and no other does."""
    for id in SETTINGS:
        choose(shown, id)
        area = shown.root.locator(".cpm-scene .cpm-asked").first.bounding_box()
        assert area
        for drawn in shown.root.locator(".cpm-scene .cpm-interval").all():
            reach = drawn.locator("path").bounding_box()
            assert reach
            inside = area["x"] <= reach["x"] + 1 and reach["x"] + reach["width"] <= area["x"] + area["width"] + 1
            assert inside == ("cpm-holds" in (drawn.get_attribute("class") or "")), id


def test_words_are_legible_on_a_phone(show: Callable[..., Shown]) -> None:
    explorer = explorers.verdict("table1.up", records=[made()], claims=claims())
    shown = show(explorer, is_mobile=True, viewport={"width": 360, "height": 740})
    box = shown.root.locator(".cpm-scene").bounding_box()
    assert box
    assert 12 * box["width"] / 360 > 9, "pixels that 12 units of the drawing take"
    assert shown.page.evaluate("document.documentElement.scrollWidth") <= 360


def test_without_scripts_a_picture_stays(show: Callable[..., Shown]) -> None:
    shown = show(explorers.verdict("table1.down", records=[made()], claims=claims()), java_script_enabled=False)
    assert shown.root.locator(".cpm-still img").is_visible()


def test_a_claim_that_nothing_judges_is_one_line() -> None:
    with pytest.raises(UserError, match=r"judges 'table1\.upp'; did you mean 'table1\.up'"):
        explorers.verdict("table1.upp", records=[made()], claims=claims())
    with pytest.raises(UserError, match=r"judges 'table1\.up'; make some"):
        explorers.verdict("table1.up", records=[], claims=claims())


def test_seeds_are_named(show: Callable[..., Shown]) -> None:
    real = [record for record in read_all() if record.id.startswith("paired-quick")]
    shown = show(explorers.verdict("table1.rsm-gain", records=real))
    runs = [text.partition(":")[0] for text in shown.root.locator(".cpm-parts li").all_inner_texts()]
    assert runs == [f"{part}, seed {seed}" for part in ("AP", "AP75") for seed in range(3)]
