"""Training: planted analogies come out, the same call gives the same vectors, and goes on where it stopped."""

import math
import random

import pytest
import torch

from ppmodels.embedding import _run
from ppmodels.embedding._plan import Plan
from ppmodels.embedding.text import TextFile
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.vocabulary import Vocabulary
from ppmodels.embedding.word2vec import Word2Vec
from tests.shared import shared

WORDS = {
    "king": ("he", "royal"), "queen": ("she", "royal"), "prince": ("he", "royal", "young"),
    "princess": ("she", "royal", "young"), "man": ("he",), "woman": ("she",), "boy": ("he", "young"),
    "girl": ("she", "young"),
}  # fmt: skip
COMPANY = {"he": ["he", "his", "him"], "she": ["she", "hers", "her"], "royal": ["crown", "throne", "palace"],
           "young": ["school", "toy", "small"]}  # fmt: skip


def planted(sentences=3000, seed=0):
    """Each sentence has one of eight words among words that its two or three properties call for."""
    draw = random.Random(seed)
    text = []
    for _ in range(sentences):
        word, kinds = draw.choice([*WORDS.items()])
        sentence = [draw.choice(COMPANY[draw.choice(kinds)]) for _ in range(6)] + [draw.choice(["the", "a"])]
        sentence.insert(3, word)
        text.append(sentence)
    return text


TOY = {"dim": 16, "min_count": 1, "sample": 0.0}


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
@pytest.mark.parametrize("loss", ["negative", "nce", "hierarchical", "softmax"])
def test_planted_analogies_come_first(architecture, loss):
    model = Word2Vec(architecture=architecture, loss=loss, **TOY)
    found = model.fit(planted(2000), epochs=12, seed=1)
    assert found.losses[-3:].mean() < found.losses[0]
    vectors = found.vectors
    assert vectors.analogy(["king", "woman"], ["man"])[0][0] == "queen"
    assert vectors.similarity("king", "prince") > vectors.similarity("king", "girl")


def test_a_layer_behind_the_context_learns_the_same():
    found = Word2Vec(architecture="cbow", layer="tanh", **TOY).fit(planted(2000), epochs=12, seed=1)
    assert found.layer.shape == (17, 16)
    assert not torch.allclose(found.layer, torch.eye(17)[:, :16], atol=0.1)
    assert found.input.shape == (len(found.vocabulary), 16)
    assert found.vectors.analogy(["king", "woman"], ["man"])[0][0] == "queen"


def test_the_softmax_approaches_the_entropy_of_neighbours():
    text = [["a", "b"], ["a", "c"], ["b", "c"]] * 400
    found = Word2Vec(dim=4, window=1, loss="softmax", min_count=1, sample=0.0).fit(text, epochs=20, lr=0.1)
    assert found.losses[0] < math.log(3) + 0.01
    assert found.losses[-1].item() == pytest.approx(math.log(2), abs=0.02)  # each has the two others beside it


def test_the_same_seed_gives_the_same_vectors():
    text, model = planted(300), Word2Vec(**TOY)
    one, two, other = (model.fit(text, epochs=2, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.input, two.input)
    assert torch.equal(one.output, two.output)
    assert not torch.equal(one.input, other.input)


def test_words_that_fill_every_step_do_not_blow_it_up():
    text = [["x", "y", "x", "y", "z"]] * 400
    for loss in ("negative", "hierarchical", "softmax"):
        found = Word2Vec(dim=8, loss=loss, min_count=1, sample=0.0).fit(text, epochs=5, batch_size=1024)
        assert found.input.abs().max() < 100
    with pytest.raises(ArithmeticError, match=r"vectors grew out of all bounds by load . of 2; lower lr"):
        Word2Vec(dim=8, min_count=1).fit(text, epochs=2, lr=1e30)


@pytest.fixture
def small_loads(monkeypatch):
    monkeypatch.setattr("ppmodels.embedding.word2vec.LOAD", 500)
    monkeypatch.setattr(_run, "EVERY", 0.0)


def test_an_interrupted_run_goes_on_where_it_was(tmp_path, monkeypatch, small_loads):
    text, model, call = planted(300), Word2Vec(**TOY), {"epochs": 2, "seed": 5}
    whole = model.fit(text, **call)
    assert len(whole.losses) > 6
    train, path = Plan.train, tmp_path / "word2vec.safetensors"

    def interrupted(self, number, v, u):
        if number == 4:
            raise KeyboardInterrupt
        return train(self, number, v, u)

    with monkeypatch.context() as patch:
        patch.setattr(Plan, "train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.fit(text, checkpoint=path, **call)
    resumed = model.fit(text, checkpoint=path, **call)
    assert torch.equal(resumed.input, whole.input)
    assert torch.equal(resumed.output, whole.output)
    assert torch.equal(resumed.losses, whole.losses)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="is of another call"):
        model.fit(text, checkpoint=path, epochs=2, seed=6)


@pytest.mark.slow
def test_several_processes_learn_the_same_from_a_file(tmp_path, small_loads):
    path = tmp_path / "text.txt"
    path.write_text("\n".join(map(" ".join, planted(2000))))
    vectors = Word2Vec(**TOY).fit(TextFile(path), epochs=12, workers=2).vectors
    assert vectors.analogy(["king", "woman"], ["man"])[0][0] == "queen"


def test_a_vocabulary_can_be_given():
    words = Vocabulary.count(planted(100), 1, max_words=5)
    assert Word2Vec(dim=3).fit(planted(100), epochs=1, vocabulary=words).vectors.words == words.words


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
def test_words_of_a_kind_are_near_in_shakespeare(architecture):
    text = TextFile(shared("data", "tinyshakespeare", "input.txt"), pattern=r"[a-z']+", lower=True)
    vectors: WordVectors = Word2Vec(architecture=architecture).fit(text, epochs=10).vectors
    alike = [("king", "queen"), ("father", "mother"), ("brother", "sister"), ("lord", "lady"), ("hand", "foot")]
    apart = [("king", "foot"), ("father", "sweet"), ("brother", "hand"), ("lord", "water"), ("mother", "night")]
    cosine = [sum(vectors.similarity(a, b) for a, b in pairs) / 5 for pairs in (alike, apart)]
    assert cosine[0] > cosine[1] + 0.1


def test_bad_calls_are_refused_in_one_line():
    for call, words in (
        (lambda: Word2Vec(dim=0), "dim must be at least 1"),
        (lambda: Word2Vec(architecture="glove"), "architecture must be one of skip-gram, cbow"),
        (lambda: Word2Vec(loss="hinge"), "loss must be one of negative, nce, hierarchical, softmax"),
        (lambda: Word2Vec(layer="relu"), "layer must be one of linear, tanh"),
        (lambda: Word2Vec(layer="tanh"), "take the architecture cbow"),
        (lambda: Word2Vec(sample=-1.0), "sample must be from 0 up"),
        (lambda: Word2Vec().fit([]), "no word occurs 5 times or more"),
        (lambda: Word2Vec(min_count=1).fit([["one"], ["word"]]), "no sentence has two words"),
        (lambda: Word2Vec(min_count=1).fit([["a", "a"]]), "the one word 'a', which has no other"),
        (lambda: Word2Vec(min_count=1).fit([["a", "b"]], workers=2, device="meta"), "one process drives meta"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
