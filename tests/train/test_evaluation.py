"""A trained model is judged on any dataset with truths, beside what it has to be compared with."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.train.gallery import Gallery, make_gallery
from tests.train.world import World

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError, FourmillError, UnknownNameError
from fourmill.manifests.modalities import Kind
from fourmill.pipeline.cli import main
from fourmill.tokenize.crops import crop_dense, crop_settings
from fourmill.tokenize.registry import load
from fourmill.train.evaluation.commands import evaluate
from fourmill.train.evaluation.contest import BOUND, MEAN, SINGLE
from fourmill.train.evaluation.depth import DepthMetric
from fourmill.train.evaluation.evaluator import Evaluator
from fourmill.train.evaluation.settings import Settings
from fourmill.train.evaluation.tasks import plan_tasks
from fourmill.train.metrics import last_losses
from fourmill.train.sampler import Sampler


@pytest.fixture(scope="module")
def gallery(world: World, tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return make_gallery(tmp_path_factory.mktemp("gallery"), world.images)


@pytest.fixture(scope="module")
def report(world: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Of everything that there is by default."""
    out = tmp_path_factory.mktemp("reports") / "evaluation"
    evaluate(str(world.run), world.root, out=out, device="cpu", dtype="float32")
    return out, json.loads((out / "report.json").read_text())


def scores(report: dict, task: str) -> dict:
    (record,) = [each for each in report["tasks"] if each["task"] == task]
    return record["scores"]


# -- what is reported --------------------------------------------------------------------------


def test_out_of_the_box_every_target_is_judged_from_pixels_beside_its_own_labels(report):
    out, found = report
    assert [each["task"] for each in found["tasks"]] == ["caption", "depth"]
    for record in found["tasks"]:
        assert record["inputs"] == ["rgb@32"]
        assert (record["samples"], record["skipped"]) == (2, {})
        assert set(record["scores"]) == {SINGLE, MEAN, BOUND}
        lines = (out / f"{record['task']}.jsonl").read_text().splitlines()
        assert [json.loads(each)["key"] for each in lines] == ["rocket", "clock"]
        with Image.open(out / record["panel"]) as picture:
            assert picture.size[1] > 2 * 192


def test_the_bound_is_what_the_datasets_own_tokens_decode_to(report, world):
    tokenizer = load(world.tokenizers / "tok_depth@32")
    metric = DepthMetric(least=0.01)
    tokens = Dataset.open(world.root).tokens("tok_depth@32", "val")[0][:, 0]
    for key, decoded in zip(("rocket", "clock"), tokenizer.detokenize(tokens), strict=True):
        image, depth = world.images[key], world.depths[key]
        crop = crop_settings(key, *image.shape[:2], 1)
        metric.add(crop_dense(depth, Kind.DEPTH, crop, image.shape[:2], 32)[0], decoded)
    for name, value in metric.totals().items():
        assert scores(report[1], "depth")[BOUND][name] == pytest.approx(value, rel=1e-3), name


def test_a_caption_through_its_tokens_is_the_caption(report):
    assert scores(report[1], "caption")[BOUND]["cider"] == pytest.approx(10)


def test_the_mean_of_the_training_split_is_judged_by_the_same_metric(report, world):
    crops = []
    for key in ("astronaut", "camera", "chelsea", "coffee", "coins", "page", "rocket", "clock"):
        image = world.images[key]
        crop = crop_settings(key, *image.shape[:2], 1)
        crops.append(crop_dense(world.depths[key], Kind.DEPTH, crop, image.shape[:2], 32)[0])
    middle = [np.sort(each.ravel())[102:922] for each in crops]
    standard = [(c - m.mean()) / m.std(ddof=1) for c, m in zip(crops, middle, strict=True)]
    mean = np.mean([each.clip(-5, 5) for each in standard[:6]], axis=0).astype(np.float32)
    metric = DepthMetric(least=0.01)
    for each in crops[6:]:
        metric.add(each, mean)
    found = scores(report[1], "depth")[MEAN]
    assert found["abs_rel"] == pytest.approx(metric.totals()["abs_rel"], rel=0.01)


