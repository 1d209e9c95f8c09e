"""What a run will be made of, before it begins. Nothing here needs torch."""

from fourmill.manifests.dataset import Dataset
from fourmill.train import runs
from fourmill.train.config import TrainConfig
from fourmill.train.data import domains_of


def plan_run(config: TrainConfig) -> runs.Run:
    """What a run would be made of: the head of the dataset, or the snapshot that it began with.

    Raises:
        DatasetError: there is no dataset.
        ConfigError: the dataset lacks what the configuration names, or `out` holds another run.
    """
    dataset = Dataset.open(config.root)
    snapshot = dataset.head
    domains = domains_of(snapshot, config.inputs, config.targets, config.pixel_patch)
    wanted = runs.Run(config, snapshot.id, runs.contents_of(snapshot, domains), domains)
    found = runs.read_run(config.out)
    if found is None:
        return wanted
    runs.refuse_other_run(found, wanted)
    return runs.Run(config, found.snapshot, found.contents, found.domains)
