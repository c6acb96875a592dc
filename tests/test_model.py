"""The Python API and the operator over it: texts, devices, threads, similarity, real Towhee."""

from __future__ import annotations

import re
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pandas
import pytest
import torch
from safetensors.torch import save_file
from tiny import TINY
from towhee import ops, pipe
from transformers import BertConfig, BertModel

import mdmmt
from mdmmt import InputError, InputTypeError, WeightsError
from mdmmt.features.tokens import read_input
from mdmmt.model import Segments
from mdmmt.towers.tokenizer import Tokenizer

TEXTS = [
    "Hello world",
    "a",
    "the man is playing with a red ball",
    "is the dog red?",
    "a",
    "cat " * 50,
]


@pytest.fixture(scope="module")
def sample_model():
    return mdmmt.load("sample", "cpu")


def operator(folder, modality, **options):
    return ops.video_text_embedding.mdmmt(
        modality=modality, weight_path=str(folder), device="cpu", **options
    )


def run(folder, modality, data):
    p = pipe.input("x").map("x", "vec", operator(folder, modality)).output("vec")
    return p(data).get()[0]


# Texts


def test_encode_text_equals_the_oracle(tiny, tiny_model):
    with torch.inference_mode():
        expected = tiny.theirs_text(["Hello world"])[0].numpy()
    vector = tiny_model.encode_text("Hello world")
    assert vector.shape == (72,)
    assert vector.dtype == np.float32
    assert np.abs(vector - expected).max() <= 1e-5


def test_encode_text_of_a_list_equals_each_text_alone(tiny_model):
    alone = [tiny_model.encode_text(text) for text in TEXTS]
    for batch_size in (1, 4, 32):
        vectors = tiny_model.encode_text(TEXTS, batch_size=batch_size)
        assert vectors.shape == (6, 72)
        np.testing.assert_allclose(vectors, alone, atol=1e-6)
    np.testing.assert_array_equal(tiny_model.encode_text(tuple(TEXTS)), vectors)
    assert tiny_model.encode_text(["a"]).shape == (1, 72)
    assert tiny_model.encode_text(np.str_("a")).shape == (72,)


# A few texts as other packages hold them.
MANY_TEXTS = {
    "generator": lambda: (text for text in TEXTS),
    "keys of a dict": lambda: dict.fromkeys(TEXTS).keys(),
    "strings of NumPy": lambda: np.array(TEXTS),
    "objects of NumPy": lambda: np.array(TEXTS, dtype=object),
    "a column of pandas": lambda: pandas.DataFrame({"text": TEXTS}, index=range(9, 15))["text"],
    "categories of pandas": lambda: pandas.Series(TEXTS, dtype="category"),
}


@pytest.mark.filterwarnings("ignore:.*is longer than this model takes")
@pytest.mark.parametrize("make", MANY_TEXTS.values(), ids=MANY_TEXTS)
def test_encode_text_takes_what_gives_texts_in_order(make, tiny_model):
    texts = list(make())
    np.testing.assert_array_equal(tiny_model.encode_text(make()), tiny_model.encode_text(texts))
    scores = tiny_model.similarity(make(), np.eye(72, dtype=np.float32)).score
    np.testing.assert_array_equal(scores, tiny_model.encode_text(texts) @ np.eye(72))


@pytest.mark.parametrize(("words", "is_cut"), [(28, False), (29, True), (5000, True)])
def test_encode_text_warns_of_a_text_that_is_cut(words, is_cut, tiny_model):
    """A text of 28 words has 30 tokens, with the two that BERT adds."""
    no_dot = mdmmt.load(tiny_model.path, "cpu", mmttxt_params={"add_dot": False})
    texts = ["a dog", "cat " * words]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        no_dot.encode_text(texts)
    assert [one.filename for one in caught] == [__file__] * is_cut
    for one in caught:
        said = "the text 'cat cat .* is longer than this model takes: it embeds the first 30 token"
        assert re.match(said, str(one.message)) and len(str(one.message)) < 250


