"""Fresh processes with a home of their own, and the operator folders that stand in them.

The functions called `step_…` of `operator_steps` run in such a process, several in a row: see
`run_child`. There, any connection that leaves the machine is an error and is reported, and so is a
start of pip unless the test allows it, and an `import mdmmt` where the test says that our
distribution is not installed.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import traceback
from dataclasses import replace
from hashlib import sha1
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
OPERATOR = "video-text-embedding/mdmmt"
FOLDER = Path("operators", OPERATOR, "versions", "main")
CLONED = (
    "mdmmt",
    "__init__.py",
    "requirements.txt",
    "pyproject.toml",
    "MANIFEST.in",
    "README.md",
    "LICENSE",
    "NOTICE",
)
SENTENCES = ["Hello world.", "a red ball", "a blue ball moves and moves", "world"]
CHILD = "import sys; sys.path.append(sys.argv[1]); import fresh; fresh.child_main()"
TIMEOUT_S = 120


class NotInstalled:
    """An import finder that makes our distribution one that is not there."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "mdmmt":
            raise ModuleNotFoundError(f"import of {name}, which is not installed here")


class Guard:
    """An audit hook that forbids what an operator must not do, and remembers the attempts."""

    def __init__(self, pip):
        self.pip = pip
        self.pip_starts = []
        self.offences = []

    def __call__(self, event, args):
        if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo"):
            address = args[0] if event == "socket.getaddrinfo" else args[1]
            host = address[0] if isinstance(address, tuple) else None  # else a path
            host = address if event == "socket.getaddrinfo" else host
            if host not in (None, "127.0.0.1", "::1", "localhost"):
                self.refuse(f"{event} {host}")
        if event == "subprocess.Popen" and "pip" in map(str, args[1]):
            if not self.pip:
                self.refuse(f"{event} {args[1]}")
            self.pip_starts.append([str(arg) for arg in args[1]])

    def refuse(self, offence):
        self.offences.append(offence)
        raise PermissionError(offence)


def child_main():
    """Run the steps that the command line says and write what failed to the file it names."""
    said = json.loads(sys.argv[2])
    if not said["installed"]:
        sys.meta_path.insert(0, NotInstalled())
    guard = Guard(said["pip"])
    sys.addaudithook(guard)
    module = importlib.import_module("operator_steps")
    failures = {}
    for step in said["steps"]:
        try:
            getattr(module, f"step_{step}")()
        except BaseException:
            failures[step] = traceback.format_exc()
    report = {"failures": failures, "offences": guard.offences, "pip_starts": guard.pip_starts}
    Path(said["report"]).write_text(json.dumps(report))


def run_child(folder, *steps, installed=True, pip=False, **env):
    """Run steps in a fresh process that has its own home, and return its report.

    Args:
        folder: where the child is started and has its home.
        installed: whether `import mdmmt` is possible.
        pip: whether pip may be started; it finds nothing but what is installed.
        env: further environment variables.
    """
    report = folder / "report.json"
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("MDMMT_WEIGHTS", "TOWHEE_URL")
    }
    own = {
        "HOME": str(folder),
        "TOWHEE_HOME": str(folder / "towhee"),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_OFFLINE": "1",
        "PIP_NO_INDEX": "1",
    }
    said = {
        "steps": steps,
        "installed": installed,
        "pip": pip,
        "report": str(report),
    }
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(Path(__file__).parent), json.dumps(said)],
        cwd=folder,
        env=inherited | own | env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(report.read_text())


def check_child(folder, *steps, **options):
    """Run steps, all of which must succeed without an offence; see `run_child`."""
    report = run_child(folder, *steps, **options)
    assert not report["failures"], "\n".join(report["failures"].values())
    assert not report["offences"]
    return report


def video(dims=None, seed=0, n=30):
    """The dict that the video operator takes; by default with the released model's experts."""
    random = np.random.default_rng(seed)
    dims = dims or {"VIDEO": 2048, "CLIP": 512, "tf_vggish": 128}
    return {
        "features": {name: random.standard_normal((n, dim)) for name, dim in dims.items()},
        "features_t": {name: np.arange(n) + 2.5 for name in dims},
        "features_ind": {name: np.ones(n) for name in dims},
    }


def write_model(folder):
    """Write a model folder: the released experts and embedding size, else tiny; random weights."""
    import torch
    from transformers import BertTokenizerFast

    from mdmmt.config import RELEASED, ModelConfig
    from mdmmt.towers.text import TextTower
    from mdmmt.towers.video import VideoTower
    from mdmmt.weights.folder import save_model

    words = sorted(set(" ".join(SENTENCES).replace(".", " .").split()))
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    (folder / "vocab.txt").write_text("".join(f"{word}\n" for word in vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"), do_lower_case=False)
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    video_encoder = replace(RELEASED.video.encoder, hidden_size=16, **small)
    bert = replace(RELEASED.text.bert, hidden_size=16, vocab_size=len(vocabulary), **small)
    config = ModelConfig(
        replace(RELEASED.video, encoder=video_encoder), replace(RELEASED.text, bert=bert)
    )
    torch.manual_seed(0)
    towers = VideoTower(config.video), TextTower(config.text)
    for tower in towers:
        for parameter in tower.parameters():
            torch.nn.init.normal_(parameter)  # so that different inputs are far apart
    save_model(folder, config, *towers, tokenizer)


def clone(folder):
    """What a clone holds, in a folder of any name."""
    for name in CLONED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(source, folder / name, ignore=ignored)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, folder / name)
    return folder


def lay_as_hub(source, home):
    """Lay the operator folder with Towhee's own code for what its hub has sent."""
    from towhee.hub.downloader import _HubFiles

    files = [path for path in source.rglob("*") if path.is_file()]
    shas = [sha1(str(path).encode()).hexdigest() for path in files]
    tree = [
        {"type": "blob", "path": str(path.relative_to(source)), "sha": sha}
        for path, sha in zip(files, shas, strict=True)
    ]
    hub_files = _HubFiles(home / "operators" / OPERATOR, "main", tree)
    for path, sha in zip(files, shas, strict=True):
        shutil.copy(path, hub_files.file_path / sha)
    hub_files.symlink_files(latest=False)
    assert (home / FOLDER / "mdmmt" / "operator.py").is_symlink()


def snapshot(folder):
    """Every file with its content, every link with its target."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def parsed(requirements):
    from packaging.requirements import Requirement

    lines = map(Requirement, requirements.splitlines())
    return {line.name: (line.specifier, line.extras, line.marker) for line in lines}
