"""Pairs of a caption and the segment that it describes, from several datasets.

As in MDMMT (section 4.3), a sample is drawn in three steps: a dataset by the weights, one of its
segments, and one of the captions of that segment. An epoch is a number of samples. Each segment of
a dataset comes once before any comes again in the same epoch.

Everything that is drawn follows from the seed and the number of the epoch, so a run that goes on
draws what it would have drawn.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..config import ExpertConfig
from ..datasets import Caption, Exclusions, read_captions
from ..errors import InputError, warn
from ..features.files import FeatureFolder, read_features
from ..features.provenance import Provenance
from ..features.segments import overlaps, select
from ..features.tokens import VideoTokens, tokens_of_checked
from ..features.types import ExpertFeatures, VideoFeatures
from ..storage.text import counted
from .config import DatasetConfig

TRAIN_SPLIT, VAL_SPLIT = "train", "validate"  # of an MSR-VTT file
MAX_NAMED = 5  # problems that a message names
CACHED_SEGMENTS = 2048  # 0.7 GB of the released model's tokens
AHEAD = 2  # batches that are read while another one is computed


class Segment(NamedTuple):
    """A segment of a video with all its captions."""

    dataset: int
    file: Path  # of the video's features
    start_s: float
    end_s: float | None
    captions: tuple[Caption, ...]


class Sample(NamedTuple):
    """One pair of an epoch."""

    segment: Segment
    caption: Caption
    experts: tuple[str, ...]  # those that are not left out


class Batch(NamedTuple):
    """The pairs of a step."""

    samples: Sequence[Sample]  # of all processes
    own: slice  # those of this process
    videos: Sequence[VideoTokens]  # of this process


class TrainingData:
    """The segments of all datasets, checked, and the samples that are drawn from them."""

    def __init__(
        self, datasets: Sequence[Sequence[Segment]], weights: Sequence[float], digest: str
    ) -> None:
        self.datasets, self.digest = datasets, digest
        self.shares = np.array(weights) / sum(weights)

    def draw_epoch(
        self, seed: int, epoch: int, count: int, experts: Sequence[str], expert_dropout: float
    ) -> list[Sample]:
        """Draw the samples of an epoch.

        Args:
            seed: of the run.
            epoch: its number, from 0.
            count: of the samples.
            experts: the names of the model's.
            expert_dropout: the chance of each expert to be left out; one always stays.
        """
        rng = np.random.default_rng((seed, epoch))
        dataset_of = rng.choice(len(self.datasets), size=count, p=self.shares)
        segments: list[Segment | None] = [None] * count
        for number, dataset in enumerate(self.datasets):
            places = (dataset_of == number).nonzero()[0]
            for place, row in zip(places, _shuffled(len(dataset), len(places), rng), strict=True):
                segments[place] = dataset[row]
        of_caption = rng.random(count)
        of_experts = rng.random((count, len(experts)))
        samples = []
        for segment, at, chances in zip(segments, of_caption, of_experts, strict=True):
            assert segment is not None  # each place belongs to one dataset
            caption = segment.captions[int(at * len(segment.captions))]
            keep = (chances >= expert_dropout) | (chances == chances.max())
            kept = tuple(name for name, stays in zip(experts, keep, strict=True) if stays)
            samples.append(Sample(segment, caption, kept))
        return samples


class SegmentReader:
    """Reads the tokens of segments, and keeps those that were read last."""

    def __init__(self, experts: Sequence[ExpertConfig]) -> None:
        self.experts = experts
        self._tokens = lru_cache(CACHED_SEGMENTS)(self._read)

    def _read(self, file: Path, start_s: float, end_s: float | None) -> VideoTokens:
        features = _known(read_features(file).features, self.experts)
        return tokens_of_checked(select(features, start_s, end_s), self.experts)

    def __call__(self, sample: Sample) -> VideoTokens:
        """The tokens of a sample. If it lacks all of its experts, it keeps those it has."""
        segment = sample.segment
        tokens = self._tokens(segment.file, segment.start_s, segment.end_s)
        return {name: tokens[name] for name in sample.experts if name in tokens} or tokens

    def batches(
        self, samples: Sequence[Sample], size: int, first: int, process: int, processes: int
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch; the next ones are read meanwhile.

        Args:
            samples: of the epoch. Those that fill no batch are left out.
            size: pairs of a batch.
            first: the number of the first batch that is yielded.
            process, processes: the number of this process, and how many share each batch.
        """
        share = size // processes
        own = slice(process * share, (process + 1) * share)

        def read(number: int) -> Batch:
            rows = samples[number * size : (number + 1) * size]
            return Batch(rows, own, [self(sample) for sample in rows[own]])

        numbers = range(first, len(samples) // size)
        with ThreadPoolExecutor(1) as pool:
            coming = [pool.submit(read, number) for number in numbers[:AHEAD]]
            try:
                for number in numbers:
                    batch = coming.pop(0).result()
                    if number + AHEAD in numbers:
                        coming.append(pool.submit(read, number + AHEAD))
                    yield batch
            finally:
                for future in coming:
                    future.cancel()


def check_paths(datasets: Sequence[DatasetConfig]) -> None:
    """Raise an InputError unless all files and folders of the datasets exist.

    This takes no time, so it comes before the weights are read or downloaded.
    """
    for number, dataset in enumerate(datasets):
        for name, kind in (
            ("data", "file"),
            ("features", "folder"),
            ("val", "file"),
            ("val_features", "folder"),
        ):
            path = getattr(dataset, name)
            if path is None:
                continue
            place = Path(path).expanduser()
            if not (place.is_file() if kind == "file" else place.is_dir()):
                problem = f"is no {kind}" if place.exists() else "does not exist"
                raise InputError(
                    f"{name} of datasets[{number}] is {path!r}, which {problem}; expected a {kind}"
                )


def read_training_data(
    datasets: Sequence[DatasetConfig],
    experts: Sequence[ExpertConfig],
    skip_missing: bool = False,
    exclusions: Exclusions | None = None,
) -> TrainingData:
    """Read the captions of all datasets, and check the features of every video once.

    Captions whose segment has no length or lies outside its video are left out with a warning, as
    MDMMT's authors do.

    Args:
        experts: those of the model.
        skip_missing: leave out captions whose video has no features, with a warning.
        exclusions: segments whose captions are left out, with a warning; None: no segment.

    Raises:
        InputError: captions that cannot be read, videos without features, or features that do not
            fit the model or each other. The message names the file and the line of the caption.
    """
    checks = _FeatureChecks(experts)
    read = []
    excluded = 0
    for number, dataset in enumerate(datasets):
        captions = read_captions(dataset.data, dataset.split, TRAIN_SPLIT)
        folder = FeatureFolder(dataset.features)
        if exclusions is not None:
            kept = [caption for caption in captions if not _is_excluded(caption, exclusions)]
            excluded += len(captions) - len(kept)
            captions = kept
        found = _find_videos(captions, folder, dataset, skip_missing)
        segments = _segments(number, found, checks)
        if not segments:
            raise InputError(f"{dataset.data}: all captions were left out, so nothing is to train")
        read.append(segments)
    if exclusions is not None:
        left_out = counted(excluded, "caption was", "captions were")
        warn(f"{left_out} left out as duplicates of a test set")
    without = [expert.name for expert in experts if expert.name not in checks.seen]
    if without:
        warn(f"no video has features of {', '.join(without)}, so the model learns without them")
    return TrainingData(read, [dataset.weight for dataset in datasets], _digest(read))


def _find_videos(
    captions: Sequence[Caption], folder: FeatureFolder, dataset: DatasetConfig, skip_missing: bool
) -> dict[Path, list[Caption]]:
    """The captions of each feature file, in the order of the annotation file."""
    found: dict[Path, list[Caption]] = {}
    missing = []
    for caption in captions:
        files = folder.files_of(caption.video)
        if len(files) > 1:
            names = ", ".join(map(str, files))
            raise InputError(
                f"{caption.where}: the video {caption.video!r} could be any of {names}"
            )
        if files:
            found.setdefault(files[0], []).append(caption)
        else:
            missing.append(caption)
    if missing and not skip_missing:
        named = "; ".join(f"{one.where}: {one.video!r}" for one in missing[:MAX_NAMED])
        rest = len(missing) - MAX_NAMED
        raise InputError(
            f"{dataset.features} has no features of the video of {named}"
            + (f"; and of {counted(rest, 'more caption')}" if rest > 0 else "")
            + "; `mdmmt extract` makes them, and skip_missing leaves such captions out"
        )
    if missing:
        left_out = counted(len(missing), "caption was", "captions were")
        warn(f"{dataset.data}: {left_out} left out, for which there is no video with features")
    return found


def _is_excluded(caption: Caption, exclusions: Exclusions) -> bool:
    return exclusions.excluded(caption.video, caption.start_s, caption.end_s)


def _segments(
    number: int, found: dict[Path, list[Caption]], checks: _FeatureChecks
) -> list[Segment]:
    """The segments of a dataset with their captions, after the checks of all features."""
    segments = []
    outside: list[Caption] = []
    for file, captions in found.items():
        features = checks.read(file, captions[0])
        by_span: dict[tuple[float, float | None], list[Caption]] = {}
        for caption in captions:
            try:
                is_there = overlaps(features, caption.start_s, caption.end_s)
            except InputError as error:
                raise InputError(f"{caption.where}: {error}") from error
            if is_there:
                by_span.setdefault((caption.start_s, caption.end_s), []).append(caption)
            else:
                outside.append(caption)
        segments += [Segment(number, file, *span, tuple(own)) for span, own in by_span.items()]
    if outside:
        named = "; ".join(caption.where for caption in outside[:MAX_NAMED])
        more = "; …" if len(outside) > MAX_NAMED else ""
        left_out = counted(len(outside), "caption was", "captions were")
        warn(
            f"{left_out} left out, with a segment that has no length or lies outside its video: "
            f"{named}{more}"
        )
    return segments


class _FeatureChecks:
    """Checks the features of every video against the model and against those before."""

    def __init__(self, experts: Sequence[ExpertConfig]) -> None:
        self.experts = experts
        self.seen: set[str] = set()  # experts with features of at least one video
        self._provenance = Provenance()

    def read(self, file: Path, caption: Caption) -> VideoFeatures:
        """Read the features of a video for the experts of the model."""
        where = caption.where or caption.video
        try:
            content = read_features(file)
            features = _known(content.features, self.experts)
            for expert in self.experts:
                if expert.name in features:
                    features[expert.name].check(expert.dim, f"{file}, expert {expert.name}")
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        if not features:
            ours = ", ".join(expert.name for expert in self.experts)
            theirs = ", ".join(content.features) or "no expert"
            raise InputError(
                f"{where}: {file} has features of {theirs}, expected some of the model's: {ours}"
            )
        self.seen |= features.keys()
        names = [expert.name for expert in self.experts if expert.name in content.versions]
        versions = {name: content.versions[name] for name in names}
        if mixture := self._provenance.difference(file, versions, content.clock):
            other, difference = mixture
            raise InputError(
                f"{where}: the features in {file} and {other} must not be mixed: {difference}; "
                "expected features of one run of `mdmmt extract`"
            )
        return features


def _known(features: VideoFeatures, experts: Sequence[ExpertConfig]) -> dict[str, ExpertFeatures]:
    return {one.name: features[one.name] for one in experts if features.get(one.name)}


def _shuffled(size: int, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """`count` numbers below `size`, each of which comes once before any comes again."""
    passes = [rng.permutation(size) for _ in range(-(-count // size))]
    return np.concatenate([np.zeros(0, dtype=np.int64), *passes])[:count]


def _digest(datasets: Sequence[Sequence[Segment]]) -> str:
    """A hash of all pairs, by which a run that goes on sees whether they are the same."""
    digest = hashlib.sha256()
    for dataset in datasets:
        for segment in dataset:
            texts = [caption.text for caption in segment.captions]
            line = [segment.file.name, segment.start_s, segment.end_s, texts]
            digest.update(json.dumps(line).encode() + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()
