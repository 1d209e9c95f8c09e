"""The verb `generate`: any modalities of photographs, of sentences, of held-out samples."""

from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from tyro.conf import Positional, arg

from fourmill.manifests.errors import ConfigError, UnknownNameError
from fourmill.train.progress import say, write_json
from fourmill.train.schedules import GenerationStep, default_step
from fourmill.train.schedules import preset as named_preset

if TYPE_CHECKING:
    from fourmill.manifests.labels import Label
    from fourmill.manifests.modalities import Modality
    from fourmill.train.sampler import Sampler

_OPTIONS = {each.name for each in fields(GenerationStep)} - {"target"}


def generate(
    checkpoint: Positional[str],
    pictures: Annotated[tuple[Path, ...], arg(name="in", metavar="PHOTO …")] = (),
    text: tuple[str, ...] = (),
    given: tuple[str, ...] = (),
    to: tuple[str, ...] = (),
    samples: int = 8,
    inputs: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    preset: str | None = None,
    plan: Path | None = None,
    apart: bool = False,
    variants: int = 1,
    seed: int = 0,
    panel: Path = Path("generated.png"),
    out: Path | None = None,
    tokenizers: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    json: bool = False,
) -> None:
    """Any modalities from any others: of photographs, of texts, or of a dataset's held-out samples.

    Examples: `fourmill generate RUN --in photo.jpg --to depth,caption --panel out.png`,
    `fourmill generate RUN --text "a lighthouse" --to rgb --set temperature=1 --variants 4`,
    `fourmill generate RUN --inputs caption --to depth rgb --samples 4`.

    Args:
        checkpoint: a run's folder, the YAML file that it was trained with, one of its checkpoints,
            a safetensors file, or an id of a model hub.
        pictures: photographs that are given.
        text: captions that are given: one for all, or one for each photograph.
        given: other labels that are given, `depth=depth.png`, `det=boxes.json`, as shards hold
            them; one file for all samples.
        to: what is generated, in this order: `depth,caption`; by default all that is not given.
        samples: how many held-out samples, where neither photographs, texts nor labels are given.
        inputs: what is given of held-out samples; pixels by default.
        set: how: `temperature=1`, `top_p=0.9`, `steps=8`, `guidance=2`, or of one target
            `depth.steps=4`, `rgb.weights={caption: 2, depth: -1}`.
        preset: how, in the manner of 4M's authors: from-picture, from-text (text and features come
            first), finer; --set changes it.
        plan: a YAML file with a list of steps, each with `target` and options like those of --set.
        apart: each target from what is given alone; else also from the targets before it.
        variants: so many of each sample; they differ where the temperature is above 0.
        seed: of the draws.
        panel: the picture, a row a sample and variant.
        out: a folder for what is generated as files, as shards hold them, and for the tokens, which
            `fourmill superres --tokens` takes.
        tokenizers: a folder with a tokenizer of each modality; by default the run's own.
        device: auto, cpu or cuda.
        dtype: of activations.
        json: print what was written, and texts, as JSON.
    """
    if variants < 1 or samples < 1:
        raise ConfigError(f"--variants {variants} --samples {samples}: expected at least 1")
    targets = [name for each in to for name in each.split(",") if name]
    is_new = bool(pictures or text or given)
    if is_new and inputs:
        raise ConfigError("--inputs is for held-out samples: leave out --in, --text and --given")

    from fourmill.manifests.render import refuse_no_picture
    from fourmill.train.sampler import Sampler
    from fourmill.train.shown import draw, from_dataset, from_labels, write_labels
    from fourmill.train.token_files import FILE, write_tokens

    refuse_no_picture(panel)
    sampler = Sampler.load(checkpoint, tokenizers, device, dtype)
    if is_new:
        labels, names = _read_given(sampler, pictures, text, given)
        shown = from_labels(sampler, labels, names, variants)
    else:
        shown = from_dataset(sampler, checkpoint, inputs, samples, variants)
    known = [*shown.conditions.pixels, *shown.conditions.tokens]
    steps = chosen_steps(sampler, known, targets, set, plan, preset)
    shown.generate(sampler, steps, seed, apart)
    panel.parent.mkdir(parents=True, exist_ok=True)
    draw(shown).save(panel)
    files = write_labels(shown, out) if out is not None else []
    if out is not None:
        write_tokens(out / FILE, shown.rows, shown.tokens)
    say(f"wrote {panel}" + (f", and {len(files)} files in {out}" if out else ""))
    if json:
        write_json({"panel": str(panel), "files": files, "samples": shown.texts()})


