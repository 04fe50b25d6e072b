"""What the README says is what the project does."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest

import inference
import ppmodels
from inference.cli import main

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


def test_table_is_the_catalogue(capsys):
    with pytest.raises(SystemExit) as end:
        main(["list", "--markdown"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() in README
    assert all(f"`{name}`" in README for name in ppmodels.names())


def test_commands_are_targets():
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.M))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.M))
    assert named
    assert named <= targets


def test_back_ends_named_exist():
    said = re.search(r"^(`\w+`, .*?) are called in the same way", README, re.S | re.M)
    assert said
    names = set(re.findall(r"`(\w+)`", said[1]))
    assert names | {"mcmc"} == set(inference.methods())


def test_calls_in_tables_are_of_options_that_exist():
    calls = [ast.parse(call, mode="eval").body for call in re.findall(r"\| `(\w+\.fit\(model, data.*\))` \|", README)]
    assert len(calls) >= 10
    for call in calls:
        assert isinstance(call, ast.Call)
        assert isinstance(call.func, ast.Attribute)
        assert isinstance(call.func.value, ast.Name)
        fit = importlib.import_module(f"inference.{call.func.value.id}").fit
        assert {option.arg for option in call.keywords} <= set(inspect.signature(fit).parameters), ast.unparse(call)


def test_every_example_is_listed_with_its_question():
    listed = dict(re.findall(r"^\| `(\w+\.py)` \| (.*?) \|", (ROOT / "examples/README.md").read_text("utf-8"), re.M))
    scripts = {path.name: path.read_text("utf-8") for path in (ROOT / "examples").glob("*.py")}
    assert listed == {name: re.search(r"^# # (.*)$", text, re.M)[1] for name, text in scripts.items()}


def test_pictures_and_links_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("http") or (ROOT / target).exists(), target


def test_python_block_runs_as_it_stands():
    blocks = re.findall(r"```python\n(.*?)```", README, re.S)
    collection = next(b for b in blocks if "old_faithful" in b)
    small = "mcmc.fit(model, data, num_chains=4, num_samples=10, num_warmup=20)"
    quick = collection.replace("mcmc.fit(model, data)", small)
    assert quick != collection
    space: dict = {}
    exec(compile(quick, "README", "exec"), space)
    assert space["fit"].draws["loc"].shape == (4, 10, 2, 2)
