"""The loop: it learns, goes on exactly where it stopped, and stops where it must."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

import mdmmt
from mdmmt.errors import InputError
from mdmmt.training import loop
from mdmmt.training.checkpoints import find_checkpoints
from mdmmt.training.config import DatasetConfig
from mdmmt.training.data import SegmentReader, read_training_data
from mdmmt.training.loop import BatchTexts, metric_of, schedule, train
from mdmmt.training.processes import Processes
from mdmmt.training.progress import read_log

STOP = "stopped by the test"


def weights(folder):
    return load_file(folder / "model.safetensors")


def assert_same(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def with_validation(config):
    (dataset,) = config.datasets
    return replace(config, datasets=(replace(dataset, val=dataset.data),))


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["max-margin", "info-nce"])
def test_32_pairs_are_learned(make_config, loss):
    config = with_validation(
        make_config(
            loss=loss, random_weights=True, epochs=4, samples_per_epoch=960, batch_size=32,
            dropout=0.0, learning_rate=5e-3, warm_up=10, margin=0.2, clip=1.0,
        )
    )  # fmt: skip
    result = train(config)
    (metrics,) = result.history[-1]["validation"].values()
    assert metrics["t2v"]["R@1"] == 100
    assert result.history[-1]["mean_loss"] < result.history[0]["mean_loss"] / 5


@pytest.mark.slow
def test_a_run_leaves_a_model_folder_and_all_that_shows_it(make_config, tiny_model, tmp_path):
    config = with_validation(make_config())
    result = train(config)
    folder = tmp_path / "run"
    assert result.folder == folder
    names = {path.name for path in folder.iterdir()}
    assert {
        "last",
        "checkpoints",
        "settings.json",
        "log.jsonl",
        "progress.png",
        "README.md",
    } <= names
    model = mdmmt.load(folder, "cpu")
    assert model.encode_text("Hello world").shape == (72,)
    lines = read_log(folder)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert [line["epoch"] for line in lines if "validation" in line] == [1, 2]
    assert result.best_epoch == max(result.history, key=lambda line: line["metric"])["epoch"]
    changed = weights(folder / "last")
    before = {
        **tiny_model.read_video_tower().state_dict(),
        **tiny_model.read_text_tower().state_dict(),
    }
    assert not any(
        torch.equal(changed[name], before[name]) for name in before if ".query.weight" in name
    )


@pytest.mark.slow
def test_a_run_that_is_stopped_goes_on_exactly(make_config, tmp_path, monkeypatch):
    """Stopped at each of its steps, by an error; the test below kills the process instead."""
    config = make_config(checkpoint_steps=3, expert_dropout=0.3, epochs=3)
    train(config)
    step = loop.Trainer.step
    again = replace(config, out=str(tmp_path / "again"))
    stops = set(range(2, 12, 3))

    def stop(self, batch, number, epoch):
        if number in stops:
            stops.remove(number)
            raise RuntimeError(STOP)
        return step(self, batch, number, epoch)

    monkeypatch.setattr(loop.Trainer, "step", stop)
    for _ in range(len(stops)):
        with pytest.raises(RuntimeError, match=STOP):
            train(again)
    assert not stops
    result = train(again)
    assert_same(weights(tmp_path / "run" / "last"), weights(tmp_path / "again" / "last"))
    lines, others = (
        [{k: v for k, v in line.items() if k != "seconds"} for line in read_log(tmp_path / name)]
        for name in ("run", "again")
    )
    assert lines == others
    assert [line["mean_loss"] for line in result.history] == [
        line["mean_loss"] for line in lines if "mean_loss" in line
    ]


RUN = """
import json, sys
import torch
from mdmmt.training.config import from_mapping
from mdmmt.training.loop import train
torch.set_num_threads(1)
train(from_mapping(json.loads(sys.argv[1]), "the test"))
print("done")
"""


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_exactly(make_config, tmp_path):
    config = with_validation(make_config(checkpoint_steps=3, epochs=6))
    for name, kill_at in (("whole", None), ("killed", (1, 5, 8, 14, 19, 24))):
        settings = json.dumps(asdict(replace(config, out=str(tmp_path / name))))
        log = tmp_path / name / "log.jsonl"
        for lines in kill_at or ():
            process = subprocess.Popen([sys.executable, "-W", "ignore", "-c", RUN, settings])
            while process.poll() is None:
                if log.exists() and len(log.read_text().splitlines()) >= lines:
                    os.kill(process.pid, signal.SIGKILL)
                    break
                time.sleep(0.001)
            assert process.wait() == -signal.SIGKILL
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", RUN, settings], capture_output=True, text=True
        )
        assert done.stdout == "done\n", done.stderr
    for place in (".", "last"):
        assert_same(weights(tmp_path / "whole" / place), weights(tmp_path / "killed" / place))
    assert not list((tmp_path / "killed").glob(".saving-*"))


@pytest.mark.slow
def test_a_finished_run_is_left_as_it_is_and_more_epochs_go_on(make_config, tmp_path):
    config = make_config()
    train(config)
    before = weights(tmp_path / "run" / "last")
    assert len(train(config).history) == 2
    assert_same(weights(tmp_path / "run" / "last"), before)
    assert len(train(replace(config, epochs=3)).history) == 3
    whole = replace(config, epochs=3, out=str(tmp_path / "whole"))
    train(whole)
    assert_same(weights(tmp_path / "run" / "last"), weights(tmp_path / "whole" / "last"))


@pytest.mark.slow
def test_a_run_of_other_settings_or_pairs_is_refused(make_config, tmp_path):
    config = make_config(epochs=1)
    train(config)
    with pytest.raises(InputError, match=r"run holds a run of other settings \(margin, decay\)"):
        train(replace(config, margin=0.1, decay=0.9))
    settings = tmp_path / "run" / "settings.json"
    settings.write_text(settings.read_text().replace('"pairs": "', '"pairs": "0'))
    with pytest.raises(InputError, match="the captions and segments"):
        train(config)


def test_a_folder_of_other_things_is_left_as_it_is(make_config, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="holds no run"):
        train(make_config())
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["thesis.txt"]


def test_a_loss_that_is_no_number_stops_the_run(make_config, tmp_path, monkeypatch):
    backward = loop.Trainer.backward

    def spoil(self, batch, step):
        loss, scores = backward(self, batch, step)
        return (float("nan") if step == 5 else loss), scores

    monkeypatch.setattr(loop.Trainer, "backward", spoil)
    with pytest.raises(
        InputError, match=r"loss of step 6 is nan.*captions\.jsonl, line \d+: '.*and 3 more"
    ):
        train(make_config())
    assert len(find_checkpoints(tmp_path / "run" / "checkpoints")) == 1
    assert len(read_log(tmp_path / "run")) == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("freeze", "kept"), [("text", ("txt_", "text_", "moe_")), ("video", ("vid",))]
)
def test_a_frozen_tower_keeps_its_weights(make_config, tiny_folder, tmp_path, freeze, kept):
    train(make_config(freeze=freeze, epochs=1))
    before, after = weights(tiny_folder), weights(tmp_path / "run")
    for name, value in before.items():
        if name.startswith(kept):
            assert torch.equal(value, after[name]), name
    others = [name for name in before if not name.startswith(kept) and ".query.weight" in name]
    assert others and not any(torch.equal(before[name], after[name]) for name in others)


def test_bert_has_a_learning_rate_of_its_own(make_config, tiny_folder, tmp_path):
    train(make_config(epochs=1, bert_learning_rate=1e-20))
    before, after = weights(tiny_folder), weights(tmp_path / "run")
    for name, value in before.items():
        if ".query.weight" in name or name.endswith(".cg.fc.weight"):
            assert torch.equal(value, after[name]) == name.startswith("txt_bert"), name


@pytest.mark.slow
def test_the_best_epoch_is_kept_and_the_run_ends_early(make_config, tmp_path, monkeypatch):
    values = iter([10.0, 30.0, 20.0, 25.0, 40.0])
    monkeypatch.setattr(loop, "metric_of", lambda metrics, name: next(values))
    result = train(with_validation(make_config(epochs=5, patience=2)))
    assert result.best_epoch == 2
    assert [line["metric"] for line in result.history] == [10, 30, 20, 25]
    best, last = weights(tmp_path / "run"), weights(tmp_path / "run" / "last")
    assert not all(torch.equal(best[name], last[name]) for name in best)
    assert "After epoch 2." in (tmp_path / "run" / "README.md").read_text()
    assert len(train(with_validation(make_config(epochs=5, patience=2))).history) == 4


@pytest.mark.slow
def test_without_validation_the_last_epoch_is_kept(make_config, tmp_path):
    assert train(make_config()).best_epoch == 2
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "run" / "last"))


def test_learning_rates_rise_and_fall(make_config):
    config = make_config(warm_up=4, decay=0.5)
    factors = [schedule(config, step, step // 3, steps=3)[0] for step in range(9)]
    assert factors == [0.25, 0.5, 0.75, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


@pytest.mark.parametrize(("warm_up", "share"), [(5, 0.25), (3, 0.15)])
def test_a_one_cycle_schedule_is_that_of_pytorch(make_config, warm_up, share):
    config = make_config(schedule="one-cycle", warm_up=warm_up, epochs=5, learning_rate=0.1)
    optimiser = torch.optim.AdamW([torch.zeros(1)], betas=(0.9, 0.98))
    theirs = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=20, pct_start=share)
    for step in range(20):
        (group,) = optimiser.param_groups
        factor, beta1 = schedule(config, step, step // 4, steps=4)
        assert 0.1 * factor == pytest.approx(group["lr"])
        assert beta1 == pytest.approx(group["betas"][0])
        optimiser.step()
        if step < 19:
            theirs.step()


@pytest.mark.parametrize("warm_up", [0, 1, 7, 8, 9])
def test_a_one_cycle_schedule_stays_in_its_range(make_config, warm_up):
    config = make_config(schedule="one-cycle", warm_up=warm_up, epochs=2)
    factors = [schedule(config, step, step // 4, steps=4)[0] for step in range(8)]
    assert all(loop.LAST_SHARE <= factor <= 1 for factor in factors)


def test_a_step_takes_the_betas_of_the_settings_and_of_its_schedule(make_config, tiny_folder):
    config = make_config(schedule="one-cycle", warm_up=3, epochs=5, beta2=0.98)
    trainer, batch = make_trainer(config, tiny_folder)
    trainer.step(batch, 2, 0)
    assert all(group["betas"] == (0.85, 0.98) for group in trainer.optimiser.param_groups)
    trainer, batch = make_trainer(make_config(), tiny_folder)
    trainer.step(batch, 2, 0)
    assert all(group["betas"] == (0.9, 0.999) for group in trainer.optimiser.param_groups)


def test_the_metric_of_an_epoch():
    metrics = {"R@1": 10.0, "R@5": 20.0, "R@10": 40.0}
    assert metric_of(metrics, "geometric mean") == pytest.approx(20)
    assert metric_of(metrics, "R@5") == 20


def test_the_bar_shows_videos_a_second_loss_and_recall(make_config, capsys):
    train(make_config(epochs=1), show_progress=True)
    shown = capsys.readouterr().err.split("\r")[-1]
    rate = r"(\d+ videos/s|s/ videos)"
    assert re.search(rf"epoch 1: 100%.* 32/32 .*{rate}, loss=\d\.\d{{4}}, recall=\d+%\]", shown)


@pytest.mark.slow
def test_gradients_are_clipped(make_config, monkeypatch):
    norms = []
    clip = torch.nn.utils.clip_grad_norm_

    def record(parameters, norm):
        parameters = list(parameters)
        clip(parameters, norm)
        norms.append(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", record)
    train(make_config(epochs=1, clip=1e-3))
    assert len(norms) == 4 and max(norms) <= 1.001e-3


def test_a_validation_without_features_is_named_before_the_first_step(make_config, tmp_path):
    val = tmp_path / "val.jsonl"
    val.write_text('{"video": "v0.mp4", "caption": "x"}\n{"video": "none.mp4", "caption": "x"}\n')
    config = make_config()
    dataset = replace(config.datasets[0], val=str(val))
    with pytest.raises(InputError, match=r"val\.jsonl, line 2: .*'none\.mp4'"):
        train(replace(config, datasets=(dataset,)))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_two_datasets_are_validated_each(make_config, pairs):
    file, features = str(pairs.captions), str(pairs.features)
    other = pairs.captions.with_name("other.jsonl")
    other.write_text("".join(pairs.captions.read_text().splitlines(keepends=True)[:9]))
    datasets = (
        DatasetConfig(file, features, val=file),
        DatasetConfig(str(other), features, val=str(other)),
    )
    result = train(make_config(datasets=datasets, epochs=1))
    line = result.history[0]
    scores = [metric_of(one["t2v"], "geometric mean") for one in line["validation"].values()]
    assert len(scores) == 2
    assert line["metric"] == pytest.approx(sum(scores) / 2)


def own_loss(text, video, samples):
    """The max-margin loss of the settings, for pairs that all differ."""
    assert len(text) == len(video) == len(samples) == len({one.segment.file for one in samples})
    scores = text @ video.T
    own = scores.diagonal()
    terms = (0.05 + scores - own[:, None]).relu() + (0.05 + scores - own).relu()
    others = ~torch.eye(len(samples), dtype=torch.bool)
    return (terms * others).sum() / (2 * others.sum())


def test_a_loss_of_ones_own_takes_the_place_of_that_of_the_settings(make_config, tmp_path):
    """It gives the weights that the settings' loss gives, where both are the same."""
    own = make_config(epochs=1, loss="info-nce", chunk_size=3)
    train(own, loss=own_loss)
    train(replace(own, out=str(tmp_path / "other"), loss="max-margin", margin=0.05))
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "other"))
    card = (tmp_path / "run" / "README.md").read_text()
    assert f'"loss": "{own_loss.__module__}.own_loss"' in card and "temperature" not in card
    with pytest.raises(InputError, match=r"other settings \(the loss passed in Python\)"):
        train(own)
    assert len(train(replace(own, epochs=2), loss=own_loss).history) == 2


