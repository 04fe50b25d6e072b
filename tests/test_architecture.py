"""The rules of the house, read from the source: who may import whom, how long a file may be, what options mean.

Modules, models and back ends are discovered; only the tiers of `inference` above and below them are named.
"""

import ast
import importlib
import inspect
import re
import sys
import types
import typing
from functools import cache
from pathlib import Path

import pytest

import inference
import ppmodels

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = sorted(path for package in ("ppmodels", "inference") for path in (ROOT / package).rglob("*.py"))
PROGRAMS = sorted(path for folder in ("examples", "benchmarks") for path in (ROOT / folder).rglob("*.py"))

# Tiers of `inference`, lowest first; the back ends, which are discovered, stand between those below and above.
BELOW = {"base": 0, "density": 1, "psis": 1, "training": 1, "tracing": 2, "optimum": 2}
BACK_END = 3
ABOVE = {
    "predict": 4,
    "pointwise": 4,
    "information": 4,
    "parts": 4,
    "scoring": 4,
    "outcomes": 5,
    "datatree": 5,
    "calibration": 6,
    "check": 6,
    "sklearn": 6,
    "plots": 7,
    "report": 7,
    "cli": 8,
}
DRAWING = {"plots", "report"}


def module_of(path):
    """The dotted name of a file: a package is its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {module_of(path): path for path in LIBRARY}
MODELS = {FILES[ppmodels.load(name).__module__] for name in ppmodels.names()}
EVERY_FILE = pytest.mark.parametrize("path", LIBRARY, ids=module_of)


@cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path):
    """Modules that the file imports, at its top, inside functions, or by `import_module` of a constant."""
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} imports relatively"
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & FILES.keys()
            whole = len(submodules) < len(node.names) or node.module not in FILES
            found |= submodules | ({node.module} if whole else set())
        elif isinstance(node, ast.Call) and _is_import_module(node) and isinstance(node.args[0], ast.Constant):
            found.add(node.args[0].value)
    return frozenset(found)


def _is_import_module(node):
    return getattr(node.func, "attr", getattr(node.func, "id", "")) in {"import_module", "__import__"}


def unit(module):
    """What the import order speaks of: `inference.mcmc.hmc` is part of `inference.mcmc`."""
    return ".".join(module.split(".")[:2])


UNITS = sorted({unit(module) for module in FILES if module.startswith("inference.")})


@cache
def direct(name):
    """Other units of `inference` that the files of a unit import."""
    found = {unit(m) for module in FILES if unit(module) == name for m in imports(FILES[module])}
    return frozenset(m for m in found if m.startswith("inference.") and m != name)


def tier(name):
    short = name.removeprefix("inference.")
    return BACK_END if short in inference.methods() else {**BELOW, **ABOVE}[short]


def test_every_module_has_a_place():
    known = {*BELOW, *ABOVE, *inference.methods()}
    lost = set(UNITS) - {f"inference.{name}" for name in known}
    assert not lost, f"neither a back end (no `fit`) nor in a tier: {sorted(lost)}"


@pytest.mark.parametrize("name", UNITS)
def test_inference_imports_downward_only(name):
    up = {other for other in direct(name) if tier(other) > tier(name)}
    assert not up, f"{name} imports upward: {sorted(up)}"
    if tier(name) == BACK_END:
        across = {other for other in direct(name) if tier(other) == BACK_END}
        assert not across, f"{name} imports other back ends: {sorted(across)}"


def test_everything_below_is_used():
    used = {other for name in UNITS for other in direct(name)}
    idle = {name for name in UNITS if tier(name) < BACK_END} - used
    assert not idle, f"nothing uses {sorted(idle)}"


def test_no_module_imports_itself_by_a_detour():
    state = {}

    def visit(module, path):
        assert state.get(module) != "open", f"import cycle: {' -> '.join([*path, module])}"
        if state.setdefault(module, "open") == "done":
            return
        parents = {module.rpartition(".")[0]}  # a file's own package is loaded before it, by Python itself
        for other in sorted(imports(FILES[module]) & FILES.keys() - parents):
            if state.get(other) != "done":
                visit(other, [*path, module])
        state[module] = "done"

    for module in FILES:
        visit(module, [])


def test_the_one_lookup_upward_is_in_base():
    """Elsewhere `import_module` takes a name that was discovered, or a name above which it stands."""
    found = {}
    for module, path in FILES.items():
        calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call) and _is_import_module(node)]
        if calls:
            found[module] = [ast.unparse(call) for call in calls]
    by_method, by_name = (f"importlib.import_module(f'inference.{{{what}}}')" for what in ("self.method", "module"))
    assert sorted(found.pop("inference.base")) == sorted([by_method, by_name])
    calls = [node for node in ast.walk(tree_of(FILES["inference.base"])) if isinstance(node, ast.Call)]
    assert {call.args[0].value for call in calls if ast.unparse(call.func) == "_above"} <= ABOVE.keys()
    edges = {"ppmodels", "inference", "inference.cli"}
    others = {module for module in found if module not in edges and unit(module) == module}
    assert not others, f"looked up by name, unseen by these tests: {sorted(others)}"
    assert all(f"{unit(module)}." in call for module in found.keys() - edges for call in found[module])


@EVERY_FILE
def test_packages_stay_in_their_rooms(path):
    module, names = module_of(path), imports(path)
    tops = {name.partition(".")[0] for name in names}
    assert not tops & {"examples", "tests", "benchmarks", "arviz"}
    if module.startswith("ppmodels"):
        assert not {t for t in tops if t == "inference" or t.startswith("arviz") or t == "matplotlib"}
        _check_family(module, {name for name in names if name.startswith("ppmodels.")})
    else:
        known = {"ppmodels", "ppmodels.base"}
        concrete = {name for name in names if name.startswith("ppmodels.")} - known
        assert not concrete, f"{module} knows concrete models: {sorted(concrete)}"
    if module.startswith("ppmodels.nn"):
        foreign = tops - {"torch", "ppmodels"} - sys.stdlib_module_names
        assert not foreign, f"{module} knows more than torch: {sorted(foreign)}"


def _check_family(module, own):
    """Families know `base`, `nn` and themselves; `nn` itself alone; `base` nothing."""
    family = unit(module)
    allowed = {family} if family == "ppmodels.nn" else {family, "ppmodels.base", "ppmodels.nn"}
    if module in {"ppmodels", "ppmodels.base"}:
        allowed = {"ppmodels.base"}
    others = {name for name in own if unit(name) not in allowed}
    assert not others, f"{module} imports of another family: {sorted(others)}"


@pytest.mark.parametrize("name", UNITS)
def test_arviz_and_matplotlib_are_known_only_at_the_top(name):
    tops = {m.partition(".")[0] for module in FILES if unit(module) == name for m in imports(FILES[module])}
    if any(top.startswith("arviz") for top in tops):
        assert tops & {"arviz_base", "arviz_stats", "arviz_plots"} == {t for t in tops if t.startswith("arviz")}
        assert tier(name) >= ABOVE["datatree"], f"{name} imports ArviZ, and is below datatree"
    if "matplotlib" in tops:
        assert name.removeprefix("inference.") in DRAWING, f"{name} imports matplotlib"


def test_programs_may_use_the_library_but_not_one_another():
    for path in PROGRAMS:
        tops = {name.partition(".")[0] for name in imports(path)}
        assert not tops & {"tests", "arviz"} | ({"examples", "benchmarks"} & tops - {path.relative_to(ROOT).parts[0]})


@pytest.mark.parametrize("path", [*LIBRARY, *PROGRAMS], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path):
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (100 if path in MODELS else 250)
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            told = isinstance(node.body[0], ast.Expr) and isinstance(node.body[0].value, ast.Constant)
            body = node.body[1:] if told else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            assert length <= 40, f"{node.name} has {length} lines"


@EVERY_FILE
def test_files_say_what_they_are_and_print_nothing(path):
    assert ast.get_docstring(tree_of(path)), "no docstring"
    if module_of(path) == "inference.cli":
        return
    calls = [node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call)]
    printed = [node.lineno for node in calls if getattr(node.func, "id", "") in {"print", "breakpoint"}]
    assert not printed, f"print in line {printed}"


@EVERY_FILE
def test_names_say_what_things_are(path):
    nothing = re.compile(
        r"^_*(utils?|helpers?|managers?|misc|common)$|(_utils?|_helpers?|_manager|_fn|Manager|Helper)$|^base_"
    )
    names = [path.stem]
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.append(node.name)
        elif isinstance(node, ast.arg):
            names.append(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.append(node.id)
    assert not [name for name in names if nothing.search(name)]


@pytest.mark.parametrize("path", [*LIBRARY, *PROGRAMS], ids=lambda p: str(p.relative_to(ROOT)))
def test_no_list_of_models_or_back_ends_is_kept_by_hand(path):
    """The folder is the catalogue. A program may choose some of them to show."""
    for catalogue in (ppmodels.names(), inference.methods()):
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.List | ast.Tuple | ast.Set | ast.Dict) and path not in PROGRAMS:
                parts = [*node.keys, *node.values] if isinstance(node, ast.Dict) else node.elts
                told = {part.value for part in parts if isinstance(part, ast.Constant)} & set(catalogue)
                assert len(told) < 3, f"line {node.lineno} lists {sorted(told)}"


SAME_MEANING = {  # the one name, and what else people call it
    "seed": r"random_(state|seed)|rng(_key|_seed)?|key",
    "num_samples": r"(n|num)?_?(draws|samples|nsamples)",
    "num_warmup": r"(n|num)?_?(warmup(_steps)?|burn_?in|tune|tuning)",
    "num_chains": r"(n|num)?_?chains?",
    "num_steps": r"(n|num|max)?_?(steps|iter(ations)?|epochs|n_iter)",
    "num_restarts": r"(n|num)_(starts|inits?)|n_restarts|restarts|starts",
    "lr": r"learning_rate|step_length",
    "batch_size": r"(mini)?batch(size)?|minibatch_size",
    "tol": r"tolerance|[ra]tol|eps(ilon)?|threshold",
    "target_accept_prob": r"target_accept(ance)?(_rate)?",
    "max_tree_depth": r"(max_)?(tree_?)?depth|max_treedepth",
    "progress_bar": r"progress(bar)?|verbose|quiet|disable_progbar",
    "checkpoint": r"checkpoint_(path|dir|file)|resume|save_(path|dir)",
}


def options():
    """Keyword-only options by back end."""
    found = {}
    for name in inference.methods():
        fit = importlib.import_module(f"inference.{name}").fit
        hints, signature = typing.get_type_hints(fit), inspect.signature(fit)
        keyword = [p for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
        found[name] = {p.name: (hints.get(p.name), p.default) for p in keyword}
    return found


@pytest.mark.parametrize("method", inference.methods())
def test_every_fit_is_called_in_the_same_way(method):
    signature = inspect.signature(importlib.import_module(f"inference.{method}").fit)
    kinds = [(p.name, p.kind.name) for p in signature.parameters.values() if p.kind is not p.KEYWORD_ONLY]
    assert kinds == [("model", "POSITIONAL_OR_KEYWORD"), ("args", "VAR_POSITIONAL"), ("kwargs", "VAR_KEYWORD")]
    own = options()[method]
    assert own["seed"] == (int, 0)
    assert own.get("progress_bar", (bool, False)) == (bool, False)
    assert all(default is not inspect.Parameter.empty for _, default in own.values())


def test_an_option_has_one_name_and_one_meaning():
    kinds: dict[str, dict[str, str]] = {}
    for method, own in options().items():
        for name, (hint, _) in own.items():
            better = [one for one, also in SAME_MEANING.items() if name != one and re.fullmatch(also, name)]
            assert not better, f"{method}.fit calls {better[0]} {name}"
            union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
            kind = " | ".join(sorted(str(part) for part in union if part is not type(None)))
            kinds.setdefault(name, {})[method] = kind
    different = {name: by for name, by in kinds.items() if len(set(by.values())) > 1}
    assert not different, f"one name, two types: {different}"
