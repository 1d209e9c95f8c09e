"""What a run will be made of, before it begins. Nothing here needs torch."""

from dataclasses import replace

from fourmill.manifests.dataset import Dataset
from fourmill.train import runs
from fourmill.train.config import TrainConfig
from fourmill.train.data import domains_of, refuse_other_definitions


def plan_run(config: TrainConfig) -> runs.Run:
    """What a run would be made of: the heads of the datasets, or the snapshots that it began with.

    Raises:
        DatasetError: there is no dataset.
        UnknownNameError: a dataset that is trained on has no such marks as `where`.
        ConfigError: a dataset lacks what the configuration names, or defines it otherwise than
            `root`, or `out` holds another run.
    """
    snapshot = Dataset.open(config.root).head
    domains = domains_of(snapshot, config.inputs, config.targets, config.pixel_patch)
    contents = runs.contents_of(snapshot, domains, None if config.datasets else config.where)
    others = []
    for number, source in enumerate(config.datasets, 1):
        other = Dataset.open(source.root).head
        refuse_other_definitions(domains, other, source.root)
        own = runs.contents_of(other, domains, config.where)
        contents |= {f"{name} in datasets.{number}": digest for name, digest in own.items()}
        others.append(other.id)
    wanted = runs.Run(config, snapshot.id, contents, domains, tuple(others))
    found = runs.read_run(config.out)
    if found is None:
        return wanted
    runs.refuse_other_run(found, wanted)
    return replace(
        wanted, snapshot=found.snapshot, domains=found.domains, snapshots=found.snapshots
    )
