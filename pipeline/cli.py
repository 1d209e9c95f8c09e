"""The program `fourmill`: one verb a function, found when it is called.

A verb's module is imported only then, so that `fourmill status` does not wait for torch, and the
trainer's verbs are named here without this package depending on it.
"""

import importlib
import json as json_module
import sys
from collections.abc import Sequence
from typing import Any

from fourmill.manifests.errors import ConfigError, FourmillError, UnknownNameError

# verb: (module:function, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "ingest": ("fourmill.pipeline.commands.build:ingest", "raw corpus → dataset"),
    "label": ("fourmill.pipeline.commands.build:label", "run labelers over a dataset"),
    "labelers": ("fourmill.pipeline.commands.experts:labelers", "the catalogue of labelers"),
    "tokenizer": ("fourmill.pipeline.commands.tokenizers:tokenizer", "look at tokenizers"),
    "tokenizer train": ("fourmill.train.tokenizers.commands:train", "train one of your own"),
    "tokenize": ("fourmill.pipeline.commands.build:tokenize", "tokens of all labels"),
    "run": ("fourmill.pipeline.commands.build:run", "the whole pipeline from one file"),
    "prefetch": ("fourmill.pipeline.commands.build:prefetch", "fetch all that a run needs"),
    "demo": ("fourmill.pipeline.commands.demo:demo", "pipeline, training, pictures: all of it"),
    "status": ("fourmill.pipeline.commands.life:status", "what is there, stale, unfinished"),
    "log": ("fourmill.pipeline.commands.life:log", "the snapshots, newest first"),
    "diff": ("fourmill.pipeline.commands.compare:diff", "what differs between two snapshots"),
    "relabel": ("fourmill.pipeline.commands.relabel:relabel", "swap the expert of a modality"),
    "switch": ("fourmill.pipeline.commands.compare:switch", "make current what was put aside"),
    "mark": ("fourmill.pipeline.commands.mark:mark", "mark samples by what their labels say"),
    "verify": ("fourmill.pipeline.commands.life:verify", "whether all files are as recorded"),
    "rollback": ("fourmill.pipeline.commands.life:rollback", "an earlier snapshot again"),
    "gc": ("fourmill.pipeline.commands.life:gc", "remove what no snapshot needs"),
    "view": ("fourmill.pipeline.commands.look:view", "look at samples: a page or a sheet"),
    "bench": ("fourmill.pipeline.commands.bench:bench", "what is claimed, measured"),
    "train": ("fourmill.train.commands:train", "train 4M on a dataset's tokens"),
    "predict": ("fourmill.train.commands:predict", "what a trained 4M predicts, as pictures"),
    "generate": ("fourmill.train.generating:generate", "any modalities from any others"),
    "evaluate": (
        "fourmill.train.evaluation.commands:evaluate", "how well a trained 4M predicts truths"
    ),
    "convert": ("fourmill.train.commands:convert", "models to and from the reference's files"),
}

_EXAMPLES = """examples:
  fourmill run configs/demo.yaml          the pipeline, only what is missing
  fourmill train configs/demo.yaml        then the model
  fourmill ingest ~/Pictures data/mine    a dataset from a folder
  fourmill label data/mine -l depth normals
  fourmill status data/mine
  fourmill VERB --help                    all options of a verb"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb.

    Returns:
        0 for done; 1 for a failure that is told in one message, and for `verify` with problems; 2
        for wrong use; 130 when interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ("-h", "--help", "help"):
        sys.stdout.write(_overview())
        return 0 if words else 2
    if words[0] == "--version":
        from fourmill.pipeline.steps import code_version

        sys.stdout.write(f"fourmill {code_version()}\n")
        return 0
    try:
        count = 2 if " ".join(words[:2]) in VERBS else 1
        verb = " ".join(words[:count])
        if verb not in VERBS:
            raise UnknownNameError("verb", verb, VERBS)
        return _run(verb, words[count:])
    except ConfigError as error:
        return _complain(error, 2)
    except FourmillError as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted; the same command goes on where this one stopped\n")
        return 130
    except BrokenPipeError:  # the reader, such as `head`, had enough
        sys.stderr.close()
        return 0


def _run(verb: str, words: Sequence[str]) -> int:
    import tyro

    module, _, name = VERBS[verb][0].partition(":")
    function: Any = getattr(importlib.import_module(module), name)
    code = tyro.cli(function, prog=f"fourmill {verb}", args=list(words))
    return code if isinstance(code, int) else 0


def _overview() -> str:
    lines = ["fourmill: an image-text corpus → an aligned multimodal dataset → 4M", "", "verbs:"]
    lines += [f"  {verb:<15} {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join([*lines, "", _EXAMPLES, ""])


def _complain(error: FourmillError, code: int) -> int:
    sys.stderr.write(f"fourmill: {error}\n")
    return code


def write_json(value: Any) -> None:
    """One JSON value on standard output, for programs."""
    sys.stdout.write(json_module.dumps(value, default=str) + "\n")


if __name__ == "__main__":
    sys.exit(main())
