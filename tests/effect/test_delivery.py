"""Why the files travel in the command: the alternative, tried (docs/explanation/delivery.md draws the conclusion).

The alternative is written here as well as it can be: pod annotations, projected by a downwardAPI volume, each with its
SHA-256 in the immutable command, which runs the original when one differs. The lab has no kubelet that projects again
when somebody patches an annotation: the tests put the new content where a kubelet would, by the same rename.
"""

from __future__ import annotations

import copy
import hashlib
import os
from typing import TYPE_CHECKING

import pytest

from lab.container import Container
from lab.injected import (
    ASKED_LIMITS,
    RESTRICTED,
    SETTINGS,
    SHELLS,
    UPSTREAM_LIMITS,
    Json,
    Ran,
    code,
    inject,
    pod,
    with_code,
)
from webhook import payload
from webhook.admission.injection import MOUNT_PATH, PROVENANCE, VOLUME

if TYPE_CHECKING:
    from pathlib import Path

    from lab.container import Shell
    from lab.images import Image

pytestmark = pytest.mark.lab

every_shell = pytest.mark.parametrize("shell", SHELLS)

# What the command would be: a few lines and a line for each file.
CHECK = """
for each in {sums}; do
    file=/plane-webhook/${{each#*=}}
    if [ "$(sha256sum <"$file" 2>/dev/null)" != "${{each%=*}}  -" ]; then
        echo "plane-webhook: NOT IN EFFECT: $file is not what it was" >&2
        exec "$@"
    fi
done
export PATH="/plane-webhook/bin:$PATH"
exec "$@"
"""
EVIL = "#!/bin/sh\necho evil ran >&2\nexit 66\n"
STAYS = "#!/bin/bash\nexec gunicorn stay --max-requests 1200 --max-requests-jitter 1000\n"


