import pytest
import torch

from ppmodels.nn.generate import cut, draw, generate
from ppmodels.nn.ssm_stack import SSMStack
from ppmodels.nn.transformer import EncoderDecoder, TransformerLM


def networks():
    torch.manual_seed(0)
    yield TransformerLM(11, 16, 2, dropout=0.3).double()
    yield TransformerLM(11, 16, 2, position="learned", longest=40).double()
    yield SSMStack(11, 11, 16, 2, tokens=True, states=8, dropout=0.3).double()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_cached_is_uncached(temperature):
    for network in networks():
        prompt = torch.randint(11, (3, 4))
        runs = [
            generate(
                network,
                prompt,
                20,
                temperature=temperature,
                cached=c,
                generator=torch.Generator().manual_seed(1),
            )
            for c in (True, False)
        ]
        assert torch.equal(*runs)
        assert runs[0].shape == (3, 24)
        assert torch.equal(runs[0][:, :4], prompt)
        assert network.training


def test_continues_a_state():
    network = next(networks()).eval()
    prompt = torch.randint(11, (2, 6))
    _, state = network.decode(prompt[:, :5])
    whole = generate(network, prompt, 5, temperature=0)
    assert torch.equal(generate(network, prompt[:, 5:], 5, temperature=0, state=state)[:, 1:], whole[:, 6:])


def test_continues_a_translation():
    torch.manual_seed(0)
    network, source = EncoderDecoder(11, 16, 1).double(), torch.randint(11, (3, 7))
    start = torch.zeros(3, 1, dtype=torch.long)
    said = generate(network, start, 6, temperature=0, state=network.encode(source))
    logits = network(source, said[:, :-1])
    assert torch.equal(logits.argmax(-1), said[:, 1:])


def test_window_of_learned_positions():
    network = list(networks())[1]
    prompt = torch.randint(11, (1, 4))
    with pytest.raises(ValueError, match="beyond the 40 learned"):
        generate(network, prompt, 60)
    assert network.training
    assert generate(network, prompt, 60, cached=False, context=40).shape == (1, 64)


def test_cuts():
    logits = torch.tensor([[0.1, 0.5, 0.3, 0.1]], dtype=torch.float64).log()
    assert cut(logits, top_k=2).exp()[0].tolist() == pytest.approx([0, 0.5, 0.3, 0])
    assert cut(logits, top_p=0.5).exp()[0].tolist() == pytest.approx([0, 0.5, 0, 0])
    assert cut(logits, top_p=0.79).exp()[0].tolist() == pytest.approx([0, 0.5, 0.3, 0])
    assert cut(logits, top_p=0.01).exp()[0].tolist() == pytest.approx([0, 0.5, 0, 0])
    assert cut(logits, top_k=3, top_p=1.0).exp()[0].tolist() == pytest.approx([0.1, 0.5, 0.3, 0])
    assert torch.equal(cut(logits, top_k=99), logits)
    assert torch.isfinite(cut(torch.zeros(1, 5), top_k=2)).sum() == 2  # among equals, exactly as many


def test_draws_follow_the_tempered_law():
    logits, count = torch.tensor([1.0, 0.0, -1.0]), 40000
    generator = torch.Generator().manual_seed(0)
    for temperature in (0.5, 1.0, 2.0):
        tokens = draw(logits.expand(count, -1), temperature, generator=generator)
        expected = (logits / temperature).softmax(-1)
        error = 4 * (expected * (1 - expected) / count).sqrt()
        assert ((tokens.bincount(minlength=3) / count - expected).abs() < error).all()
    assert draw(logits[None], 0.0).item() == 0


@pytest.mark.parametrize(
    ("options", "word"),
    [({"top_k": 0}, "top_k"), ({"top_p": 1.5}, "top_p"), ({"temperature": -1}, "temperature")],
)
def test_one_clear_line_for_what_cannot_be(options, word):
    with pytest.raises(ValueError, match=word):
        draw(torch.zeros(1, 3), **options)


def test_empty_prompt():
    with pytest.raises(ValueError, match="at least one token"):
        generate(next(networks()), torch.zeros(1, 0, dtype=torch.long), 3)
