import math

import pytest
import torch

from ppmodels.nn.multimodal import MaskedMultimodal

SHAPES = {"word": (4, 2), "picture": (6, 5), "depth": (3, 4)}


def network(**options):
    torch.manual_seed(0)
    return MaskedMultimodal(SHAPES, **{"seen": 5, "asked": 5, "width": 32, "layers": 1, **options})


def scene(rows, generator=None):
    """Three descriptions of one hidden cause of four kinds."""
    cause = torch.randint(4, (rows, 1), generator=generator)
    return {
        "word": (cause + torch.arange(2)) % 4,
        "picture": (cause * 2 + torch.arange(5)) % 6,
        "depth": (cause + torch.arange(4)) % 3,
    }


def test_starts_at_ignorance():
    part = network()
    loss = part.loss(scene(2000), torch.Generator().manual_seed(0)).item()
    lengths = {name: length for name, (_, length) in SHAPES.items()}
    expected = sum(length * math.log(SHAPES[name][0]) for name, length in lengths.items()) / sum(lengths.values())
    assert loss == pytest.approx(expected, abs=0.005)


def test_learns_any_from_any():
    part, generator = network(), torch.Generator().manual_seed(0)
    optimiser = torch.optim.Adam(part.parameters(), 5e-3)
    for _ in range(400):
        optimiser.zero_grad()
        part.loss(scene(64, generator), generator).backward()
        optimiser.step()
    tokens = scene(100, generator)
    # The picture's codes and the depths repeat every three causes, so that 0 and 3 look alike there.
    sure = (tokens["word"][:, 0] != 0) & (tokens["word"][:, 0] != 3)
    for given, wanted in (("word", "picture"), ("word", "depth"), ("picture", "word"), ("depth", "picture")):
        logits = part.predict({given: tokens[given]}, wanted)
        length, vocabulary = SHAPES[wanted][1], SHAPES[wanted][0]
        assert logits.shape == (100, length, vocabulary)
        right = logits.argmax(-1) == tokens[wanted]
        assert right[sure].double().mean() > 0.95
    unsure = part.predict({"picture": tokens["picture"]}, "word")[~sure, 0].softmax(-1)
    assert (unsure[:, [0, 3]].sum(-1) > 0.9).all()  # and it knows what it cannot know
    assert unsure.max() < 0.9


def test_asked_tokens_are_not_seen():
    part, generator = network(seen=2, asked=9), torch.Generator().manual_seed(0)
    tokens = scene(1)
    order = torch.rand(1, 11, generator=torch.Generator().manual_seed(0)).argsort(-1)[0]
    asked = [i for i in order[2:].tolist() if i < 2]
    assert asked
    _, context = [], []
    part.encoder.register_forward_hook(lambda _m, _i, out: context.append(out.detach()))
    part.loss(tokens, generator)
    changed = {k: v.clone() for k, v in tokens.items()}
    changed["word"][:, asked] = (changed["word"][:, asked] + 1) % 4
    part.loss(changed, torch.Generator().manual_seed(0))
    assert torch.equal(*context)


def test_one_clear_line_for_what_cannot_be():
    with pytest.raises(ValueError, match="of 11 tokens"):
        network(seen=8)
    with pytest.raises(ValueError, match="missing: depth"):
        network().loss({k: v for k, v in scene(2).items() if k != "depth"})
    with pytest.raises(ValueError, match="cannot predict"):
        network().predict({"sound": torch.zeros(1, 2, dtype=torch.long)}, "word")
