"""`plane-webhook doctor`: what is wrong with the installation, what that causes, and the command that puts it right.

It only reads, and has the API server make pods that are not kept. It asks with the rights of whoever runs it; what it
may not read is an error, never a clean bill.
"""

from __future__ import annotations

from functools import partial

from webhook.admission import INJECT
from webhook.cluster.api import Api
from webhook.cluster.census import namespaces
from webhook.cluster.doctor import creation, installation, pods
from webhook.cluster.doctor.finding import NOTES, PROBLEMS, Finding, Report, Row, as_json, shown
from webhook.cluster.doctor.refused import of_plane, refused
from webhook.cluster.installed import Installed
from webhook.cluster.registration import left_out

__all__ = ["NOTES", "PROBLEMS", "Finding", "Report", "Row", "as_json", "examine", "shown"]

# Whoever sets one of these means to be asked about, and isn't.
_OTHER_VALUES = f"{INJECT},{INJECT} notin (enabled,disabled,false)"


def examine(api: Api, own: str, namespace: str | None, *, execute: bool = False) -> Report:
    """Everything that is wrong with the webhook in the namespace `own`, and in `namespace` or all that are opted in.

    `execute` also runs `proof` in each injected container. Raises ApiError where it can't look.
    """
    installed = Installed(api, own)
    settings = installed.settings()
    found = list(installation.findings(api, installed, settings))
    rows: list[Row] = []
    opted_in = namespaces(api)
    if namespace is None:
        meant = namespaces(api, _OTHER_VALUES)
        found += (pods.not_opted_in(api, name) for name in meant)
        if not opted_in and not meant:
            found.append(pods.not_opted_in(api, None))
    for name in opted_in if namespace is None else [namespace]:
        found += refused(api, name, partial(of_plane, settings.profile(name).images))
        asked = name in opted_in and name not in left_out(own)
        if name in left_out(own):
            found.append(pods.left_out(own, name))
        elif asked:
            found += creation.findings(api, installed, name, settings, clear=not Report(found, ()).problems)
        else:
            found.append(pods.not_opted_in(api, name))
        census = pods.Census(api, name, settings)
        rows += census.rows()
        if asked:
            found += census.findings()
            found += census.proofs() if execute else ()
    return Report(found, rows)
