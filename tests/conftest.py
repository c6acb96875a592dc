"""What all tests share: no network, a stand-in vocabulary, a tiny and a full-size model."""

from __future__ import annotations

import os
import tempfile

# Set before the imports below, since huggingface_hub reads its variable once, when it is imported;
# and not by a fixture, since the processes that tests start inherit them.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOWHEE_HOME"] = tempfile.mkdtemp(prefix="towhee-home-")
os.environ["XDG_CACHE_HOME"] = os.path.join(os.environ["TOWHEE_HOME"], "cache")

import functools
import ipaddress
import shutil
import signal
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
from browser import BROWSER, NO_NETWORK
from media import LONG_S, SHORT_S, film, flat, write_video
from milvus_servers import REASON, MilvusServer
from s3_server import KEYS, S3Server
from sample_clips import draw_sample_clips
from tiny import TINY, TINY_VOCABULARY, Pair, make_pair, write_vocabulary
from transformers import BertConfig

import mdmmt
from mdmmt import experts
from mdmmt.config import RELEASED
from mdmmt.features import extract
from mdmmt.sample import demo
from mdmmt.storage import facts
from mdmmt.storage.paths import HOME_VARIABLE, WEIGHTS_VARIABLE
from mdmmt.weights.folder import save_model

# A shell lets its jobs in the background ignore Ctrl-C; processes that tests start would do so too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

MAX_DIFFERENCES: dict[str, float] = {}  # what was compared with the oracle -> the worst of it


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """Whatever looks up or connects to another machine fails the test that does it."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def connect_locally(self, address):
        if self.family != socket.AF_UNIX and not is_loopback(address[0]):
            pytest.fail(f"a connection to {address} was tried")
        return connect(self, address)

    def look_up_locally(host, *args, **kwargs):
        if host is not None and not is_loopback(host):
            pytest.fail(f"{host} was looked up")
        return getaddrinfo(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", connect_locally)
        patch.setattr(socket.socket, "connect_ex", connect_locally)
        patch.setattr(socket, "getaddrinfo", look_up_locally)
        yield


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@pytest.fixture(autouse=True)
def no_weights_variables(monkeypatch):
    for name in (WEIGHTS_VARIABLE, HOME_VARIABLE):
        monkeypatch.delenv(name, raising=False)


def pytest_unconfigure():
    shutil.rmtree(os.environ["TOWHEE_HOME"], ignore_errors=True)


def pytest_terminal_summary(terminalreporter):
    if MAX_DIFFERENCES:
        terminalreporter.section("largest difference to towhee.models 1.1.3")
        for what, difference in sorted(MAX_DIFFERENCES.items()):
            terminalreporter.write_line(f"{what:32} {difference:.1e}")


@pytest.fixture
def assert_parity():
    def check(ours: torch.Tensor, theirs: torch.Tensor, what: str, atol: float = 1e-5) -> None:
        assert ours.shape == theirs.shape
        assert ours.isfinite().all()
        difference = float((ours - theirs).abs().max())
        MAX_DIFFERENCES[what] = max(difference, MAX_DIFFERENCES.get(what, 0.0))
        assert difference <= atol

    return check


@pytest.fixture(scope="session")
def tiny_vocabulary(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny-vocabulary")
    write_vocabulary(folder, TINY_VOCABULARY)
    return folder


@pytest.fixture(scope="session")
def txt_bert(tiny_vocabulary, tmp_path_factory) -> Path:
    """A folder with BERT's configuration and tokenizer, and none of its weights."""
    folder = tmp_path_factory.mktemp("txt-bert")
    shutil.copytree(tiny_vocabulary, folder, dirs_exist_ok=True)
    BertConfig(**vars(TINY.text.bert)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def text_params(txt_bert) -> dict:
    return {"txt_bert": str(txt_bert), "modalities": list(TINY.text.experts), "same_dim": 24}


@pytest.fixture(scope="session")
def tiny(tiny_vocabulary) -> Pair:
    return make_pair(TINY, tiny_vocabulary)


@pytest.fixture(scope="session")
def tiny_folder(tiny, tmp_path_factory) -> Path:
    """The tiny model as a model folder; not to be written to."""
    folder = tmp_path_factory.mktemp("tiny-model")
    save_model(folder, tiny.config, tiny.ours_video, tiny.ours_text, tiny.tokenizer)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tiny_folder) -> mdmmt.Model:
    return mdmmt.load(tiny_folder, "cpu")


@pytest.fixture(scope="session")
def full(tmp_path_factory) -> Pair:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, RELEASED.text.bert.vocab_size)
    return make_pair(RELEASED, folder)


@pytest.fixture(scope="session")
def full_file(full, tmp_path_factory) -> Path:
    """A stand-in for the released checkpoint, in its layout, with BERT's vocabulary beside it."""
    folder = tmp_path_factory.mktemp("released")
    write_vocabulary(folder, RELEASED.text.bert.vocab_size)
    torch.save(full.released_layout, folder / "mdmmt_3mod.pth")
    yield folder / "mdmmt_3mod.pth"
    shutil.rmtree(folder)  # 600 MB


