"""The verb of editing."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from fourmill.manifests.dataset import Dataset
from fourmill.manifests.errors import ConfigError
from fourmill.manifests.labels import Label
from fourmill.train.progress import say, write_json

if TYPE_CHECKING:
    from fourmill.train.editing import Edited
    from fourmill.train.edits import Edit
    from fourmill.train.sampler import Sampler


def edit(
    model: Positional[str],
    edit: tuple[str, ...],
    root: str | None = None,
    key: str | None = None,
    image: Path | None = None,
    text: str | None = None,
    hold: tuple[str, ...] = (),
    to: tuple[str, ...] = (),
    set: tuple[str, ...] = (),
    seed: int = 0,
    panel: Path = Path("edited.png"),
    tokenizers: Path | None = None,
    device: str = "auto",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    json: bool = False,
) -> None:
    """Change one label of a sample, and generate again what follows from it, from the same seed.

    The picture shows before, after, and how far they differ. Edits are `box 0 by 0.2 0`, `box dog
    to 0.1 0.2 0.5 0.9` (left, top, right, bottom), `box 0 scale 1.5`, `box 0 class cat`, `box 0
    drop`, `box add 0.1 0.2 0.5 0.9 dog`, `word cat dog`, `depth by 0.2`, `depth by -0.1 in 0 0 0.5
    1`, `colour 0 255 0 0`, `metadata brightness 200`. Places are shares of the centre square.
    Examples: `fourmill edit RUN --root data/mine --key chelsea --edit "box 0 by 0.2 0" --hold
    caption --to depth`, `fourmill edit RUN --text "a cat on a sofa" --edit "word cat dog" --to rgb
    --set temperature=1 steps=8`, `fourmill edit RUN --image photo.jpg --edit "box 0 drop"`.

    Args:
        model: a run, its YAML file, a checkpoint, a safetensors file, or a hub's id.
        edit: one or more; later ones see what earlier ones did.
        root: a dataset, of which `--key` is a sample.
        key: of this sample.
        image: a photograph; what is edited or held is predicted from it first.
        text: a caption.
        hold: what else is given, before as after.
        to: what is generated, in this order, each seen by the next: `depth,rgb`; by default all
            that is not given.
        set: how: `temperature=1`, or of one target `rgb.steps=8`.
        seed: of the draws, the same before and after.
        panel: the picture.
        tokenizers: folder of the tokenizers; by default those of the run.
        device: cpu, cuda, cuda:1; auto: a GPU if there is one.
        dtype: of activations.
        json: print how much of each target changed, and texts and boxes, as JSON.
    """
    from fourmill.manifests.render import refuse_no_picture
    from fourmill.train.editing import changes, draw_edit
    from fourmill.train.editing import edit as work
    from fourmill.train.edits import parse_edit
    from fourmill.train.generating import chosen_steps
    from fourmill.train.sampler import Sampler

    edits = [parse_edit(each) for each in edit]
    if sum(each is not None for each in (root, image, text)) != 1 or (root is None) != (
        key is None
    ):
        raise ConfigError("give one of --root with --key, --image, and --text")
    refuse_no_picture(panel)
    sampler = Sampler.load(model, tokenizers, device, dtype)
    given, number = _given(sampler, root, key, image, text, edits, hold)
    targets = [name for each in to for name in each.split(",") if name]
    plan = chosen_steps(sampler, list(given), targets, set)
    done = work(sampler, given, edits, plan, seed, number)
    shares = changes(sampler, done)
    panel.parent.mkdir(parents=True, exist_ok=True)
    draw_edit(sampler, done, "; ".join(edit)).save(panel)
    say(f"wrote {panel}")
    for name, each in shares.items():
        say(f"{name:>24}  {each['changed']:6.1%} of its tokens changed")
    if json:
        write_json({"panel": str(panel), "changes": shares, "labels": _readable(sampler, done)})


def _given(
    sampler: "Sampler",
    root: str | None,
    key: str | None,
    image: Path | None,
    text: str | None,
    edits: Sequence["Edit"],
    hold: Sequence[str],
) -> tuple[dict[str, Label], int]:
    """Labels of what is edited and held by the model's names, and the sample's number."""
    from fourmill.train.given import find_samples, read_photo, read_text
    from fourmill.train.schedules import default_step

    wanted = [each.modality for each in edits] + [n for each in hold for n in each.split(",") if n]
    names = list(dict.fromkeys(sampler.resolve(name) for name in wanted))
    if root is not None and key is not None:
        found = find_samples(sampler, Dataset.open(root), names, [key])
        given = {name: labels[0] for name, labels in found.labels.items()}
        missing = [name for name, label in given.items() if label is None]
        if missing:
            raise ConfigError(f"{key}: this sample has no {', '.join(missing)}")
        return {name: label for name, label in given.items() if label is not None}, found.rows[0]
    if text is not None:
        start: dict[str, Label] = {sampler.resolve("caption"): read_text(text)}
    else:
        assert image is not None
        start = {sampler.resolve("rgb"): read_photo(image)}
    first = sampler.conditions(1, {name: [label] for name, label in start.items()})
    unknown = [name for name in names if name not in start]
    plan = [
        default_step(sampler.domains.modality(sampler.resolve(n, target=True))) for n in unknown
    ]
    made = sampler.generate(first, plan)
    known = start | {name: made[name][0].cpu().numpy() for name in unknown}
    return {name: known[name] for name in names}, 0


def _readable(sampler: "Sampler", edited: "Edited") -> dict[str, dict[str, Label]]:
    """Before and after of texts, boxes and other lists."""
    return {
        sampler.stored(name).name: {"before": before, "after": after}
        for name, (before, after) in edited.labels.items()
        if isinstance(before, str | dict | list)
    }