def test_cross_entropy_on_frozen_masks_is_that_of_the_training(report, world):
    trained = last_losses(world.run / "metrics.jsonl", "val")
    assert report[1]["cross_entropy"] == pytest.approx(trained, rel=1e-4)


def test_the_page_has_the_figures_and_published_ones_with_their_source(report):
    page = (report[0] / "report.md").read_text()
    assert f"| metric | {SINGLE} | {MEAN} | {BOUND} |" in page
    assert "| 4M-21 XL | l1 | 0.680 | DIODE |" in page
    assert "![best, median and worst](depth.png)" in page
    assert "no CLIPScore" in page


# -- other kinds, ensembles, other truths ------------------------------------------------------


@pytest.fixture(scope="module")
def ensembles(gallery: Gallery, tmp_path_factory: pytest.TempPathFactory) -> dict:
    out = tmp_path_factory.mktemp("ensembles") / "evaluation"
    evaluate(
        str(gallery.run), gallery.root, ensemble=3, classes="imagenet.0.class_name", out=out,
        device="cpu", dtype="float32", truth=("normal=truth_normal",), losses=False,
    )  # fmt: skip
    found: dict = json.loads((out / "report.json").read_text())
    return found


def test_samples_of_an_ensemble_become_one_where_they_can(ensembles):
    for task in ("normal", "semseg_coarse", "mood"):
        assert set(scores(ensembles, task)) >= {"ensemble of 3", SINGLE}
        assert scores(ensembles, task)["ensemble of 3"] != scores(ensembles, task)[SINGLE]
    assert set(scores(ensembles, "det")) == {SINGLE, MEAN, BOUND}
    (boxes,) = [each for each in ensembles["tasks"] if each["task"] == "det"]
    assert any("boxes has no ensemble" in each for each in boxes["notes"])


def test_an_ensemble_of_normals_is_nearer_than_one_of_them(ensembles):
    found = scores(ensembles, "normal")
    assert found["ensemble of 3"]["mean_degrees"] < found[SINGLE]["mean_degrees"]


def test_samples_without_a_truth_are_left_out_and_counted(ensembles):
    (record,) = [each for each in ensembles["tasks"] if each["task"] == "normal"]
    assert (record["samples"], record["skipped"]) == (1, {"no truth_normal": 1})
    assert record["truth"] == "truth_normal"


def test_predicted_vectors_classify_by_their_neighbours(ensembles):
    found = scores(ensembles, "mood")["ensemble of 3"]
    assert 0 <= found["knn_top1"] <= found["knn_top5"] <= 1
    assert "knn_top1" not in scores(ensembles, "mood")[SINGLE]


def test_labels_that_people_made_are_taken_where_a_dataset_has_no_others(gallery, world):
    sampler = Sampler.load(gallery.run, device="cpu")
    dataset = Dataset.open(gallery.root)
    assert plan_tasks(sampler, dataset, ["normal"])[0].truth.name == "normal"
    (task,) = plan_tasks(Sampler.load(world.run, device="cpu"), dataset, ["depth"])
    assert (task.truth.name, task.side) == ("truth_depth", 32)


def test_boxes_through_their_tokens_are_found_again(ensembles):
    assert scores(ensembles, "det")[BOUND]["ap50"] == pytest.approx(1)
    assert scores(ensembles, "semseg_coarse")[BOUND]["pixel_accuracy"] > 0.3


def test_predictions_do_not_depend_on_what_else_is_in_the_batch(gallery):
    sampler = Sampler.load(gallery.run, device="cpu", dtype="float32")
    dataset = Dataset.open(gallery.root)
    found = []
    for size in (1, 2):
        settings = Settings(ensemble=2, batch_size=size, training=0, bound=False)
        (task,) = plan_tasks(sampler, dataset, ["normal"])
        found.append(Evaluator(sampler, dataset, settings).run(task).columns)
    assert found[0] == found[1]