def test_encode_text_counts_the_texts_that_are_cut(tiny_model):
    with pytest.warns(
        UserWarning, match="the text 'cat .*…' and 2 more texts are longer"
    ) as caught:
        tiny_model.encode_text(["a dog", *["cat " * 40] * 2, "dog " * 31])
    assert len(caught) == 1


def test_encode_shows_progress_if_asked(tiny_model, tiny_video, capsys):
    videos = [tiny_video(seed) for seed in range(3)]
    plain = tiny_model.encode_text(["a dog"] * 50), tiny_model.encode_video(videos)
    assert capsys.readouterr().err == ""
    shown = (
        tiny_model.encode_text(["a dog"] * 50, batch_size=8, show_progress=True),
        tiny_model.encode_video(videos, show_progress=True),
    )
    bars = capsys.readouterr().err
    assert "50/50" in bars and "3/3" in bars
    for one, other in zip(shown, plain, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


# What a person sees


def test_reprs_fit_a_screen(tiny_model, tiny_video):
    vectors = tiny_model.encode_video([tiny_video(seed) for seed in range(500)])
    spans_s = np.stack([np.arange(500), np.arange(500) + 1.5], axis=1)
    segments = Segments(vectors, spans_s)
    assert repr(segments) == "Segments(vectors (500, 72) float32, from 0 to 500.5 s)"
    assert segments.vectors is vectors and tuple(segments)[1] is spans_s
    assert repr(Segments(vectors[:0], spans_s[:0])) == "Segments(vectors (0, 72) float32)"
    match = tiny_model.similarity(vectors, vectors)
    assert repr(match) == "Similarity(500 texts x 500 videos, experts wide, narrow, middle)"
    shown = repr(tiny_model)
    assert shown.startswith(f"Model({str(tiny_model.path)!r}, dim=72, experts=['wide', 'narrow', ")
    assert shown.endswith("device='cpu', precision='exact')")


def test_model_tells_its_width_and_the_seconds_it_takes(tiny_model, sample_model):
    assert tiny_model.dim == tiny_model.encode_text("a").shape[0] == 72
    assert sample_model.dim == 384
    assert sample_model.max_seconds == 7.5
    with pytest.raises(InputError, match="wide"):  # how long its tokens are is not known
        _ = tiny_model.max_seconds


BAD_TEXTS = {
    "empty": ("", InputError, ["text is ''", "words"]),
    "blank": (" \n\t", InputError, ["text is ' \\n\\t'", "words"]),
    "blank in a list": (["a", " "], InputError, ["text 1 is ' '"]),
    "empty list": ([], InputError, ["text is an empty list", "list of str"]),
    "number": (3, InputTypeError, ["text is a int", "a str or a list of str"]),
    "None": (None, InputTypeError, ["text is a NoneType"]),
    "bytes": (b"a dog", InputTypeError, ["text is a bytes"]),
    "dict": ({"features": {}}, InputTypeError, ["text is a dict", "a str or a list of str"]),
    "array": (np.zeros(3), InputTypeError, ["text is a ndarray"]),
    "table": (pandas.DataFrame({"a": ["b"]}), InputTypeError, ["text is a DataFrame"]),
    "set": ({"a", "b"}, InputTypeError, ["text is a set"]),
    "nothing of a generator": (iter(()), InputError, ["text is an empty tuple_iterator"]),
    "missing value of pandas": (pandas.Series(["a", None]), InputTypeError, ["text 1 is a "]),
    "table of strings": (np.array([["a"]]), InputTypeError, ["text is a ndarray"]),
    "number in a list": (["a", "b", 3], InputTypeError, ["text 2 is a int", "a str"]),
    "list in a list": ([["a"]], InputTypeError, ["text 0 is a list"]),
    "surrogate": ("a \ud800", InputError, ["text is 'a \\ud800'", "Unicode"]),
}


@pytest.mark.parametrize(("given", "error", "words"), BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_encode_text_refuses_bad_texts(given, error, words, tiny_model):
    with pytest.raises(error) as caught:
        tiny_model.encode_text(given)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)


def test_encode_text_refuses_a_text_without_tokens(tiny_folder):
    params = {"add_special_tokens": False, "add_dot": False}
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params=params)
    with pytest.raises(InputError, match=r"the tokenizer makes no token of the text '\\x00'"):
        model.encode_text(["a", "\x00"])


