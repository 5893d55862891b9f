"""The configuration file: its defaults, its overrides, and an error for everything that can't be meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from webhook.settings import Profile, Settings, SettingsError, load, parse


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}", "---\n...\n", "\ufeff", "env: {}\nnamespaces: {}"])
def test_without_a_word_the_defaults_hold(text: str) -> None:
    assert parse(text) == Settings() == load(None)
    assert parse(text).default.digest == Profile().digest


def test_the_defaults_are_what_operators_asked_for() -> None:
    profile = Settings().default
    assert list(profile.env.variables().values()) == ["0", "0", "True", "10"]
    assert profile.publish.model_dump() == {
        "confirm": True,
        "mandatory": True,
        "patience": 1.0,
        "timeout": 5.0,
        "spool": "redis",
        "spool_tasks": 50_000,
        "spool_bytes": 128 << 20,
    }
    assert profile.publish.worst_case == 6.0
    assert (profile.precedence, profile.workloads) == ("webhook", ("api", "worker", "beat", "consumer"))


def test_variables_are_texts_as_python_writes_them() -> None:
    profile = parse("env: {celery_task_publish_retry: false, gunicorn_max_requests: 12}").default
    assert profile.env.variables() == {
        "GUNICORN_MAX_REQUESTS": "12",
        "GUNICORN_MAX_REQUESTS_JITTER": "0",
        "CELERY_TASK_PUBLISH_RETRY": "False",
        "CELERY_BROKER_POOL_LIMIT": "10",
    }


def test_a_namespace_overrides_key_by_key_over_the_file() -> None:
    settings = parse(
        """
        env: {celery_broker_pool_limit: 7}
        publish: {timeout: 9, spool_tasks: 10}
        workloads: [api, worker]
        namespaces:
          staging: {env: {gunicorn_max_requests: 5000}, publish: {patience: 2, spool: none}, workloads: [beat]}
          quoted-123: {precedence: chart}
          "123": {}
        """
    )
    staging = settings.profile("staging")
    assert (staging.env.celery_broker_pool_limit, staging.env.gunicorn_max_requests) == (7, 5000)
    assert (staging.publish.timeout, staging.publish.spool_tasks) == (9, 10)
    assert (staging.publish.patience, staging.publish.spool) == (2, "none")
    assert staging.workloads == ("beat",)
    assert settings.profile("quoted-123").precedence == "chart"
    assert settings.profile("123") == settings.default == settings.profile("elsewhere") == settings.profile("")
    assert len(settings.profiles()) == 4


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        ("publish: {timeout: 5}", "publish: {timeout: 5.0}", True),
        ("env: {}", "namespaces: {x: {env: {celery_broker_pool_limit: 1}}}", True),
        ("workloads: [api, worker]", "workloads: [worker, api]", False),
        ("env: {celery_broker_pool_limit: 1}", "env: {gunicorn_max_requests: 1}", False),
        ("publish: {mandatory: false}", "publish: {confirm: false}", False),
    ],
)
def test_the_digest_tells_settings_apart(one: str, other: str, equal: bool) -> None:  # noqa: FBT001
    first, second = parse(one).default, parse(other).default
    assert (first.digest == second.digest) is equal
    assert (hash(first) == hash(second)) is equal
    assert len(first.digest) == 64


def test_settings_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().default.precedence = "chart"  # type: ignore[misc]


def test_anchors_and_merge_keys_work() -> None:
    settings = parse(
        "env: &env {gunicorn_max_requests: 5}\nnamespaces: {x: {env: {<<: *env, celery_broker_pool_limit: 1}}}"
    )
    assert settings.profile("x").env.variables()["GUNICORN_MAX_REQUESTS"] == "5"


WRONG = {
    # a key that is not there
    "envs: {}": "envs: unknown key; known here: env, publish, precedence, workloads, images, namespaces",
    "env: {max_requests: 1}": "env.max_requests: unknown key; known here: gunicorn_max_requests, gunicorn_max_requests",
    "publish: {spool_megabytes: 1}": "publish.spool_megabytes: unknown key; known here: confirm, mandatory, patience, "
    "timeout, spool, spool_tasks, spool_bytes",
    # of an earlier version
    "publish: {deadline: 15}": "publish.deadline: unknown key; known here: confirm, mandatory, patience, timeout",
    "publish: {retry: {max_retries: 1}}": "publish.retry: unknown key",
    "namespaces: {x: {namespaces: {}}}": "namespaces.x.namespaces: unknown key; known here: env, publish, precedence, "
    "workloads, images",
    "namespaces: {x: {env: {y: 1}}}": "namespaces.x.env.y: unknown key",
    "1: 2": "1: unknown key",
    # a file of values
    "configuration: {publish: {timeout: 3}}": "configuration: stands around these keys in the chart's values alone",
    # a value of another type
    "env: {gunicorn_max_requests: '0'}": 'env.gunicorn_max_requests: should be a valid integer; found "0"',
    "env: {gunicorn_max_requests: 1.0}": "env.gunicorn_max_requests: should be a valid integer; found 1.0",
    "env: {gunicorn_max_requests: true}": "env.gunicorn_max_requests: should be a valid integer; found true",
    "env: {celery_task_publish_retry: 1}": "env.celery_task_publish_retry: should be a valid boolean; found 1",
    "env: {celery_task_publish_retry: 'True'}": "env.celery_task_publish_retry: should be a valid boolean",
    "publish: {confirm: null}": "publish.confirm: should be a valid boolean; found nothing",
    "publish: {timeout: 5s}": 'publish.timeout: should be a valid number; found "5s"',
    "env:": "env: should hold keys; found nothing",
    "env: [1]": "env: should hold keys; found a list",
    "workloads: api": 'workloads: should be a list; found "api"',
    "workloads: {api: true}": "workloads: should be a list; found keys",
    "namespaces:": "namespaces: expected namespace names with settings, found nothing",
    "namespaces: 0": "namespaces: expected namespace names with settings, found 0",
    "namespaces: [x]": "namespaces: expected namespace names with settings, found a list",
    "namespaces: {x: null}": "namespaces.x: expected settings such as env, found nothing",
    "namespaces: {x: 1}": "namespaces.x: expected settings such as env, found 1",
    "precedence: 2026-11-23": "the file: Object of type date is not JSON serializable; use plain numbers",
    "- env": "expected keys such as env and publish, found a list",
    "text": "expected keys such as env and publish, found 'text'",
    # a value that can't be meant
    "env: {gunicorn_max_requests: -1}": "env.gunicorn_max_requests: should be greater than or equal to 0; found -1",
    "env: {celery_broker_pool_limit: 1000000000}": "should be less than or equal to 999999999; found 1000000000",
    "publish: {timeout: 0}": "publish.timeout: should be greater than or equal to 0.05; found 0",
    "publish: {patience: 0}": "publish.patience: should be greater than or equal to 0.05; found 0",
    "publish: {patience: 61}": "publish.patience: should be less than or equal to 60; found 61",
    "publish: {patience: .inf}": "publish.patience: should be a finite number",
    "publish: {timeout: .inf}": "publish.timeout: should be a finite number",
    "publish: {timeout: .nan}": "publish.timeout: should be a finite number",
    "publish: {spool: Redis}": "publish.spool: should be 'redis' or 'none'; found \"Redis\"",
    "publish: {spool: null}": "publish.spool: should be 'redis' or 'none'; found nothing",
    "publish: {spool: false}": "publish.spool: should be 'redis' or 'none'; found false",
    "publish: {spool: [redis]}": "publish.spool: should be 'redis' or 'none'; found a list",
    "publish: {spool_tasks: 0}": "publish.spool_tasks: should be greater than or equal to 1; found 0",
    "publish: {spool_tasks: 10.0}": "publish.spool_tasks: should be a valid integer; found 10.0",
    "publish: {spool_bytes: 1023}": "publish.spool_bytes: should be greater than or equal to 1024; found 1023",
    "publish: {spool_bytes: 128Mi}": 'publish.spool_bytes: should be a valid integer; found "128Mi"',
    "precedence: Chart": "precedence: should be 'webhook' or 'chart'; found \"Chart\"",
    "workloads: []": "workloads: should name at least one; found []",
    "workloads: [api, api]": "workloads: each value may stand once only",
    "workloads: [api, worke]": "workloads.1: should be 'api', 'worker', 'beat' or 'consumer'; found \"worke\"",
    "workloads: [worke]": "workloads.0: should be 'api', 'worker', 'beat' or 'consumer'; found \"worke\"",
    "images: ['x:v1']": "images.0: should be an image's name without tag and digest, such as makeplane/plane-backend",
    "images: ['x@sha256:0']": "images.0: should be an image's name without tag and digest",
    "images: [\"x') || true || ('\"]": "images.0: should be an image's name without tag and digest",
    "images: ['']": "images.0: should be an image's name without tag and digest",
    "namespaces: {UPPER: {}}": "namespaces.UPPER: no namespace can be called that",
    "namespaces: {no: {}}": "namespaces.False: no namespace can be called that; a name that YAML reads as a number or",
    "namespaces: {0123: {}}": "namespaces.83: no namespace can be called that",
    "namespaces: {a.b: {}}": "namespaces.a.b: no namespace can be called that",
    # what is no YAML, or none that can be used
    "env: {": "not YAML: while parsing a flow node",
    "env: 1\nenv: 2": "the key 'env' stands twice",
    "env: {gunicorn_max_requests: 1, 'gunicorn_max_requests': 2}": "the key 'gunicorn_max_requests' stands twice",
    "{{ include x }}: 1": "a key should be a plain text",
    "? [a]\n: b": "a key should be a plain text",
    "a: 1\n--- \nb: 2": "not YAML: expected a single document",
    "env: !!python/object/apply:os.system [ls]": "not YAML: could not determine a constructor",
    "a: 2026-13-45": "not YAML: month must be in 1..12",
    "a: \x07": "not YAML: unacceptable character",
    "env: !!timestamp x": "not YAML: a value is not of the type that its tag (!!) names: leave the tag out",
    "env: !!bool x": "not YAML: a value is not of the type that its tag (!!) names",
    'env: !!int ""': "not YAML: a value is not of the type that its tag (!!) names",
    'precedence: "\\ud800"': "the file: an escape of \\ud800 to \\udfff alone is no character: leave it out",
    'namespaces: {x: {precedence: "\\ud800"}}': "namespaces.x: an escape of \\ud800 to \\udfff alone",
    '"a\\nb": 1': "a\\nb: unknown key",
    'namespaces: {"a\\nb": {}}': "namespaces.a\\nb: no namespace can be called that",
    "env: &a {x: *a}": "the file: Circular reference detected",
    "a: " + "[" * 2000: "not YAML: maximum recursion depth exceeded",
}


@pytest.mark.parametrize(("text", "said"), WRONG.items(), ids=[text[:40] for text in WRONG])
def test_wrong(text: str, said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("image", ["backend", "makeplane/plane-backend", "registry.local:5000/a/b_c/d-e.f", "host/x"])
def test_images_that_will_do(image: str) -> None:
    assert parse(yaml.safe_dump({"images": [image]})).default.images == (image,)


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("env: {x: 1, gunicorn_max_requests: no}\nnamespaces: {UPPER: {}, b: 1}\n")
    with pytest.raises(SettingsError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert [line.split(": ")[:2] for line in lines] == [
        [str(path), "env.gunicorn_max_requests"],
        [str(path), "env.x"],
        [str(path), "namespaces.UPPER"],
        [str(path), "namespaces.b"],
    ]


def unreadable(folder: Path) -> dict[Path, str]:
    binary = folder / "binary.yaml"
    binary.write_bytes(b"env: \xff\xfe")
    return {
        folder / "missing.yaml": "can't be read: No such file or directory",
        folder: "can't be read: Is a directory",
        binary: "can't be read: it is not UTF-8 text",
    }


def test_a_file_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    for path, said in unreadable(tmp_path).items():
        with pytest.raises(SettingsError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: {said}"


def test_a_file_holds_what_its_text_says(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("# more than Plane's own\nenv:\n  gunicorn_max_requests: 17\n", encoding="utf-8")
    loaded: Any = load(path)
    assert loaded.default.env.gunicorn_max_requests == 17