def test_other_inputs_than_pixels_may_be_given(gallery, tmp_path):
    evaluate(
        str(gallery.run), gallery.root, tasks=("normal",), inputs=("det", "tok_semseg_coarse@32"),
        out=tmp_path / "out", training=0, bound=False, losses=False, limit=1,
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert found["tasks"][0]["inputs"] == ["tok_det", "tok_semseg_coarse@32"]
    assert list(found["tasks"][0]["scores"]) == [SINGLE]


def test_boxes_beside_a_map_are_those_of_the_same_square(gallery):
    sampler = Sampler.load(gallery.run, device="cpu", dtype="float32")
    dataset = Dataset.open(gallery.root)
    seen = []
    generate = sampler.generate

    class Watching(Sampler):
        def generate(self, conditions, *more):
            seen.append(conditions.tokens["tok_det"])
            return generate(conditions, *more)

    watching = Watching(sampler.model, sampler.tokenizers, sampler.device, sampler.dtype)
    for inputs in (["det"], ["det", "semseg_coarse"], ["det", "rgb"]):
        (task,) = plan_tasks(watching, dataset, ["normal"], inputs)
        Evaluator(watching, dataset, Settings(training=0, bound=False, limit=1)).run(task)
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


# -- stopping, going on, saying ----------------------------------------------------------------


def test_an_evaluation_that_was_stopped_goes_on_with_the_task_that_it_was_at(
    world, tmp_path, monkeypatch
):
    out = tmp_path / "out"
    options = {"out": out, "device": "cpu", "dtype": "float32", "losses": False}
    run, began = Evaluator.run, []

    def stop_at_depth(self, task, *more):
        began.append(task.name)
        if task.name == "depth" and began.count("depth") == 1:
            raise KeyboardInterrupt
        return run(self, task, *more)

    monkeypatch.setattr(Evaluator, "run", stop_at_depth)
    with pytest.raises(KeyboardInterrupt):
        evaluate(str(world.run), world.root, **options)
    assert not out.exists()
    evaluate(str(world.run), world.root, **options)
    assert began == ["caption", "depth", "depth"]
    whole = tmp_path / "whole"
    evaluate(str(world.run), world.root, **(options | {"out": whole}))
    for name in ("report.json", "report.md", "caption.jsonl", "depth.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "whole"]


def test_two_processes_do_not_write_one_evaluation_and_a_dead_one_is_not_waited_for(
    world, tmp_path
):
    out = tmp_path / "out"
    options = {
        "tasks": ("depth",), "out": out, "losses": False, "training": 0, "device": "cpu",
        "dtype": "float32",
    }  # fmt: skip
    other = (
        "import sys, time; from pathlib import Path\n"
        "from fourmill.train.evaluation.folder import ReportFolder\n"
        "with ReportFolder(Path(sys.argv[1]), {'other': 'evaluation'}).begun():\n"
        "    print('begun', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", other, out], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "begun\n"
            with pytest.raises(ConfigError, match=r"another process evaluates there.*--out"):
                evaluate(str(world.run), world.root, **options)
        finally:
            process.kill()
    evaluate(str(world.run), world.root, **options)
    assert (out / "report.md").is_file()
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert not (out / ".lock").exists()


def test_a_finished_evaluation_is_not_done_again_and_another_is_not_written_over(
    report, world, capsys
):
    out, found = report
    evaluate(str(world.run), world.root, out=out, device="cpu", dtype="float32", json=True)
    told = capsys.readouterr()
    assert "nothing to do" in told.err
    assert json.loads(told.out) == found
    with pytest.raises(ConfigError, match=r"holds something else.*--fresh"):
        evaluate(str(world.run), world.root, out=out, seed=1)


@pytest.mark.parametrize("decodes_otherwise", [False, True])
def test_an_evaluation_with_other_weights_of_a_tokenizer_is_another(
    world, tmp_path, decodes_otherwise
):
    folder = tmp_path / "tokenizers"
    shutil.copytree(world.tokenizers, folder)
    options = {
        "tasks": ("depth",), "out": tmp_path / "out", "tokenizers": folder, "losses": False,
        "training": 0, "device": "cpu", "dtype": "float32",
    }  # fmt: skip
    evaluate(str(world.run), world.root, **options)
    file = folder / "tok_depth@32" / "model.safetensors"
    state = {name: each * 0.5 for name, each in load_file(file).items()}
    if decodes_otherwise:  # what leads a decoder lies in a folder of its own
        file = file.parent / "controlnet" / file.name
        file.parent.mkdir()
    save_file(state, file)
    with pytest.raises(ConfigError, match="holds something else"):
        evaluate(str(world.run), world.root, **options)


def test_a_dry_run_says_what_would_be_evaluated_and_writes_nothing(world, tmp_path, capsys):
    evaluate(str(world.run), world.root, out=tmp_path / "out", dry_run=True, json=True)
    plan = json.loads(capsys.readouterr().out)
    assert plan["depth"] == "tok_depth@32 from rgb@32, beside depth, 2 samples"
    assert list(tmp_path.iterdir()) == []


# -- what cannot be ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tasks": ("nromal",)}, r"no target of this model called 'nromal'; did you mean 'normal'"),
        ({"inputs": ("smell",)}, r"no input of this model called 'smell'.*Known: .*det"),
        ({"tasks": ("normal",), "truth": ("normal=depth",)}, r"has no depth to compare normal"),
        ({"truth": ("norml=normal",)}, r"task that --truth could be for called 'norml'; did you"),
        ({"truth": ("normal",)}, r"expected TASK=MODALITY, as depth=truth_depth"),
        ({"tasks": ("normal",), "truth": ("normal=det",)}, r"normal is normal, det is boxes"),
        (
            {"tasks": ("semseg_coarse",), "truth": ("semseg_coarse=semseg_few",)},
            r"semseg_few has 1 classes that semseg_coarse cannot be, such as dragon",
        ),
        ({"tasks": ("normal",), "inputs": ("normal",)}, "cannot be a task as well"),
        ({"tasks": ("normal", "tok_normal@32")}, "a task is named twice"),
        ({"split": "test"}, r"split called 'test'.*Known: train, val"),
        ({"classes": "species"}, r"modality in .* called 'species'"),
        ({"ensemble": 4, "temperature": 0.0}, "all samples would be the same"),
        ({"limit": 0}, "--limit 0: expected at least 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_evaluated_is_said_with_what_can(gallery, tmp_path, options, message):
    with pytest.raises(FourmillError, match=message):
        evaluate(str(gallery.run), gallery.root, out=tmp_path / "out", **options)


def test_a_root_that_lacks_a_truth_says_what_it_has(world, gallery, tmp_path):
    with pytest.raises(ConfigError, match=r"has no caption to compare.*it has .*truth_normal"):
        evaluate(str(world.run), gallery.root, tasks=("caption",), out=tmp_path / "out")
    with pytest.raises(ConfigError, match=r"nothing to evaluate: of the model's targets"):
        evaluate(str(gallery.run), world.root, out=tmp_path / "out")


def test_a_model_without_tokenizers_is_told_where_they_are_needed(world, tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(ConfigError, match=r"no tokenizer is at hand.*--tokenizers"):
        evaluate(
            str(world.run), world.root, tasks=("depth",), tokenizers=tmp_path / "none",
            out=tmp_path / "out",
        )  # fmt: skip
    with pytest.raises(ConfigError, match=r"no tokenizers are at hand.*--tokenizers"):
        evaluate(str(world.run), world.root, tokenizers=tmp_path / "none", out=tmp_path / "out")


def test_a_split_whose_samples_all_lack_the_truth_is_refused(gallery, tmp_path):
    with pytest.raises(ConfigError, match="det: no sample has all that it needs: 2 have no truth_"):
        evaluate(
            str(gallery.run), gallery.root, tasks=("det",), truth=("det=truth_det",), losses=False,
            out=tmp_path / "out",
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_the_verb_exits_with_2_and_one_line(world, tmp_path, capsys):
    words = ["evaluate", str(world.run), world.root, "--tasks", "dept", "--out", str(tmp_path)]
    assert main(words) == 2
    assert "did you mean 'depth'?" in capsys.readouterr().err


def test_a_sampler_of_other_inputs_is_told_the_known_ones(world):
    sampler = Sampler.load(world.run, device="cpu")
    with pytest.raises(UnknownNameError, match="input of this model"):
        plan_tasks(sampler, Dataset.open(world.root), inputs=["thermal"])
