"""
A server of one folder for one reader: on this machine alone, and for reading alone.

Addresses start with a random token, so that neither other users of the machine nor other pages in
the browser can guess them; other names of this machine than its loopback address are refused, so
that no page elsewhere can lend its own name to it (DNS rebinding).
"""

from __future__ import annotations

import contextlib
import mimetypes
import secrets
import shutil
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote, urlsplit

from ..errors import CannotCreateError

if TYPE_CHECKING:
    from typing import BinaryIO

HOST: Final = '127.0.0.1'
TOKEN_BYTES: Final = 24
PLAIN: Final = frozenset({'.json', '.tsv', '.toml', '.txt', '.md', '.bib', '.bidsignore', ''})
"""Files that a browser shows as text."""

HEADERS: Final = {
    'Cache-Control': 'no-store',
    'Cross-Origin-Resource-Policy': 'same-origin',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    'X-Frame-Options': 'DENY',
}


class ReportServer(ThreadingHTTPServer):
    """
    Serve the files of a folder.

    Parameters
    ----------
    root : Path
        The folder.
    port : int
        0 takes a free one.

    Raises
    ------
    CannotCreateError
        If the port is taken or may not be used.
    """

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        self.root = root.resolve()
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        try:
            super().__init__((HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, 'strerror', None) or str(error)
            raise CannotCreateError(
                f'Port {port} cannot be used ({reason}): give another --port, or leave it out to '
                'take a free one.'
            ) from error

    @property
    def hosts(self) -> frozenset[str]:
        """What a browser may call this server."""
        return frozenset({f'{HOST}:{self.server_port}', f'localhost:{self.server_port}'})

    def address(self, name: str = '') -> str:
        """
        Spell the address of a file.

        Parameters
        ----------
        name : str
            Path below the folder, with ``/``; empty for the list of pages.

        Returns
        -------
        str
        """
        return f'http://{HOST}:{self.server_port}/{self.token}/{quote(name)}'

    def find(self, target: str) -> Path | None:
        """
        Find what a request asks for.

        Parameters
        ----------
        target : str
            As the request has it.

        Returns
        -------
        Path or None
            A file, or the folder itself; None for everything else: a wrong token, a path or link
            that leads out of the folder, another folder, a file that is not there.
        """
        path = unquote(urlsplit(target).path)
        first, _, name = path.removeprefix('/').partition('/')
        known = secrets.compare_digest(first.encode('utf-8'), self.token.encode('utf-8'))
        if not known or '\0' in name:
            return None
        try:
            found = (self.root / name.lstrip('/')).resolve(strict=True)
        except (OSError, RuntimeError):
            return None
        inside = found == self.root or (found.is_file() and found.is_relative_to(self.root))
        return found if inside else None


class _Handler(BaseHTTPRequestHandler):
    """Answer requests that read, and no others."""

    server: ReportServer
    protocol_version = 'HTTP/1.1'
    server_version = 'neurolesion'
    sys_version = ''
    timeout = 60

    def do_GET(self) -> None:
        """Send a file with its bytes."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send what is said of a file."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - named by the base
        """Say nothing: the terminal belongs to the user."""

    def _answer(self, *, with_body: bool) -> None:
        if self.headers.get('Host', '') not in self.server.hosts:
            self.send_error(HTTPStatus.FORBIDDEN)
            return
        found = self.server.find(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        # Who closes a page while it loads breaks the connection, and that is no failure.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            if found == self.server.root:
                self._send_list(with_body=with_body)
            else:
                self._send_file(found, with_body=with_body)

    def _send_file(self, path: Path, *, with_body: bool) -> None:
        try:
            stream: BinaryIO = path.open('rb')
        except OSError:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with stream:
            self._send_head(_kind(path), path.stat().st_size)
            if with_body:
                shutil.copyfileobj(stream, self.wfile)

    def _send_list(self, *, with_body: bool) -> None:
        names = page_names(self.server.root)
        items = ''.join(f'<li><a href="{quote(name)}">{escape(name)}</a></li>' for name in names)
        text = (
            '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>Reports</title>'
            '<style>:root{color-scheme:light dark;font:16px/1.6 system-ui,sans-serif}</style>'
            f'<h1>Reports</h1><ul>{items}</ul></html>'
        ).encode()
        self._send_head('text/html; charset=utf-8', len(text))
        if with_body:
            self.wfile.write(text)

    def _send_head(self, kind: str, size: int) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header('Content-Type', kind)
        self.send_header('Content-Length', str(size))
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.end_headers()


def _kind(path: Path) -> str:
    if path.suffix in PLAIN:
        return 'text/plain; charset=utf-8'
    if path.suffix == '.html':
        return 'text/html; charset=utf-8'
    # A volume stays compressed: the viewer wants the file as it is.
    return 'application/octet-stream' if path.suffix == '.gz' else _guess(path)


def _guess(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or 'application/octet-stream'


def page_names(root: Path) -> list[str]:
    """Names of the pages of a derivatives folder, that of the group first."""
    names = sorted(path.name for path in root.glob('*.html') if path.is_file())
    return sorted(names, key=lambda name: name != 'group.html')
