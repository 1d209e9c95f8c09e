"""Fine-tuning: it learns, and whenever it is killed it goes on to the same end."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tests.train.stopping import Stop, stop_after
from tests.train.transfer.conftest import TINTS, picture, write_tinted

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.manifests.labels import encode_label
from fourmill.manifests.modalities import modality
from fourmill.manifests.snapshots import Producer
from fourmill.pipeline.cli import main
from fourmill.train.metrics import read_metrics
from fourmill.train.runs import set_aside
from fourmill.train.transfer.config import AugmentConfig, FinetuneConfig
from fourmill.train.transfer.data import Pictures
from fourmill.train.transfer.finetune import finetune
from fourmill.train.transfer.finished import load_finished
from fourmill.train.transfer.plan import plan_run

MakeConfig = Callable[..., FinetuneConfig]


def done(config: FinetuneConfig) -> dict[str, object]:
    return finetune(plan_run(config))


def test_classes_are_learned_and_the_result_stands_beside_chance(
    make_finetuning: MakeConfig,
) -> None:
    config = make_finetuning(steps=40, eval_every=40, checkpoint_every=40, batch_size=9)
    result = done(config)
    assert result["chance"] == pytest.approx(1 / 3)
    assert result["majority"] == pytest.approx(1 / 3)
    assert result["margin_over_chance"] > 0.5
    assert result["metrics"]["top1_low"] <= result["metrics"]["top1"]
    assert json.loads((config.out / "result.json").read_text()) == result
    ready = load_finished(config.out)
    images = torch.from_numpy(np.stack([picture(number)[4:36, 4:36] for number in range(3)]))
    found = ready(images.permute(0, 3, 1, 2).contiguous())
    assert [ready.classes[int(each)] for each in found.argmax(1)] == list(TINTS)
    assert torch.allclose(found.sum(1), torch.ones(3))


def test_the_programs_of_the_page_run_as_printed(
    make_finetuning: MakeConfig, model_file: Path, tmp_path: Path
) -> None:
    config = make_finetuning(steps=1)
    done(config)
    page = (Path(__file__).parents[3] / "docs" / "transfer.md").read_text()
    programs = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert len(programs) == 2
    images = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    for program in programs:
        program = program.replace("demo/work/builtin/run", str(model_file))
        program = program.replace("demo/work/builtin/classes", str(config.out))
        exec(program, {"images": images})


@pytest.mark.parametrize(
    ("task", "label", "measure", "bound"),
    [
        ("segmentation", "semseg_coarse", "accuracy", 0.8),
        ("depth", "depth", "delta1", 0.8),
        ("normals", "normal", "within_30_degrees", 0.95),
    ],
)
def test_dense_tasks_are_learned_where_labels_are_known(
    make_finetuning: MakeConfig, task: str, label: str, measure: str, bound: float
) -> None:
    config = make_finetuning(
        task=task, label=label, steps=50, eval_every=50, checkpoint_every=50, lr=1e-2
    )
    result = done(config)
    assert result["metrics"][measure] > bound
    ready = load_finished(config.out)
    answer = ready(torch.zeros(1, 3, 48, 64, dtype=torch.uint8))
    assert answer.shape[-2:] == (48, 64)


EVERYTHING = {
    "drop_path": 0.2, "mixup": 0.8, "cutmix": 1.0, "ema": 0.9, "micro_batch": 4, "batch_size": 8,
    "augment": {"policy": "rand", "jitter": 0.3, "erasing": 0.5},
}  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [EVERYTHING, {"lora": {"rank": 2}, "ema": 0.9}, {"others": ("tok_light@32",)}],
    ids=["everything", "adapters", "more than pixels"],
)
def test_an_interrupted_run_ends_with_the_same_weights_to_the_bit(
    make_finetuning: MakeConfig, tmp_path: Path, options: dict[str, object]
) -> None:
    whole, broken = (make_finetuning(out=tmp_path / name, **options) for name in ("one", "two"))
    done(whole)
    torch.manual_seed(1234)  # draws of others do not matter
    with pytest.raises(Stop):
        finetune(plan_run(broken), stop_after(3))
    done(broken)
    expected, found = (load_file(each.out / "finetuned.safetensors") for each in (whole, broken))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        assert torch.equal(value, found[name]), name
    losses = [
        [(each["kind"], each["step"], each.get("loss"), each.get("metrics")) for each in lines]
        for lines in (read_metrics(config.out / "metrics.jsonl") for config in (whole, broken))
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize("task", ["classification", "depth"])
def test_parts_of_a_step_add_up_to_the_step(
    make_finetuning: MakeConfig, tmp_path: Path, task: str
) -> None:
    options = {"task": task, "steps": 2} | ({} if task == "classification" else {"label": "depth"})
    whole = make_finetuning(out=tmp_path / "whole", **options)
    parts = make_finetuning(out=tmp_path / "parts", micro_batch=4, **options)
    done(whole)
    done(parts)
    expected, found = (load_file(each.out / "finetuned.safetensors") for each in (whole, parts))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-3, atol=1e-5)


def test_a_finished_run_does_nothing_and_another_one_is_refused(
    make_finetuning: MakeConfig,
) -> None:
    config = make_finetuning(steps=2)
    first = done(config)
    before = {path: path.stat().st_mtime_ns for path in config.out.rglob("*")}
    assert done(config) == first
    assert {path: path.stat().st_mtime_ns for path in config.out.rglob("*")} == before
    with pytest.raises(ConfigError, match=r"lr was 0.001, now 0.5.*--fresh"):
        plan_run(make_finetuning(steps=2, lr=0.5))


def test_the_verb_plans_trains_and_reports(
    make_finetuning: MakeConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = make_finetuning(steps=2).model_dump(mode="json")
    file = tmp_path / "classes.yaml"
    file.write_text(yaml.safe_dump(values))
    assert main(["finetune", str(file), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert (plan["task"], plan["steps"], plan["steps_done"]) == ("classification", 2, 0)
    assert not Path(values["out"]).exists()
    assert main(["finetune", str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["chance"] == pytest.approx(1 / 3)
    assert main(["finetune", str(file)]) == 0
    told = capsys.readouterr().err
    assert "nothing to do" in told
    assert "by chance 33.3% would be right" in told
    assert main(["finetune", str(file), "--set", "layer_decya=1"]) == 2
    assert "did you mean 'layer_decay'" in capsys.readouterr().err
    assert main(["finetune", str(file), "--set", "task=depth", "--fresh"]) == 2
    assert "are for classification, not depth" in capsys.readouterr().err


def test_several_processes_do_not_set_a_run_aside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert set_aside(tmp_path / "none") is None
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="--fresh is for one process"):
        set_aside(tmp_path / "run")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert set_aside(tmp_path / "run") == tmp_path / "run.old-1"


def test_a_fine_tuning_starts_from_the_encoder_of_another(
    make_finetuning: MakeConfig, tmp_path: Path
) -> None:
    first = make_finetuning(out=tmp_path / "first", steps=3)
    done(first)
    second = make_finetuning(
        out=tmp_path / "second", start=first.out, steps=1, lr=1e-30, weight_decay=0, warmup=0
    )
    done(second)
    encoders = [
        {
            name: each
            for name, each in load_file(config.out / "finetuned.safetensors").items()
            if name.startswith("backbone.")
        }
        for config in (first, second)
    ]
    for name, value in encoders[0].items():
        assert torch.equal(value, encoders[1][name]), name


def test_adapters_are_written_alone_and_the_model_stays_as_it_was(
    make_finetuning: MakeConfig,
) -> None:
    config = make_finetuning(lora={"rank": 2}, steps=4)
    done(config)
    alone = load_file(config.out / "adapters.safetensors")
    assert alone
    assert all("lora_" in name for name in alone)
    (last,) = sorted(config.out.glob("checkpoints/*"))[-1:]
    saved = load_file(last / "network.safetensors")
    assert not [name for name in saved if "patch_embed" in name]  # which is in the model's file
    ready = load_finished(config.out)
    assert not [name for name in ready.network.state_dict() if "lora" in name]


def test_a_picture_that_is_none_is_left_out_with_its_name(
    make_finetuning: MakeConfig, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for broken in (4, 20):  # of `train`, and of `val`
        root = write_tinted(tmp_path / f"broken-{broken}", broken=broken).url
        result = done(make_finetuning(root=root, out=tmp_path / f"out-{broken}", steps=4))
        assert f"sample p{broken:03d} is left out" in caplog.text
    assert result["metrics"]["samples"] == 5


def test_wrong_labels_are_told_with_what_there_is(
    make_finetuning: MakeConfig, tmp_path: Path
) -> None:
    with pytest.raises(UnknownNameError, match=r"'sauce'.*did you mean 'source'"):
        plan_run(make_finetuning(label="sauce.file"))
    with pytest.raises(ConfigError, match=r"found dict.*source\.file"):
        done(make_finetuning(label="source"))
    with pytest.raises(ConfigError, match="0 classes in `train`"):
        done(make_finetuning(classes={"red": ("red/*",)}))
    with pytest.raises(ConfigError, match=r"`val` has classes that `train` has not.*18\.jpg"):
        done(make_finetuning(classes={}))
    with pytest.raises(ConfigError, match="normals is learned from normal"):
        done(make_finetuning(task="normals", label="depth"))
    with pytest.raises(ConfigError, match="30 x 30 pixels, expected multiples of the patch, 8"):
        done(make_finetuning(size=30))
    with pytest.raises(ConfigError, match="no registers"):
        done(make_finetuning(pooling="registers"))


def test_another_split_than_val_is_judged(
    make_finetuning: MakeConfig, tinted: Dataset, model_file: Path, tmp_path: Path
) -> None:
    root = tmp_path / "held-out"
    shutil.copytree(tinted.url, root)
    dataset = Dataset.open(str(root))
    dataset.publish([], "renamed", {"train": [(0, 3)], "test": [(3, 4)]})
    for options in ({}, {"task": "depth", "label": "depth", "classes": {}}):
        chosen = {"root": str(root), "steps": 2, "out": tmp_path / f"run{len(options)}", **options}
        with pytest.raises((ConfigError, UnknownNameError), match="val"):
            done(make_finetuning(**chosen))
        assert done(make_finetuning(**chosen, judge_on="test"))["val_samples"] == 6


def test_unknown_places_have_no_say_in_the_depth_beside_them(tmp_path: Path) -> None:
    side = 64
    depth = np.full((side, side), 0.8, np.float32)
    depth[::3, ::5] = 0  # as holes of a sensor
    depth[:, 40:] = 0.2
    mask = np.full((side // 2, side // 2), 255, np.uint8)
    mask[:, 20:] = 0  # which hides where depth is 0.2
    dataset = Dataset.open(str(tmp_path), create=True)
    labels = {"rgb": np.zeros((side, side, 3), np.uint8), "depth": depth, "saliency": mask}
    entries = []
    for name, label in labels.items():
        writer = dataset.writer(modality(name), Producer(name="test", version="1"), {}, 1)
        writer.commit(0, ["one"], [encode_label(modality(name), label)])
        entries.append(writer.finish())
    dataset.publish(entries, "holes", {"train": [(0, 1)]})
    for augment in (None, AugmentConfig()):
        pictures = Pictures(
            dataset.url, dataset.head.id, np.zeros((1, 2), np.int64), 40,
            label=modality("depth"), mask="saliency", augment=augment,
        )  # fmt: skip
        for number in range(1 if augment is None else 8):
            sample = pictures[number]
            assert sample is not None
            known = sample["target"][sample["target"] > 0]
            assert augment is not None or len(known) > 600
            assert bool(torch.isclose(known, torch.tensor(0.8), atol=1e-4).all())
