"""The configuration file as one frozen, validated value.

Knows what may be asked for and the defaults; knows nothing of pods, servers or clusters. A file that can't be used is a
`SettingsError` whose text names every wrong key by its path and says what would do.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

Workload = Literal["api", "worker", "beat", "consumer"]


class SettingsError(ValueError):
    """The configuration can't be used; the text says what is wrong, where, and what would do."""


# RFC 1123 label, as Kubernetes demands.
_NAMESPACE = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def _distinct(values: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(values)) != len(values):
        raise ValueError("each value may stand once only")
    return values


# For the chart's schema, which is to refuse what is refused here: there a replica would not start any more.
_UNIQUE = {"uniqueItems": True}


class _Value(BaseModel):
    # strict: `"5"` for 5 or `1` for true is a slip worth hearing of, not one to guess at.
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


# Nine digits: what the launcher's checks in the container accept too.
Count = Annotated[int, Field(ge=0, le=999_999_999)]


class Env(_Value):
    """The four variables, by the names that their operators use for them in chart values."""

    gunicorn_max_requests: Count = 0
    gunicorn_max_requests_jitter: Count = 0
    celery_task_publish_retry: bool = True
    celery_broker_pool_limit: Count = 10

    def variables(self) -> dict[str, str]:
        """Environment variables, name to text; booleans as Python writes them."""
        return {name.upper(): str(value) for name, value in self}


class Publish(_Value):
    """How a task's message is handed to the broker, and where it is kept while the broker is in trouble."""

    # False: as Plane's own Celery does it, in silence, and nothing that follows here means anything.
    confirm: bool = True
    mandatory: bool = True
    # A healthy broker confirms in milliseconds. Longer than this nobody waits: the task is kept and delivered later.
    patience: Annotated[float, Field(ge=0.05, le=60, allow_inf_nan=False)] = 1.0
    # For everything that nobody waits for: to connect, to declare a queue. Zero would mean "do not block at all".
    timeout: Annotated[float, Field(ge=0.05, le=600, allow_inf_nan=False)] = 5.0
    spool: Literal["redis", "none"] = "redis"
    # For all processes together. A busy Plane publishes some tens a second, of 1 to 10 kB: an hour or so of outage.
    spool_tasks: Annotated[int, Field(ge=1, le=10_000_000)] = 50_000
    spool_bytes: Annotated[int, Field(ge=1024, le=1 << 40)] = 128 << 20

    @property
    def worst_case(self) -> float:
        """Seconds that a publish takes at most: for its confirmation and, where it can't be kept, for another one."""
        return self.patience + self.timeout


class Profile(_Value):
    """What holds for the pods of one namespace."""

    env: Env = Env()
    publish: Publish = Publish()
    precedence: Literal["webhook", "chart"] = "webhook"
    workloads: Annotated[
        tuple[Workload, ...], Field(min_length=1, json_schema_extra=_UNIQUE), AfterValidator(_distinct)
    ] = get_args(Workload)
    images: Annotated[
        # [HOST[:PORT]/]NAME: with a tag or digest it would never match, for those of the containers are cut off.
        tuple[Annotated[str, Field(pattern=r"^([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]([a-z0-9._/-]*[a-z0-9])?$")], ...],
        Field(json_schema_extra=_UNIQUE),
        AfterValidator(_distinct),
    ] = ("makeplane/backend-commercial", "makeplane/plane-backend")

    def __hash__(self) -> int:
        """By the digest: a cache keyed by profiles should not walk one for each look-up."""
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of the canonical JSON: the same settings have the same digest everywhere."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Settings(_Value):
    """The whole configuration: one profile for all namespaces, and those that differ."""

    default: Profile = Profile()
    namespaces: dict[str, Profile] = {}

    def profile(self, namespace: str) -> Profile:
        """What holds in `namespace`."""
        return self.namespaces.get(namespace, self.default)

    def profiles(self) -> list[Profile]:
        """Every profile that can hold somewhere, the default first."""
        return [self.default, *self.namespaces.values()]


def load(path: Path | None) -> Settings:
    """Settings of the file at `path`; the defaults for None. Raises SettingsError."""
    if path is None:
        return Settings()
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise SettingsError(f"{path}: can't be read: {reason}") from error
    try:
        return parse(text)
    except SettingsError as error:
        raise SettingsError("\n".join(f"{path}: {line}" for line in str(error).splitlines())) from error


