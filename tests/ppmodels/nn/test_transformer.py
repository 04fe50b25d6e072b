import math

import pytest
import torch
from torch.nn import functional

from ppmodels.nn.position import POSITIONS
from ppmodels.nn.transformer import CausalTransformer, Encoder, EncoderDecoder, TransformerLM


def model(position="rotary", **options):
    torch.manual_seed(0)
    return (
        TransformerLM(11, **{"width": 16, "layers": 2, "position": position, "longest": 32, **options}).double().eval()
    )


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_cached_decoding_is_the_whole(position):
    network, tokens = model(position), torch.randint(11, (2, 20))
    state, outputs = None, []
    for stretch in tokens.split([7, 1, 1, 11], 1):
        logits, state = network.decode(stretch, state)
        outputs.append(logits)
    torch.testing.assert_close(torch.cat(outputs, 1), network(tokens), atol=1e-12, rtol=0)
    single, state = network.float(), None
    whole = single(tokens)
    for t in range(20):
        logits, state = single.decode(tokens[:, t : t + 1], state)
        torch.testing.assert_close(logits[:, 0], whole[:, t], atol=1e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_the_future_is_not_seen(position):
    network, tokens = model(position), torch.randint(11, (2, 20))
    changed = tokens.clone()
    changed[:, 12] = (changed[:, 12] + 1) % 11
    assert torch.equal(network(tokens)[:, :12], network(changed)[:, :12])
    assert not torch.equal(network(tokens)[:, 12:], network(changed)[:, 12:])


def test_starts_at_ignorance():
    torch.manual_seed(0)
    network, tokens = TransformerLM(65, 128, 4), torch.randint(65, (8, 64))
    loss = functional.cross_entropy(network(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
    assert loss.item() == pytest.approx(math.log(65), abs=0.1)


def test_head_shares_the_embedding_also_after_loading():
    network = model()
    network.load_state_dict(model(layers=2).state_dict())
    assert network.head.weight.data_ptr() == network.embedding.weight.data_ptr()


@torch.no_grad()
def test_length_one_and_longer_than_trained():
    for position in POSITIONS:
        network = model(position)
        assert network(torch.zeros(1, 1, dtype=torch.long)).shape == (1, 1, 11)
        if position == "learned":
            with pytest.raises(ValueError, match="beyond the 32 learned"):
                network(torch.zeros(1, 33, dtype=torch.long))
        else:
            assert torch.isfinite(network(torch.zeros(1, 101, dtype=torch.long))).all()
    for tokens in (torch.zeros(2, 0, dtype=torch.long), torch.zeros(2, 3), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="expected integer tokens"):
            model()(tokens)


@torch.no_grad()
@pytest.mark.parametrize("position", POSITIONS)
def test_numbers_instead_of_tokens(position):
    """Features over numbers: causal, and by steps what they are as a whole."""
    torch.manual_seed(0)
    network = CausalTransformer(3, 16, 2, position=position, longest=32).double().eval()
    x = torch.randn(2, 20, 3, dtype=torch.float64)
    state, outputs = None, []
    for stretch in x.split([7, 1, 12], 1):
        features, state = network.decode(stretch, state)
        outputs.append(features)
    torch.testing.assert_close(torch.cat(outputs, 1), network(x), atol=1e-12, rtol=0)
    changed = x.clone()
    changed[:, 12] += 1
    assert torch.equal(network(x)[:, :12], network(changed)[:, :12])
    for wrong in (x[..., :2], x[:, :0], x[0]):
        with pytest.raises(ValueError, match=r"expected \(batch, length >= 1, 3\)"):
            network(wrong)


@torch.no_grad()
def test_encoder_padding_is_a_shorter_sequence():
    torch.manual_seed(0)
    network, x = Encoder(16, 2).double().eval(), torch.randn(2, 9, 16, dtype=torch.float64)
    padding = torch.arange(9) < torch.tensor([[9], [4]])
    torch.testing.assert_close(network(x, padding)[1:, :4], network(x[1:, :4]), atol=1e-12, rtol=0)
    assert torch.isfinite(network(x, torch.zeros(2, 9, dtype=torch.bool))).all()


@torch.no_grad()
@pytest.mark.parametrize("position", ["sinusoidal", "rotary", "alibi", "learned"])
def test_encoder_decoder_by_steps_and_with_padding(position):
    torch.manual_seed(0)
    network = EncoderDecoder(11, 16, 2, position=position, longest=20).double().eval()
    for parameter in network.parameters():
        parameter.mul_(5)  # away from the start, where attention is all but uniform
    source, target = torch.randint(11, (2, 12)), torch.randint(11, (2, 9))
    padding = torch.arange(12) < torch.tensor([[12], [5]])
    whole = network(source, target, padding)
    state, outputs = network.encode(source, padding), []
    for now in target.split(1, 1):
        logits, state = network.decode(now, state)
        outputs.append(logits)
    torch.testing.assert_close(torch.cat(outputs, 1), whole, atol=1e-12, rtol=0)
    alone = network(source[1:, :5], target[1:])
    torch.testing.assert_close(whole[1:], alone, atol=1e-12, rtol=0)
    assert (network((source + 1) % 11, target) - network(source, target)).abs().max() > 0.01
    turned = (network(source.flip(1), target) - network(source, target)).abs().max()
    rounding = 1e-12 * whole.abs().max()
    assert turned < rounding if position == "alibi" else turned > 1e-4  # it hears the order; alibi is symmetric
    changed = target.clone()
    changed[:, 6] = (changed[:, 6] + 1) % 11
    assert torch.equal(network(source, changed)[:, :6], network(source, target)[:, :6])


@pytest.mark.parametrize("position", POSITIONS)
def test_device_follows_the_data(position):
    """The meta device refuses any tensor from elsewhere."""
    tokens = torch.zeros(2, 9, dtype=torch.long, device="meta")
    logits, _ = model(position).to("meta").decode(tokens)
    assert logits.device.type == "meta"
    both = EncoderDecoder(11, 16, 1, position=position, longest=9).to("meta")
    assert both(tokens, tokens, tokens > 0).shape == (2, 9, 11)


def fit(network, loss, steps, lr=3e-3):
    optimiser = torch.optim.Adam(network.parameters(), lr)
    for _ in range(steps):
        optimiser.zero_grad()
        value = loss()
        value.backward()
        optimiser.step()
    return value.item()


def test_reverses_by_heart():
    """Encoder-decoder: every token of every reversed sequence, the target being shifted by a start token."""
    torch.manual_seed(0)
    network = EncoderDecoder(9, 32, 1)
    source = torch.randint(1, 9, (64, 6))
    target = source.flip(1)
    shifted = functional.pad(target, (1, -1))
    fit(
        network,
        lambda: functional.cross_entropy(network(source, shifted).flatten(0, 1), target.flatten()),
        250,
    )
    state, token, said = network.encode(source), torch.zeros(64, 1, dtype=torch.long), []
    for _ in range(6):
        logits, state = network.decode(token, state)
        token = logits.argmax(-1)
        said.append(token)
    assert (torch.cat(said, 1) == target).double().mean() == 1.0


def test_copies_what_it_has_never_seen():
    """Decoder-only, on fresh sequences at every step: w, a mark, w again."""
    torch.manual_seed(0)
    network, size = TransformerLM(9, 32, 2, position="sinusoidal"), 5

    def batch(rows):
        word = torch.randint(1, 9, (rows, size))
        return torch.cat([word, torch.zeros(rows, 1, dtype=torch.long), word], 1)

    def loss():
        x = batch(64)
        return functional.cross_entropy(network(x[:, :-1])[:, size:].flatten(0, 1), x[:, size + 1 :].flatten())

    fit(network, loss, 400, 5e-3)
    x = batch(200)
    assert (network(x[:, :-1])[:, size:].argmax(-1) == x[:, size + 1 :]).double().mean() == 1.0


def test_one_layer_learns_a_markov_chain_to_its_entropy():
    torch.manual_seed(0)
    states = 6
    transition = torch.distributions.Dirichlet(torch.full((states,), 0.5)).sample((states,))
    stationary = torch.linalg.matrix_power(transition, 200)[0]
    entropy = -(stationary[:, None] * transition * transition.clamp(min=1e-30).log()).sum().item()

    def chain(rows, length):
        x = [torch.multinomial(stationary, rows, replacement=True)]
        for _ in range(length - 1):
            x.append(torch.multinomial(transition[x[-1]], 1)[:, 0])
        return torch.stack(x, 1)

    network = TransformerLM(states, 16, 1, heads=2)

    def loss(rows=64):
        x = chain(rows, 17)
        return functional.cross_entropy(network(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten())

    fit(network, loss, 300, 1e-2)
    with torch.no_grad():
        x = chain(4000, 17)
        losses = functional.cross_entropy(network(x[:, :-1]).flatten(0, 1), x[:, 1:].flatten(), reduction="none")
    assert losses.mean().item() == pytest.approx(entropy, abs=0.02)
    assert entropy < math.log(states) - 0.3