# Devices


@pytest.mark.parametrize(
    ("device", "error", "words"),
    [
        ("gpu", InputError, "device is 'gpu', expected 'cpu', 'cuda', 'cuda:N', 'mps' or None"),
        ("", InputError, "device is ''"),
        ("cuda:x", InputError, "device is 'cuda:x'"),
        ("meta", InputError, "device is 'meta'"),
        (0, InputTypeError, "device is a int"),
        ("cuda", InputError, "device is 'cuda', but torch sees 0 CUDA devices"),
        ("cuda:0", InputError, "device is 'cuda:0', but torch sees 0 CUDA devices"),
        (torch.device("cuda", 1), InputError, "device is 'cuda:1'"),
        ("mps", InputError, "device is 'mps', which torch does not see here; device='cpu' needs"),
    ],
)
def test_load_refuses_bad_devices(device, error, words, tiny_folder, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(error, match=words):
        mdmmt.load(tiny_folder, device)


def test_load_compiles_on_cuda_only(tiny_folder, monkeypatch):
    with pytest.raises(InputError, match="compiled is True and the device is 'cpu'"):
        mdmmt.load(tiny_folder, "cpu", compiled=True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert mdmmt.load(tiny_folder, "cuda", compiled=True).compiled


# Eval, inference mode, determinism, threads


def test_encoders_are_in_evaluation_and_inference_mode(tiny_folder, tiny_video):
    model = mdmmt.load(tiny_folder, "cpu")
    video = read_input(tiny_video(), model.config.video.experts)[0]
    encoders = ((model.video_encoder, video), (model.text_encoder, model.tokenizer(["a dog"])))
    for encoder, batch in encoders:
        output = encoder(batch)
        assert not encoder.tower.training
        assert not output.requires_grad and output.is_inference()
    assert not model.read_video_tower().training and not model.read_text_tower().training
    assert not torch.is_inference_mode_enabled()


def test_encode_gives_the_same_each_time(tiny_folder, tiny_video):
    one, two = (mdmmt.load(tiny_folder, "cpu") for _ in range(2))
    torch.manual_seed(1)
    first = one.encode_text(TEXTS), one.encode_video(tiny_video())
    torch.manual_seed(2)
    for model in (one, two):
        np.testing.assert_array_equal(model.encode_text(TEXTS), first[0])
        np.testing.assert_array_equal(model.encode_video(tiny_video()), first[1])


def test_load_reads_weights_at_the_first_call(tiny_folder, monkeypatch):
    monkeypatch.setattr("mdmmt.model.read_tower", None)  # a call would raise
    assert operator(tiny_folder, "text") is not None
    assert mdmmt.MDMMT("video", tiny_folder, "cpu").modality == "video"


def test_encode_text_needs_no_tokenizer_for_bad_weights(tmp_path, monkeypatch):
    """Which would be fetched, or asked for in vain, before the true reason was said."""
    save_file({"features.CLIP": torch.zeros(1, 512)}, tmp_path / "a.mp4.safetensors")
    monkeypatch.setattr("mdmmt.model.load_tokenizer", None)  # a call would raise
    with pytest.raises(WeightsError, match=r"keys of neither tower: features\.CLIP"):
        mdmmt.load(tmp_path / "a.mp4.safetensors", "cpu").encode_text("a dog")


@pytest.mark.slow
@pytest.mark.parametrize("modality", ["text", "video"])
def test_operator_reads_its_tower_once_for_eight_threads(
    modality, tiny_folder, tiny_video, monkeypatch
):
    """The same answers as one thread, and the weights are read once."""
    from mdmmt import model

    reads = []
    read_tower, load_tokenizer = model.read_tower, model.load_tokenizer

    def slow(name, function):
        def call(*args):
            reads.append(name)
            time.sleep(0.05)
            return function(*args)

        return call

    data = TEXTS if modality == "text" else [tiny_video(seed, 9, 1 + seed) for seed in range(6)]
    alone = mdmmt.MDMMT(modality, tiny_folder, "cpu")
    expected = [alone(one) for one in data]
    monkeypatch.setattr(model, "read_tower", slow("tower", read_tower))
    monkeypatch.setattr(model, "load_tokenizer", slow("tokenizer", load_tokenizer))
    shared = mdmmt.MDMMT(modality, tiny_folder, "cpu")
    start = Barrier(8)

    def work(turn):
        start.wait()
        return [shared(data[(turn + i) % 6]) for i in range(12)]

    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(work, range(8)))
    for turn, vectors in enumerate(results):
        for i, vector in enumerate(vectors):
            np.testing.assert_allclose(vector, expected[(turn + i) % 6], atol=1e-6)
    assert sorted(reads) == (["tokenizer", "tower"] if modality == "text" else ["tower"])


def test_tokenizer_is_entered_by_one_thread_at_a_time():
    inside = []

    def tokenizer(texts, **_):
        assert not inside
        inside.append(1)
        time.sleep(0.005)
        inside.pop()
        return {"input_ids": [[1] for _ in texts]}

    shared = Tokenizer(tokenizer, TINY.text)
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(shared, [["a"]] * 24)) == [[[1]]] * 24


