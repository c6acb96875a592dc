"""The examples that the help of each command shows."""

from __future__ import annotations

EXAMPLES = {
    "demo": ("mdmmt demo --out demo",),
    "extract": (
        "mdmmt extract videos/ --out features/ --dry-run",
        "mdmmt extract videos/ --out features/",
        "mdmmt extract demo/clips --out features/ --experts frame,motion,sound",
    ),
    "embed": (
        "mdmmt embed videos/ --out videos.npy",
        "mdmmt embed a.mp4 --window 10 --out windows.jsonl",
        'mdmmt embed --text "a red circle moves left" --weights sample --out text.npy',
        "mdmmt embed --texts captions.csv --column caption --out captions.npz",
    ),
    "batch": (
        "mdmmt batch videos/ --out vectors/ --db library.db",
        "mdmmt batch s3://films/new --out s3://films/vectors --cluster 10.0.0.1:6379",
        "mdmmt batch films.parquet --column file --out vectors/ --gpus-per-actor 0.5",
        "mdmmt batch --texts captions.jsonl --column caption --out texts/",
    ),
    "dumps read": ("mdmmt dumps read CLIP=dumps/clip VIDEO=dumps/video --out features/",),
    "dumps write": ("mdmmt dumps write features/*.safetensors --out dumps/",),
    "index build": (
        "mdmmt index build videos/ --db library.db",
        "mdmmt index build demo/clips --db demo.db --weights sample",
        "mdmmt index build videos/ --db library.db --metadata facts.jsonl --jobs 4",
    ),
    "index list": ("mdmmt index list --db library.db",),
    "index info": ("mdmmt index info --db library.db",),
    "index prune": (
        "mdmmt index prune --db library.db --dry-run",
        "mdmmt index prune --db library.db",
    ),
    "index delete": ("mdmmt index delete videos/old.mp4 videos/drafts --db library.db",),
    "index export": ("mdmmt index export --db library.db --out library.parquet",),
    "index import": ("mdmmt index import library.parquet --db http://localhost:19530",),
    "search": (
        'mdmmt search "a dog jumps into water" --db library.db',
        'mdmmt search "a dog" --db library.db -k 50 --html found.html',
        "mdmmt search --queries queries.txt --db library.db --json",
        'mdmmt search "a dog barks" --db library.db --expert-weights tf_vggish=2',
        'mdmmt search --video videos/a.mp4 --db library.db --filter "year >= 2020" --json',
    ),
    "app": ("mdmmt app", "mdmmt app --db library.db"),
    "evaluate": (
        "mdmmt evaluate --dataset MSRVTT/ --out results.json --plot results.png",
        "mdmmt evaluate --dataset captions.csv --features features/ --compare results.json",
    ),
    "train": (
        "mdmmt train --data train.jsonl --features features/ --val val.jsonl --out runs/mine",
        "mdmmt train recipe.yaml",
        "mdmmt train recipe.yaml --out runs/other --set epochs=10 --set loss=info-nce",
    ),
    "duplicates": (
        "mdmmt duplicates test-features/ train-features/",
        "mdmmt duplicates test-features/ train-features/ --out duplicates.lst",
    ),
    "download": ("mdmmt download --list", "mdmmt download", "mdmmt download --only CLIP"),
    "convert": ("mdmmt convert mdmmt_3mod.pth --out my-model",),
    "info": ("mdmmt info", "mdmmt info my-model"),
    "export": ("mdmmt export text --out text.onnx --weights my-model",),
    "hub-folder": ("mdmmt hub-folder --out to-upload",),
    "install-operator": ("mdmmt install-operator",),
    "completion": (
        "mdmmt completion bash > ~/.local/share/bash-completion/completions/mdmmt",
        "mdmmt completion zsh > ~/.zfunc/_mdmmt",
    ),
}
