"""What a process leaves for `proof` as long as it is in trouble: a file with its pid as name, in a folder of the container's."""

import json
import os

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "state")


def leave(said):
    """Put a dict of plain values there, or nothing where there is no such folder."""
    path = _own()
    try:
        with open(path + ".part", "w") as file:
            json.dump(said, file)
        os.replace(path + ".part", path)
    except OSError:
        pass


def clear():
    """All is well again: there is nothing to say."""
    _remove(_own())


def sweep():
    """Take away what processes left that are gone: killed in trouble, each would have its file for ever."""
    try:
        names = os.listdir(FOLDER)
    except OSError:
        return
    for name in names:
        if not os.path.exists("/proc/" + name.partition(".")[0]):
            _remove(os.path.join(FOLDER, name))


def _own():
    return os.path.join(FOLDER, str(os.getpid()))


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass
