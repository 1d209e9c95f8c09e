"""Where experts get their weights from; tokenizers share it, so it lies below both."""

from fourmill.manifests.hub import HubWeights, file_sha256

__all__ = ["HubWeights", "file_sha256"]