# Similarity


def test_similarity_is_the_inner_product_and_its_shares(tiny_model, tiny_video):
    videos = [tiny_video(seed) for seed in range(4)]
    t, v = tiny_model.encode_text(TEXTS), tiny_model.encode_video(videos)
    found = tiny_model.similarity(t, v)
    assert found.score.shape == (6, 4)
    assert found.by_expert.shape == (6, 4, 3)
    assert found.experts == ("wide", "narrow", "middle")
    assert found.score.dtype == found.by_expert.dtype == np.float32
    for i in range(6):
        for j in range(4):
            assert found.score[i, j] == pytest.approx(sum(t[i] * v[j]), abs=1e-5)
            for k in range(3):
                block = slice(24 * k, 24 * k + 24)
                share = sum(t[i, block] * v[j, block])
                assert found.by_expert[i, j, k] == pytest.approx(share, abs=1e-5)
    raw = tiny_model.similarity(TEXTS, videos)
    np.testing.assert_array_equal(raw.score, found.score)
    assert tiny_model.similarity(t[0], v[0]).score.shape == (1, 1)
    tensors = tiny_model.similarity(torch.from_numpy(t), torch.from_numpy(v).requires_grad_())
    np.testing.assert_array_equal(tensors.score, found.score)
    assert tiny_model.similarity(torch.from_numpy(t).bfloat16(), v).score.shape == (6, 4)


def test_similarity_refuses_bad_embeddings(tiny_model, tiny_folder, tiny_video):
    t, v = tiny_model.encode_text("a"), tiny_model.encode_video(tiny_video())
    with pytest.raises(InputError, match=r"video embeddings are \(71,\), expected \(n, 72\)"):
        tiny_model.similarity(t, v[1:])
    with pytest.raises(InputError, match=r"text embeddings are \(1, 1, 72\)"):
        tiny_model.similarity(t[None, None], v)
    other = mdmmt.load(tiny_folder, "cpu", mmttxt_params={"modalities": ["wide"]})
    with pytest.raises(InputError, match="different experts"):
        other.similarity(t, v)


# The operator, through real Towhee