def test_a_loss_sees_the_samples_of_its_rows(make_config, tiny_folder):
    config = make_config(dropout=0.0)
    trainer, batch = make_trainer(config, tiny_folder)
    seen = []
    trainer.loss = lambda text, video, samples: seen.append((text, video, samples)) or text.sum()
    trainer.towers.eval()
    trainer.backward(batch, 0)
    ((text, video, samples),) = seen
    assert samples is batch.samples
    model = mdmmt.load(tiny_folder, "cpu")
    texts = [sample.caption.text for sample in samples]
    expected = torch.from_numpy(model.encode_text(texts))
    torch.testing.assert_close(text.detach(), expected, atol=1e-5, rtol=1e-5)
    expected = torch.from_numpy(model.encode_tokens(batch.videos))
    torch.testing.assert_close(video.detach(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda text, video, samples: text @ video.T, r"of shape \(8, 8\) and depends on the emb"),
        (lambda text, video, samples: torch.tensor(1.0), r"of shape \(\) and depends on no"),
    ],
)
def test_a_loss_that_is_not_one_number_of_the_embeddings_is_refused(make_config, loss, message):
    with pytest.raises(InputError, match=message):
        train(make_config(epochs=1), loss=loss)


OTHERS = ("nothing of the kind", "an empty sentence")


