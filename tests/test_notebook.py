"""The committed notebook: outputs, form, numbers in the prose, exercises."""

import ast
import base64
import io
import re
from collections import Counter

import pytest
from PIL import Image

from tests.helpers import (
    MACHINE_PATH,
    check_outputs,
    code_cells,
    pictures_of,
    prose,
    text_of,
)
from tools import load_definitions as loader
from tools.refresh_notebook import METADATA, code_hash


def test_outputs_are_clean_and_belong_to_the_code(committed):
    expected = {**METADATA, "outputs_of_code": code_hash(committed.cells)}
    assert committed.metadata == expected, "make notebook"
    assert all(set(cell.metadata) <= {"tags"} for cell in committed.cells)
    check_outputs(committed)
    assert not MACHINE_PATH.search(prose(committed))
    assert loader.NOTEBOOK.stat().st_size < 1_000_000


def test_pictures_can_be_read_by_everybody(committed):
    pictures = pictures_of(committed)
    images = [Image.open(io.BytesIO(base64.b64decode(data))) for data, _ in pictures]
    assert len(images) >= 10 and all(image.width <= 820 for image in images)
    assert sum(getattr(image, "n_frames", 1) > 5 for image in images) >= 4, "films"
    assert all(len(alt.split()) >= 4 for _, alt in pictures)
    shown = {data.strip() for data, _ in pictures}
    for name in ("agent.png", "collapse_and_cure.png"):
        committed_file = (loader.ROOT / "images" / name).read_bytes()
        assert base64.b64encode(committed_file).decode() in {
            data.replace("\n", "") for data in shown
        }, "from this very run"


def test_it_can_be_read_everywhere(committed):
    """Attachments, relative links and folding fail in Studio, Colab or on GitHub."""
    text = prose(committed)
    for form in ("attachment:", "](../", "](#", "<details", "@@", "TODO"):
        assert form not in text
    for cell in committed.cells:
        if cell.cell_type == "markdown":
            without_code = re.sub(r"(?s)```.*?```", "", cell.source)
            headings = re.findall(r"(?m)^#{1,4} ", without_code)
            starts = cell.source.startswith("#")
            assert len(headings) == starts, (
                "contents lists see a cell's first line only"
            )
    sections = re.findall(r"(?m)^## (\d+) ", text)
    assert sections == [str(number) for number in range(1, 19)]


def test_the_code_is_plain(committed):
    names = Counter()
    for cell in code_cells(committed):
        assert all(len(line) <= 88 for line in cell.source.splitlines()), cell.source
        tree = ast.parse(cell.source)
        kinds = {type(node) for node in ast.walk(tree)}
        assert not kinds & {ast.NamedExpr, ast.Lambda}
        defined = (ast.FunctionDef, ast.ClassDef)
        names.update(node.name for node in tree.body if isinstance(node, defined))
    assert [name for name, count in names.items() if count > 1] == []


def test_the_cart_falls_early(committed):
    cells = code_cells(committed)
    films = [i for i, cell in enumerate(cells) if pictures_of_cell(cell)]
    assert films[0] <= 4, "the fifth code cell at the latest"


def pictures_of_cell(cell):
    """The pictures that a cell shows."""
    return [out for out in cell.outputs if "image/png" in out.get("data", {})]


# What the prose says of the committed run: (pattern in the prose, pattern in the
# outputs). The groups of both are numbers that must agree, in the same order.
NUMBERS = [
    (r"beside the goal, then ([\d.]+), then", r"after 1,000 .*right \[[\d.]+ ([\d.]+)"),
    (r"beside the goal, .*, then ([\d.]+)\.", r"after 1,000 .*right \[([\d.]+) "),
    (r"take the larger value: .* = ([\d.]+)\$", r"\| plain DQN \| ([\d.]+) \|"),
    (r"and ε′ = 0.7, it is .* = ([\d.]+)\$", r"\| careful, ε′ = 0.7 \| ([\d.]+) \|"),
    (r"Learning begins at step (\d+)", r"BATCH_SIZE=(\d+)"),
    (r"first two evaluations, both (\d+)", r"evaluations: (\d+) "),
    (r"Between steps 450 and (\d+) the", r"first pass comes at step (\d+),"),
    (r"jumps from (\d+) to (\d+)", r"evaluations: .* (\d+) (\d+)\n"),
    (r"better Q-value at a start is ([\d.]+),", r"Q-value at a start: ([\d.]+)"),
    (r"has room for ([\d,]+) steps and", r"in use: [\d,]+ of ([\d,]+)"),
    (r"steps and holds ([\d,]+), so", r"in use: ([\d,]+) of"),
    (r"All (\d+) evaluations agree", r"(\d+) evaluations; all"),
    (r"agree on the push at only (\d+) %", r"all of them agree on (\d+)%"),
    (
        r"stand at about (\d+), with a spread of (\d+)\.",
        r"\| plain DQN \| (\d+\.\d\d) \| (\d+\.\d\d) \|",
    ),
    (
        r"The lead has a size of ([\d.]+) and a spread of (\d\.\d+)",
        r"\| plain DQN \| \d+\.\d+ \| \d\.\d+ \| ([\d.]+) \| ([\d.]+) \|",
    ),
    (
        r"careful lead has a size of ([\d.]+), .* spread of (\d\.\d+),",
        r"\| careful \| \d+\.\d+ \| \d\.\d+ \| ([\d.]+) \| ([\d.]+) \|",
    ),
    (
        r"agree on the push at (\d+) % of the places",
        r"agree on: \d+% plain, (\d+)% careful",
    ),
]


