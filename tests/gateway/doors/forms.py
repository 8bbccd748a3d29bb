"""Forms with files in them, as clients write them."""

from __future__ import annotations

BOUNDARY = b"bounds0123"
CONTENT_TYPE = f"Content-Type: multipart/form-data; boundary={BOUNDARY.decode()}"


def form(*parts: tuple[str, str | None, bytes]) -> bytes:
    """Return a body with these parts: a name, a file's name or None, and the content."""
    return b"".join(map(_part, parts)) + b"--%b--\r\n" % BOUNDARY


def _part(part: tuple[str, str | None, bytes]) -> bytes:
    name, filename, content = part
    disposition = f'form-data; name="{name}"'
    if filename is not None:
        disposition += '; filename="{}"'.format(filename.replace('"', '\\"'))
    head = f"Content-Disposition: {disposition}\r\n"
    return b"--%b\r\n%b\r\n%b\r\n" % (BOUNDARY, head.encode(), content)
