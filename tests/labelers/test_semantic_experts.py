"""Experts on small networks say what the libraries' own pipelines say of a real photograph."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from fourmill.labelers import registry
from fourmill.labelers.detectors import coco_names
from fourmill.manifests.errors import MissingPackageError

CAT = np.ascontiguousarray(skimage.data.chelsea()[:280, 60:340])
SQUARE = np.ascontiguousarray(CAT[28:252, 28:252])  # 224 x 224
CAPTION = "A picture. It shows a thing!"


def labelled(bench: Any, name: str, rgb: np.ndarray, **more: Any) -> dict[str, Any]:
    (labels,) = bench.labeler(name).label([{"key": "x", "rgb": rgb, "caption": CAPTION, **more}])
    assert isinstance(labels, dict), labels
    return labels


def folder_of(bench: Any, name: str) -> Path:
    bench.weights_of(name)
    hub = registry.spec(name).hub
    assert hub is not None
    return hub.folder()


def loaded(model_class: Any, folder: Path) -> Any:
    return model_class.from_pretrained(folder, local_files_only=True).eval()


def pipeline(task: str, folder: Path, **more: Any) -> Any:
    from transformers import pipeline as build

    make: Any = build  # its overloads know tasks by literal names alone
    return make(task, model=str(folder), device="cpu", **more)


@pytest.mark.parametrize("name", ["rt-detr", "detr"])
def test_a_detector_finds_what_its_pipeline_finds(name: str, bench) -> None:
    labeler = bench.labeler(name)
    names = coco_names(labeler._network.model.config.num_labels)
    detect = pipeline("object-detection", folder_of(bench, name))
    expected = [
        (names[detect.model.config.label2id[each["label"]]], each["score"], each["box"])
        for each in detect(Image.fromarray(CAT), threshold=labeler.threshold)
        if detect.model.config.label2id[each["label"]] in names
    ]
    found = labelled(bench, name, CAT)["det"]["instances"]
    assert found
    expected.sort(key=lambda each: -round(each[1], 4))
    for mine, (label, score, box) in zip(found, expected, strict=True):
        assert (mine["class_name"], round(score, 4)) == (label, mine["score"])
        corners = [np.clip(box[side], 0, 280) for side in ("xmin", "ymin", "xmax", "ymax")]
        assert np.abs(np.array(mine["boxes"]) * 280 - corners).max() <= 1.1  # the pipeline's: int


def test_a_caption_is_grounded_as_the_models_processor_has_it(bench) -> None:
    from transformers import AutoProcessor, GroundingDinoForObjectDetection

    folder = folder_of(bench, "grounding-dino")
    processor = loaded_processor(AutoProcessor, folder)
    text = "a picture. it shows a thing!."
    inputs = processor(images=Image.fromarray(CAT), text=text, return_tensors="pt")
    with torch.inference_mode():
        outputs = loaded(GroundingDinoForObjectDetection, folder)(**inputs)
    (expected,) = processor.post_process_grounded_object_detection(
        outputs, inputs["input_ids"], threshold=0.3, text_threshold=0.25, target_sizes=[(1, 1)]
    )
    found = labelled(bench, "grounding-dino", CAT)["grounding"]["instances"]
    assert found
    assert not any("[" in each["class_name"] for each in found)
    scores = expected["scores"].tolist()
    for each in found:
        distance = np.abs(expected["boxes"].clamp(0, 1).numpy() - each["boxes"]).max(axis=1)
        nearest = int(distance.argmin())
        assert distance[nearest] < 1e-4
        assert each["score"] == pytest.approx(scores[nearest], abs=1e-4)
        assert each["class_name"].split()[0] in expected["text_labels"][nearest]


def test_without_words_there_is_nothing_to_ground(bench) -> None:
    labels = labelled(bench, "grounding-dino", CAT, caption="  ")
    assert labels == {"grounding": {"instances": []}}


def test_dinov2s_map_is_what_its_pipeline_says_of_the_patches(bench) -> None:
    as_it_is = {"do_resize": False, "do_center_crop": False}
    extract = pipeline("image-feature-extraction", folder_of(bench, "dinov2"))
    (states,) = extract(Image.fromarray(SQUARE), image_processor_kwargs=as_it_is)
    labels = labelled(bench, "dinov2", SQUARE)
    np.testing.assert_allclose(labels["DINOv2-B14-global"], states[0], atol=1e-4)
    found = labels["DINOv2-B14"].reshape(768, -1).T
    np.testing.assert_allclose(found, np.array(states[1:]), atol=2e-3, rtol=2e-3)  # float16


def test_imagebinds_features_are_those_of_the_network_that_its_checkpoint_is_of(bench) -> None:
    from safetensors.torch import load_file
    from tests.labelers.published_imagebind import PublishedImageBind

    folder = folder_of(bench, "imagebind")
    network = PublishedImageBind(width=1280, depth=1, heads=4, hidden=32).eval()
    network.load_state_dict(load_file(folder / "model.safetensors"), strict=False)
    pixels = torch.from_numpy(SQUARE).permute(2, 0, 1)[None] / 255
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    with torch.inference_mode():
        (states,) = network((pixels - mean) / deviation)
    labels = labelled(bench, "imagebind", SQUARE)
    np.testing.assert_allclose(labels["ImageBind-H14-global"], states[0], atol=1e-4)
    found = labels["ImageBind-H14"].reshape(1280, -1).T
    np.testing.assert_allclose(found, states[1:], atol=2e-3, rtol=2e-3)  # float16
    assert labelled(bench, "imagebind", CAT[:140])["ImageBind-H14"].shape == (1280, 16, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tensors: tensors.pop("modality_trunks.vision.blocks.0.norm_2.bias"), "norm_2.bias"),
        (lambda tensors: tensors.update({"modality_trunks.vision.gate": torch.ones(1)}), "gate"),
        (
            lambda tensors: tensors.update(
                {"modality_trunks.vision.blocks.0.attn.in_proj_bias": torch.ones(7)}
            ),
            "in_proj_bias",
        ),
    ],
)
def test_another_network_than_imagebinds_is_refused(bench, tmp_path, change, message) -> None:
    import shutil

    from safetensors.torch import load_file, save_file

    from fourmill.labelers.backbones.imagebind import load_imagebind

    shutil.copytree(folder_of(bench, "imagebind"), tmp_path / "copy")
    file = tmp_path / "copy" / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    with pytest.raises(MissingPackageError, match=f"(?s)does not hold ImageBind's.*{message}"):
        load_imagebind(tmp_path / "copy")
    (tmp_path / "copy" / "config.json").unlink()
    with pytest.raises(MissingPackageError, match=r"config\.json"):
        load_imagebind(tmp_path / "copy")


def test_siglip2s_vector_is_that_of_the_whole_model_and_its_map_has_the_pictures_aspect(
    bench,
) -> None:
    from transformers import AutoImageProcessor, Siglip2Model

    folder = folder_of(bench, "siglip2")
    inputs = loaded_processor(AutoImageProcessor, folder)(
        images=Image.fromarray(CAT[:140]), return_tensors="pt"
    )
    with torch.inference_mode():
        outputs = loaded(Siglip2Model, folder).get_image_features(**inputs)
    labels = labelled(bench, "siglip2", CAT[:140])
    expected = getattr(outputs, "pooler_output", outputs)[0].numpy()
    np.testing.assert_allclose(labels["SigLIP2-B16-global"], expected, atol=1e-4)
    rows, columns = inputs["spatial_shapes"][0].tolist()
    assert labels["SigLIP2-B16"].shape == (768, rows, columns)
    assert rows < columns


def loaded_processor(processor_class: Any, folder: Path) -> Any:
    return processor_class.from_pretrained(folder, local_files_only=True)


def test_clips_vectors_are_those_of_open_clip(bench) -> None:
    import open_clip

    source = f"local-dir:{folder_of(bench, 'clip')}"
    model, preprocess = open_clip.create_model_from_pretrained(source, force_quick_gelu=True)
    with torch.inference_mode():
        image = model.encode_image(preprocess(Image.fromarray(CAT))[None], normalize=True)[0]
        text = model.encode_text(open_clip.get_tokenizer(source)([CAPTION]), normalize=True)[0]
        # of the map: the same square, normalised as 4M's tokenizer saw it, without the class token
        mean, std = (torch.tensor(each)[:, None, None] for each in IMAGENET)
        pixels = (torch.from_numpy(SQUARE).permute(2, 0, 1) / 255 - mean) / std
        model.visual.output_tokens = True
        tokens = (model.visual(pixels[None])[1] @ model.visual.proj)[0]
    labels = labelled(bench, "clip", CAT)
    np.testing.assert_allclose(labels["CLIP-B16-global"], image.numpy(), atol=1e-5)
    assert labels["CLIP-B16"].shape == (512, 14, 14)
    found = labelled(bench, "clip", SQUARE)["CLIP-B16"].reshape(512, -1).T
    np.testing.assert_allclose(found, tokens.numpy(), atol=2e-3, rtol=2e-3)  # float16
    score = labelled(bench, "clip-score", CAT)["clip_score"]["score"]
    assert score == pytest.approx(float(image @ text), abs=1e-4)


IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_a_wide_picture_has_a_wide_map(bench) -> None:
    assert labelled(bench, "clip", CAT[:140])["CLIP-B16"].shape == (512, 14, 28)
    assert labelled(bench, "dinov2", CAT[:140])["DINOv2-B14"].shape == (768, 16, 32)


def test_t5_embeds_a_caption_as_the_whole_models_encoder_does(bench) -> None:
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    folder = folder_of(bench, "t5")
    inputs = loaded_processor(AutoTokenizer, folder)(CAPTION, return_tensors="pt")
    with torch.inference_mode():
        states = loaded(T5ForConditionalGeneration, folder).encoder(**inputs).last_hidden_state[0]
    found = labelled(bench, "t5", CAT)["t5_caption"]
    np.testing.assert_allclose(found, states.numpy(), atol=2e-3, rtol=2e-3)  # float16
    long = labelled(bench, "t5", CAT, caption=" ".join(100 * ["thing"]))["t5_caption"]
    assert long.shape == (77, 4096)


CAPTIONERS = {
    "blip": ("BlipForConditionalGeneration", {}),
    "blip2": ("Blip2ForConditionalGeneration", {"text": "a photo of"}),
    "florence2": ("Florence2ForConditionalGeneration", {"text": "<MORE_DETAILED_CAPTION>"}),
}


@pytest.mark.parametrize("name", CAPTIONERS)
def test_a_caption_is_what_the_model_generates_of_the_picture(name: str, bench) -> None:
    import transformers

    model_class, text = CAPTIONERS[name]
    folder = folder_of(bench, name)
    processor = loaded_processor(transformers.AutoProcessor, folder)
    inputs = processor(images=Image.fromarray(CAT), return_tensors="pt", **text)
    labeler = bench.labeler(name)
    words = loaded(getattr(transformers, model_class), folder).generate(
        **inputs, num_beams=3, max_new_tokens=labeler.most_word_pieces
    )
    expected = processor.decode(words[0], skip_special_tokens=True)
    found = labelled(bench, name, CAT)[f"caption_{name}"]
    assert found == " ".join(expected.split())
    assert found


def test_joints_are_where_the_processor_puts_them(bench) -> None:
    from transformers import AutoImageProcessor, VitPoseForPoseEstimation

    folder = folder_of(bench, "vitpose")
    processor = loaded_processor(AutoImageProcessor, folder)
    boxes = [[[28.0, 56.0, 140.0, 168.0], [0.0, 0.0, 280.0, 280.0]]]
    inputs = processor(images=Image.fromarray(CAT), boxes=boxes, return_tensors="pt")
    with torch.inference_mode():
        outputs = loaded(VitPoseForPoseEstimation, folder)(
            **inputs, dataset_index=torch.tensor([0, 0])
        )
    (expected,) = processor.post_process_pose_estimation(outputs, boxes=boxes)
    people = [
        {"boxes": [0.1, 0.2, 0.6, 0.8], "class_name": "person", "score": 0.9},
        {"boxes": [0, 0, 1, 1], "class_name": "person", "score": 0.7},
    ]
    others = [
        {"boxes": [0, 0, 1, 1], "class_name": "cat", "score": 0.9},
        {"boxes": [0, 0, 1, 1], "class_name": "person", "score": 0.2},
    ]
    det = {"instances": [*people, *others]}
    found = labelled(bench, "vitpose", CAT, det=det)["human_keypoints"]["instances"]
    assert [each["boxes"] for each in found] == [each["boxes"] for each in people]
    for mine, theirs in zip(found, expected, strict=True):
        places = np.clip(theirs["keypoints"].numpy() / 280, 0, 1)
        np.testing.assert_allclose(np.array(mine["keypoints"])[:, :2], places, atol=1e-3)
    nobody = labelled(bench, "vitpose", CAT, det={"instances": others})
    assert nobody["human_keypoints"] == {"instances": []}


@pytest.mark.packages
def test_a_page_is_read_line_by_line(bench) -> None:
    page = np.stack([skimage.data.page()] * 3, axis=-1)
    lines = labelled(bench, "ocr", page)["ocr"]["instances"]
    assert [each["class_name"] for each in lines][:2] == [
        "Region-based segmentation", "Let us first determine markers of the coins and the",
    ]  # fmt: skip
    tops = [each["boxes"][1] for each in lines]
    assert tops == sorted(tops)
    turned = labelled(bench, "ocr", np.ascontiguousarray(np.rot90(page, 3)))["ocr"]["instances"]
    assert "Region-based segmentation" in [each["class_name"] for each in turned]