def own_texts(samples, rng):
    """Two texts of each video, of which the first is drawn, and two of no video."""
    drawn = [f"{one.caption.text} {rng.choice(['here', 'there'])}" for one in samples]
    texts = [*drawn, *(one.caption.text for one in samples), *OTHERS]
    belongs = torch.eye(len(samples), dtype=torch.bool)
    return BatchTexts(texts, torch.cat([belongs, belongs, torch.zeros_like(belongs[:2])]))


def loss_of_own_texts(text, video, belongs):
    """Texts score 0.7 with their videos, and less than 0 with others."""
    assert belongs.shape == (len(text), len(video)) and len(text) == 2 * len(video) + len(OTHERS)
    scores = text @ video.T
    return (scores[belongs] - 0.7).square().mean() + scores[~belongs].relu().mean()


@pytest.mark.slow
def test_texts_of_ones_own_take_the_place_of_the_captions(make_config, tmp_path):
    """More texts than videos and texts of no video; a run goes on with the texts it would have."""
    config = make_config(epochs=2, checkpoint_steps=3, chunk_size=5)
    own = {"loss": loss_of_own_texts, "texts": own_texts}
    result = train(config, **own)
    assert result.history[-1]["mean_loss"] < result.history[0]["mean_loss"]
    lines = [line for line in read_log(tmp_path / "run") if "loss" in line]
    assert len(lines) == 8 and not any("recall" in line for line in lines)
    card = (tmp_path / "run" / "README.md").read_text()
    assert f'"texts": "{own_texts.__module__}.own_texts"' in card
    for missing in ({"loss": loss_of_own_texts}, {}):
        with pytest.raises(InputError, match=r"the texts passed in Python"):
            train(config, **missing)
    again = replace(config, out=str(tmp_path / "again"))
    stops = iter(range(13))

    def stopping(samples, rng):
        if next(stops) in (2, 6):
            raise RuntimeError(STOP)
        return own_texts(samples, rng)

    for name in ("__module__", "__qualname__"):
        setattr(stopping, name, getattr(own_texts, name))
    for _ in range(2):
        with pytest.raises(RuntimeError, match=STOP):
            train(again, loss=loss_of_own_texts, texts=stopping)
    train(again, loss=loss_of_own_texts, texts=stopping)
    assert_same(weights(tmp_path / "run" / "last"), weights(tmp_path / "again" / "last"))


