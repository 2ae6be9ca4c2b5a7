"""The committed notebook: its form, its outputs, and the numbers in its prose."""

import ast
import base64
import io
import itertools
import json
import re

import pytest
from conftest import prose
from PIL import Image
from refresh_notebook import CLEAN_METADATA, code_hash

import lesson as loader


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def text_of(cell):
    """All text that a cell has put out."""
    parts = []
    for output in cell["outputs"]:
        parts.append("".join(output.get("text", "")))
        for kind in ("text/markdown", "text/plain"):
            parts.append("".join(output.get("data", {}).get(kind, "")))
    return "\n".join(parts)


def metrics_of(notebook):
    """The metrics that the committed run printed."""
    for cell in code_cells(notebook):
        found = re.search(r"^\{\n.*^\}$", text_of(cell), re.DOTALL | re.MULTILINE)
        if found:
            return json.loads(found.group())
    raise AssertionError("no cell prints the metrics")


# --- form ----------------------------------------------------------------------------------


def test_code_cells_are_short_and_follow_prose(committed):
    kinds = [cell["cell_type"] for cell in committed["cells"]]
    assert kinds[0] == "markdown"
    assert ("code", "code") not in list(itertools.pairwise(kinds))
    for cell in code_cells(committed):
        lines = [line for line in "".join(cell["source"]).splitlines() if line.strip()]
        assert 1 <= len(lines) <= 31, "".join(cell["source"])[:80]


