"""Neighbours, analogies and their scores; files; counting; and why offsets mean something."""

import gzip
import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ppmodels.embedding import loss
from ppmodels.embedding.ppmi import cooccurrence, ppmi, ppmi_vectors
from ppmodels.embedding.vectors import WordVectors
from ppmodels.embedding.vocabulary import Vocabulary
from ppmodels.embedding.word2vec_format import from_gensim, read_word2vec, to_gensim, write_word2vec
from tests import draws

normal = partial(draws.normal, dtype=torch.float32)


def some(words=20, dim=5, seed=0):
    return WordVectors(tuple(f"w{i}" for i in range(words)), normal(words, dim, seed=seed))


def test_neighbours_are_those_of_the_cosine():
    vectors = some()
    table = torch.cosine_similarity(vectors.vectors[:, None], vectors.vectors, dim=-1)
    order = [f"w{i}" for i in table[3].argsort(descending=True).tolist() if i != 3]
    assert [word for word, _ in vectors.neighbours("w3", 5)] == order[:5]
    assert vectors.neighbours("w3", 1)[0][1] == pytest.approx(table[3].sort().values[-2].item(), abs=1e-6)
    assert vectors.neighbours(7 * vectors["w3"], 1)[0][0] == "w3"
    assert vectors.similarity("w1", "w2") == pytest.approx(table[1, 2].item(), abs=1e-6)
    assert len(vectors.neighbours("w3", 100)) == 19


def test_analogies_by_hand():
    vectors = some()
    unit = vectors.vectors / vectors.vectors.norm(dim=-1, keepdim=True)
    query = unit[1] - unit[0] + unit[2]
    score = unit @ query / query.norm()
    score[:3] = -math.inf
    assert vectors.analogy(["w1", "w2"], ["w0"], 1)[0] == (f"w{score.argmax()}", pytest.approx(score.max().item()))
    near = (1 + unit @ unit.mT) / 2
    product = near[1] * near[2] / (near[0] + 1e-3)
    product[:3] = -math.inf
    assert vectors.analogy(["w1", "w2"], ["w0"], 1, by="multiply")[0][0] == f"w{product.argmax()}"


def test_agreement_with_people_and_chance():
    vectors = some(1000, 30)
    judged = [(f"w{i}", f"w{i + 1}", vectors.similarity(f"w{i}", f"w{i + 1}") ** 3) for i in range(0, 40, 2)]
    assert vectors.agree_on_pairs([*judged, ("w0", "nobody", 1.0)]) == (pytest.approx(1), 20, 1)
    other = [(a, b, float(i % 7)) for i, (a, b, _) in enumerate(judged)]
    truth = spearmanr([vectors.similarity(a, b) for a, b, _ in other], [s for *_, s in other]).statistic
    assert vectors.agree_on_pairs(other).value == pytest.approx(truth)
    draw = np.random.default_rng(0)
    questions = [[f"w{i}" for i in draw.choice(1000, 4, replace=False)] for _ in range(1500)]
    found = vectors.agree_on_analogies([*questions, ["w0", "w1", "w2", "nobody"]])
    assert found.value < 6 / 997  # random vectors: chance is 1 / 997
    assert (found.used, found.left_out) == (1500, 1)
    right = [[*q[:3], vectors.analogy([q[1], q[2]], [q[0]], 1)[0][0]] for q in questions[:50]]
    assert vectors.agree_on_analogies(right).value == 1


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("name", ["vectors.bin", "vectors.txt.gz"])
def test_files_hold_every_bit(tmp_path, binary, name):
    vectors = WordVectors(("the", "naïve", "日本"), normal(3, 7))
    path = write_word2vec(vectors, tmp_path / name, binary)
    again = read_word2vec(path, binary)
    assert again.words == vectors.words
    assert torch.equal(again.vectors, vectors.vectors)
    assert read_word2vec(path, binary, limit=2).words == ("the", "naïve")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    raw = gzip.decompress(path.read_bytes()) if name.endswith("gz") else path.read_bytes()
    assert raw.startswith(b"3 7\nthe ")


