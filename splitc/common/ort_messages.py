"""Make ONNX Runtime's messages readable: they name C++ functions and places in its source before they say why."""

import re

_LONGEST = 300
_RUNNING = re.compile(
    r"Non-zero status code returned while running (\S+) node\. Name:'(.*?)' Status Message: "
)
_PLACE = re.compile(r"\S*\.(?:cc|cpp|cu|h|hpp|inl):\d+ ")
_CODES = ("FAIL", "INVALID_GRAPH", "INVALID_ARGUMENT", "NOT_IMPLEMENTED", "RUNTIME_EXCEPTION", "EP_FAIL")
_CODE = re.compile(rf"^.*? : (?:{'|'.join(_CODES)}) : ")
_SUFFIX = re.compile(r"^(?: const| noexcept| \[with [^\]]*\])*\s*")
_CONDITION = re.compile(r"^[^.]{1,200} was false\. (?=\S)")
_NAME = re.compile(r"^[A-Za-z_]\w* (?=[A-Z])")
_TOO_NEW = ("model IR version", "is under development and support for this is limited")


def readable(message: str) -> str:
    """Return the reason in *message* on one line, with the node that failed, and what to do where that is known."""
    text = _CODE.sub("", " ".join(message.split()))
    text = re.sub(r"^Load model from .*? failed: ?", "", text)
    node = ""
    if running := list(_RUNNING.finditer(text)):
        inner = running[-1]
        node = f"{inner[1]} '{inner[2]}': " if inner[2] else f"{inner[1]}: "
        text = text[inner.end() :]
    text = _CONDITION.sub("", _without_place(text)).rstrip(". ")
    if len(text) > _LONGEST:
        text = f"{text[:_LONGEST].rsplit(' ', 1)[0]} ..."
    if any(words in text for words in _TOO_NEW):
        text = f"{text}; install a newer onnxruntime, or export the model with an older opset and IR version"
    return f"{node}{text}"


def _without_place(text: str) -> str:
    """Remove each place in the source and the function that follows it."""
    while place := _PLACE.search(text):
        text = text[: place.start()] + _without_function(text[place.end() :])
    return text


def _without_function(text: str) -> str:
    """Remove a function from the beginning of *text*: `operator()`, a plain name, or a declaration with arguments."""
    if text.startswith("operator() "):
        return text.removeprefix("operator() ")
    head, opened, _ = text.partition("(")
    if not opened or "::" not in head:
        return _NAME.sub("", text)
    depth = 0
    for at, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if letter == ")" and not depth:
            return _SUFFIX.sub("", text[at + 1 :])
    return text
