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
    outputs = re.sub(r'"image/png": "[^"]*"', "", outputs)
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
    assert sum(n > 5 for n in frames) == 2
    assert max(frames) >= 30, "500 steps, every fourth shown, equal pictures merged"


def test_training_left_one_figure(committed):
    (cell,) = [c for c in code_cells(committed) if "watch=live_plot" in "".join(c["source"])]
    assert len(cell["outputs"]) == 1


# --- numbers in the prose ------------------------------------------------------------------


def test_the_committed_run_solved_the_task(committed):
    metrics = metrics_of(committed)
    assert metrics["solved"] and metrics["greedy_mean"] >= 475
    assert metrics["greedy_episodes"] == 100


def numbers(text):
    """The numbers in "median (lowest to highest)"."""
    return [float(part.replace(",", "")) for part in re.findall(r"[\d,.]+|inf", text)]


def comparison(committed):
    """The table of the two targets: name → (numbers of solved at step, of steadiness)."""
    table = table_of(committed, "plain target")
    return {
        name: [numbers(text) for text in table[name]] for name in table if name.endswith(" target")
    }


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
    return float(table_of(committed, policy)[policy][0])


def the_careful_target_is_steadier(committed):
    careful, plain = (comparison(committed)[f"{kind} target"][1] for kind in ("careful", "plain"))
    return careful[0] >= 0.95 and careful[0] > plain[2]  # its median beats the best plain seed


CLAIMS = [  # a sentence of the prose, and whether the committed outputs bear it out
    (
        "about a minute and a half to run everything",
        lambda n: 45 <= metrics_of(n)["notebook_seconds"] <= 120,
    ),
    (
        "balances the pole for all 500 steps of an episode from starts it has never seen",
        lambda n: metrics_of(n)["greedy_min"] == 500,
    ),
    (
        "The first rule lasts only about twice as long as random pushes",
        lambda n: 1.7 < mean_return(n, "rule: lean") / mean_return(n, "random") < 2.3,
    ),
    (
        "The second passes the 475 at which CartPole-v1 counts as solved",
        lambda n: (
            475
            < float(table_of(n, "rule: lean and speed")["rule: lean and speed"][0])
            < float(table_of(n, "trained agent")["trained agent"][0])
        ),
    ),
    ("its agents keep what they have learned", the_careful_target_is_steadier),
    (
        "Both targets solve the task early",
        lambda n: all(solved[2] <= 5000 for solved, _ in comparison(n).values()),
    ),
    (
        "So the other action must appear in about a tenth of all cases",
        lambda n: any("expected 0.10" in text_of(cell) for cell in code_cells(n)),
    ),
]


@pytest.mark.parametrize("sentence,holds", CLAIMS, ids=[claim[0][:40] for claim in CLAIMS])
def test_claims_hold_in_the_committed_run(committed, sentence, holds):
    assert sentence in prose(committed), "the claim is gone or was reworded: adapt this list"
    assert holds(committed)
