"""Texts as streams: what is a sentence, what is a word, what is in the vocabulary, and what cannot be read."""

import bz2
import gzip
import math
from itertools import chain

import numpy as np
import pytest
import torch
from joblib import parallel_config

from ppmodels.embedding import text as reading
from ppmodels.embedding.text import TextFile
from ppmodels.embedding.tokens import loads, write
from ppmodels.embedding.vocabulary import Vocabulary

LINES = ["the cat sat", "", "on the mat", "Déjà vu, the cat said", "alone"]


def file_of(folder, name="text.txt", lines=LINES):
    path = folder / name
    data = "\n".join(lines).encode()
    path.write_bytes({".gz": gzip.compress, ".bz2": bz2.compress}.get(path.suffix, bytes)(data))
    return path


@pytest.mark.parametrize("name", ["text.txt", "text.gz", "text.bz2"])
def test_a_line_is_a_sentence(tmp_path, name):
    found = list(TextFile(file_of(tmp_path, name)))
    assert found == [line.split() for line in LINES if line]
    words = list(TextFile(file_of(tmp_path, name), pattern=r"[^\W\d_]+", lower=True))
    assert words[2] == ["déjà", "vu", "the", "cat", "said"]


@pytest.mark.parametrize("longest", [7, 16, 2**20])
def test_a_line_of_any_length_is_read_in_pieces_that_cut_no_word(tmp_path, monkeypatch, longest):
    monkeypatch.setattr(reading, "LONGEST", longest)
    path = file_of(tmp_path, lines=["an extraordinarily long line of words", "end", "no newline at last"])
    pieces = list(TextFile(path))
    assert [*chain(*pieces)] == path.read_text().split()
    assert (len(pieces) == 3) == (longest > 40)


@pytest.mark.parametrize("number", [1, 2, 3, 7, 50])
@pytest.mark.parametrize("lines", [LINES, ["a b c d e f g h i j"], [f"line {i}" for i in range(40)], [""]])
def test_parts_hold_every_word_once(tmp_path, lines, number):
    path = file_of(tmp_path, lines=lines)
    parts = TextFile(path).parts(number)
    assert len(parts) <= number
    assert [*chain(*chain(*parts))] == path.read_text(encoding="utf-8").split()


def test_a_byte_that_is_no_character_is_named_with_its_line(tmp_path):
    path = tmp_path / "latin.txt"
    path.write_bytes(b"one two\nthree caf\xe9 four\n")
    with pytest.raises(ValueError, match=r"latin.txt, line 2: byte 17 is 0xe9, not utf-8; .*errors='replace'"):
        list(TextFile(path))
    assert list(TextFile(path, encoding="latin-1"))[1] == ["three", "café", "four"]
    assert list(TextFile(path, errors="replace"))[1] == ["three", "caf\ufffd", "four"]
    with pytest.raises(ValueError, match="line 2"):
        list(TextFile(path).parts(2)[-1])
    with pytest.raises(ValueError, match="utf-16 cannot be read line by line"):
        TextFile(path, encoding="utf-16")


def test_a_vocabulary_is_ordered_by_count_and_then_by_alphabet(tmp_path):
    words = Vocabulary.count([["b", "a", "c"], ["b", "a"], ["b"]], min_count=1)
    assert words.words == ("b", "a", "c")
    assert words.counts.tolist() == [3, 2, 1]
    assert words.index == {"b": 0, "a": 1, "c": 2}
    assert Vocabulary.count([["b", "a", "c"], ["b", "a"], ["b"]], 2).words == ("b", "a")
    assert Vocabulary.count([["z", "a"]], 1, max_words=1).words == ("a",)
    path = file_of(tmp_path, lines=[f"w{i % 7} w{i % 3} x" for i in range(200)])
    with parallel_config(backend="threading"):  # processes take seconds to start
        one, many = (Vocabulary.count(TextFile(path), 5, workers=n) for n in (1, 2))
    assert one.words == many.words
    assert torch.equal(one.counts, many.counts)


def test_subsampling_by_the_papers_rule_and_by_the_programs():
    words = Vocabulary(("a", "b"), torch.tensor([900, 100]))
    t = 0.01
    paper, program = words.keep_probability(t, "paper"), words.keep_probability(t)
    for i, f in enumerate((0.9, 0.1)):
        assert paper[i].item() == pytest.approx(math.sqrt(t / f))
        assert program[i].item() == pytest.approx((math.sqrt(f / t) + 1) * t / f)
    assert (words.keep_probability(0) == 1).all()
    assert (words.keep_probability(10.0) == 1).all()


def test_noise_is_a_power_of_the_counts():
    words = Vocabulary(("a", "b"), torch.tensor([16, 1]))
    assert torch.allclose(words.noise(), torch.tensor([8 / 9, 1 / 9], dtype=torch.float64))
    assert torch.allclose(words.noise(0), torch.tensor([0.5, 0.5], dtype=torch.float64))


def test_tokens_leave_out_unknown_words_and_end_every_sentence(tmp_path):
    words = Vocabulary(("a", "b", "c"), torch.tensor([3, 2, 1]))
    (path,) = write([["a", "?", "b"], ["c"], ["b", "a", "a"]], words, tmp_path)
    assert np.fromfile(path, np.int32).tolist() == [0, 1, -1, 1, 0, 0, -1]
    parts = loads([path], 3)
    assert [load.read().tolist() for load in parts] == [[0, 1, -1], [1, 0, 0], [-1]]


def test_bad_texts_are_refused_in_one_line(tmp_path):
    words = Vocabulary(("a", "b"), torch.tensor([2, 1]))
    for call, message in (
        (lambda: Vocabulary.count([]), "no word occurs 5 times or more among 0 words"),
        (lambda: Vocabulary.count([["a", "b"]]), "2 of them different; use a smaller min_count"),
        (lambda: Vocabulary.count(["a sentence"], 1), "a sentence is a list of words; got the string 'a sentence'"),
        (lambda: Vocabulary.count(iter([["a"]]), 1), "the text is read more than once"),
        (lambda: write([["a"], ["b"], ["?", "a"]], words, tmp_path), "no sentence has two words of the vocabulary"),
    ):
        with pytest.raises(ValueError, match=message):
            call()
