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

from collections.abc import Callable, Iterable, Mapping

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
_BEYOND_ASCII = bytes(range(0x80, 0x100))
_THOUGHTS = ("reasoning_content", "reasoning", "thinking")
# With these alone, and a content that is a text, a message has no other texts.
_PLAIN_MEMBERS = frozenset({"role", "content"})
_CALL_FIELDS = ("name", "arguments", "input")
_INPUT_MEMBERS = ("prompt", "input", "suffix")
_JSON_MEMBERS = ("tools", "functions", "response_format")


def count_tokens(text: str) -> int:
    """Estimate the tokens of a text, rather too many than too few; 0 for an empty one."""
    raw = text.encode("utf-8", "surrogatepass")
    ascii_only = raw.translate(None, _BEYOND_ASCII)
    rest = ascii_only.translate(None, _LETTERS)
    letters = len(ascii_only) - len(rest)
    blanks = rest.count(b" ")
    # In sixths of a token, so that the parts are rounded once.
    shape = raw.translate(_WORD_SHAPE)
    words = shape.count(b" a") + shape.startswith(b"a")
    sixths = max(2 * letters, 6 * words) + 6 * (len(rest) - blanks) + 3 * (len(raw) - len(ascii_only))
    sixths += 6 * raw.count(b"    ")
    return max(-(-sixths // 6), 1 if raw else 0)


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
        found = [text for text in texts if text]
        if not found:
            return
        self._pieces += 1
        self._block += found
        self._block_tokens = None
        self._block_length += sum(map(len, found))
        if self._block_length >= _BLOCK_LENGTH:
            self._close_block()

    def add_each(self, texts: Iterable[str]) -> None:
        """Add the texts of several events, which have one each."""
        found = [text for text in texts if text]
        length = sum(map(len, found))
        if self._block_length + length >= _BLOCK_LENGTH:
            for text in found:
                self.add([text])
        elif found:
            self._pieces += len(found)
            self._block += found
            self._block_length += length
            self._block_tokens = None

    def _close_block(self) -> None:
        self._counted += self._count("".join(self._block))
        self._block, self._block_length, self._block_tokens = [], 0, 0

    @property
    def tokens(self) -> int:
        """The count so far; costs one estimate of at most a block, where something has been added."""
        if self._block_tokens is None:
            self._block_tokens = self._count("".join(self._block))
        return max(self._pieces, self._counted + self._block_tokens)


def texts(message: Mapping[str, object]) -> list[str]:
    """List the texts of a message or of a streamed delta that a model reads or writes as tokens.

    Content, refusal, transcript, the names and arguments of calls, and thoughts once, as some servers send
    the same thought under two names.
    """
    content = message.get("content")
    if isinstance(content, str) and _PLAIN_MEMBERS.issuperset(message):
        return [content] if content else []
    found = [*_strings(content), *_strings(message.get("refusal"))]
    thoughts = (_strings(message.get(name)) for name in _THOUGHTS)
    found += next((thought for thought in thoughts if any(thought)), [])
    calls = message.get("tool_calls")
    for call in [message.get("function_call"), *(calls if isinstance(calls, list) else ())]:
        if isinstance(call, dict):
            found += _call_texts(call)
    audio = message.get("audio")
    return found + (_strings(audio.get("transcript")) if isinstance(audio, dict) else [])


def choice_texts(choice: Mapping[str, object], *, whole: bool) -> list[str]:
    """List the texts of a choice: of its message if the answer came `whole`, else of its delta.

    Perplexity sends both, and repeats the whole message beside each delta of a stream.
    """
    message, delta = choice.get("message"), choice.get("delta")
    first, second = (message, delta) if whole else (delta, message)
    said = first if isinstance(first, dict) else second
    text = choice.get("text")
    found = texts(said) if isinstance(said, dict) else []
    return [*found, text] if isinstance(text, str) else found


def estimate_prompt(body: Mapping[str, object]) -> int:
    """Estimate the prompt tokens of a decoded request body, whatever it holds; never raises."""
    messages = body.get("messages")
    tokens = REQUEST_TOKENS
    for message in messages if isinstance(messages, list) else ():
        tokens += _message_tokens(message)
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
    if isinstance(content, str) and _PLAIN_MEMBERS.issuperset(message):
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
