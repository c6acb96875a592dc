"""A tiny model, its vocabulary, and pairs of our towers with the oracle's."""

from __future__ import annotations

import json
import string
from dataclasses import dataclass
from pathlib import Path

import torch
from oracle import text_oracle, video_oracle

from mdmmt.config import EncoderConfig, ExpertConfig, ModelConfig, TextConfig, VideoConfig
from mdmmt.towers.text import TextTower
from mdmmt.towers.tokenizer import load_tokenizer
from mdmmt.towers.video import VideoTower

WORDS = [
    *("Hello", "hello", "world", "dog", "man", "is", "playing", "the", "red", "ball", "video"),
    *("person", "and", "cat", "sings"),
]


def write_vocabulary(folder: Path, size: int) -> None:
    """A cased WordPiece vocabulary laid out as that of bert-base-cased, and its two settings."""
    folder.mkdir(parents=True, exist_ok=True)
    characters = string.ascii_letters + string.digits + string.punctuation + "éü"
    words = ["[PAD]", *(f"[unused{i}]" for i in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words += [*characters, *(f"##{c}" for c in characters), *WORDS]
    words += [f"filler{i}" for i in range(size - len(words))]
    assert len(words) == len(set(words)) == size
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    settings = {"do_lower_case": False, "model_max_length": 512}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


TINY_VOCABULARY = 400


TINY = ModelConfig(
    video=VideoConfig(
        experts=(
            ExpertConfig("wide", dim=11, type_id=1, max_tokens=6),
            ExpertConfig("narrow", dim=3, type_id=4, max_tokens=6),
            ExpertConfig("middle", dim=7, type_id=2, max_tokens=6),
        ),
        encoder=EncoderConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=40,
            max_position_embeddings=32,
            type_vocab_size=6,
        ),
        same_dim=24,
    ),
    text=TextConfig(
        experts=("wide", "narrow", "middle"),
        bert=EncoderConfig(
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=48,
            max_position_embeddings=64,
            type_vocab_size=2,
            vocab_size=TINY_VOCABULARY,
        ),
        same_dim=24,
    ),
)

# The tiny model in upstream's words: what a bare weights file needs to be read as one.
VIDEO_PARAMS = {
    "expert_dims": {
        e.name: {"dim": e.dim, "idx": e.type_id, "max_tok": e.max_tokens}
        for e in TINY.video.experts
    },
    "vid_bert_config": {k: v for k, v in vars(TINY.video.encoder).items() if k != "vocab_size"},
    "same_dim": 24,
    "hidden_size": 24,
}


@dataclass(frozen=True)
class Pair:
    """The oracle's two towers, ours with the same weights, and the tokenizer of both."""

    config: ModelConfig
    tokenizer: object
    theirs_video: torch.nn.Module
    theirs_text: torch.nn.Module
    ours_video: VideoTower
    ours_text: TextTower

    @property
    def released_layout(self) -> dict:
        """What the released file holds."""
        return {
            "vid_state_dict": self.theirs_video.state_dict(),
            "txt_state_dict": self.theirs_text.state_dict(),
        }

    @property
    def both_towers(self) -> dict[str, torch.Tensor]:
        """The tensors of both towers side by side."""
        return {**self.theirs_video.state_dict(), **self.theirs_text.state_dict()}


def make_pair(config: ModelConfig, vocabulary: Path, seed: int = 0) -> Pair:
    tokenizer = load_tokenizer(vocabulary)
    theirs_video = video_oracle(config.video, seed)
    theirs_text = text_oracle(config.text, tokenizer, seed)
    ours_video, ours_text = VideoTower(config.video), TextTower(config.text)
    ours_video.load_state_dict(theirs_video.state_dict(), strict=True)
    ours_text.load_state_dict(theirs_text.state_dict(), strict=True)
    return Pair(config, tokenizer, theirs_video, theirs_text, ours_video.eval(), ours_text.eval())
