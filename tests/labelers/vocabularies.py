"""Small vocabularies of the kinds that the networks' own tokenizers have."""

from pathlib import Path
from typing import Any

LETTERS = "abcdefghijklmnopqrstuvwxyz"
_BERT_SPECIAL = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]"}
_BERT_WORDS = {1012: ".", 1029: "?", 1030: "a", 1031: "picture", 1032: "it", 1033: "shows"}


def bert_tokenizer() -> Any:
    """BERT's, with its special tokens and full stop where BERT has them: networks rely on that."""
    from transformers import BertTokenizer

    known = _BERT_SPECIAL | _BERT_WORDS
    words = [known.get(index, f"[unused{index}]") for index in range(1034)]
    words += [f"##{letter}" for letter in LETTERS]
    words += [letter for letter in LETTERS if letter != "a"]
    return BertTokenizer({word: index for index, word in enumerate(words)})


def save_sentencepiece(folder: Path, extra_ids: int = 100) -> None:
    """`spiece.model` as T5's repositories have it, and what says that it is T5's."""
    import io
    import json

    import sentencepiece

    text = ["a picture of a thing", "it shows a thing, and more", "the quick brown fox", LETTERS]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(text), model_writer=model, vocab_size=60, hard_vocab_limit=False,
        pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2,
    )  # fmt: skip
    (folder / "spiece.model").write_bytes(model.getvalue())
    about = {"tokenizer_class": "T5Tokenizer", "extra_ids": extra_ids}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
