"""How fast a training goes, and what of its machine it uses."""

from collections.abc import Mapping

from fourmill.train.config import TrainConfig
from fourmill.train.devices import peak_memory
from fourmill.train.flops import peak_flops, projected_width, sample_flops
from fourmill.train.model import FourM
from fourmill.train.processes import Process


def speed_of(
    model: FourM,
    config: TrainConfig,
    process: Process,
    targets: Mapping[str, int],
    steps: int,
    seconds: float,
    waited: float,
) -> dict[str, float]:
    """Figures of some steps.

    Args:
        targets: that all processes predicted, by modality.
        waited: seconds of them in which there was no data.

    Returns:
        fill: share of target slots that held tokens; samples_per_second, and tokens_per_second with
        inputs, targets and what was padding of them; waiting: share of the time without data;
        memory_gib: the most so far; and where the device's peak is known mfu, model FLOPs
        utilization (Chowdhery et al. 2022), of all processes.
    """
    inputs, outputs = config.masking.input_range[1], config.masking.target_range[1]
    samples = steps * config.batch_size
    figures = {
        "fill": round(sum(targets.values()) / (samples * outputs), 4),
        "samples_per_second": round(samples / seconds, 2),
        "tokens_per_second": round(samples * (inputs + outputs) / seconds, 1),
        "waiting": round(waited / seconds, 4),
        "memory_gib": round(peak_memory(process.device) / 2**30, 3),
    }
    peak = peak_flops(process.device)
    if peak is not None:
        domains = model.domains
        logits = sum(count * domains.modality(name).vocab_size for name, count in targets.items())
        width = logits / (samples * outputs)
        flops = sample_flops(model.shape, inputs, outputs, width, projected_width(domains))
        figures["mfu"] = round(samples * flops.training / (seconds * peak * process.count), 4)
    return figures
