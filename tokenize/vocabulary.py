"""The shared text vocabulary of all text-like modalities: words, sentinels, coordinates.

WordPiece (Schuster and Nakajima 2012) over lower-cased text. The first ids are those of the
reference implementation of 4M, whose own file loads too:

    0 [PAD]   1 [UNK]   2 [SOS]   3 [EOS]
    4..203          [S_0] … [S_199]        sentinels of masked spans
    204..4203       v0=0 … v3=999          four kinds of numbers of a thousand values each
    4204..4283      airplane … zebra       the classes of COCO, one id each
    4284..          characters and pieces of words; those that poses and instances are spelled with
                    are the last where captions do not have them
"""

import json
import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, trainers
from tokenizers.models import WordPiece

from fourmill.manifests.errors import ConfigError

PAD, UNK, SOS, EOS = 0, 1, 2, 3
NUM_SENTINELS = 200
NUM_AXES = 4
NUM_BINS = 1000

FIRST_SENTINEL = 4
FIRST_NUMBER = FIRST_SENTINEL + NUM_SENTINELS

COCO_CLASSES = (
    "airplane", "apple", "backpack", "banana", "baseball bat", "baseball glove", "bear", "bed",
    "bench", "bicycle", "bird", "boat", "book", "bottle", "bowl", "broccoli", "bus", "cake", "car",
    "carrot", "cat", "cell phone", "chair", "clock", "couch", "cow", "cup", "dining table", "dog",
    "donut", "elephant", "fire hydrant", "fork", "frisbee", "giraffe", "hair drier", "handbag",
    "horse", "hot dog", "keyboard", "kite", "knife", "laptop", "microwave", "motorcycle", "mouse",
    "orange", "oven", "parking meter", "person", "pizza", "potted plant", "refrigerator", "remote",
    "sandwich", "scissors", "sheep", "sink", "skateboard", "skis", "snowboard", "spoon",
    "sports ball", "stop sign", "suitcase", "surfboard", "teddy bear", "tennis racket", "tie",
    "toaster", "toilet", "toothbrush", "traffic light", "train", "truck", "tv", "umbrella", "vase",
    "wine glass", "zebra",
)  # fmt: skip
"""The 80 classes of COCO, in the order of their ids."""

_SPECIAL = ("[PAD]", "[UNK]", "[SOS]", "[EOS]", *(f"[S_{i}]" for i in range(NUM_SENTINELS)))
_NUMBERS = tuple(f"v{axis}={bin}" for axis in range(NUM_AXES) for bin in range(NUM_BINS))
_FIXED = _SPECIAL + _NUMBERS + COCO_CLASSES
# so that a caption of any length of Latin text has no unknown words, whatever the corpus was
_LETTERS = string.digits + string.ascii_lowercase
_ALPHABET = (*sorted(string.punctuation + _LETTERS), *(f"##{each}" for each in _LETTERS))
# what the reference says of bodies and instances, whether captions say so or not
_GRAMMAR = ("human", "pose", "global", "camera", "shape", "none", "point", "polygon")
_MAX_CHARACTERS = 1000  # of other alphabets; the most frequent
_MAX_FILE_BYTES = 2**26
_SPACE_BEFORE = re.compile(r" ([.,;:!?)\]])")


class Vocabulary:
    """Text ↔ ids; immutable.

    Args:
        tokenizer: with the layout of this module.

    Raises:
        ConfigError: another layout; ids would mean other things than the model thinks.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        for id, token in enumerate(_FIXED):
            if tokenizer.token_to_id(token) != id:
                raise ConfigError(
                    f"vocabulary: {token!r} has id {tokenizer.token_to_id(token)}, expected {id}; "
                    "this is not a vocabulary of 4M"
                )
        self._tokenizer = tokenizer
        self._tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=False)
        # what a caption says is text, even where it says "[EOS]"
        self._tokenizer.encode_special_tokens = True

    @classmethod
    def load(cls, path: Path) -> "Vocabulary":
        """Read `vocabulary.json`, ours or the reference's.

        Raises:
            ConfigError: no such file, or not a vocabulary of 4M.
        """
        if not path.is_file() or path.stat().st_size > _MAX_FILE_BYTES:
            raise ConfigError(f"{path}: expected a vocabulary file of at most 64 MiB")
        try:
            tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the library has no error class of its own
            raise ConfigError(f"{path}: not a tokenizer file: {error}") from error
        return cls(tokenizer)

    def save(self, path: Path) -> None:
        """Write the library's JSON; the same vocabulary gives the same bytes."""
        path.write_text(self._tokenizer.to_str(pretty=False), encoding="utf-8")

    def __len__(self) -> int:
        """Number of ids."""
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    def encode(self, text: str) -> list[int]:
        """Ids of plain text, without an end; special tokens in the text are text like any other."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids; special tokens and numbers are left out."""
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True))
        return _SPACE_BEFORE.sub(r"\1", text)

    def token(self, id: int) -> str:
        """The word, the piece (`##ing`), or the special token of an id."""
        token = self._tokenizer.id_to_token(id)
        if token is None:
            raise ConfigError(f"vocabulary: found id {id}, expected 0 to {len(self) - 1}")
        return str(token)