@pytest.mark.slow
def test_chunks_of_own_texts_give_the_gradients_of_the_whole_batch(make_config, tiny_folder):
    own = {"loss": loss_of_own_texts, "texts": own_texts}
    config = make_config(dropout=0.0)
    whole, batch = make_trainer(config, tiny_folder, **own)
    loss, scores = whole.backward(batch, 0)
    assert scores.shape == (18, 8)
    for size in (1, 5, 8, 17):  # 8 videos and 18 texts
        chunked, batch = make_trainer(replace(config, chunk_size=size), tiny_folder, **own)
        assert chunked.backward(batch, 0)[0] == pytest.approx(loss, abs=1e-6)
        assert_close_gradients(gradients_of(whole), gradients_of(chunked))


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ([], "the texts made for step 1 are none; expected one or more texts"),
        (["a", " "], "the texts made for step 1 have ' ' among them; expected"),
        (["a", 7], "the texts made for step 1 have 7 among them; expected"),
    ],
)
def test_texts_that_are_none_are_refused(make_config, made, message):
    with pytest.raises(InputError, match=message):
        train(
            make_config(epochs=1),
            loss=loss_of_own_texts,
            texts=lambda samples, rng: BatchTexts(made, None),
        )


def test_texts_without_a_loss_that_knows_them_are_refused(make_config):
    with pytest.raises(InputError, match="texts are given and no loss, expected a loss that knows"):
        train(make_config(), texts=own_texts)


