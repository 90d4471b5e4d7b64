"""Processes as tests see them."""

import psutil


def lives(process: psutil.Process) -> bool:
    """Not where it waits to be reaped, nor where it went between two looks at it."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
