"""A line that says how far the run is, what a draw costs, and whether chains diverge."""

from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar
from torch import Tensor


class Progress:
    """A progress bar where one is wanted, nothing otherwise."""

    def __init__(self, what: str, total: int, shown: bool) -> None:
        self.turns, self.divergences, self.leaps, self.bar = 0, 0, 0, None
        if shown:
            columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self.bar = Bar(*columns, TextColumn("{task.fields[said]}"))
            self.task = self.bar.add_task(what, total=total, said="")

    def __enter__(self) -> "Progress":
        if self.bar is not None:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self.bar is not None:
            self.bar.stop()

    def begin_again(self, total: int) -> None:
        """All turns are to be made once more."""
        self.turns, self.divergences, self.leaps = 0, 0, 0
        if self.bar is not None:
            self.bar.reset(self.task, total=total, said="again with half the step")

    def advance(self, stats: dict[str, Tensor]) -> None:
        """One more turn of every chain."""
        if self.bar is None:
            return
        self.turns += 1
        self.divergences += int(stats["diverging"].sum())
        self.leaps += int(stats["n_steps"].max())
        said = f"{self.leaps / self.turns:.1f} gradients a draw, {self.divergences} divergences"
        self.bar.update(self.task, advance=1, said=said)
