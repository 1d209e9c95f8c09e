"""The half of a VQ network that makes tokens, where what decodes them is not at hand."""

from jaxtyping import Float, Int
from torch import Tensor

from fourmill.manifests.errors import NoDecoderError
from fourmill.tokenize.autoencoder import EncoderConfig, TokenEncoder


class EncoderOnly(TokenEncoder):
    """Values (or class ids) → tokens."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.config = config

    def decode_tokens(self, tokens: Int[Tensor, "B h w"]) -> Float[Tensor, "B C H W"]:
        """Nothing.

        Raises:
            NoDecoderError: always.
        """
        raise NoDecoderError(
            "this tokenizer was loaded without its diffusion decoder: it makes tokens, and cannot "
            "turn them back"
        )
