"""The half of a VQ network that makes tokens, where what decodes them is not at hand."""

from fourmill.tokenize.autoencoder import EncoderConfig, TokenEncoder


class EncoderOnly(TokenEncoder):
    """Values (or class ids) → tokens."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.config = config