def number(axis: int, bin: int) -> int:
    """Id of `v<axis>=<bin>`.

    >>> number(0, 0), number(3, 999)
    (204, 4203)
    """
    if not (0 <= axis < NUM_AXES and 0 <= bin < NUM_BINS):
        raise ValueError(f"found v{axis}={bin}, expected v0..v3 and 0..{NUM_BINS - 1}")
    return FIRST_NUMBER + axis * NUM_BINS + bin


def parse_number(id: int) -> tuple[int, int] | None:
    """(axis, bin) of an id, or `None` for what is no number.

    >>> parse_number(number(2, 17)), parse_number(EOS)
    ((2, 17), None)
    """
    if not FIRST_NUMBER <= id < FIRST_NUMBER + NUM_AXES * NUM_BINS:
        return None
    return divmod(id - FIRST_NUMBER, NUM_BINS)


def sentinel(index: int) -> int:
    """Id of `[S_<index>]`; the first that masking uses is 1."""
    if not 0 <= index < NUM_SENTINELS:
        raise ValueError(f"found sentinel {index}, expected 0 to {NUM_SENTINELS - 1}")
    return FIRST_SENTINEL + index


def spell(ids: Sequence[int], vocabulary: Vocabulary) -> str:
    """Ids as the reference writes them: `v0=3 v1=20 v2=500 v3=999 dining table`."""
    words = ""
    for id in ids:
        token = vocabulary.token(id)
        words += token[2:] if token.startswith("##") else f" {token}"
    return words.strip()


def train_vocabulary(captions: Iterable[str], vocab_size: int = 30_000) -> Vocabulary:
    """Learn pieces of words from captions; fewer than `vocab_size` if the corpus is small.

    The pieces depend on the captions, not on their order.

    Raises:
        ConfigError: `vocab_size` has no room for the fixed ids and the Latin alphabet.
    """
    least = len(_FIXED) + len(_ALPHABET) + len(_GRAMMAR)
    if vocab_size < least:
        raise ConfigError(
            f"vocab_size is {vocab_size}, expected at least {least}: special tokens, numbers, "
            "classes, the alphabet and the words of poses and instances"
        )
    pieces = _learn(sorted(captions), vocab_size - len(_FIXED))
    learned = list(dict.fromkeys([*_FIXED, *_ALPHABET, *pieces]))[:vocab_size]
    # at the end, so that the ids before it are what they were without these words
    last = vocab_size - len(_GRAMMAR)
    tokens = list(dict.fromkeys([*learned[:last], *_GRAMMAR, *learned[last:]]))[:vocab_size]
    vocab = {token: id for id, token in enumerate(tokens)}
    tokenizer = _with_text_rules(Tokenizer(WordPiece(vocab, unk_token="[UNK]")))
    tokenizer.add_special_tokens([AddedToken(each, normalized=False) for each in _SPECIAL])
    tokenizer.add_special_tokens(
        [AddedToken(each, normalized=False, single_word=True) for each in _NUMBERS]
    )
    tokenizer.add_tokens(
        [AddedToken(each, normalized=True, single_word=True) for each in COCO_CLASSES]
    )
    return Vocabulary(tokenizer)


def _learn(captions: Sequence[str], room: int) -> list[str]:
    """Characters and merged pieces in the order in which they were learned.

    The trainer numbers characters as it meets them in a hash table, which is another order in every
    process, and of two pairs that are equally frequent it merges the one with the lower numbers. So
    it gets all characters numbered.
    """
    learner = _with_text_rules(Tokenizer(WordPiece(unk_token="[UNK]")))
    characters, singles = _characters(captions, learner)
    trainer = trainers.WordPieceTrainer(
        vocab_size=room, min_frequency=2, show_progress=False, special_tokens=singles,
        initial_alphabet=characters, limit_alphabet=len(characters),
    )  # fmt: skip
    learner.train_from_iterator(captions, trainer)
    vocab: dict[str, int] = json.loads(learner.to_str())["model"]["vocab"]
    return sorted(vocab, key=vocab.__getitem__)


def _characters(captions: Sequence[str], rules: Tokenizer) -> tuple[list[str], list[str]]:
    """The most frequent characters, and the pieces of one of them that words begin and go on with,
    both in the order of Unicode."""
    counts: Counter[str] = Counter()
    singles: set[str] = set()
    for caption in captions:
        text = rules.normalizer.normalize_str(caption)
        for word, _ in rules.pre_tokenizer.pre_tokenize_str(text):
            counts.update(word)
            singles.add(word[0])
            singles.update(f"##{each}" for each in word[1:])
    chosen = sorted(counts, key=lambda each: (-counts[each], each))[:_MAX_CHARACTERS]
    kept = set(chosen)
    return sorted(chosen), sorted(each for each in singles if each[-1] in kept)


def _with_text_rules(tokenizer: Tokenizer) -> Tokenizer:
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer
