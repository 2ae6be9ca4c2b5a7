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
def test_readme_and_notebook_quote_the_ablation(row, committed):
    assert row in README
    assert row in prose(committed)


def test_the_notebook_reads_the_ablation_rightly(committed):
    variants = report.read("ablation")["variants"]
    ours = variants["the notebook's settings"]
    found = {name.split(":")[0]: variant for name, variant in variants.items()}
    text = prose(committed)
    assert "Scaled observations make every seed learn within the budget" in text
    assert None in found["unscaled observations"]["solved_at_step"]
    assert None not in ours["solved_at_step"]
    assert "The careful target and the scaled rewards keep what was learned" in text
    for name in ("plain target", "rewards of 1"):
        assert median(found[name]["steadiness"]) < 0.8 < median(ours["steadiness"])
    assert "Mirrored steps protect the unluckiest seed" in text
    assert min(found["no mirrored steps"]["steadiness"]) < min(ours["steadiness"]) / 2
    assert "the optimistic start saves steps" in text
    assert median(found["start at zero"]["solved_at_step"]) > median(ours["solved_at_step"])
    assert "Double DQN and the choice of the player make little difference here" in text
    for name in ("Double DQN", "play by the policy network"):
        assert median(found[name]["steadiness"]) == median(ours["steadiness"])


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