@pytest.fixture(scope="module")
def staying(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Image:
    return with_code(image, code(tmp_path_factory.mktemp("code") / "code", entrypoint=STAYS))


def key(path: str) -> str:
    return "plane-webhook/" + path.replace("/", ".")


def annotated(*, checked: bool = True, sub_path: bool = False) -> Json:
    """A pod injected the other way; the files' texts are those of the real injection."""
    what = pod(securityContext=RESTRICTED)
    settings = inject(what)["spec"]["containers"][0]["command"][SETTINGS].replace("$$", "$")
    texts = {"settings.json": settings + "\n", **payload.FILES}
    sums = " ".join(f"{hashlib.sha256(text.encode()).hexdigest()}={path}" for path, text in texts.items())
    guard = CHECK.format(sums=sums if checked else "").replace("$", "$$")
    container = what["spec"]["containers"][0]
    container["command"] = ["/bin/sh", "-c", guard, "plane-webhook", *container["command"]]
    container["volumeMounts"] = [{"name": VOLUME, "mountPath": MOUNT_PATH}]
    if sub_path:
        container["volumeMounts"] = [
            {"name": VOLUME, "mountPath": f"{MOUNT_PATH}/{path}", "subPath": path} for path in texts
        ]
    what["metadata"]["annotations"] = {key(path): text for path, text in texts.items()}
    items = [{"path": path, "fieldRef": {"fieldPath": f"metadata.annotations['{key(path)}']"}} for path in texts]
    what["spec"]["volumes"] = [{"name": VOLUME, "downwardAPI": {"defaultMode": 0o555, "items": items}}]
    return what


def patch(container: Container, path: str, text: str) -> None:
    """Do what a kubelet does when the annotation of a file was changed (or removed: an empty file)."""
    file = container.folders[VOLUME] / path
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.chmod(0o555)
    new.rename(file)


def again(container: Container) -> Ran:
    """Restart it; return what its new run says."""
    container.restart(kill=True)
    container.wait_for_log("STAYS\n")
    return Ran(0, container.stdout, container.stderr)


def test_projected_annotations_work_under_the_same_restrictions(staying: Image) -> None:
    with Container.from_pod(annotated(), image=staying) as container:
        container.wait_for_log("STAYS\n")
        ours = Ran(0, container.stdout, container.stderr)
        assert container.exec(["sh", "-c", f": >{MOUNT_PATH}/bin/gunicorn"]).returncode != 0  # what speaks for it
    assert ours.shown["argv"][-4:] == ASKED_LIMITS
    assert ours.loud == []


@every_shell
@pytest.mark.parametrize("text", ["", EVIL], ids=["emptied or removed", "altered"])
def test_who_may_patch_annotations_can_switch_it_off(staying: Image, shell: Shell, text: str) -> None:
    """With its SHA-256 in the command a changed file is not run; but Plane is without it from the next restart on."""
    with Container.from_pod(annotated(), image=staying, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        patch(container, "bin/gunicorn", text)
        after = again(container)
    assert after.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert len(after.loud) == 1
    assert "evil" not in after.stderr


@every_shell
def test_unchecked_an_emptied_annotation_ends_plane_with_success(staying: Image, shell: Shell) -> None:
    """An empty file is a script that succeeds: Plane ends with exit code 0, and bash says "Success"."""
    with Container.from_pod(annotated(checked=False), image=staying, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        patch(container, "bin/gunicorn", "")
        container.restart(kill=True)
        assert (container.wait(), container.stdout) == (0, "")
        assert container.stderr.endswith("/plane-webhook/bin/gunicorn: Success\n")


@every_shell
def test_unchecked_who_may_patch_annotations_runs_code_in_plane(staying: Image, shell: Shell) -> None:
    with Container.from_pod(annotated(checked=False), image=staying, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        patch(container, "bin/gunicorn", EVIL)
        container.restart(kill=True)
        assert (container.wait(), container.stderr) == (66, "evil ran\n")


WORKER = ["python", "-c", "import plane_webhook_settings"]  # what a worker that gunicorn starts anew imports
AS_PLANE = ["env", f"PYTHONPATH={MOUNT_PATH}/lib"]


@pytest.mark.parametrize(("sub_path", "runs_it"), [(False, True), (True, False)], ids=["whole volume", "subPath"])
def test_checked_at_the_start_a_later_change_still_reaches_a_respawned_worker(
    staying: Image, *, sub_path: bool, runs_it: bool
) -> None:
    """A volume is projected live, under the running Plane; a subPath keeps what it had until the next start."""
    with Container.from_pod(annotated(sub_path=sub_path), image=staying) as container:
        container.wait_for_log("STAYS\n")
        assert Ran(0, container.stdout, container.stderr).shown["argv"][-4:] == ASKED_LIMITS
        patch(container, "lib/plane_webhook_settings.py", "raise SystemExit('evil ran')\n")
        run = container.exec([*AS_PLANE, *WORKER])
        assert (run.returncode != 0, "evil ran" in run.stderr) == (runs_it, runs_it)
        # The next start has the change in either case, and falls back.
        after = again(container)
    assert after.shown["argv"][-4:] == UPSTREAM_LIMITS
    assert len(after.loud) == 1


@every_shell
@pytest.mark.parametrize("annotations", [None, {}, {PROVENANCE: ""}, {PROVENANCE: EVIL, key("bin/gunicorn"): EVIL}])
def test_in_the_command_no_annotation_changes_anything(
    staying: Image, shell: Shell, annotations: dict[str, str] | None
) -> None:
    """What we took: the same pod with other annotations is the same container, in every run."""
    what = inject(pod(securityContext=RESTRICTED))
    changed = copy.deepcopy(what)
    del changed["metadata"]["annotations"]
    if annotations is not None:
        changed["metadata"]["annotations"] = annotations
    with Container.from_pod(what, image=staying, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        first, second = Ran(0, container.stdout, container.stderr), again(container)
    with Container.from_pod(changed, image=staying, shell=shell) as container:
        container.wait_for_log("STAYS\n")
        third = Ran(0, container.stdout, container.stderr)
    for each in (first, second, third):
        assert each.shown["argv"][-4:] == ASKED_LIMITS
        assert each.loud == []
    assert first.stderr == second.stderr == third.stderr


def test_in_the_command_the_containers_own_user_can_change_files_until_the_next_start(
    staying: Image, tmp_path: Path
) -> None:
    """The price, and its bound: that user can run code in Plane anyway, and a restart writes the files again."""
    assert os.access(tmp_path, os.W_OK)
    with Container.from_pod(inject(pod(securityContext=RESTRICTED)), image=staying) as container:
        container.wait_for_log("STAYS\n")
        overlay = f"{MOUNT_PATH}/lib/plane_webhook_settings.py"
        container.exec(["sh", "-c", f"chmod u+w {overlay}; echo \"raise SystemExit('evil ran')\" >{overlay}"])
        assert "evil ran" in container.exec([*AS_PLANE, *WORKER]).stderr
        after = again(container)
        assert container.exec([*AS_PLANE, *WORKER]).returncode == 0
    assert after.shown["argv"][-4:] == ASKED_LIMITS
    assert after.loud == []
