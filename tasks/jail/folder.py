"""The one folder that a program may write in: how full it is, and how it is emptied whatever was done to it."""

import os

_BLOCK = 512  # bytes of st_blocks


def is_over(folder: str, entries: int, size_bytes: int) -> bool:
    """Whether there are more files and folders, or more bytes, below `folder`, or a folder that hides what is in it;
    counts no further than that. Changes nothing: a program may be at work.
    """
    waiting = [folder]
    while waiting:
        try:
            inside = list(os.scandir(waiting.pop()))
        except PermissionError:
            return True
        except OSError:
            continue  # gone
        for entry in inside:
            entries -= 1
            try:
                size_bytes -= entry.stat(follow_symlinks=False).st_blocks * _BLOCK
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                waiting.append(entry.path)
        if entries < 0 or size_bytes < 0:
            return True
    return False


def empty(folder: str) -> None:
    """Deletes what is in `folder`. Nested folders are moved up first, so that no path and no recursion gets long.

    Raises:
        OSError: something cannot be deleted.
    """
    while entries := list(os.scandir(folder)):
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_folder(entry.path, folder)
            else:
                os.remove(entry.path)  # noqa: PTH107


def _remove_folder(path: str, top: str) -> None:
    os.chmod(path, 0o700)  # noqa: PTH101
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            os.chmod(entry.path, 0o700)  # noqa: PTH101  # without the right to write it cannot be moved
            os.rename(entry.path, f"{top}/{os.urandom(16).hex()}")  # noqa: PTH104
        else:
            os.remove(entry.path)  # noqa: PTH107
    os.rmdir(path)  # noqa: PTH106