def test_operator_gives_in_pipelines_what_the_model_gives(tiny_folder, tiny_model, tiny_video):
    np.testing.assert_array_equal(
        run(tiny_folder, "text", "Hello world."), tiny_model.encode_text("Hello world.")
    )
    video = tiny_video()
    vector = run(tiny_folder, "video", video)
    assert type(vector) is np.ndarray
    np.testing.assert_array_equal(vector, tiny_model.encode_video(video))
    assert run(tiny_folder, "video", [video, video]).shape == (2, 72)


def test_operator_takes_batches_of_a_pipeline(tiny_folder, tiny_model):
    """Towhee calls one operator from several threads."""
    p = pipe.input("x").map("x", "vec", operator(tiny_folder, "text")).output("vec")
    vectors = [queue.get()[0] for queue in p.batch(TEXTS * 4)]
    np.testing.assert_allclose(vectors, tiny_model.encode_text(TEXTS * 4), atol=1e-6)


@pytest.mark.parametrize(
    ("modality", "data", "sentence"),
    [
        ("video", "Hello world", "there is no file 'Hello world'"),
        ("text", {"features": {}}, "text is a dict, expected a str or a list of str"),
        ("text", " ", "text is ' ', expected some words"),
        ("video", [], "video is an empty list"),
    ],
)
def test_operator_errors_are_legible_through_towhee(modality, data, sentence, tiny_folder):
    with pytest.raises(RuntimeError) as caught:
        run(tiny_folder, modality, data)
    assert sentence in str(caught.value)
    assert "InputError" in str(caught.value) or "InputTypeError" in str(caught.value)
    with pytest.raises(InputError):
        mdmmt.MDMMT(modality, tiny_folder, "cpu")(data)


@pytest.mark.parametrize(
    ("modality", "options", "sentence"),
    [
        ("audio", {}, "modality is 'audio', expected 'text', 'video' or 'features'"),
        (["text"], {}, "expected 'text', 'video' or 'features'"),
        ("text", {"weight_path": "nowhere.pth"}, "'nowhere.pth', which does not exist"),
        ("text", {"device": "gpu"}, "device is 'gpu'"),
        ("text", {"mmttxt_params": {"lenght": 3}}, "mmttxt_params has unknown lenght; known:"),
        ("video", {"mmtvid_params": {"x": 3}}, "mmtvid_params has unknown x; known:"),
    ],
)
def test_operator_refuses_bad_arguments_when_the_pipeline_is_built(
    modality, options, sentence, tiny_folder
):
    options = {"weight_path": str(tiny_folder), "device": "cpu"} | options
    with pytest.raises((InputError, WeightsError)):
        mdmmt.mdmmt(modality, **options)
    built = ops.video_text_embedding.mdmmt(modality=modality, **options)
    with pytest.raises(RuntimeError) as caught:
        pipe.input("x").map("x", "vec", built).output("vec")
    assert sentence in str(caught.value)


def test_encode_gives_the_same_within_autocast(tiny_model, tiny_video):
    expected = tiny_model.encode_text(TEXTS), tiny_model.encode_video(tiny_video())
    with torch.autocast("cpu"):
        found = tiny_model.encode_text(TEXTS), tiny_model.encode_video(tiny_video())
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("precision", ["exact", "auto", "int8"])
def test_encode_takes_any_default_dtype(dtype, precision, tiny_folder, tiny_video):
    """Another model of the same process may have set it."""
    expected = mdmmt.load(tiny_folder, "cpu", precision=precision)
    try:
        torch.set_default_dtype(dtype)
        model = mdmmt.load(tiny_folder, "cpu", precision=precision)
        text, video = model.encode_text("Hello"), model.encode_video(tiny_video())
    finally:
        torch.set_default_dtype(torch.float32)
    assert text.dtype == video.dtype == np.float32
    assert np.array_equal(text, expected.encode_text("Hello"))
    assert np.array_equal(video, expected.encode_video(tiny_video()))