def groups(pattern, text):
    """The groups of the first match, numbers as texts without separators."""
    found = re.search(pattern, text)
    assert found, pattern
    return [group.replace(",", "") for group in found.groups()]


def numbers(pattern, text):
    return [float(group) for group in groups(pattern, text)]


@pytest.fixture(scope="module")
def printed(committed):
    """All that the committed run has put out."""
    return "\n".join(text_of(cell) for cell in code_cells(committed))


@pytest.mark.parametrize("said, found", NUMBERS)
def test_numbers_in_the_prose_are_those_of_the_run(committed, printed, said, found):
    """They may be rounded: 81.70 is "about 82"."""
    texts = groups(said, prose(committed))
    for text, number in zip(texts, numbers(found, printed), strict=True):
        decimals = len(text.partition(".")[2])
        assert abs(float(text) - number) <= 0.501 * 10**-decimals, said


def test_the_committed_run_bears_out_the_prose(printed):
    plain, careful = numbers(r"held: ([\d.]+) plain, ([\d.]+) careful", printed)
    assert plain < 0.7 < 0.9 < careful
    pattern = r"promised ([\d.]+), received ([\d.]+), error ([\d.]+)"
    promised, received, error = numbers(pattern, printed)
    assert abs(promised - received) < error, "the promise to the stumbling player"
    assert re.findall(r"it pushes (\w+)", printed) == ["left", "right"], "outward"
    passes, fails = re.findall(r"outward on (\d+)% of the track", printed)
    assert int(passes) > int(fails)
    assert re.search(r"20 × the cart leaves the track", printed)
    pushed_right = printed.partition("terminated True")[0].splitlines()[-1]
    assert re.search(r"\[ [\d.]+ +[\d.]+ +-", pushed_right), (
        "the pole falls to the left"
    )


def test_the_first_curve_is_as_described(printed):
    (listed,) = re.findall(r"^evaluations: ([\d ]+)$", printed, re.M)
    evaluations = [int(number) for number in listed.split()]
    assert evaluations[0] == evaluations[1]
    assert (min(evaluations[4:9]), max(evaluations[4:9])) == (10, 21), "250 to 450"
    assert len(evaluations) == 10 and evaluations[-1] >= 475


def row(printed, name, columns):
    """The numbers of the row of a table, those of one seed after the other."""
    cell = r" ([^|]+) \|"
    found = re.search(rf"\| {name} \|" + columns * cell + "$", printed, re.M)
    assert found, name
    return [
        [float(number.replace(",", "")) for number in re.split("[,;] ", group)]
        for group in found.groups()
    ]


def test_the_scores_are_as_described(printed):
    (rule,) = numbers(r"\| push where it falls \| ([\d.]+) \|", printed)
    (final,) = numbers(r"\| final agent \| ([\d.]+) \|", printed)
    assert 475 < rule < 499 and final >= 475


def test_the_comparison_of_seeds_is_as_described(printed, committed):
    tables = printed[printed.index("first pass at step") :]
    first, lowest, held = row(tables, "plain DQN", 3)
    assert len(first) == 4 and max(lowest) == 150
    _, lowest, held = row(tables, "careful", 3)
    (said,) = numbers(r"no seed falls below (\d+) after", prose(committed))
    assert min(lowest) == said
    assert sorted(held)[0] == 0.25 and sorted(held)[1] == 1
    _, lowest, held = row(tables, "careful, mirror", 3)
    (said,) = numbers(r"seeds falls to (\d+) right after", prose(committed))
    assert min(lowest) == said and min(held) == 1
    tables = tables[tables.index("best evaluation") :]
    best, last, _ = row(tables, "plain DQN", 3)
    assert min(best) >= 475 > max(last)
    best, _, values = row(tables, "no target network", 3)
    assert max(best) < 30, "nothing useful is learned"
    assert min(values) > 1e6
    best, _, _ = row(tables, "tiny memory", 3)
    assert sum(mean < 475 for mean in best) == 1, "one of four never passes"


EXERCISES = [
    i for i, cell in enumerate(loader.cells()) if "exercise" in loader.tags(cell)
]


def solutions():
    """The solutions at the end of the notebook, in their order."""
    cells = loader.cells()
    (last,) = [c["source"] for c in cells if c["source"].startswith("### Solutions")]
    return re.findall(r"(?s)```python\n(.*?)```", last)


@pytest.fixture(scope="module")
def exercise_names(lesson):
    """The names that an exercise may use: definitions, and those of the checks."""
    names = dict(lesson.train.__globals__)
    for cell in loader.cells():
        if "\nthree_steps = " in cell["source"] or "example = re" in cell["source"]:
            exec(cell["source"], names)
    return names


CASES = [pytest.param(i, 0, id=f"exercise {i + 1}") for i in range(3)]
CASES += [
    pytest.param(3, seed, id=f"exercise 4, seed {seed}", marks=pytest.mark.full)
    for seed in range(4)
]


@pytest.mark.parametrize("number, seed", CASES)
@pytest.mark.timeout(900)
def test_an_exercise_is_not_yet_right_and_its_solution_is(
    exercise_names, lesson, capsys, number, seed
):
    assert len(EXERCISES) == len(solutions()) == 4
    source = loader.cells()[EXERCISES[number]]["source"]
    names = {**exercise_names}
    names["settings"] = lesson.replace(lesson.settings, SEED=seed)
    exec(source, names)
    assert capsys.readouterr().out.startswith("not yet")
    _, check = source.split("# change this line\n")
    exec(solutions()[number] + check, names)
    said = capsys.readouterr().out
    assert "right" in said and "not yet" not in said
