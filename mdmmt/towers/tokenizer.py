"""Text -> token ids, prepared as the released model was trained."""

from __future__ import annotations

import itertools
import os
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..config import TextConfig
from ..errors import InputError, WeightsError, warn
from ..storage.huggingface import can_reach_hub
from ..storage.paths import cache_folder
from ..storage.text import counted, parse_json, read_text

BERT_BASE_CASED_ID = "google-bert/bert-base-cased"
BERT_FOLDER = "bert-base-cased"  # of its tokenizer, in this user's cache
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt")  # either is enough
# Further files that `transformers` may write beside them.
TOKENIZER_EXTRAS = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
MAX_REASON = 300  # characters of an error of another library
SHOWN = 60  # characters of a text in a message
SENTENCE_ENDS = (".", "?", "!")
MAX_CHARACTERS = 100_000  # of a text, or of its part that can give the first tokens
LONG_TEXT = 1_000  # characters; cutting a shorter text costs more than it saves
BETWEEN_BLANKS = re.compile(r"[^ \t\n\r]+")  # blanks that every tokenizer knows
LETTER_OR_DIGIT = re.compile(r"[A-Za-z0-9]")  # that no tokenizer drops


class Tokenizer:
    """A Hugging Face tokenizer with MDMMT's preparation of texts.

    Threads may share it. They may not share one of `transformers`, which holds its truncation as
    state.
    """

    def __init__(self, tokenizer: Any, config: TextConfig) -> None:
        self.tokenizer = tokenizer
        self.config = config
        self._size = config.bert.vocab_size
        self._lock = threading.Lock()
        self._may_cut = _makes_tokens_of_words(tokenizer)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, special tokens included, at most `max_length` of them.

        A text of more tokens gives a warning.

        Raises:
            InputError: the tokenizer makes no token of a text, or a text has more than
                `MAX_CHARACTERS` that its first tokens could come from.
            WeightsError: it makes ids that the text tower does not have.
        """
        if self.config.add_dot:
            texts = [end_sentence(text) for text in texts]
        beginnings = [self._beginning(text) for text in texts]
        max_length = self.config.max_length
        with self._lock:
            ids = self._tokenize(beginnings, max_length)
            full = [index for index, row in enumerate(ids) if len(row) >= max_length]
            # With room for one more token, a text that is longer than `max_length` fills that, too.
            longer = self._tokenize([beginnings[i] for i in full], max_length + 1) if full else []
        self._warn_of_cut_texts(
            [
                texts[index]
                for index, row in zip(full, longer, strict=True)
                if len(row) > max_length or len(beginnings[index]) < len(texts[index].rstrip())
            ]
        )
        self._check(ids, beginnings)
        return ids

    def _warn_of_cut_texts(self, texts: Sequence[str]) -> None:
        if not texts:
            return
        # The first is told by its words, since a caller may pass texts in batches, or one text.
        more = f" and {counted(len(texts) - 1, 'more text')} are" if len(texts) > 1 else " is"
        warn(
            f"the text {_quote(texts[0])}{more} longer than this model takes: it embeds the first "
            f"{self.config.max_length} tokens; shorter texts are embedded whole"
        )

    def _check(self, ids: Sequence[Sequence[int]], texts: Sequence[str]) -> None:
        """Raise unless each text has tokens, and the tower has embeddings for their ids."""
        for row, text in zip(ids, texts, strict=True):
            if not row:
                raise InputError(
                    f"the tokenizer makes no token of the text {_quote(text)}, expected some words"
                )
            # The vocabulary need not name all ids that a tokenizer makes.
            if self._size is not None and not 0 <= min(row) <= max(row) < self._size:
                raise WeightsError(
                    f"the tokenizer makes ids from {min(row)} to {max(row)}, and the text tower "
                    f"has {self._size} words: it is not the one this model was trained with"
                )

    def _tokenize(self, texts: list[str], max_length: int) -> list[list[int]]:
        return self.tokenizer(
            texts,
            max_length=max_length,
            truncation=True,
            add_special_tokens=self.config.add_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
        )["input_ids"]

    def _beginning(self, text: str) -> str:
        """The part of a text that decides its first `max_length` tokens."""
        count = self.config.max_length
        if self._may_cut and len(text) > LONG_TEXT:
            pieces = BETWEEN_BLANKS.finditer(text)
            words = (piece for piece in pieces if LETTER_OR_DIGIT.search(piece[0]))
            ends = [word.end() for word in itertools.islice(words, count)]
            if len(ends) == count:
                text = text[: ends[-1]]
        if len(text) > MAX_CHARACTERS:
            raise InputError(
                f"the text {_quote(text)} has {len(text)} characters before {count} words are "
                f"complete, expected at most {MAX_CHARACTERS}"
            )
        return text


def _quote(text: str) -> str:
    """The beginning of a text, for a message."""
    return repr(text if len(text) <= SHOWN else text[:SHOWN] + "…")


def _makes_tokens_of_words(tokenizer: Any) -> bool:
    """Whether each word with a letter or a digit makes a token, as in BERT."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return (
        type(getattr(backend, "pre_tokenizer", None)).__name__ == "BertPreTokenizer"
        and type(getattr(backend, "normalizer", None)).__name__ == "BertNormalizer"
        and tokenizer.truncation_side == "right"
        and not any(len(token.split()) > 1 for token in tokenizer.get_added_vocab())
    )