@pytest.mark.parametrize("precision", ["exact", "int8"])
def test_encode_takes_any_default_device(precision, tiny_folder, tiny_video):
    """As `torch.set_default_device("cuda")` in a notebook; 'meta' stands for it where none is."""
    expected = mdmmt.load(tiny_folder, "cpu", precision=precision)
    try:
        torch.set_default_device("meta")
        model = mdmmt.load(tiny_folder, "cpu", precision=precision)
        text, video = model.encode_text(TEXTS), model.encode_video([tiny_video(1), tiny_video(2)])
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(text, expected.encode_text(TEXTS))
    np.testing.assert_array_equal(video, expected.encode_video([tiny_video(1), tiny_video(2)]))


# Models that are written


@pytest.mark.parametrize("change", ["nothing", "max_length", "module"])
def test_save_pretrained_writes_a_model_that_gives_the_same(
    change, tiny_folder, tiny, tiny_video, tmp_path
):
    """Changed parameters and another BERT are part of what is written."""
    bert = BertModel(BertConfig(**vars(TINY.text.bert)))
    params = {"max_length": {"max_length": 7}, "module": {"txt_bert": bert}}.get(change)
    model = mdmmt.load(tiny_folder, "cpu", mmttxt_params=params)
    assert model.save_pretrained(tmp_path / "saved") == tmp_path / "saved"
    again = mdmmt.load(tmp_path / "saved", "cpu")
    text = "the man is playing with a red ball now"
    np.testing.assert_array_equal(again.encode_text(text), model.encode_text(text))
    np.testing.assert_array_equal(
        again.encode_video(tiny_video()), model.encode_video(tiny_video())
    )
    card = (tmp_path / "saved" / "README.md").read_text(encoding="utf-8")
    assert ("with the BERT of a module" in card) == (change == "module")
    assert model.save_pretrained(str(tmp_path / "saved"))  # it replaces a model folder


def test_save_pretrained_replaces_no_other_folder(tiny_model, tmp_path, monkeypatch):
    (tmp_path / "letter.txt").write_text("mine")
    monkeypatch.setattr(mdmmt.Model, "read_video_tower", None)  # a call would raise
    with pytest.raises(InputError, match="is not a model folder"):
        tiny_model.save_pretrained(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]


class Api:
    """Stands for `huggingface_hub.HfApi`, and notes what it is asked."""

    asked: ClassVar[list] = []

    def __init__(self, **_):
        pass

    def create_repo(self, name, private, exist_ok):
        if name == "nobody/there":
            raise OSError("401")
        self.asked.append(("repo", name, private))

    def create_branch(self, name, branch, exist_ok):
        self.asked.append(("branch", name, branch))

    def upload_folder(self, repo_id, folder_path, revision, commit_message):
        names = sorted(path.name for path in folder_path.iterdir())
        self.asked.append((repo_id, revision, names, mdmmt.load(folder_path, "cpu").dim))
        return SimpleNamespace(commit_url="https://huggingface.co/me/tiny/commit/1")


def test_push_to_hub_uploads_a_model_folder(tiny_model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    monkeypatch.setattr(Api, "asked", [])
    assert tiny_model.push_to_hub("me/tiny@v2", private=True).endswith("/commit/1")
    repo, branch, (name, revision, names, dim) = Api.asked
    assert repo == ("repo", "me/tiny", True) and branch == ("branch", "me/tiny", "v2")
    assert (name, revision, dim) == ("me/tiny", "v2", 72)
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(names)


def test_push_to_hub_says_why_it_fails(tiny_model, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="repository is 'tiny', expected 'owner/name'"):
        tiny_model.push_to_hub("tiny")
    with pytest.raises(WeightsError, match=r"could not be uploaded to me/tiny .*HF_HUB_OFFLINE"):
        tiny_model.push_to_hub("me/tiny")  # as all tests are offline
    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    with pytest.raises(WeightsError, match=r"nobody/there on .*OSError: 401\); `hf auth login`"):
        tiny_model.push_to_hub("nobody/there")