@pytest.fixture(scope="session")
def tiny_video():
    """Makes the features of one video of the tiny model: 5 tokens an expert, 4 of them valid."""

    def make(seed: int = 0, tokens: int = 5, valid: int = 4) -> dict[str, dict]:
        rng = np.random.default_rng(seed)
        video: dict[str, dict] = {"features": {}, "features_t": {}, "features_ind": {}}
        for expert in TINY.video.experts:
            features = rng.standard_normal((tokens, expert.dim)).astype(np.float32)
            video["features"][expert.name] = features
            video["features_t"][expert.name] = np.arange(tokens, dtype=np.float32) + 2.5
            video["features_ind"][expert.name] = (np.arange(tokens) < valid).astype(np.float32)
        return video

    return make


@pytest.fixture(scope="session")
def sample_clips(tmp_path_factory):
    """`sample_clips(n, seed)` draws n clips of the sample into a folder of their own.

    It returns a list of `SampleClip`. The same n and seed give the same files, which are drawn once
    and shared by all tests, so no test may write into their folder.
    """

    @functools.cache
    def make(n: int, seed: int):
        return draw_sample_clips(tmp_path_factory.mktemp("sample-clips"), n, seed)

    return make


@pytest.fixture
def cuda_without_tf32(monkeypatch):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device here")
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture
def facts_cache(tmp_path, monkeypatch) -> Path:
    """The folder of facts in a cache of its own, which keeps those of files just written, too."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(facts, "MIN_AGE_S", 0.0)
    return tmp_path / "cache" / "mdmmt" / "facts"


@pytest.fixture
def videos(tmp_path) -> Path:
    """A folder of three films, one of them silent and one deeper down."""
    folder = tmp_path / "videos"
    (folder / "deep").mkdir(parents=True)
    tone = 0.3 * np.sin(np.arange(32000) / 5)[None]
    write_video(folder / "a.mkv", flat(range(0, 200, 10)), 10, tone)
    write_video(folder / "deep" / "a.mkv", flat(range(200, 0, -10)), 10, tone / 2)
    write_video(folder / "silent.mkv", flat(range(0, 200, 10)), 10)
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="session")
def running():
    return experts.load(experts.LIGHT_EXPERTS)


@pytest.fixture(scope="session")
def s3_server():
    pytest.importorskip("moto.server", reason="moto is not installed")
    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """The options of the empty bucket `films` in S3, and its client."""
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    s3_server.reset()
    client = s3_server.client()
    client.create_bucket(Bucket="films")
    yield s3_server.options, client
    s3_server.refuse_all(False)


@pytest.fixture(scope="session")
def milvus_server(tmp_path_factory):
    """A server of Milvus, for tests with the marker `milvus_server`."""
    pytest.importorskip("milvus", reason=REASON)
    server = MilvusServer(tmp_path_factory.mktemp("milvus"))
    yield server
    server.close()


@pytest.fixture(
    scope="session", params=["local", pytest.param("server", marks=pytest.mark.milvus_server)]
)
def new_database(request, tmp_path_factory):
    """Gives the place of a new database: a folder for Milvus Lite, or an address of a server."""
    if request.param == "local":
        return lambda: str(tmp_path_factory.mktemp("databases") / "library.db")
    return request.getfixturevalue("milvus_server").new_database


@pytest.fixture
def databases(new_database, request):
    """`databases(name)` gives the place of a database, each time the same for the same name."""
    on_server = request.node.get_closest_marker("milvus_server") is not None
    server = request.getfixturevalue("milvus_server") if on_server else None
    places: dict[str, str] = {}

    def place(name: str) -> str:
        if name not in places:
            places[name] = new_database()
        return places[name]

    yield place
    if server is not None:
        for uri in places.values():
            server.drop(uri)


@pytest.fixture
def browser(chromium):
    """A browser whose logs are empty."""
    for log in ("browser", "performance"):
        chromium.get_log(log)
    return chromium


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("chromium and chromedriver are not there (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    name, arguments = BROWSER
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which(name)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in arguments.split():
        options.add_argument(argument)
    options.add_argument(NO_NETWORK)
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    with webdriver.Chrome(options, Service(shutil.which("chromedriver"))) as driver:
        yield driver


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `mdmmt demo` has written, here in this process and quietly."""
    folder = tmp_path_factory.mktemp("demo run") / "demo"
    results = demo.run(folder).results
    assert [result.ranking[0] for result in results].count(0) <= 1  # not one clip for everything
    right = sum(result.ranking[0] == result.target for result in results)
    assert right >= demo.QUERIES - 1, [(r.query, r.target, r.ranking) for r in results]
    return folder


@pytest.fixture(scope="session")
def long(tmp_path_factory):
    return film(tmp_path_factory.mktemp("long") / "long.mkv", LONG_S)


@pytest.fixture(scope="session")
def short(tmp_path_factory):
    return film(tmp_path_factory.mktemp("short") / "short.mkv", SHORT_S)


@pytest.fixture(scope="session")
def whole(long, running):
    """What the experts find in all of the long film."""
    return extract(long, running)
