"""Finds the form field `model` of a multipart body that arrives in parts, wherever the file stands; keeps nothing else of it."""

from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import HTTP

from vllama.api.jsonscan import checked_model
from vllama.errors import BadRequest

HEAD_BYTES_MAX = 16 * 1024
VALUE_BYTES_MAX = 4096
BOUNDARY_CHARS_MAX = 256


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a `multipart/form-data` body; None for any other kind of body."""
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_param("boundary")
    if message.get_content_type() != "multipart/form-data" or not isinstance(boundary, str):
        return None
    if not (boundary.isascii() and 0 < len(boundary) <= BOUNDARY_CHARS_MAX):
        return None
    return boundary.encode()


class FormScan:
    """`feed` every part, then `end`: the model's name. `span` is where its value stands, in bytes."""

    def __init__(self, boundary: bytes) -> None:
        self.span = (0, 0)
        self._delimiter = b"\r\n--" + boundary
        self._buffer = b"\r\n"  # the first delimiter need not have one before it
        self._before = -2  # bytes of the body before the buffer
        self._in_head = False
        self._is_model = False
        self._value = b""
        self._start = 0
        self._model: str | None = None
        self._ended = False

    def feed(self, part: bytes) -> None:
        """The next part. Raises BadRequest."""
        if self._ended:
            return  # an epilogue is nobody's
        self._buffer += part
        while not self._ended and (self._head() if self._in_head else self._data()):
            pass

    def end(self) -> str:
        """The body is whole. Raises BadRequest."""
        if not self._ended:
            raise BadRequest("The multipart body ends in the middle: its last boundary is missing.")
        if self._model is None:
            raise BadRequest(
                "The form has no field `model`; GET /v1/models lists the models that can be used."
            )
        return self._model

    def _data(self) -> bool:
        """Look for the end of a part's content; whether it was there."""
        found = self._buffer.find(self._delimiter)
        # Until it is known whether this is the last one, wait for the two bytes after it.
        whole = found >= 0 and len(self._buffer) >= found + len(self._delimiter) + 2
        upto = found if found >= 0 else max(0, len(self._buffer) - len(self._delimiter) + 1)
        if self._is_model:
            self._value += self._buffer[:upto]
            if len(self._value) > VALUE_BYTES_MAX:
                raise BadRequest("The form's field `model` is too long.")
        self._drop(upto)
        if not whole:
            return False
        if self._is_model:
            self._is_model = False
            self.span = (self._start, self._before)
            self._model = checked_model(self._value.decode("utf-8", "replace"))
        after = len(self._delimiter)
        self._ended = self._buffer[after : after + 2] == b"--"
        self._drop(after)
        self._in_head = True
        return True

    def _head(self) -> bool:
        """Read a part's headers, from the line of its delimiter on; whether they were all there."""
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES_MAX:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequest("The multipart body has a part whose headers are too long or never end.")
            return False
        padding, _, lines = self._buffer[: end + 4].partition(b"\r\n")
        if padding.strip(b" \t"):
            raise BadRequest("The multipart body is malformed: something stands behind a boundary.")
        headers = BytesHeaderParser(policy=HTTP).parsebytes(lines)
        self._drop(end + 4)
        self._in_head = False
        self._is_model = _field_of(headers) == "model"
        if self._is_model:
            if self._model is not None:
                raise BadRequest("The form names `model` more than once.")
            self._start, self._value = self._before, b""
        return True

    def _drop(self, count: int) -> None:
        self._buffer = self._buffer[count:]
        self._before += count


def _field_of(headers: Message) -> str:
    """The field's name; files are no fields, whatever they call themselves."""
    name = headers.get_param("name", header="content-disposition")
    file = headers.get_param("filename", header="content-disposition")
    return name if isinstance(name, str) and file is None else ""
