"""The command line: what it reads and writes, and the one line with which it refuses what is wrong."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import inference
from inference.cli import flags as flags
from inference.cli import main
from ppmodels.clustering.gmm import GaussianMixture
from ppmodels.datasets import old_faithful

QUICK = ["--num-restarts", "2", "--no-progress-bar"]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def faithful():
    return pd.DataFrame(old_faithful().observed["x"].numpy(), columns=["eruptions", "waiting"])


def run(*words):
    with pytest.raises(SystemExit) as end:
        main([str(word) for word in words])
    return end.value.code or 0


@pytest.fixture
def refused(capsys):
    """Run a command that must fail: return the one line that it says, with nothing written."""

    def refuse(*words, code=2):
        before = sorted(Path().rglob("*"))
        assert run(*words) == code
        out, err = capsys.readouterr()
        assert out == ""
        assert sorted(Path().rglob("*")) == before
        (line,) = err.splitlines()
        assert line.startswith("ppmodels: ")
        assert "Traceback" not in line
        return line.removeprefix("ppmodels: ")

    return refuse


def fit(file, *words, model="gmm", method="em"):
    return ("fit", model, "--method", method, "--data", file, "--no-progress-bar", *words)


def test_list_names_models_and_methods(capsys):
    assert run("list") == 0
    out = capsys.readouterr().out
    assert re.search(r"gmm +Mixture of Gaussians .* EM", out)
    assert re.search(r"linear +Bayesian linear regression.* posterior", out)
    assert f"methods: {', '.join(inference.methods())}" in out


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["list", "--help"], ["summary", "-h"], ["fit", "--help"]])
def test_help_shows_every_command(words, capsys):
    assert run(*words) == 0
    out, err = capsys.readouterr()
    assert err == ""
    commands = ("list", "fit MODEL", "summary DIR", "plot DIR", "report DIR")
    assert all(f"ppmodels {command}" in out for command in commands)


def test_nothing_asked_is_wrong_and_shows_the_same(capsys):
    assert run() == 2
    assert "ppmodels fit MODEL" in capsys.readouterr().out


def test_help_of_a_fit_tells_what_each_flag_means(capsys):
    assert run("fit", "gmm", "--method", "em", "--help") == 0
    text = re.sub(r"[\s│]+", " ", capsys.readouterr().out)
    assert "Mixture of Gaussians with full, tied, diagonal or spherical covariance." in text
    assert "Climb the likelihood from several starts" in text
    assert "--components INT" in text
    assert "--covariance {full,tied,diagonal,spherical}" in text
    assert "the first coordinates of loc increase" in text
    assert "--num-steps INT steps of each restart at most. (default: 2000)" in text
    assert "--seed INT of all random numbers" in text
    assert "--accept-warnings" in text


def test_a_fit_is_written_told_and_found_again(faithful, capsys):
    faithful.to_csv("old.csv", index=False)
    assert run(*fit("old.csv", "--seed", 3, "--covariance", "tied", "--out", "runs/a", *QUICK)) == 0
    out = capsys.readouterr().out
    assert "loc[1, waiting]" in out
    assert "em: nothing speaks against this answer" in out
    assert "written: runs/a/em.nc" in out
    assert os.listdir("runs/a") == ["em.nc"]
    again = inference.load("runs/a/em.nc")
    assert again.model.covariance == "tied"
    assert again.info["seed"] == 3
    assert again.model.scale == pytest.approx(tuple(faithful.std()), rel=1e-12)
    model = GaussianMixture.for_data(old_faithful().observed["x"], covariance="tied")
    direct = inference.fit("em", model, old_faithful(), seed=3, num_restarts=2)
    assert torch.equal(again.draws["loc"], direct.draws["loc"])


def test_the_folder_has_a_default_and_a_second_method_joins(faithful, capsys):
    faithful.to_csv("old.csv", index=False)
    assert run(*fit("old.csv", *QUICK)) == 0
    assert run(*fit("old.csv", "--num-steps", 2, "--accept-warnings", *QUICK, method="mode")) == 0
    capsys.readouterr()
    assert sorted(os.listdir("runs/gmm")) == ["em.nc", "mode.nc"]
    assert run("summary", "runs/gmm") == 0
    out = capsys.readouterr().out
    assert re.search(r"loc\[0, eruptions\] +em .*\n +mode ", out)
    assert "R-hat" in out
    assert run("plot", "runs/gmm") == 0
    pictures = {Path(line) for line in capsys.readouterr().out.split()}
    assert {Path("runs/gmm/objective.png"), Path("runs/gmm/em_ellipses.png")} <= pictures
    assert {path for path in Path("runs/gmm").iterdir() if path.suffix == ".png"} == pictures
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    assert run("report", "runs/gmm") == 0
    assert capsys.readouterr().out == "runs/gmm/report.html\n"
    assert "<h1>gmm</h1>" in Path("runs/gmm/report.html").read_text()


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_files_of_every_kind_hold_the_same_data(suffix, faithful):
    path = Path(f"old{suffix}")
    write = {
        ".csv": lambda: faithful.to_csv(path, index=False),
        ".parquet": lambda: faithful.to_parquet(path),
        ".npz": lambda: np.savez(path, x=faithful.to_numpy()),
    }
    write[suffix]()
    assert run(*fit(path, *QUICK)) == 0
    stored = inference.load("runs/gmm/em.nc").data
    assert torch.equal(stored.observed["x"], old_faithful().observed["x"])
    assert stored.coords.get("feature") == (None if suffix == ".npz" else ("eruptions", "waiting"))


def test_columns_make_arrays_and_the_number_of_features_follows():
    rows = np.random.default_rng(0).normal(size=(30, 4))
    table = pd.DataFrame(rows, columns=list("abcy"))
    table.assign(name="text").to_csv("rows.csv", index=False)
    words = ["--columns", "x=a,b,c", "y=y", "--num-samples", "50"]
    assert run(*fit("rows.csv", *words, model="linear", method="exact")[:6], *words) == 0
    found = inference.load("runs/linear/exact.nc")
    assert found.model.features == 3
    assert found.data.given["x"].shape == (30, 3)
    assert found.data.observed["y"].shape == (30,)
    table.to_csv("rows.csv", index=False)
    assert run("fit", "linear", "--method=exact", "--data", "rows.csv", "--columns", "y=y") == 0
    assert torch.equal(inference.load("runs/linear/exact.nc").data.given["x"], found.data.given["x"])


def test_a_doubtful_fit_exits_with_1_unless_warnings_are_accepted(faithful, capsys):
    faithful.to_csv("old.csv", index=False)
    words = fit("old.csv", "--num-steps", 2, *QUICK)
    assert run(*words) == 1
    assert "did not converge" in capsys.readouterr().out
    assert Path("runs/gmm/em.nc").exists()
    assert run(*words, "--accept-warnings") == 0


def broken(kind, table):
    """Old Faithful, spoiled in one way."""
    table = table.copy()
    if kind == "text":
        table["kind"] = np.where(table.index == 5, "short", "1")
    elif kind in {"nan", "infinite"}:
        table.loc[7, "waiting"] = np.nan if kind == "nan" else np.inf
    elif kind == "constant":
        table["waiting"] = 60.0
    elif kind == "duplicated":
        table[:] = table.iloc[0].to_numpy()
    elif kind == "few":
        table = table[:2]
    elif kind == "no rows":
        table = table[:0]
    return table


@pytest.mark.parametrize(
    ("kind", "words", "said"),
    [
        ("text", [], r"bad\.csv: column 'kind' holds text, 'short' in row 5"),
        ("nan", [], r"bad\.csv: x is nan in row 7, column 'waiting'"),
        ("infinite", [], r"bad\.csv: x is inf in row 7, column 'waiting'"),
        ("constant", [], r"column 1 of x is constant|column 'waiting' of x is constant"),
        ("duplicated", [], r"of x is constant"),
        ("few", ["--components", 3], r"3 components need at least as many rows; x has 2"),
        ("no rows", [], r"bad\.csv has column names but no rows"),
        ("sound", ["--components", 0], r"components must be at least 1; it is 0"),
        ("sound", ["--dim", 3], r"x needs the shape \(rows, 3\); bad\.csv gives it \(272, 2\)"),
        ("sound", ["--columns", "x=length"], r"bad\.csv has no column 'length'; it has eruptions, waiting"),
        ("sound", ["--columns", "y=waiting"], r"the model takes x; it has no array 'y'"),
        ("sound", ["--columns", "waiting"], r"--columns takes ARRAY=COLUMN\[,COLUMN\.\.\.\]; got 'waiting'"),
        ("sound", ["--components", "two"], r"Error parsing --components: invalid literal .* 'two'; see .* --help"),
        ("sound", ["--colour", "red"], r"Unrecognized options: --colour"),
        ("sound", ["--covariance", "round"], r"round"),
        ("sound", ["--num-steps", 0], r"num_steps must be at least 1; it is 0"),
    ],
)
def test_bad_data_and_flags_get_one_line(kind, words, said, faithful, refused):
    broken(kind, faithful).to_csv("bad.csv", index=False)
    assert re.search(said, refused(*fit("bad.csv", *words)))


@pytest.mark.parametrize("method", ["mcmc", "laplace", "svi", "mode"])
def test_every_method_refuses_before_it_begins(method, faithful, refused):
    broken("few", faithful).to_csv("bad.csv", index=False)
    assert "need at least as many rows" in refused(*fit("bad.csv", "--components", 3, method=method))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.csv", None, "there is no file none.csv"),
        ("empty.csv", b"", "empty.csv is empty"),
        ("blank.csv", b"\n\n", "blank.csv cannot be read"),
        ("bare.csv", b"3.6,79\n1.8,54\n3.3,74\n", "bare.csv has no line of column names: its first line is 3.6, 79"),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "ragged.csv cannot be read"),
        ("picture.csv", bytes(range(128, 256)) * 9, "picture.csv cannot be read"),
        ("not.parquet", b"a,b\n1,2\n", "not.parquet cannot be read"),
        ("not.npz", b"a,b\n1,2\n", "not.npz cannot be read"),
    ],
)
def test_files_that_cannot_be_read_get_one_line(name, content, said, refused):
    if content is not None:
        Path(name).write_bytes(content)
    assert said in refused(*fit(name))


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"y": np.ones((3, 2))}, "has no array 'x'; it has y"),
        ({"x": np.ones((4, 3, 2))}, "x needs the shape (rows, 2)"),
        ({"x": np.ones(4)}, "x needs the shape (rows, 2)"),
        ({"x": np.ones((0, 2))}, "has no rows"),
        ({"x": np.array(["a", "b"])}, "holds no numbers"),
        ({"x": np.array([["a"], [None]], dtype=object)}, "cannot be read"),
        ({"x": np.array([[1.0, 2.0], [np.nan, 1.0]])}, "x is nan in row 1, column 0"),
    ],
)
def test_arrays_of_the_wrong_shape_get_one_line(arrays, said, refused):
    np.savez("bad.npz", **arrays)
    assert said in refused(*fit("bad.npz"))


def test_commands_and_names_that_are_not_get_one_line(faithful, refused):
    faithful.to_csv("old.csv", index=False)
    assert refused("fitt").startswith("no command 'fitt'; there are: list, fit")
    assert "say which model" in refused("fit")
    assert "no model 'gnm'; there are: " in refused(*fit("old.csv", model="gnm"))
    assert "no method 'nuts'; there are: " in refused(*fit("old.csv", method="nuts"))
    assert "--method takes a name" in refused("fit", "gmm", "--method")
    assert "say which file" in refused("fit", "gmm", "--method", "em")
    assert "has no posterior in closed form" in refused("fit", "gmm", "--method", "exact", "--data", "old.csv")
    assert "there is no fit (*.nc) in elsewhere" in refused("summary", "elsewhere")
    assert "give one folder" in refused("plot")
    Path("other.nc").write_bytes(b"not a fit")
    assert refused("report", ".")


def test_a_folder_that_cannot_be_written_is_refused_before_the_fit(faithful, refused):
    faithful.to_csv("old.csv", index=False)
    Path("file").write_text("in the way")
    assert "file is a file" in refused(*fit("old.csv", "--out", "file"))
    assert "file is a file" in refused(*fit("old.csv", "--out", "file/below"))


def test_a_folder_without_permission_is_refused_before_the_fit(faithful, refused, monkeypatch):
    with tempfile.TemporaryDirectory() as place:
        os.chmod(place, 0o755)
        monkeypatch.chdir(place)
        faithful.to_csv("old.csv", index=False)
        Path("locked").mkdir(mode=0o555)
        root = os.getuid() == 0
        if root:  # root may write everywhere
            os.setresuid(65534, 65534, 0)
        try:
            assert "you may not write to" in refused(*fit("old.csv", "--out", "locked/runs"))
        finally:
            if root:
                os.setresuid(0, 0, 0)


def test_a_write_that_fails_leaves_the_old_file(faithful, capsys, monkeypatch):
    faithful.to_csv("old.csv", index=False)
    words = fit("old.csv", *QUICK)
    assert run(*words) == 0
    before = Path("runs/gmm/em.nc").read_bytes()
    capsys.readouterr()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run(*words, "--seed", 5) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert Path("runs/gmm/em.nc").read_bytes() == before
    assert os.listdir("runs/gmm") == ["em.nc"]


def test_help_comes_from_comments_and_docstrings():
    def back_end(model, *, tol=1.0, patience=2):
        """Fit.

        tol, patience: two that are told
            together.
        """

    assert flags._told(back_end) == dict.fromkeys(["tol", "patience"], "two that are told together.")
    assert "the first coordinates of loc increase" in flags._comments(GaussianMixture)["ordered"]


def started(*words):
    """The command in a process of its own."""
    handler = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"  # a job may ignore it
    code = f"{handler}; from inference.cli import main; main()"
    root = Path(inference.__file__).parents[1]
    env = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, words)], env=env, **pipes)


def interrupt_when(process, ready, seconds=120):
    """Send Ctrl-C once `ready` is true; return the exit code and what was said."""
    end = time.monotonic() + seconds
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never began to draw"
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def test_an_interrupt_keeps_the_finished_draws_and_says_how_many(faithful):
    faithful.to_csv("old.csv", index=False)
    words = ["--num-samples", 200_000, "--num-warmup", 30, "--num-chains", 4, "--compile", "False"]
    folder = Path("state")
    process = started(*fit("old.csv", "--checkpoint", folder, *words, method="mcmc"))
    code, out, err = interrupt_when(process, lambda: len(list(folder.glob("draws-*.pt"))) >= 2)
    assert code == 1, err
    assert err == ""
    made = int(re.search(r"interrupted; (\d+) finished draws a chain are kept", re.sub(r"\s+", " ", out))[1])
    assert made >= 100
    found = inference.load("runs/gmm/mcmc.nc")
    assert found.draws["loc"].shape == (4, made, 2, 2)
    assert torch.isfinite(found.draws["loc"]).all()
    assert all(value.shape == (4, made) for value in found.stats.values())
    assert os.listdir("runs/gmm") == ["mcmc.nc"]


def test_an_interrupt_before_the_first_draw_writes_nothing(faithful, refused, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    faithful.to_csv("old.csv", index=False)
    monkeypatch.setattr("inference.mcmc.run.warm_up", interrupted)
    words = ["--num-warmup", 10, "--num-chains", 4, "--compile", "False", "--init", "uniform"]
    assert refused(*fit("old.csv", *words, method="mcmc"), code=130) == "interrupted; nothing is written"
