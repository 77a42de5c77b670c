"""Errors a user can act on, each with the exit code of the BIDS Apps execution specification."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the BIDS Apps execution specification, which follow ``sysexits.h``."""

    OK = 0
    ROOM_FAILED = 1
    INVALID_INPUT = 16
    UNKNOWN_LEVEL = 17
    NOTHING_SELECTED = 18
    USAGE = 64
    BAD_DATA = 65
    MISSING_INPUT = 66
    CANNOT_CREATE = 73
    IO_ERROR = 74


class NeurolesionError(Exception):
    """
    A failure whose message is one plain sentence: the file concerned and the remedy.

    Parameters
    ----------
    message : str
        What is shown to the user, without a traceback.
    """

    code = ExitCode.ROOM_FAILED


class InvalidDatasetError(NeurolesionError):
    """The input folder is not a BIDS dataset."""

    code = ExitCode.INVALID_INPUT


class NothingSelectedError(NeurolesionError):
    """The filters on the command line select no image."""

    code = ExitCode.NOTHING_SELECTED


class UsageError(NeurolesionError):
    """A flag, or a combination of flags, makes no sense."""

    code = ExitCode.USAGE


class BadDataError(NeurolesionError):
    """A file exists but its content cannot be used."""

    code = ExitCode.BAD_DATA


class MissingInputError(NeurolesionError):
    """A file that the run needs (template, weights, image) is not there."""

    code = ExitCode.MISSING_INPUT


class CannotCreateError(NeurolesionError):
    """An output folder or file cannot be made."""

    code = ExitCode.CANNOT_CREATE


class InputOutputError(NeurolesionError):
    """Reading or writing failed below us: disk full, network drive gone."""

    code = ExitCode.IO_ERROR