def _read_given(
    sampler: "Sampler", pictures: Sequence[Path], text: Sequence[str], given: Sequence[str]
) -> tuple[dict[str, list["Label | None"]], list[str]]:
    """Labels by modality, a label a sample, and the samples' names."""
    from fourmill.manifests.labels import decode_label
    from fourmill.manifests.modalities import modality
    from fourmill.train.given import read_label, read_photo, read_text

    columns: dict[str, list[Label | None]] = {}
    if pictures:
        columns["rgb"] = [read_photo(path) for path in pictures]
    if text:
        columns["caption"] = [read_text(each) for each in text]
    for each in given:
        name, equals, file = each.partition("=")
        if not equals:
            raise ConfigError(f"--given {each}: expected a modality and a file, depth=depth.png")
        if name in columns:
            raise ConfigError(f"--given {each}: {name} is given twice; give it once")
        chosen = sampler.resolve(name)
        stored = sampler.stored(chosen) if name == chosen else modality(name)
        columns[name] = [read_label(Path(file), partial(decode_label, stored))]
    count = max(len(each) for each in columns.values())
    for name, labels in columns.items():
        if len(labels) not in (1, count):
            raise ConfigError(
                f"{name}: {len(labels)} are given, and {count} of others: give one, or as many"
            )
    names = [path.stem for path in pictures] if len(pictures) == count else list(text[:count])
    names = names if len(names) == count else [f"sample {n}" for n in range(count)]
    return {n: [*each] * (count // len(each)) for n, each in columns.items()}, names


def chosen_steps(
    sampler: "Sampler",
    known: Sequence[str],
    targets: Sequence[str],
    options: Sequence[str],
    plan: Path | None = None,
    preset: str | None = None,
) -> list[GenerationStep]:
    """The chain that was asked for; targets by the model's names.

    Args:
        known: inputs that are given: by default all else is generated.
        options: `temperature=1`, `depth.steps=4`.
        plan: a YAML file of steps instead.
        preset: a name of `schedules.PRESETS`.

    Raises:
        ConfigError: targets beside a plan, or a value that an option cannot have.
        UnknownNameError: a target or an option that there is not.
    """
    from fourmill.manifests.configs import assignments

    if plan is not None:
        if targets or options or preset:
            raise ConfigError("--plan says all of it: leave out --to, --set and --preset")
        return _read_plan(sampler, plan)
    domains = sampler.domains
    given = {_meaning(domains.modality(name)) for name in known}
    chosen = [sampler.resolve(name, target=True) for name in targets] or [
        name for name in domains.targets if _meaning(domains.modality(name)) not in given
    ]
    for_all, for_one = {}, []
    for name, value in assignments(options).items():
        target, dot, option = name.rpartition(".")
        if option not in _OPTIONS:
            raise UnknownNameError("option of generation", option, _OPTIONS)
        if dot:
            for_one.append((sampler.resolve(target, target=True), option, value))
        else:
            for_all[option] = value
    modalities = [domains.modality(name) for name in chosen]
    usual = named_preset(preset).chain(modalities) if preset else map(default_step, modalities)
    steps = []
    for step in usual:
        own = {option: value for target, option, value in for_one if target == step.target}
        steps.append(_changed(sampler, step, for_all | own))
    return steps


def _meaning(definition: "Modality") -> str:
    """What a modality of the model says: pixels and tokens of a picture say the same."""
    return definition.token_of or definition.folder


def _read_plan(sampler: "Sampler", path: Path) -> list[GenerationStep]:
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(read, list) or not read:
        raise ConfigError(f"{path}: expected a list of steps, such as `- {{target: depth}}`")
    steps = []
    for each in read:
        if not isinstance(each, dict) or "target" not in each:
            raise ConfigError(f"{path}: {each}: a step needs a target")
        for option in each.keys() - {"target"}:
            if option not in _OPTIONS:
                raise UnknownNameError("option of generation", str(option), _OPTIONS)
        name = sampler.resolve(str(each["target"]), target=True)
        options = {option: value for option, value in each.items() if option != "target"}
        steps.append(_changed(sampler, default_step(sampler.domains.modality(name)), options))
    return steps


def _changed(sampler: "Sampler", step: GenerationStep, options: dict[str, Any]) -> GenerationStep:
    from pydantic import TypeAdapter, ValidationError

    if isinstance(weights := options.get("weights"), dict):
        named = {sampler.resolve(str(name)): weight for name, weight in weights.items()}
        options = options | {"weights": named}
    try:
        return TypeAdapter(GenerationStep).validate_python({**vars(step), **options})
    except ValidationError as error:
        raise ConfigError(f"generation of {step.target}: {options}: {error}") from error