def test_parameters_are_plain_assignments(committed, lesson):
    tagged = [c for c in code_cells(committed) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1
    statements = ast.parse("".join(tagged[0]["source"])).body
    names = {statement.targets[0].id for statement in statements}
    for statement in statements:
        ast.literal_eval(statement.value)
    assert names == set(lesson.RULES) - set(lesson.TASK)


def test_the_table_of_parameters_agrees_with_the_cell_and_the_original(committed, lesson):
    rows = re.findall(
        r"^\| (`[A-Z_]+`(?:, `[A-Z_]+`)*) \| (.+?) \| (.+?) \|", prose(committed), re.M
    )
    listed = {}
    for names, default, original in rows:
        names = re.findall(r"`([A-Z_]+)`", names)
        values = [[v] if len(names) == 1 else v.split(", ") for v in (default, original)]
        for i, name in enumerate(names):
            listed[name] = [column[i] if len(column) > i else "–" for column in values]
    read = lambda text: ast.literal_eval(re.sub(r"(?<=\d),(?=\d{3})", "", text))  # noqa: E731
    assert set(listed) == set(lesson.RULES) - set(lesson.TASK)
    cell = next(c for c in code_cells(committed) if "parameters" in c["metadata"].get("tags", []))
    values = {}
    exec("".join(cell["source"]), values)
    original = {**{n: values[n] for n in listed}, **lesson.ORIGINAL_SETTINGS}
    for name, (default, published) in listed.items():
        assert read(default) == values[name], name
        if published != "–":
            assert read(published) == original[name], name


def test_links_inside_the_notebook_lead_somewhere(committed):
    text = prose(committed)
    anchors = {h.strip().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    for target in re.findall(r"\]\(#([^)]+)\)", text):
        assert target in anchors
    for target in re.findall(r"\]\((\.\./[^)]+)\)", text):
        assert (loader.NOTEBOOK.parent / target).exists()


def test_sections_are_numbered_and_all_in_the_contents(committed):
    text = prose(committed)
    sections = re.findall(r"^## (\d+) (.+)$", text, re.M)
    assert [int(number) for number, _ in sections] == list(range(1, len(sections) + 1))
    contents = re.findall(r"^\d+\. \[(.+)\]\(#(.+)\)$", text, re.M)
    assert contents == [(title, f"{n}-{title.replace(' ', '-')}") for n, title in sections]


# --- outputs -------------------------------------------------------------------------------


def test_metadata_is_clean_and_the_file_small(committed):
    metadata = dict(committed["metadata"])
    assert metadata.pop("outputs_of_code") == code_hash(committed), "run `make notebook`"
    assert metadata == CLEAN_METADATA
    for cell in committed["cells"]:
        assert set(cell["metadata"]) <= {"tags"}
    assert loader.NOTEBOOK.stat().st_size < 2_000_000


def only_defines(cell):
    """Whether a cell holds nothing but definitions or plain assignments; the next shows them."""
    return all(
        isinstance(statement, ast.FunctionDef | ast.ClassDef | ast.Assign)
        for statement in ast.parse("".join(cell["source"])).body
    )


def test_most_code_cells_are_very_short(committed):
    lengths = [
        sum(bool(line.strip()) for line in "".join(cell["source"]).splitlines())
        for cell in code_cells(committed)
    ]
    assert sum(length < 10 for length in lengths) > len(lengths) / 2


def test_outputs_come_from_one_run_without_errors_or_noise(committed):
    cells = code_cells(committed)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source = "".join(cell["source"])[:80]
        assert cell["outputs"] or only_defines(cell), f"no output: {source}"
        assert all(output["output_type"] != "error" for output in cell["outputs"]), source
        assert all(output.get("name") != "stderr" for output in cell["outputs"]), source


def test_outputs_name_no_machine(committed):
    outputs = json.dumps([cell["outputs"] for cell in code_cells(committed)])
    outputs = re.sub(r'"image/png": "[^"]*"|base64,[^"\\\\]*', "", outputs)
    assert not re.search(r"/(?:root|home|work|tmp|Users|mnt|opt)/|[A-Z]:\\\\", outputs)
    assert "subscriptions/" not in outputs


def test_every_picture_has_a_text_and_fits_a_cell(committed):
    pictures = 0
    for cell in code_cells(committed):
        for output in cell["outputs"]:
            if "image/png" in output.get("data", {}):
                pictures += 1
                assert len(output["metadata"]["image/png"]["alt"]) > 20
                data = base64.b64decode("".join(output["data"]["image/png"]))
                assert Image.open(io.BytesIO(data)).width <= 800
    assert pictures >= 6
    assert "![" in prose(committed)


def test_the_animations_move(committed):
    frames = []
    for cell in code_cells(committed):
        for output in cell["outputs"]:
            data = "".join(output.get("data", {}).get("image/png", ""))
            if data:
                frames.append(Image.open(io.BytesIO(base64.b64decode(data))).n_frames)
    assert sum(n > 5 for n in frames) == 4
    assert max(frames) >= 30, "500 steps, every fourth shown, equal pictures merged"


def test_training_left_one_figure(committed):
    (cell,) = [c for c in code_cells(committed) if "train(run, live_plot" in "".join(c["source"])]
    assert len(cell["outputs"]) == 1


# --- numbers in the prose ------------------------------------------------------------------


def test_the_committed_run_solved_the_task(committed):
    metrics = metrics_of(committed)
    assert metrics["solved"] and metrics["greedy_mean"] >= 475
    assert metrics["greedy_episodes"] == 100


def table_of(committed, first_column):
    """The last table in the outputs with such a row, as rows of text."""
    rows = []
    for cell in code_cells(committed):
        found = re.findall(r"^\| (.+) \|$", text_of(cell), re.M)
        if any(row.startswith(first_column) for row in found):
            rows = [row.split(" | ") for row in found]
    return {row[0]: row[1:] for row in rows}


def mean_return(committed, policy):
    """A policy's mean in the table of results."""
    return float(table_of(committed, policy)[policy][0].split()[0])


def printed(committed, pattern):
    """The groups of the one match of `pattern` in what the cells have put out, as numbers."""
    found = [m for cell in code_cells(committed) for m in re.finditer(pattern, text_of(cell))]
    assert len(found) == 1, (pattern, len(found))
    return [float(group.replace(",", "")) for group in found[0].groups()]


def variant(committed, name):
    """A variant's row in the table of section 13: (solved, median step, worst step, steadiness)."""
    solved, at_step, steady = table_of(committed, "no target network")[name]
    words = [word.strip("(),") for word in [*at_step.split(), *steady.split()]]
    steps = [float("inf") if word == "never" else float(word.replace(",", "")) for word in words]
    return [int(solved.split()[0]), *steps]


def early_and_steady(row):
    return row[0] == 3 and row[1] <= 1500 and row[3] == 1


CLAIMS = [  # a sentence of the prose, and whether the committed outputs bear it out
    (
        "one and a half to three minutes to run everything",
        lambda n: 75 <= printed(n, r"whole notebook took (\d+) seconds")[0] <= 190,
    ),
    (
        "balances the pole for all 500 steps of an episode from starts it has never seen",
        lambda n: metrics_of(n)["greedy_min"] == 500,
    ),
    (
        "In the middle of section 9, half-way through, a first agent balances the pole",
        lambda n: first_success(n)[0] <= 0.5 and first_success(n)[1] >= 475,
    ),
    (
        "The first rule lasts only about twice as long as random pushes",
        lambda n: 1.7 < mean_return(n, "rule: lean") / mean_return(n, "random") < 2.3,
    ),
    (
        "a full episode is more than 20 times as long as one of random pushes",
        lambda n: 500 / mean_return(n, "random") > 20,
    ),
    (
        "The second passes the 475 at which CartPole-v1 counts as solved",
        lambda n: (
            475
            < float(table_of(n, "rule: lean and speed")["rule: lean and speed"][0].split()[0])
            < metrics_of(n)["greedy_mean"]
        ),
    ),
    (
        "So the other action must appear in about a tenth of all cases",
        lambda n: any("expected 0.10" in text_of(cell) for cell in code_cells(n)),
    ),
    (
        "within a few thousand steps, and from then on passes every evaluation",
        lambda n: (
            seeds_found(n)[0] == seeds_found(n)[1] == 5
            and seeds_found(n)[3] <= 5000
            and seeds_found(n)[5] == 1
        ),
    ),
    (
        "as early as the large one",
        lambda n: variant(n, "tiny memory")[1] <= variant(n, "all parts")[1],
    ),
    ("its scores flicker", lambda n: variant(n, "no target network")[4] < 1),
    ("later, if at all", lambda n: variant(n, "hard updates")[1] > variant(n, "all parts")[1]),
    ("slow to get excellent", lambda n: variant(n, "no exploration")[1] > 1500),
    (
        "in this run no different",
        lambda n: variant(n, "truncation as a fall") == variant(n, "all parts"),
    ),
    (
        "late or unsteady",
        lambda n: not early_and_steady(variant(n, "plain target")),
    ),
    ("hardly a difference", lambda n: early_and_steady(variant(n, "no Double DQN"))),
    ("learning slows down", lambda n: variant(n, "no input scale")[0] == 0),
    ("nothing is solved within so few steps", lambda n: variant(n, "original settings")[0] == 0),
    (
        "The agent promises less than it gets",
        lambda n: (
            printed(n, r"promised ([\d.]+), received [\d.]+ on")[0] + 0.2
            < printed(n, r"promised [\d.]+, received ([\d.]+) on")[0]
        ),
    ),
    (
        "The plain target tends to err in the other direction",
        lambda n: all(float(row[0]) > float(row[1]) for row in promises(n)),
    ),
    (
        "At both ends it pushes *outward*",
        lambda n: (
            any("cart at -2.0" in text_of(c) and "-2.0: left" in text_of(c) for c in code_cells(n))
            and pushes(n) == ["left", "right"]
        ),
    ),
    (
        "here with a tenth of the gradient",
        lambda n: (
            9
            < printed(n, r"right: gradient (-[\d.]+)")[0]
            / printed(n, r"wrong: gradient (-[\d.]+)")[0]
            < 11
        ),
    ),
    (
        "as here at 1 where ours begin, even those of states that have just failed",
        lambda n: 0.9 < printed(n, r"value of a fallen pole: ([\d.]+)")[0] < 1.2,
    ),
    (
        "the agent does not learn",
        lambda n: printed(n, r"after 1000 steps: greedy mean (\d+)")[0] < 30,
    ),
]


def seeds_found(committed):
    """Of section 12: seeds solved, all, step: median, worst, steadiness: median, worst."""
    pattern = r"solved: (\d) of (\d) seeds; at step, median \(worst\): ([\d,]+) \(([\d,]+)\); "
    return printed(committed, pattern + r"steadiness: ([\d.]+) \(([\d.]+)\)")


def first_success(committed):
    """How far down the notebook an agent first plays well (0 to 1), and how long it lasts."""
    cells = committed["cells"]
    (at,) = [i for i, c in enumerate(cells) if "This agent lasts" in "".join(c["source"])]
    return at / len(cells), printed(committed, r"This agent lasts (\d+)\.")[0]


def promises(committed):
    """The rows (promised, received, steps) of networks that learned with the plain target."""
    table = table_of(committed, "plain, Double DQN")
    return [table["plain"], table["plain, Double DQN"]]


def pushes(committed):
    """Which way the agent pushes a resting pole, at the left and at the right end."""
    return [
        push
        for cell in code_cells(committed)
        for push in re.findall(r"it pushes (\w+)$", text_of(cell), re.M)
    ]


@pytest.mark.parametrize("sentence,holds", CLAIMS, ids=[claim[0][:40] for claim in CLAIMS])
def test_claims_hold_in_the_committed_run(committed, sentence, holds):
    assert sentence in prose(committed), "the claim is gone or was reworded: adapt this list"
    assert holds(committed)
