"""Estimates token counts where a provider reports none.

A rule, not a tokenizer: the exact tokenizers on PyPI fetch their tables over the network at first use, or
carry those of one vendor, while the models behind one proxy have many. The rule is applied to classes of
characters and errs high, since an estimate guards budgets:

| characters | tokens | what tokenizers do, roughly |
|---|---|---|
| ASCII letters | 1/3, at least 1 a word | words take 1.1 to 1.6 tokens of 4.7 letters; identifiers and base64
more
|
| digits | 1 | Gemini, Qwen and older Llamas: 1 a digit; OpenAI: 1 for three |
| ASCII punctuation | 1 | 1, or less where signs follow each other, as in JSON |
| line ends, tabs | 1 | 1, with the indentation that follows |
| blanks | every fourth of four in a row: 1 | a single one belongs to the word behind it |
| other ASCII controls | 1 | 1 |
| all others | 1/2 for a byte of UTF-8 | Cyrillic 0.3 to 0.6 and CJK 0.6 to 1.3 a character, emoji 1 to 3 |

What is not text counts by flat numbers: base64 says nothing about tokens. All of these numbers are rules of
thumb, not measurements.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

# Vendors take 85 to some 1,600 tokens for an image of the sizes that they scale to.
IMAGE_TOKENS = 1600
# Vendors take 10 to 32 tokens a second; speech has at least 4 kB a second compressed, 16 kB as WAV.
AUDIO_BYTES_PER_TOKEN = 125
WAV_BYTES_PER_TOKEN = 500
# A page of a PDF is 1,500 to 3,000 tokens (its text and its image) and seldom less than 48 kB.
FILE_BYTES_PER_TOKEN = 16
# The marks around a message, and those in front of the answer.
MESSAGE_TOKENS = 4
REQUEST_TOKENS = 3

# Text is counted in blocks of this many characters: never twice, and hardly rounded.
_BLOCK_LENGTH = 4096

_LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Every letter becomes an `a` and everything else a blank, so that words can be counted by their beginnings.
_WORD_SHAPE = bytes(ord("a") if code in _LETTERS else ord(" ") for code in range(0x100))
_ASCII = bytes(range(0x80))
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# What may hold texts beside the content of a message.
_SPEAKING_MEMBERS = frozenset({"audio", "function_call", "name", "refusal", "tool_calls", *_THOUGHTS})
_CALL_FIELDS = ("name", "arguments", "input")
_INPUT_MEMBERS = ("prompt", "input", "suffix")
_JSON_MEMBERS = ("tools", "functions", "response_format")
_COUNTED_MEMBERS = frozenset({*_INPUT_MEMBERS, *_JSON_MEMBERS})


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text, rather too many than too few; 0 for an empty one."""
    if not text:
        return 0
    raw = text.encode("utf-8", "surrogatepass")
    size = len(raw)
    beyond_ascii = 0 if size == len(text) else len(raw.translate(None, _ASCII))
    shape = raw.translate(_WORD_SHAPE)
    letters = shape.count(b"a")
    words = shape.count(b" a") + (raw[0] in _LETTERS)
    blanks = raw.count(b" ")
    # In sixths of a token, so that the parts are rounded once.
    sixths = 2 * letters if letters > 3 * words else 6 * words
    sixths += 6 * (size - letters - blanks - beyond_ascii) + 3 * beyond_ascii
    if blanks > 3:  # noqa: PLR2004 (every fourth of four in a row is one)
        sixths += 6 * raw.count(b"    ")
    # Nothing but a few blanks is one all the same.
    return -(-sixths // 6) or 1


class RunningCount:
    """The tokens of a text that grows: the larger of its estimate and the number of its non-empty pieces.

    Providers send about a token an event, so the number of events is a good lower bound.
    """

    def __init__(self, count: Callable[[str], int]) -> None:
        self._count = count
        self._pieces = 0
        self._counted = 0
        self._block: list[str] = []
        self._block_length = 0
        self._block_tokens: int | None = 0
        """What the block comes to, where that has been asked for."""

    def add(self, texts: Iterable[str]) -> None:
        """Add the texts of one event."""
        text = "".join(texts)
        if text:
            self._append(text, 1)
            if self._block_length >= _BLOCK_LENGTH:
                self._close_block()

    def add_each(self, texts: Sequence[str]) -> None:
        """Add the texts of several events, which have one each."""
        joined = "".join(texts)
        if self._block_length + len(joined) >= _BLOCK_LENGTH:
            # Blocks end where they would have ended, had the events come one by one.
            for text in texts:
                self.add((text,))
        elif joined:
            self._append(joined, len(texts) - texts.count(""))

    def _append(self, text: str, pieces: int) -> None:
        self._pieces += pieces
        self._block.append(text)
        self._block_length += len(text)
        self._block_tokens = None

    def _close_block(self) -> None:
        self._counted += self._count("".join(self._block))
        self._block, self._block_length, self._block_tokens = [], 0, 0

    @property
    def tokens(self) -> int:
        """The count so far; costs one estimate of at most a block, where something has been added."""
        if self._block_tokens is None:
            self._block_tokens = self._count("".join(self._block))
        counted = self._counted + self._block_tokens
        return max(counted, self._pieces)


def texts(message: Mapping[str, object]) -> list[str]:
    """List the texts of a message or of a streamed delta that a model reads or writes as tokens.

    Content, refusal, transcript, the names and arguments of calls, and thoughts once, as some servers send
    the same thought under two names.
    """
    content = message.get("content")
    found = [content] if content and isinstance(content, str) else _strings(content)
    return found if _SPEAKING_MEMBERS.isdisjoint(message) else found + _other_texts(message)


def _other_texts(message: Mapping[str, object]) -> list[str]:
    # Many servers send all of these members, most of them null.
    refusal, calls, audio = message.get("refusal"), message.get("tool_calls"), message.get("audio")
    found = _strings(refusal) if refusal else []
    for name in _THOUGHTS:
        thought = _strings(message.get(name)) if name in message else []
        if any(thought):
            found += thought
            break
    for call in (message.get("function_call"), *(calls if isinstance(calls, list) else ())):
        if isinstance(call, dict):
            found += _call_texts(call)
    return found + _strings(audio.get("transcript")) if isinstance(audio, dict) else found


def choice_texts(choice: Mapping[str, object], *, whole: bool) -> list[str]:
    """List the texts of a choice: of its message if the answer came `whole`, else of its delta.

    Perplexity sends both, and repeats the whole message beside each delta of a stream.
    """
    said = choice.get("message" if whole else "delta")
    if not isinstance(said, dict):
        said = choice.get("delta" if whole else "message")
    found = texts(said) if isinstance(said, dict) else []
    text = choice.get("text")
    return [*found, text] if isinstance(text, str) else found


def estimate_prompt(body: Mapping[str, object]) -> int:
    """Estimate the prompt tokens of a decoded request body, whatever it holds; never raises."""
    messages = body.get("messages")
    tokens = REQUEST_TOKENS
    for message in messages if isinstance(messages, list) else ():
        tokens += _message_tokens(message)
    if _COUNTED_MEMBERS.isdisjoint(body):
        return tokens
    for name in _JSON_MEMBERS:
        if name in body:
            tokens += _json_tokens(body[name])
    for name in _INPUT_MEMBERS:
        if name in body:
            tokens += _input_tokens(body[name])
    return tokens


def _message_tokens(message: object) -> int:
    if not isinstance(message, dict):
        return MESSAGE_TOKENS
    content = message.get("content")
    if isinstance(content, str) and _SPEAKING_MEMBERS.isdisjoint(message):
        return MESSAGE_TOKENS + count_tokens(content)
    found = [*texts(message), *_strings(message.get("name"))]
    media = sum(map(_media_tokens, content)) if isinstance(content, list) else 0
    return MESSAGE_TOKENS + sum(map(count_tokens, found)) + media


def _strings(value: object) -> list[str]:
    """List the strings of a content: itself, or those of its parts, which may hold parts (Mistral)."""
    if value is None or isinstance(value, str):
        return [value] if value else []
    found: list[str] = []
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            found.append(part)
        elif isinstance(part, list):
            waiting.extend(reversed(part))
        elif isinstance(part, dict):
            waiting.extend(part.get(name) for name in ("text", "thinking", "refusal", "content"))
    return found


def _call_texts(call: Mapping[str, object]) -> list[str]:
    """List the name and the arguments of a call, which stand in it, in `function` or in `custom`."""
    inside = [call, call.get("function"), call.get("custom")]
    values = [each.get(name) for each in inside if isinstance(each, dict) for name in _CALL_FIELDS]
    return [value for value in values if isinstance(value, str)]


def _media_tokens(part: object) -> int:
    if not isinstance(part, dict) or "text" in part:
        return 0
    audio, file = part.get("input_audio"), part.get("file")
    if isinstance(audio, dict):
        wav = audio.get("format") == "wav"
        return (
            _decoded_length(audio.get("data")) // (WAV_BYTES_PER_TOKEN if wav else AUDIO_BYTES_PER_TOKEN) + 1
        )
    if isinstance(file, dict):
        return _decoded_length(file.get("file_data")) // FILE_BYTES_PER_TOKEN + IMAGE_TOKENS
    # Images, and what is not known yet: most likely something like an image.
    return 0 if part.get("type") in ("thinking", "refusal") else IMAGE_TOKENS


def _decoded_length(base64_text: object) -> int:
    return len(base64_text) * 3 // 4 if isinstance(base64_text, str) else 0


def _input_tokens(value: object) -> int:
    """Count the input of completions and embeddings: strings, lists of strings, lists of token ids."""
    tokens = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str):
            tokens += count_tokens(item)
        elif isinstance(item, dict):
            tokens += _message_tokens(item)
        else:
            tokens += item is not None
    return tokens


def _json_tokens(value: object) -> int:
    """Count a value as its compact JSON, without writing it: quotes and signs are tokens as well."""
    tokens = 0
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif isinstance(item, str):
            tokens += count_tokens(item) + 2
        elif isinstance(item, int):
            # The number of digits without writing them: a long integer cannot always be written.
            tokens += item.bit_length() // 3 + 1
        else:
            tokens += len(str(item))
        # The comma, colon or brackets that belong to it.
        tokens += 2 if isinstance(item, dict | list) else 1
    return tokens
