"""The committed notebook: its budgets, its outputs, the numbers in its prose, its exercises."""

import ast
import base64
import io
import re
import statistics

import pytest
from conftest import MACHINE_PATH, check_outputs, code_cells, pictures_of, prose, text_of
from PIL import Image

import load_definitions as loader
from refresh_notebook import code_hash

BUDGETS = {"cells": 125, "lines of code": 700, "words": 5_500, "parameters": 17}  # at most
BUDGETS |= {"longest cell": 30, "median cell": 8, "bytes": 1_000_000}
BUDGETS |= {"cells until a film": 12, "cells until training": 50}


def test_budgets(committed):
    lines = [sum(map(bool, map(str.strip, c.source.splitlines()))) for c in code_cells(committed)]
    (parameters,) = [c for c in committed.cells if "parameters" in c.metadata.get("tags", [])]
    found = {"cells": len(committed.cells), "lines of code": sum(lines)}
    found |= {"longest cell": max(lines), "median cell": statistics.median(lines)}
    found |= {"words": len(prose(committed).split()), "bytes": loader.NOTEBOOK.stat().st_size}
    found["parameters"] = len(ast.parse(parameters.source).body)
    for name, call in (("cells until a film", "= film("), ("cells until training", "= train(")):
        found[name] = 1 + [call in cell.source for cell in committed.cells].index(True)
    assert {name: (n, BUDGETS[name]) for name, n in found.items() if n > BUDGETS[name]} == {}
    assert found.keys() == BUDGETS.keys()


def test_no_code_hides_in_strings(committed):
    for cell in code_cells(committed):
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert not re.search(r"^\s*(import|def|class|for .* in) ", node.value, re.M)


def test_outputs_are_clean_and_belong_to_the_code(committed):
    assert committed.metadata["outputs_of_code"] == code_hash(committed.cells), "make notebook"
    assert set(committed.metadata) == {"kernelspec", "language_info", "outputs_of_code"}
    assert committed.metadata.kernelspec.name == "python3"
    assert all(set(cell.metadata) <= {"tags"} for cell in committed.cells)
    check_outputs(committed)
    assert not MACHINE_PATH.search(prose(committed))


def test_pictures_of_the_run_and_of_the_prose(committed):
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data, _ in pictures_of(committed)]
    assert len(images) >= 10 and all(image.width <= 820 for image in images)
    assert sum(getattr(image, "n_frames", 1) > 5 for image in images) >= 3, "films"
    outputs = {data.strip() for data, _ in pictures_of(committed)}
    for cell in committed.cells:
        shown = re.findall(r"!\[([^\]]*)\]\(attachment:([^)]+)\)", cell.source)
        assert {name for _, name in shown} == set(cell.get("attachments", {}))
        for alt, name in shown:
            data = cell.attachments[name]["image/png"]
            assert len(alt.split()) >= 6 and data.strip() in outputs, "from this very run"
            committed_file = loader.ROOT / "images" / name
            assert committed_file.read_bytes() == base64.b64decode(data)


def test_links_and_placeholders(committed):
    text = prose(committed)
    anchors = {h.strip().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
    links = set(re.findall(r"\]\(#([^)]+)\)", text))
    assert links <= anchors and len(links) >= 18
    assert len(EXERCISES) == len(re.findall(r"<summary>Solution", text)) >= 4
    assert "@@" not in text and "TODO" not in text


# What the prose says of the committed run: (pattern in the prose, pattern in the outputs). The
# groups of both are numbers that must agree, in the same order.
NUMBERS = [
    (r"target takes the larger: .* = ([\d.]+)\$", r"\| plain DQN \| ([\d.]+) \|"),
    (r"the target is \$1 \+ .* = ([\d.]+)\$", r"\| careful \| ([\d.]+) \|"),
]


def test_the_committed_run_bears_out_the_prose(committed):
    printed = "\n".join(text_of(cell) for cell in code_cells(committed))

    def numbers(pattern, text=printed):
        """The groups of the first match as numbers."""
        found = re.search(pattern, text)
        assert found, pattern
        return [float(group.replace(",", "")) for group in found.groups()]

    for said, found in NUMBERS:
        assert numbers(said, prose(committed)) == numbers(found), said
    plain, careful = numbers(r"steadiness: ([\d.]+) plain, ([\d.]+) careful")
    assert plain < 0.7 < 0.9 < careful
    gaps = [int(n) for n in re.findall(r"in (\d+)% of the steps the error", printed)]
    assert len(gaps) == 2 and gaps[0] > 2 * gaps[1]
    promised, received, error = numbers(r"promised ([\d.]+), received ([\d.]+) ± ([\d.]+)")
    assert abs(promised - received) < 2 * error, "the promise is kept to the stumbling player"
    assert re.findall(r"it pushes (\w+)", printed) == ["left", "right"], "outward"
    (rule,) = numbers(r"\| rule: about to fall \| ([\d.]+) \|")
    (final,) = numbers(r"\| final agent \| ([\d.]+) \|")
    assert 475 < rule < 499 and final >= 475


EXERCISES = [i for i, cell in enumerate(loader.cells()) if "exercise" in loader.tags(cell)]


@pytest.fixture(scope="module")
def exercise_names(lesson):
    """The names that an exercise may use: definitions, and those of the cells on targets."""
    names = dict(lesson.train.__globals__)
    for cell in loader.cells():
        if cell["cell_type"] == "code" and "\nthree = " in cell["source"]:
            exec(cell["source"], names)
    return names


LONG = {i: [pytest.mark.full] * ("Acrobot" in loader.cells()[i]["source"]) for i in EXERCISES}


@pytest.mark.parametrize("index", [pytest.param(i, marks=LONG[i]) for i in EXERCISES])
@pytest.mark.timeout(600)
def test_an_exercise_is_not_yet_solved_and_its_solution_solves_it(exercise_names, capsys, index):
    source, after = loader.cells()[index]["source"], loader.cells()[index + 1]["source"]
    exec(source, exercise_names)
    assert capsys.readouterr().out.startswith("not yet")
    (solution,) = re.findall(r"<details>.*?```python\n(.*?)```.*?</details>", after, re.S)
    _, check = source.split("# change this line\n")
    exec(solution + check, exercise_names)
    assert "solved" in capsys.readouterr().out