def test_too_few_segments_for_a_batch_are_told(make_config):
    with pytest.raises(InputError, match="32 segments, too few for a batch of 64"):
        train(make_config(batch_size=64))


@pytest.mark.slow
def test_the_random_state_of_torch_is_restored(make_config):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(make_config(epochs=1))
    assert torch.equal(torch.rand(3), expected)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.slow
def test_bfloat16_learns_as_well(make_config):
    result = train(
        make_config(precision="bfloat16", epochs=8, random_weights=True, learning_rate=3e-3)
    )
    losses = [line["mean_loss"] for line in result.history]
    assert losses[-1] < losses[0]


@pytest.mark.cuda
@pytest.mark.parametrize("chunk_size", [None, 3])
def test_cuda_gives_the_losses_of_the_cpu(make_config, tmp_path, cuda_without_tf32, chunk_size):
    config = make_config(dropout=0.0, chunk_size=chunk_size)
    on_cuda, on_cpu = (
        train(replace(config, device=device, out=str(tmp_path / str(device))))
        for device in (None, "cpu")
    )
    losses, wanted = ([line["mean_loss"] for line in one.history] for one in (on_cuda, on_cpu))
    assert losses == pytest.approx(wanted, rel=1e-3)


@pytest.mark.cuda
def test_bfloat16_on_cuda_learns_and_goes_on(make_config):
    config = make_config(precision="bfloat16", epochs=4, random_weights=True, learning_rate=3e-3)
    train(config)
    result = train(replace(config, epochs=8))
    losses = [line["mean_loss"] for line in result.history]
    assert len(losses) == 8 and losses[-1] < losses[0]