def test_files_as_others_write_them(tmp_path):
    path = tmp_path / "vectors"
    row = np.array([1.5, -2], "<f4").tobytes()
    path.write_bytes(b"2 2\na " + row + b"bc " + row)  # no line ends between words
    assert read_word2vec(path, binary=True).words == ("a", "bc")
    path.write_bytes(b"2 2\na 1.5 -2 \nbc 1e-3 4\n")  # a blank before the line's end
    assert read_word2vec(path).vectors.tolist() == [[1.5, -2], [pytest.approx(1e-3), 4]]


def test_gensim_reads_and_is_read(tmp_path):
    models = pytest.importorskip("gensim.models")
    vectors = some()
    for binary in (False, True):
        write_word2vec(vectors, tmp_path / "ours", binary)
        theirs = models.KeyedVectors.load_word2vec_format(str(tmp_path / "ours"), binary=binary)
        assert theirs.index_to_key == list(vectors.words)
        assert np.array_equal(theirs.vectors, vectors.vectors.numpy())
        theirs.save_word2vec_format(str(tmp_path / "theirs"), binary=binary)
        assert torch.allclose(read_word2vec(tmp_path / "theirs", binary).vectors, vectors.vectors, atol=1e-6)
    keyed = to_gensim(vectors)
    assert torch.equal(from_gensim(keyed).vectors, vectors.vectors)
    for word, value in keyed.most_similar(positive=["w1", "w2"], negative=["w0"], topn=3):
        assert dict(vectors.analogy(["w1", "w2"], ["w0"], 3))[word] == pytest.approx(value, abs=1e-5)


def test_counts_and_mutual_information_by_hand():
    text = [["a", "b", "c"], ["a"], ["b", "a"]]
    words = Vocabulary.count(text, 1)  # a, b, c
    plain = cooccurrence(text, words, 2, dynamic=False).toarray()
    assert plain.tolist() == [[0, 2, 1], [2, 0, 1], [1, 1, 0]]
    dynamic = cooccurrence(text, words, 2).toarray()
    assert dynamic.tolist() == [[0, 2, 0.5], [2, 0, 1], [0.5, 1, 0]]
    joint = plain / plain.sum()
    p = joint.sum(0)
    expected = np.log(np.where(plain > 0, joint, 1) / (p[:, None] * p)) * (plain > 0)
    found = ppmi(cooccurrence(text, words, 2, dynamic=False), shift=0.1).toarray()
    assert np.allclose(found, np.maximum(expected - 0.1, 0) * (plain > 0))
    with pytest.raises(ValueError, match="dim must be 1 to 2"):
        ppmi_vectors(cooccurrence(text, words, 2), words, dim=3)


def test_counting_puts_words_of_a_kind_together():
    draw = np.random.default_rng(0)
    text = [[f"{k}{draw.integers(10)}" for _ in range(8)] for k in draw.choice(["x", "y"], 600)]
    words = Vocabulary.count(text, 1)
    vectors = ppmi_vectors(cooccurrence(text, words, 3), words, dim=2)
    assert all(word[0] == "x" for word, _ in vectors.neighbours("x0", 9))
    exact = ppmi(cooccurrence(text, words, 3), 0.0, 0.75).toarray()
    values = np.linalg.svd(exact, compute_uv=False)[:2]
    assert np.allclose(vectors.vectors.square().sum(0).numpy(), values, rtol=1e-4)


