"""The figures quoted in the README and the notebook are those of the benchmark files."""

import re
from statistics import median

import pytest
import report
from conftest import prose

import lesson as loader

README = (loader.ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("row", report.comparison_rows())
def test_the_readme_quotes_the_comparison(row):
    assert row in README


@pytest.mark.parametrize("row", report.ablation_rows())
def test_the_readme_quotes_the_ablation(row):
    assert row in README


def test_the_ablation_is_that_of_the_notebook(lesson):
    assert set(report.read("ablation")["variants"]) > set(lesson.VARIANTS)


def test_the_notebook_reads_the_ablation_rightly(committed):
    """What section 13 says of ten seeds, which its own few seeds cannot show."""
    found, text = report.read("ablation")["variants"], prose(committed)
    steady = {name: sorted(variant["steadiness"]) for name, variant in found.items()}
    solved = {name: variant["solved_at_step"] for name, variant in found.items()}
    assert "of ten seeds, the worst of them forgets" in text
    assert steady["tiny memory"][0] < 0.9 <= steady["all parts"][0]
    assert "of ten seeds with twice the steps, most forget what they could" in text
    assert median(steady["plain target"]) < 0.9 <= steady["all parts"][0]
    assert "In the README's longer runs it does not show either" in text
    assert steady["truncation as a fall"] == steady["all parts"]
    assert "as early as the large one" in text
    assert median(solved["tiny memory"]) <= median(solved["all parts"])
    assert "of ten seeds, the unluckiest lose the cart now and then" in text
    assert steady["no mirrored steps"][0] < 0.8 < steady["all parts"][0]
    assert "of ten seeds, the median is the same" in text
    assert median(solved["start at zero"]) == median(solved["all parts"])


@pytest.mark.parametrize("name", ["original", "sb3"])
def test_the_readme_quotes_the_ratios_of_times(name):
    ratio = report.read("latest")["time_ratios"][name]
    assert f"{ratio['ratio']:.0f} times as long" in README
    assert f"{ratio['low']:.0f} to {ratio['high']:.0f}" in README


def test_the_readme_quotes_the_floor():
    assert f"takes {report.read('floor')['ratio']:.1f} times as long" in README


@pytest.mark.parametrize("row", report.scaling_rows())
def test_the_readme_quotes_the_cost(row):
    assert row in README


def test_the_readme_quotes_the_throughput_of_two_cores():
    ratio = median(report.read("scaling")["parallel"]["two_over_one"])
    assert ratio >= 1.8
    assert f"reach {ratio:.1f} times the throughput of one core" in README


def test_results_hold_all_that_is_promised():
    details = report.read("latest")
    fields = {
        "solved",
        "steps_to_solved",
        "seconds_to_solved",
        "steadiness",
        "us_per_step",
        "peak_mb",
    }
    assert all(fields <= set(run) for run in details["runs"])
    assert {"processor", "torch", "gym", "numpy"} <= set(details["machine"])
    seeds = {(run["implementation"], run["seed"]) for run in details["runs"]}
    assert len(seeds) == len(details["runs"])
    assert max(seed for _, seed in seeds) < 1000, "tuning seeds begin at 1000"


def test_the_bars_are_met():
    """What the README claims about speed, success and steadiness, from the result files."""
    details = report.read("latest")
    ours = details["summary"]["notebook"]
    assert ours["solved"] == ours["seeds"] >= 20
    assert ours["steps_p10_p50_p90_max"][1] <= 3000 and ours["steps_p10_p50_p90_max"][3] <= 12_000
    assert ours["steadiness_median"] >= 0.95
    assert details["time_ratios"]["original"]["ratio"] >= 50
    assert details["time_ratios"]["sb3"]["ratio"] >= 15
    assert report.read("floor")["ratio"] <= 2.0


def test_seeds_for_tuning_are_not_reported():
    text = (loader.ROOT / "benchmarks" / "search.py").read_text(encoding="utf-8")
    first, last = re.search(r"TUNING_SEEDS = range\((\d+), (\d+)\)", text).groups()
    assert int(first) >= 1000 and int(last) > int(first)