def make_trainer(config, tiny_folder, **own):
    """A trainer, and the first batch of its run."""
    model = mdmmt.load(tiny_folder, "cpu")
    towers = loop.make_towers(config, model)
    optimiser = loop.make_optimiser(config, towers)
    trainer = loop.Trainer(config, towers, optimiser, model, Processes("cpu"), 4, **own)
    experts = model.config.video.experts
    data = read_training_data(config.datasets, experts)
    samples = data.draw_epoch(0, 0, 32, [expert.name for expert in experts], 0.0)
    return trainer, next(SegmentReader(experts).batches(samples, config.batch_size, 0, 0, 1))


def gradients_of(trainer):
    named = trainer.towers.named_parameters()
    return {name: one.grad.clone() for name, one in named if one.grad is not None}


def assert_close_gradients(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        scale = value.abs().max().clamp(min=1e-2)  # a batch norm makes some of them zero
        assert (value - second[name]).abs().max() <= 1e-5 * scale, name


@pytest.mark.slow
@pytest.mark.parametrize("chunk_size", [1, 3, 8])
def test_chunks_give_the_gradients_of_the_whole_batch(make_config, tiny_folder, chunk_size):
    config = make_config(dropout=0.0, margin=0.5)
    whole, batch = make_trainer(config, tiny_folder)
    loss, _ = whole.backward(batch, 0)
    chunked, batch = make_trainer(replace(config, chunk_size=chunk_size), tiny_folder)
    assert chunked.backward(batch, 0)[0] == pytest.approx(loss, abs=1e-6)
    assert_close_gradients(gradients_of(whole), gradients_of(chunked))
    norms = (dict(one.towers.named_buffers()) for one in (whole, chunked))
    for (name, value), (_, other) in zip(*(norm.items() for norm in norms), strict=True):
        torch.testing.assert_close(value, other, msg=name)


def test_chunks_drop_out_the_same_both_times(make_config, tiny_folder):
    """With dropout, the gradients are those of one graph over the same chunks."""
    config = make_config(dropout=0.3, margin=0.5, chunk_size=3)
    trainer, batch = make_trainer(config, tiny_folder)
    trainer.backward(batch, 4)
    other, batch = make_trainer(config, tiny_folder)
    texts, _ = other.texts_of(batch, 4)
    encoders = [
        *(partial(other.encode_texts, chunk) for chunk in other.chunks(texts)),
        *(partial(other.encode_videos, chunk) for chunk in other.chunks(batch.videos)),
    ]
    outputs = [other.encode(encoder, 4, number) for number, encoder in enumerate(encoders)]
    first, video = torch.cat(outputs[:3]), torch.cat(outputs[3:])
    loop.seed_torch(config.seed, 4, loop.HEADS)
    other.loss(other.towers.text.heads(first), video, batch.samples).backward()
    assert_close_gradients(gradients_of(other), gradients_of(trainer))


@pytest.mark.parametrize("freeze", ["text", "video"])
def test_chunks_leave_a_frozen_tower_alone(make_config, tiny_folder, freeze):
    trainer, batch = make_trainer(make_config(freeze=freeze, chunk_size=3), tiny_folder)
    trainer.backward(batch, 0)
    assert {name.partition(".")[0] for name in gradients_of(trainer)} == {"text", "video"} - {
        freeze
    }
