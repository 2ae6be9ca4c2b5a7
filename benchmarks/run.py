"""One run of one row and seed: how it is done, saved, and known to be still valid.

A run belongs to the code that made it. `code_of` hashes all of that code, without
docstrings, comments and the words of errors: a change in wording keeps the runs, a
change in arithmetic does not.
"""

import ast
import contextlib
import functools
import hashlib
import json
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np

from tools.load_definitions import NOTEBOOK, cells, tags

from .contestants import CONTESTANTS
from .loop import train_row
from .measure import RESULTS, Judge, hand_rule, lesson, processor

np.float_ = np.float64  # gym's Acrobot uses this old name, which NumPy 2 has dropped
HERE = Path(__file__).resolve().parent
SAVED = RESULTS / "runs.jsonl"
CODE = ("loop.py", "targets.py", "measure.py", "contestants.py")
NOT_HASHED = {"Settings", "settings", "device"}  # the values of settings are
NOT_A_CONSTANT = ("SEED", "MAX_STEPS", "EVAL_EVERY")
LEFT_OUT = ("code", "options", "machine", "seconds", "us_per_step", "before")


@dataclass(frozen=True)
class Run:
    """What came of one row and seed. None: not measured. inf: never."""

    row: str
    seed: int
    code: str  # hash of the code that made it
    options: str  # hash of the row's options
    machine: str
    share: float  # of the evaluations in the second half that pass
    first_pass: float | None = None  # step
    solved: float | None = None  # step of the first pass confirmed on held-out starts
    end: float | None = None  # mean of the last evaluation
    held_out: float | None = None  # the same weights, mean of the held-out starts
    held_out_worst: float | None = None
    best: float | None = None  # mean of the held-out starts with the best checkpoint
    far: float | None = None  # share of starts survived for 5,000 steps
    wide: float | None = None  # share of wide starts survived for 500 steps
    best_far: float | None = None
    agreement: float | None = None  # see measure.along_track
    ratio: float | None = None
    seconds: float | None = None  # of acting and learning, until solved
    us_per_step: float | None = None
    before: str | None = None  # hash of the code that made it first; see restamp


def do(row, seed):
    """Do one run in this process and return what came of it."""
    judge = Judge(lesson(), row)
    if row.agent == "rule":
        judge(row.steps, 0.0, hand_rule)
    elif row.agent == "lesson":
        with contextlib.suppress(FloatingPointError):  # a run that diverges
            train_row(lesson(), row, seed, judge)
    else:
        CONTESTANTS[row.agent](lesson(), row, seed, judge)
    found = {}
    for name, value in judge.found().items():
        found[name] = round(value, 4) if isinstance(value, float) else value
    made_by = {"code": code_of(row), "options": options_of(row)}
    return Run(row.label, seed, machine=processor(), **made_by, **found)


class Bare(ast.NodeTransformer):
    """Takes docstrings and the words of errors out of code."""

    def generic_visit(self, node):
        super().generic_visit(node)
        documented = isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
        if documented and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            node.exc, node.cause = node.exc.func, None
        return node


def bare(tree):
    """Return code as text, without docstrings, comments and the words of errors."""
    return str(outline(Bare().visit(tree)))


def outline(node):
    """Return a syntax tree as nested lists, which are the same on every Python."""
    if isinstance(node, list):
        return [outline(one) for one in node]
    if not isinstance(node, ast.AST):
        return repr(node)
    parts = [type(node).__name__]
    for name, value in ast.iter_fields(node):
        if value not in (None, []):  # newer Pythons have more fields, which are empty
            parts.append([name, outline(value)])
    return parts