def end_sentence(text: str) -> str:
    """The text stripped, with a full stop unless it ends a sentence already."""
    text = text.strip()
    return text if text.endswith(SENTENCE_ENDS) else text + "."


def load_tokenizer(source: str | os.PathLike[str]) -> Any:
    """Load the Hugging Face tokenizer in a folder, or of a hub id (from its cache or the hub).

    A folder that does not name the tokenizer's class, such as one with BERT's `vocab.txt` alone,
    holds a WordPiece vocabulary, cased unless its `tokenizer_config.json` says otherwise.

    Raises:
        WeightsError: there is no tokenizer, or it cannot be fetched.
    """
    # Imported late, since that takes time, and a video operator does without.
    from transformers import (  # type: ignore[attr-defined] # its types lack the third
        AutoTokenizer,
        BertConfig,
        BertTokenizerFast,
    )

    try:
        settings = _read_settings(Path(source))
        if Path(source).is_dir() and "tokenizer_class" not in settings:
            # AutoTokenizer refuses some of these folders and lower-cases others.
            lower_case = settings.get("do_lower_case", False)
            tokenizer = BertTokenizerFast.from_pretrained(str(source), do_lower_case=lower_case)
        else:
            # Given BERT's configuration, it does not read the config.json of a model folder.
            config = BertConfig() if Path(source).is_dir() else None
            tokenizer = AutoTokenizer.from_pretrained(
                str(source),
                config=config,
                trust_remote_code=False,
                local_files_only=Path(source).is_dir() or not can_reach_hub(),
            )
        # transformers makes one up where files are missing.
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("it has no vocabulary")
    except BaseException as error:  # broken files make tokenizers raise nearly anything
        # A panic of its Rust code derives from BaseException alone.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = next(iter(str(error).splitlines()), type(error).__name__)[:MAX_REASON]
        raise WeightsError(
            f"no tokenizer could be loaded from {source} ({reason}); put the files of "
            f"{BERT_BASE_CASED_ID} ({' or '.join(TOKENIZER_FILES)}) beside the weights, or name "
            "their folder: mmttxt_params={'tokenizer': FOLDER}"
        ) from error
    return tokenizer


def check_vocabulary(tokenizer: Any, config: TextConfig) -> None:
    """Refuse a Hugging Face tokenizer whose ids the text tower has no embeddings for.

    Raises:
        WeightsError: naming the id, or the number of tokens, and the tower's number.
    """
    size = config.bert.vocab_size
    if size is None:
        return
    if len(tokenizer) > size:
        raise WeightsError(
            f"the tokenizer has {len(tokenizer)} tokens and the text tower {size}: "
            "it is not the one this model was trained with"
        )
    vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
    for token, index in vocabulary.items():
        if not 0 <= index < size:
            raise WeightsError(
                f"the tokenizer's token {token[:40]!r} has the id {index}, and the text tower has "
                f"the ids 0 to {size - 1}: it is not the one this model was trained with"
            )
    padding = getattr(tokenizer, "pad_token_id", 0)
    if not isinstance(padding, int) or not 0 <= padding < size:
        raise WeightsError(
            f"the tokenizer's pad_token_id is {padding}, expected an id from 0 to {size - 1}"
        )


def _read_settings(folder: Path) -> dict[str, Any]:
    file = folder / "tokenizer_config.json"
    if not file.is_file():
        return {}
    settings = parse_json(read_text(file), str(file))
    if not isinstance(settings, dict):
        raise WeightsError(f"{file} is a {type(settings).__name__}, expected a dict")
    return settings


def tokenizer_source(weights: Path) -> Path | str:
    """The folder of a weights file or model folder if it holds a tokenizer, else that of BERT."""
    beside = weights if weights.is_dir() else weights.parent
    return beside if has_tokenizer(beside) else bert_tokenizer_source()


def bert_tokenizer_source() -> Path | str:
    """The folder in this user's cache if it holds the tokenizer of BERT, else BERT's hub id."""
    folder = cache_folder() / BERT_FOLDER
    return folder if has_tokenizer(folder) else BERT_BASE_CASED_ID


def has_tokenizer(folder: Path) -> bool:
    """Whether a folder holds the files of a tokenizer."""
    return any((folder / name).is_file() for name in TOKENIZER_FILES)
