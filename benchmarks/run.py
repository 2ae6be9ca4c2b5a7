"""One run of one row and seed: how it is done, saved, and known to be still valid.

A run belongs to the code that made it. `made_by` hashes that code, without docstrings,
comments and the words of errors: a change in wording keeps the runs, a change in
arithmetic does not.
"""

import ast
import copy
import functools
import hashlib
import json
import platform
import subprocess
import symtable
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from tools.load_definitions import NOTEBOOK, cells, tags

from .agents import AGENTS, settings_of
from .measure import lesson, measured
from .rows import HERE, KEPT, RESULTS

np.float_ = np.float64  # gym's Acrobot uses this old name, which NumPy 2 has dropped
SAVED = RESULTS / "runs.jsonl"
NETWORKS = RESULTS / "networks"  # not tracked
MOMENTS = (6_000, 8_000, 10_000)  # steps of the exchange, see exchange.py
BEFORE = 250  # the networks of the evaluations before them are kept, too
CODE = ("cartpole.py", "measure.py", "agents.py")
NOT_FOLLOWED = {"Settings", "settings", "device"}  # the values of settings are hashed


def do(row, seed):
    """Do one run in this process and return what came of it, by name."""
    result = AGENTS[row.agent](lesson(), row, seed)
    found = measured(lesson(), row, result)
    if row.label in KEPT and row.steps >= max(MOMENTS):
        keep_networks(row, seed, result)
    made = {"row": row.label, "seed": seed, "code": made_by(row)}
    figures = {name: rounded(value) for name, value in found.items()}
    where = {"commit": commit(), "machine": machine()}
    return {**made, **where, "seconds": round(result.seconds, 1), **figures}


def rounded(value):
    """Return a figure, or a list of them, with four decimals."""
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return round(value, 4) if isinstance(value, float) else value


def commit():
    """Return the commit that is checked out."""
    command = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(command, cwd=HERE, capture_output=True, text=True).stdout[:-1]


@functools.cache
def machine():
    """Return processor and version of PyTorch, on which the last bits depend."""
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name = text.partition("model name\t: ")[2].partition("\n")[0]
    return f"{name or platform.machine()}, torch {torch.__version__}"


def keep_networks(row, seed, result):
    """Save the networks of a run at some moments."""
    NETWORKS.mkdir(exist_ok=True)
    found = {}
    for one in result.evaluations:
        if one.step in MOMENTS or one.step + BEFORE in MOMENTS:
            found[one.step] = one.network.state_dict()
    torch.save(found, NETWORKS / f"{made_by(row)}-{seed}.pt")


def networks(row, seed):
    """Return a run's networks at some moments, by step; train if none are kept."""
    path = NETWORKS / f"{made_by(row)}-{seed}.pt"
    if not path.exists():
        keep_networks(row, seed, AGENTS[row.agent](lesson(), row, seed))
    found = {}
    for step, weights in torch.load(path, weights_only=True).items():
        found[step] = lesson().DQN(4, 2, lesson().SCALE)
        found[step].load_state_dict(weights)
    return found


# The hash of the code.


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


@functools.cache
def bare(statement):
    """Return a statement as text, without what does not count."""
    return str(outline(Bare().visit(copy.deepcopy(statement))))


@functools.cache
def names_used(statement):
    """Return the global names that a statement uses, also inside of functions."""
    found = set()
    tables = [symtable.symtable(ast.unparse(statement), "", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() and symbol.is_referenced():
                found.add(symbol.get_name())
    return found


def names_from_lesson(statement):
    """Return the names that a statement of these files takes from the lesson."""
    found = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Attribute):
            owner = getattr(node.value, "id", getattr(node.value, "attr", None))
            if owner == "lesson":  # lesson.x or self.lesson.x
                found.add(node.attr)
    return found


@functools.cache
def definitions(source):
    """Return the statements of code that define something: name → statements."""
    places = {}
    for statement in ast.parse(source).body:
        if isinstance(statement, (ast.FunctionDef, ast.ClassDef)):
            names = {statement.name}
        else:
            names = set()
            for node in ast.walk(statement):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
        for name in names:
            places.setdefault(name, []).append(statement)
    return places


def reached(roots, places):
    """Return the names among `places` that the roots need, and all that these need."""
    todo, found = set(roots), set()
    while todo:
        name = todo.pop()
        if name in places and name not in found | NOT_FOLLOWED:
            found.add(name)
            for statement in places[name]:
                todo |= names_used(statement)
    return found


def own_places(files=CODE):
    """Return the definitions of files of this folder."""
    places = {}
    for file in files:
        places |= definitions((HERE / file).read_text(encoding="utf-8"))
    return places


def lesson_places(path=NOTEBOOK):
    """Return the definitions of the notebook."""
    sources = [cell["source"] for cell in cells(path) if "definition" in tags(cell)]
    return definitions("\n".join(sources))


def names_needed(roots, files=CODE, path=NOTEBOOK):
    """Return the names that some names need: of these files, of the notebook."""
    places = own_places(files)
    own, from_lesson = reached(roots, places), set(roots)
    for name in own:
        for statement in places[name]:
            from_lesson |= names_from_lesson(statement)
    return own, reached(from_lesson, lesson_places(path))


def hash_of(roots, what, files=CODE, path=NOTEBOOK):
    """Return the hash of what some names need and of some data: twelve digits."""
    texts = set()
    own, from_lesson = names_needed(roots, files, path)
    for names, places in ((own, own_places(files)), (from_lesson, lesson_places(path))):
        for name in names:
            for statement in places[name]:
                texts.add(bare(statement))
    text = json.dumps([sorted(texts), what], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def roots_of(row):
    """Return the names with which the hash of a row's runs begins."""
    agent = AGENTS[row.agent].__name__
    return {"measured", "lesson", agent, row.targets, row.remember}


def made_by(row, path=NOTEBOOK):
    """Return the hash of all that makes the runs of a row."""
    what = asdict(row)
    for name in ("label", "seeds"):
        del what[name]
    roots = roots_of(row)
    own, _ = names_needed(roots, path=path)
    if "settings_of" in own:
        what["settings"] = asdict(settings_of(lesson(), row, seed=0))
    return hash_of(roots, what, path=path)


# What is saved.


def load(path=SAVED):
    """Return all saved runs; of two of the same row and seed, the later one."""
    runs = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        run = json.loads(line)
        runs[run["row"], run["seed"]] = run
    return runs


def valid(runs, row):
    """Return the runs of a row that today's code made, in the order of its seeds."""
    mine = [runs[row.label, seed] for seed in row.seeds if (row.label, seed) in runs]
    return [run for run in mine if run["code"] == made_by(row)]


def not_counted(runs, row, again="make bench-full"):
    """Return a sentence if saved runs of a row are of other code, else nothing.

    again: the command that measures them again.
    """
    saved = [seed for seed in row.seeds if (row.label, seed) in runs]
    others = len(saved) - len(valid(runs, row))
    if others == 0:
        return []
    return [
        f"{row.label}: {others} saved runs are of other code and do not count; "
        f"{again} measures them again."
    ]


def add(run, path=SAVED):
    """Save one more run."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(run, ensure_ascii=False) + "\n")
