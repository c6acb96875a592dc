"""The layouts of MDMMT's weights: the keys of its checkpoints, and the files of a model folder.

`read_tower` reads the released `mdmmt_3mod.pth` (a dict of `vid_state_dict` and `txt_state_dict`),
files of the MMT lineage (one `state_dict` for both towers), a `.safetensors` with both towers'
tensors side by side, and a model folder (`config.json`, `model.safetensors`, tokenizer files).
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..config import RELEASED, ModelConfig, from_dict
from ..errors import InputError, WeightsError
from ..storage.checkpoint import CheckpointLayout, join_names, read_tensors
from ..storage.text import parse_json, read_text
from ..towers.tokenizer import TOKENIZER_EXTRAS, TOKENIZER_FILES

CONFIG_FILE = "config.json"
MAX_CONFIG_SIZE = 1 << 20  # bytes
MODEL_FILE = "model.safetensors"
MODEL_FOLDER_FILES = (CONFIG_FILE, MODEL_FILE, *TOKENIZER_FILES, *TOKENIZER_EXTRAS)

VIDEO_PREFIXES = ("vid_bert.", "video_dim_reduce.", "video_dim_reduce_out.")
TEXT_PREFIXES = ("txt_bert.", "text_gu.", "moe_fc_txt.")

TOWERS = CheckpointLayout(
    renames=(
        (r"^module\.", ""),  # torch.nn.DataParallel
        (r"^text_GU\.", "text_gu."),  # MMT
        (r"\.gamma$", ".weight"),  # BERT checkpoints converted from TensorFlow
        (r"\.beta$", ".bias"),
    ),
    # Buffers of old `transformers` releases that hold no weights.
    ignored=(r"^txt_bert\.embeddings\.position_ids$",),
    nested=("vid_state_dict", "txt_state_dict", "state_dict"),
)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a configuration and the weights that it describes."""
    return (folder / CONFIG_FILE).is_file() and (folder / MODEL_FILE).is_file()


def weights_file(path: Path) -> Path:
    """The file that holds the tensors of a weights file or model folder."""
    return path / MODEL_FILE if path.is_dir() else path


def read_config(path: Path) -> ModelConfig:
    """The configuration of a model folder; that of the released model for a bare file.

    Raises:
        WeightsError: the folder's configuration describes no model.
    """
    if not path.is_dir():
        return RELEASED
    file = path / CONFIG_FILE
    try:
        if file.stat().st_size > MAX_CONFIG_SIZE:
            raise InputError(f"it is larger than {MAX_CONFIG_SIZE} bytes")
        return from_dict(parse_json(read_text(file), CONFIG_FILE))
    except (InputError, OSError, ValueError) as error:
        raise WeightsError(f"{file} does not describe a model: {error}") from error


def read_tower(path: Path, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """Read the tensors of one tower, or of both, under the names of this package's modules.

    Args:
        path: a weights file or a model folder.
        prefixes: `VIDEO_PREFIXES`, `TEXT_PREFIXES`, or their sum.

    Raises:
        WeightsError: see `read_checkpoint` and `select_tower`.
    """
    file = weights_file(path)
    return select_tower(read_tensors(file, TOWERS, prefixes), prefixes, file)


def select_tower(
    state: dict[str, Tensor], prefixes: tuple[str, ...], file: Path
) -> dict[str, Tensor]:
    """Select the tensors of one tower, or of both, among those of a file.

    Raises:
        WeightsError: there are keys of neither tower, or no tensor with one of the prefixes; or a
            tensor has more numbers than the file holds for it.
    """
    unknown = [name for name in state if not name.startswith(VIDEO_PREFIXES + TEXT_PREFIXES)]
    if unknown:
        raise WeightsError(f"{file} has keys of neither tower: {join_names(unknown)}")
    state = {name: tensor for name, tensor in state.items() if name.startswith(prefixes)}
    if not state:
        raise WeightsError(f"{file} holds nothing of this tower (no {', '.join(prefixes)})")
    for name, tensor in state.items():
        # A file of some bytes could otherwise ask for any memory, by a tensor of one number that is
        # repeated in every row.
        held = tensor.untyped_storage().nbytes() // tensor.itemsize
        if held < tensor.numel():
            raise WeightsError(
                f"{file}: {name} has {tensor.numel():,} numbers, of which the file holds {held:,}, "
                "expected all: save `tensor.contiguous()`"
            )
    return state
