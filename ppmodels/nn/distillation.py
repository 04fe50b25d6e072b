"""A student learns from a teacher: a larger network's, or the student's own running mean."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 1.0) -> Tensor:
    """Cross-entropy of softened logits (B, K), times temperature squared so that gradients keep their size.

    Source: Hinton, Vinyals and Dean (2015), arXiv:1503.02531, section 2.
    """
    target = (teacher / temperature).softmax(-1).detach()
    return functional.cross_entropy(student / temperature, target) * temperature**2


class SelfDistillation(nn.Module):
    r"""Two views of one thing get one answer, with no labels; the teacher is the student's running mean.

    .. math:: -\sum_k \mathrm{softmax}((t - c)/\tau_t)_k \log \mathrm{softmax}(s/\tau_s)_k

    Centring by c alone would flatten the answers and sharpening by a small tau alone would collapse them on
    one; together they do neither.

    student: module (B, ...) -> (B, K). decay: of the teacher's mean. centring: decay of c, None for no c.
    Source: Caron et al. (2021), arXiv:2104.14294, section 3.1.
    """

    center: Tensor

    def __init__(
        self,
        student: nn.Module,
        outputs: int,
        decay: float = 0.996,
        centring: float | None = 0.9,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
    ):
        super().__init__()
        self.student = student
        self.teacher = copy.deepcopy(student).requires_grad_(False)
        self.decay, self.centring = decay, centring
        self.student_temperature, self.teacher_temperature = student_temperature, teacher_temperature
        self.register_buffer("center", torch.zeros(outputs))

    def forward(self, views: list[Tensor]) -> tuple[Tensor, Tensor]:
        """The loss over all pairs of different views, (), and the teacher's mean logits for `update`, (K,).

        Raises: ValueError with fewer than two views.
        """
        if len(views) < 2:
            raise ValueError(f"self-distillation compares views; got {len(views)}")
        answers = [self.student(view) / self.student_temperature for view in views]
        with torch.no_grad():
            logits = torch.stack([self.teacher(view) for view in views])  # (views, B, K)
            targets = ((logits - self.center) / self.teacher_temperature).softmax(-1)
        losses = [
            functional.cross_entropy(answer, target)
            for i, answer in enumerate(answers)
            for j, target in enumerate(targets)
            if i != j
        ]
        return torch.stack(losses).mean(), logits.flatten(0, 1).mean(0)

    @torch.no_grad()
    def update(self, mean: Tensor) -> None:
        """After an optimiser's step: move the teacher to the student and the centre to the mean (K,)."""
        average_into(self.teacher, self.student, self.decay)
        if self.centring is not None:
            self.center.lerp_(mean, 1 - self.centring)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """The teacher's answer, (B, K)."""
        return ((self.teacher(x) - self.center) / self.teacher_temperature).softmax(-1)


@torch.no_grad()
def average_into(target: nn.Module, source: nn.Module, decay: float) -> None:
    """Exponential moving average of one module's weights in another; buffers are copied."""
    for mean, value in zip(target.parameters(), source.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
    for mean, value in zip(target.buffers(), source.buffers(), strict=True):
        mean.copy_(value)