def names_in(tree, context):
    """Return the names that code binds (ast.Store) or uses (ast.Load)."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, context):
            found.add(node.id)
    return found


def notebook_parts(roots, path=NOTEBOOK):
    """Return the text of the definitions that `roots` need, and all that these need."""
    places = {}  # name → the statements that define it
    for cell in cells(path):
        if "definition" not in tags(cell):
            continue
        for statement in ast.parse(cell["source"]).body:
            if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
                names = {statement.name}
            else:
                names = names_in(statement, ast.Store)
            for name in names:
                places.setdefault(name, []).append(statement)
    todo, seen, texts = sorted(roots), set(NOT_HASHED), set()
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        for statement in places.get(name, ()):
            texts.add(bare(statement))
            todo += sorted(names_in(statement, ast.Load) - seen)
    return sorted(texts)


@functools.cache
def hash_of_code(files, path=NOTEBOOK):
    """Return the hash of these files, the notebook's parts they use, its constants."""
    texts, roots = [], set()
    for file in files:
        tree = ast.parse((HERE / file).read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                owner = getattr(node.value, "id", getattr(node.value, "attr", None))
                if owner == "lesson":  # lesson.x or self.lesson.x
                    roots.add(node.attr)
        texts.append(bare(tree))
    constants = asdict(lesson().settings)
    for name in NOT_A_CONSTANT:
        del constants[name]
    texts += notebook_parts(roots, path)
    return short_hash([texts, constants])


def short_hash(data):
    """Return twelve digits that stand for some data."""
    text = json.dumps(data, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def code_of(row):
    """Return the hash of the code that makes this row's runs."""
    if row.agent in CONTESTANTS:
        return hash_of_code(CODE)
    return hash_of_code(CODE[:3])


def options_of(row):
    """Return the hash of a row's options, without its label and its seeds."""
    options = asdict(row)
    for name in ("label", "seeds"):
        del options[name]
    return short_hash(options)


def load(path=SAVED):
    """Return all saved runs, by row and seed; a later one replaces an earlier one."""
    runs = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):  # a line that was cut off
            run = Run(**json.loads(line))
            runs[run.row, run.seed] = run
    return runs


def valid(runs, row):
    """Return the runs of a row, in the order of its seeds, that today's code made."""
    made_by = (code_of(row), options_of(row))
    mine = [runs[row.label, seed] for seed in row.seeds if (row.label, seed) in runs]
    return [run for run in mine if (run.code, run.options) == made_by]


def line_of(run):
    """Return a run as a line of JSON, without what was not measured."""
    known = {name: value for name, value in asdict(run).items() if value is not None}
    return json.dumps(known, ensure_ascii=False) + "\n"


def add(run, path=SAVED):
    """Save one more run."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line_of(run))


def save(runs, path=SAVED):
    """Save all runs in the order of rows and seeds."""
    text = "".join(line_of(runs[key]) for key in sorted(runs))
    path.write_text(text, encoding="utf-8")


def same(one, other):
    """Return whether two runs found the same, in all that both have measured."""
    for field in fields(Run):
        left, right = getattr(one, field.name), getattr(other, field.name)
        if field.name in LEFT_OUT or left is None or right is None:
            continue
        if left != right:
            return False
    return True


def restamp(code, rows, path=SAVED, checks=3):
    """Accept the runs that other code made, if some come out the same today.

    `code` is the hash of the other code. The runs that are done again are spread over
    the shortest rows, of the notebook's agents and of the contestants each; if one of
    them differs, nothing is accepted. Return how many do.
    """
    runs = load(path)
    accepted = {}
    for key, run in runs.items():
        row = rows.get(run.row)
        if row and run.code == code and run.options == options_of(row):
            first = run.before or code
            accepted[key] = replace(run, code=code_of(row), before=first)
    again = []
    for new in sorted({run.code for run in accepted.values()}):
        mine = [key for key, run in accepted.items() if run.code == new]
        shortest = min(rows[label].steps for label, _ in mine)
        order = sorted(key for key in mine if rows[key[0]].steps == shortest)
        again += order[:: max(1, len(order) // checks)][:checks]
    different = 0
    for label, seed in again:
        equal = same(do(rows[label], seed), accepted[label, seed])
        different += not equal
        print(label, seed, "is the same" if equal else "differs", flush=True)
    if again and different == 0:
        save(runs | accepted, path)
        print(f"{len(accepted)} runs are accepted")
    return different