def test_offsets_are_log_ratios_of_cooccurrence():
    """A log-linear world: learned offsets of centres, seen by contexts, are the ratios log p(c | a) / p(c | b)."""
    words, dim = 24, 4
    v, u = normal(words, dim, seed=1).double(), normal(words, dim, seed=2).double()
    truth = (v @ u.mT).log_softmax(-1)
    counts = torch.distributions.Multinomial(4000, logits=truth)
    torch.manual_seed(0)
    seen = counts.sample()
    centre, context = seen.nonzero(as_tuple=True)
    learned = [(0.1 * normal(words, dim + 1, seed=s)).double().requires_grad_() for s in (3, 4)]
    optimiser = torch.optim.LBFGS(learned, max_iter=100, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        total = (seen[centre, context] * loss.softmax(learned[0][centre], context, learned[1])).sum() / seen.sum()
        total.backward()
        return total

    optimiser.step(closure)
    with torch.no_grad():
        offset = (learned[0][:, None] - learned[0]) @ learned[1].mT  # (a, b, c)
        ratio = truth[:, None] - truth  # log p(c | a) / p(c | b)
        offset, ratio = offset - offset.mean(-1, keepdim=True), ratio - ratio.mean(-1, keepdim=True)
        a, b = torch.triu_indices(words, words, 1)
        correlation = torch.corrcoef(torch.stack([offset[a, b].flatten(), ratio[a, b].flatten()]))[0, 1]
    assert correlation > 0.9


def test_words_made_of_factors_are_parallelograms():
    """p(c | gender, rank) log-linear in the two: the offset of gender is the same at either rank."""
    contexts = 12
    gender, rank = normal(2, contexts, seed=1).double() * 1.5, normal(2, contexts, seed=2).double() * 1.5
    joint = (gender[:, None] + rank).log_softmax(-1).reshape(4, contexts).exp() / 4  # (2 x 2, contexts)
    v, u = ((0.1 * normal(n, 4, seed=s)).double().requires_grad_() for n, s in ((4, 3), (contexts, 4)))
    optimiser = torch.optim.LBFGS([v, u], max_iter=500, line_search_fn="strong_wolfe")
    centre = torch.arange(4).repeat_interleave(contexts)

    def closure():
        optimiser.zero_grad()
        total = (joint.flatten() * loss.softmax(v[centre], torch.arange(contexts).repeat(4), u)).sum()
        total.backward()
        return total

    optimiser.step(closure)
    seen = (v @ u.mT).detach()
    seen = seen - seen.mean(-1, keepdim=True)
    man, king, woman, queen = seen[0], seen[1], seen[2], seen[3]
    assert torch.cosine_similarity(king - man, queen - woman, dim=0) > 0.99


def test_bad_input_is_refused_in_one_line(tmp_path):
    vectors, path = some(3, 2), tmp_path / "bad"

    def read(data, **options):
        return lambda: path.write_bytes(data) and read_word2vec(path, **options)

    for call, words in (
        (lambda: WordVectors(("a",), normal(2, 3)), "1 words need as many vectors"),
        (lambda: vectors.agree_on_pairs([("w0", "w1", 1.0), ("x", "y", 2.0)]), "only 1 of 2 pairs"),
        (lambda: vectors.agree_on_analogies([("a", "b", "c", "d")]), "none of 1 analogies"),
        (lambda: vectors.analogy(["w0"], [], by="sum"), "by must be add or multiply"),
        (lambda: write_word2vec(WordVectors(("a b",), normal(1, 2)), path), "'a b' has white space"),
        (read(b"not a header\n"), "bad, line 1: there should be two numbers"),
        (read(b"2 2\na 1 2\n"), "bad, line 3: there should be a word and 2 numbers"),
        (read(b"1 2\na 1 x\n"), "bad, line 2: not all after the word are numbers"),
        (read(b"1 2\na \0\0\0\0", binary=True), "ends within word 1"),
        (read(b"1 1\n\xff 1\n"), r"word 1: .* is not utf-8"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    assert read(b"1 1\n\xff 1\n", errors="replace")().words == ("\ufffd",)
    with pytest.raises(KeyError, match="'nobody' is not among the 3 words"):
        vectors["nobody"]
    assert not list(tmp_path.glob(".part*"))
