"""Small networks of the experts that write captions."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.labelers.vocabularies import LETTERS, bert_tokenizer, save_sentencepiece


def blip(folder: Path) -> None:
    from transformers import (
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
    )

    tokenizer = bert_tokenizer()
    small = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }  # fmt: skip
    config = BlipConfig(
        text_config={
            **small, "vocab_size": len(tokenizer), "encoder_hidden_size": 32, "bos_token_id": 101,
        },
        vision_config={**small, "image_size": 32, "initializer_range": 0.5},
    )  # fmt: skip
    BlipForConditionalGeneration(config).save_pretrained(folder)
    image_processor = BlipImageProcessor(size={"height": 32, "width": 32})
    BlipProcessor(image_processor, tokenizer).save_pretrained(folder)


def blip2(folder: Path) -> None:
    from transformers import (
        AutoTokenizer,
        Blip2Config,
        Blip2ForConditionalGeneration,
        Blip2Processor,
        BlipImageProcessor,
    )

    with TemporaryDirectory() as scratch:
        save_sentencepiece(Path(scratch), extra_ids=0)  # else it would say nothing but these
        tokenizer: Any = AutoTokenizer.from_pretrained(scratch)
    processor = Blip2Processor(
        BlipImageProcessor(size={"height": 28, "width": 28}), tokenizer, num_query_tokens=4
    )
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = Blip2Config(
        vision_config={
            **small, "intermediate_size": 32, "image_size": 28, "initializer_range": 0.5,
        },
        qformer_config={**small, "intermediate_size": 32, "encoder_hidden_size": 32},
        text_config={
            "model_type": "t5", "vocab_size": len(tokenizer) + 8, "d_model": 32, "d_kv": 8,
            "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0,
        },
        num_query_tokens=4,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
    )  # fmt: skip
    Blip2ForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)


def florence2(folder: Path) -> None:
    from transformers import (
        CLIPImageProcessor,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
        RobertaTokenizer,
    )

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>", *LETTERS, "Ġ", ".", ","]
    tokenizer = RobertaTokenizer(
        {word: index for index, word in enumerate(words)}, merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    sides = {
        "depths": [1, 1, 1, 1], "embed_dim": [16, 16, 16, 16], "num_heads": [2, 2, 2, 2],
        "num_groups": [2, 2, 2, 2], "window_size": 2, "projection_dim": 32,
        "max_position_embeddings": 8,
    }  # fmt: skip
    config = Florence2Config(
        vision_config=sides,
        text_config={
            "model_type": "bart", "vocab_size": len(words), "d_model": 32, "encoder_layers": 1,
            "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
            "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "bos_token_id": 0, "pad_token_id": 1,
            "eos_token_id": 2, "decoder_start_token_id": 2, "init_std": 0.5,
        },
        image_token_id=words.index("<image>"),
    )  # fmt: skip
    Florence2ForConditionalGeneration(config).save_pretrained(folder)
    image_processor = CLIPImageProcessor(
        size={"height": 64, "width": 64}, do_center_crop=False, image_seq_length=5
    )
    Florence2Processor(image_processor, tokenizer).save_pretrained(folder)


BUILDERS = {
    "blip": blip,
    "blip2": blip2,
    "florence2": florence2,
}