def parse(text: str) -> Settings:
    """Settings of YAML text. Raises SettingsError."""
    tree = _tree(text)
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise SettingsError(f"expected keys such as env and publish, found {_kind(tree)}")
    namespaces = tree.pop("namespaces", {})
    if not isinstance(namespaces, dict):
        raise SettingsError(f"namespaces: expected namespace names with settings, found {_kind(namespaces)}")
    problems: list[str] = []
    default = _profile(tree, "", problems)
    profiles: dict[str, Profile] = {}
    for name, override in namespaces.items():
        if not isinstance(name, str) or not _NAMESPACE.fullmatch(name):
            problems.append(
                f"namespaces.{name}: no namespace can be called that; a name that YAML reads as a number "
                "or as yes and no needs quotes"
            )
        elif not isinstance(override, dict):
            problems.append(f"namespaces.{name}: expected settings such as env, found {_kind(override)}")
        elif default is not None:
            profile = _profile(_merge(tree, override), f"namespaces.{name}.", problems)
            if profile is not None:
                profiles[name] = profile
    if default is None or problems:
        raise SettingsError("\n".join(each.replace("\n", "\\n") for each in problems))  # a key may have any character
    return Settings(default=default, namespaces=profiles)


def _tree(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader that refuses duplicate keys
    except (
        KeyError,
        IndexError,
        AttributeError,
    ) as error:  # PyYAML of `!!bool x`, `!!int ""`, `!!timestamp x`
        raise SettingsError(
            "not YAML: a value is not of the type that its tag (!!) names: leave the tag out"
        ) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # a date such as 2024-13-45 is a ValueError
        raise SettingsError(f"not YAML: {' '.join(str(error).split())}") from error


def _profile(tree: Mapping[str, Any], prefix: str, problems: list[str]) -> Profile | None:
    try:
        # By way of JSON: YAML's lists are to fill tuples, which strict mode refuses of Python objects.
        return Profile.model_validate_json(json.dumps(tree))
    except ValidationError as error:
        found = error.errors()
        # Of a list whose items are wrong pydantic also says that it is too short, for nothing is left of it.
        within = {item["loc"][:end] for item in found for end in range(len(item["loc"]))}
        problems.extend(
            _sentence(prefix, item["loc"], item["type"], item["msg"], item["input"])
            for item in found
            if item["loc"] not in within
        )
    except (TypeError, ValueError) as error:
        problems.append(f"{prefix.rstrip('.') or 'the file'}: {error}; use plain numbers, texts, lists and keys")
    return None


def _sentence(prefix: str, loc: tuple[int | str, ...], kind: str, message: str, value: object) -> str:
    path = prefix + ".".join(str(part) for part in loc)
    if kind == "json_invalid":  # all else that YAML can hold and JSON can't is refused before
        return (
            f"{prefix.rstrip('.') or 'the file'}: an escape of \\ud800 to \\udfff alone is no character: leave it out"
        )
    if kind == "extra_forbidden" and path == "configuration":
        return f"{path}: stands around these keys in the chart's values alone: leave it out here"
    if kind == "extra_forbidden":
        known = [*_known(loc[:-1]), *(() if prefix or loc[1:] else ("namespaces",))]
        return f"{path}: unknown key; known here: {', '.join(known)}"
    if kind == "string_pattern_mismatch":
        message = "should be an image's name without tag and digest, such as makeplane/plane-backend"
    if kind == "value_error":
        return f"{path}: {message.replace('Value error, ', '')}"
    shown = (
        _kind(value) if value is None or (value and isinstance(value, dict | list)) else json.dumps(value, default=str)
    )
    for pydantic, ours in _WORDING.items():
        message = message.replace(pydantic, ours)
    return f"{path}: {message}; found {shown}"


_WORDING = {
    "Input should be an object": "should hold keys",
    "Input should be a valid array": "should be a list",
    "Tuple should have at least 1 item after validation, not 0": "should name at least one",
    "Input should": "should",
}


def _known(loc: tuple[int | str, ...]) -> list[str]:
    model: Any = Profile
    for part in loc:
        model = model.model_fields[part].annotation
    return list(model.model_fields)


def _kind(value: object) -> str:
    return {dict: "keys", list: "a list", type(None): "nothing"}.get(type(value), repr(value))


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error: the first one would be lost without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key should be a plain text", key.start_mark)
            if key.value in seen:
                problem = f"the key {key.value!r} stands twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)
