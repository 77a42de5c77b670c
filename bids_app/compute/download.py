"""Downloads that go on where they broke off and are checked before anything uses them."""

from __future__ import annotations

import logging
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from ..errors import (
    BadDataError,
    CannotCreateError,
    InputOutputError,
    MissingInputError,
    NeurolesionError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from requests import Response

CHUNK: Final = 1 << 20
CONNECT_S, READ_S = 10.0, 60.0
TRIES: Final = 3
"""Connections within one call; each one goes on where the last broke off."""

MAX_BYTES: Final = 40 * 10**9
"""No weights are larger; a server that sends more is broken or means harm."""

PART: Final = '.part'
VALIDATOR: Final = '.etag'
PARTIAL, RANGE_BEYOND, GONE = 206, 416, (404, 410)


class _BrokeOffError(Exception):
    """The connection ended before the file did."""


class ResumingDownloader:
    """
    A downloader for pooch that keeps what came when a connection breaks.

    The part lies beside the target and is taken up only if the server says, by the entity tag or
    date that it gave with the first part, that the file is still the same one; or if the file has
    a known checksum, which tells afterwards.

    Parameters
    ----------
    part : Path
        Where what came is kept.
    has_checksum : bool
        Whether the whole file is checked afterwards.
    report : callable, optional
        Called with the bytes that are here and those expected, None where the server does not say.
    """

    def __init__(
        self,
        part: Path,
        has_checksum: bool,
        report: Callable[[int, int | None], None] | None = None,
    ) -> None:
        self._part = part
        self._validator = part.with_suffix(VALIDATOR)
        self._has_checksum = has_checksum
        self._report = report or (lambda _here, _total: None)

    def __call__(self, url: str, output_file: Any, _pooch: Any) -> None:  # noqa: ANN401
        """Download, as pooch asks for it: into the temporary file that it names."""
        for number in range(1, TRIES + 1):
            before = self._here()
            try:
                with _named_failures(url):
                    self._fetch(url)
                break
            except _BrokeOffError as error:
                if number == TRIES or self._here() <= before:
                    raise InputOutputError(
                        f'The connection to {url} broke off after {self._here() / 1e6:.1f} MB: '
                        'run the same command again, and it goes on from there.'
                    ) from error
        shutil.move(self._part, output_file)
        self._validator.unlink(missing_ok=True)

    def _here(self) -> int:
        return self._part.stat().st_size if self._part.is_file() else 0

    def _fetch(self, url: str) -> None:
        import requests

        headers = self._resume_headers()
        # A server that compresses on the way would count other bytes than those of the file.
        headers['Accept-Encoding'] = 'identity'
        timeout = (CONNECT_S, READ_S)
        with requests.get(url, headers=headers, stream=True, timeout=timeout) as answer:
            if answer.status_code == RANGE_BEYOND and 'Range' in headers:
                if answer.headers.get('Content-Range', '') == f'bytes */{self._here()}':
                    return None
                self._discard()
                return self._fetch(url)
            answer.raise_for_status()
            if answer.status_code != PARTIAL:
                self._discard()
            self._keep_validator(answer)
            return self._receive(answer)

    def _resume_headers(self) -> dict[str, str]:
        here = self._here()
        validator = self._validator.read_text() if self._validator.is_file() else ''
        if not here or not (validator or self._has_checksum):
            self._discard()
            return {}
        headers = {'Range': f'bytes={here}-'}
        return headers | ({'If-Range': validator} if validator else {})

    def _keep_validator(self, answer: Response) -> None:
        tag = answer.headers.get('ETag', '')
        # Weak tags promise no equal bytes.
        known = answer.headers.get('Last-Modified', '') if tag.startswith('W/') or not tag else tag
        if known:
            self._validator.write_text(known)

    def _receive(self, answer: Response) -> None:
        from requests import exceptions

        length = answer.headers.get('Content-Length', '')
        here = self._here()
        total = here + int(length) if length.isdecimal() else None
        free = shutil.disk_usage(self._part.parent).free
        if total is not None and total - here > free:
            raise InputOutputError(
                f'{self._part.parent} has {free / 1e6:.1f} MB free where '
                f'{(total - here) / 1e6:.1f} MB are to come: make room, or give another '
                '--weights-dir.'
            )
        try:
            with self._part.open('ab') as file:
                for block in answer.iter_content(CHUNK):
                    here += len(block)
                    if here > MAX_BYTES:
                        raise BadDataError(f'{answer.url} sends more than weights can be.')
                    file.write(block)
                    self._report(here, total)
        except (exceptions.ChunkedEncodingError, exceptions.ConnectionError) as error:
            raise _BrokeOffError from error
        if total is not None and here < total:
            raise _BrokeOffError

    def _discard(self) -> None:
        self._part.unlink(missing_ok=True)
        self._validator.unlink(missing_ok=True)


@contextmanager
def _named_failures(url: str) -> Iterator[None]:
    from requests import exceptions

    try:
        yield
    except exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in GONE:
            raise MissingInputError(
                f'There is nothing at {url} (status {status}): the file was moved or removed; '
                'correct the address with "neurolesion-tools weights add".'
            ) from error
        raise MissingInputError(
            f'{url} could not be fetched: the server answers with status {status}; try again '
            'later, or copy the file here and use "neurolesion-tools weights add --from-dir".'
        ) from error
    except (exceptions.Timeout, exceptions.ConnectionError) as error:
        raise MissingInputError(
            f'{url} cannot be reached: check the internet connection, or copy the file from '
            'another machine and use "neurolesion-tools weights add --from-dir".'
        ) from error
    except exceptions.RequestException as error:
        raise MissingInputError(
            f'{url} could not be fetched ({type(error).__name__}): check the address.'
        ) from error


def download(
    url: str,
    target: Path,
    sha256: str | None,
    report: Callable[[int, int | None], None] | None = None,
) -> Path:
    """
    Fetch one file.

    Parameters
    ----------
    url : str
        Its address.
    target : Path
        Where it goes; what came before a connection broke is kept as ``<name>.part`` beside it.
    sha256 : str or None
        Checksum that it must have; None takes what comes.
    report : callable, optional
        As for `ResumingDownloader`.

    Returns
    -------
    Path
        ``target``.

    Raises
    ------
    MissingInputError
        If the address cannot be reached or holds nothing.
    BadDataError
        If the checksum differs; nothing is kept.
    InputOutputError
        If the connection breaks or the disk is full.
    CannotCreateError
        If the folder cannot be written.
    """
    import pooch

    pooch.get_logger().setLevel(logging.ERROR)
    part = target.with_name(target.name + PART)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # An older file of that name would be taken for what is wanted.
        target.unlink(missing_ok=True)
    except OSError as error:
        raise CannotCreateError(
            f'{target.parent} cannot be written ({error.strerror}): give another --weights-dir.'
        ) from error
    try:
        pooch.retrieve(
            url,
            known_hash=sha256 and f'sha256:{sha256}',
            fname=target.name,
            path=target.parent.resolve(),
            downloader=ResumingDownloader(part, sha256 is not None, report),
        )
    except NeurolesionError:
        raise
    except ValueError as error:
        raise BadDataError(
            f'What came from {url} has not the checksum {str(sha256)[:12]}... that the registry '
            'gives: it was damaged on the way or exchanged, and was removed; try again, and if it '
            'stays so ask its authors.'
        ) from error
    except PermissionError as error:
        raise CannotCreateError(
            f'{target.parent} cannot be written ({error.strerror}): give another --weights-dir.'
        ) from error
    except OSError as error:
        raise InputOutputError(
            f'{target.parent}: {error.strerror or error}; make room or give another --weights-dir.'
        ) from error
    return target
