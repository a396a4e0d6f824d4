"""What the server demands of the head of an HTTP/1.1 request besides what the parser checks."""

from collections.abc import Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, and values, as they came."""


class Unacceptable(Exception):  # noqa: N818 - an answer
    """The request is answered with *status*, and the connection is closed."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def check_framing(http_version: str, headers: Headers) -> None:
    """Check that the headers say where the body ends in a way that the server knows (RFC 9112, section 6.1).

    Raises:
        Unacceptable: the body has another transfer coding than "chunked", or HTTP/1.0 that has none.
    """
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if not codings:
        return
    if http_version == "1.0":
        raise Unacceptable(400, "HTTP/1.0 has no Transfer-Encoding; send Content-Length")
    if len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise Unacceptable(501, "the only Transfer-Encoding that is supported is 'chunked'")


def without_upgrade(method: bytes, url: bytes, http_version: str, headers: Headers) -> bytes:
    """Return the head of a request without its wish to change the protocol, which a server may ignore (RFC 9110, 7.8).

    Raises:
        Unacceptable: the request is for a tunnel.
    """
    if method == b"CONNECT":
        raise Unacceptable(400, "this server makes no tunnels")
    lines = [b"%s %s HTTP/%s" % (method, url, http_version.encode())]
    for name, value in headers:
        kept = _other_options(value) if name == b"connection" else value
        if name != b"upgrade" and (kept or name != b"connection"):
            lines.append(b"%s: %s" % (name, kept))
    return b"\r\n".join([*lines, b"", b""])


def _other_options(value: bytes) -> bytes:
    options = [option.strip() for option in value.split(b",")]
    return b", ".join(option for option in options if option.lower() != b"upgrade")
