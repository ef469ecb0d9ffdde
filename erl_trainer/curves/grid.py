"""A grid of runs: environment × method × seed, read from a file and checked before any starts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from erl_envs import registry
from erl_envs.secrets import redact_json
from erl_trainer.config import Algo, Preset, configure

_KEYS = ("base", "environments", "methods", "seeds", "main", "references")


@dataclass(frozen=True)
class Run:
    """One run of a grid.

    Attributes:
        environment: The grid's name of it.
        method: The grid's name of it.
        seed: Of everything that is drawn.
        steps: Training steps.
        config: What the run's config file holds: `algo`, `preset` and fields of `Config`.
    """

    environment: str
    method: str
    seed: int
    steps: int
    config: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        """Where it is kept, under the folder of all runs."""
        return Path(slug(self.environment), slug(self.method), str(self.seed))

    @property
    def title(self) -> str:
        """What it is called in messages."""
        return title(self.environment, self.method, self.seed)


@dataclass(frozen=True)
class Grid:
    """A grid as its file tells it.

    Attributes:
        environments: Names, in the order of panels.
        methods: Names and algorithms, in the order of colours. The first with `grpo` is what
            others are compared with; the first with `erl` is what is drawn before and after
            reflection.
        main: Methods of the figures that show curves; the others would hide each other there.
        seeds: Of each environment and method.
        references: By environment, values by name that are drawn as dashed lines.
        runs: In the order of running.
    """

    environments: tuple[str, ...]
    methods: Mapping[str, str]
    main: tuple[str, ...]
    seeds: tuple[int, ...]
    references: Mapping[str, Mapping[str, float]]
    runs: tuple[Run, ...]


def title(environment: str, method: str, seed: int) -> str:
    """What a run is called in messages."""
    return f"{environment}, {method}, seed {seed}"


def slug(name: str) -> str:
    """A name as a folder's."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def read_grid(path: Path) -> Grid:
    """The grid of a file.

    The file is a JSON object: `base` (fields of all runs), `environments` and `methods` (names,
    each with its fields), `seeds`, and optionally `main` and `references`. A method has `algo`,
    and `environments` where it runs in some only. Fields of a method go before an environment's,
    and those before the base's; `env_options` are merged option by option.

    Raises:
        ValueError: It cannot be read, or a run's configuration is bad; the message names the run.
    """
    try:
        text = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the grid {path}: {error}") from error
    return grid_of(text)


def grid_of(text: Mapping[str, Any]) -> Grid:
    """The grid of a file's content.

    Raises:
        ValueError: See `read_grid`.
    """
    _fits("it", text, dict)
    for key in text:
        _one_of("key", key, _KEYS)
    for key in ("environments", "methods", "seeds"):
        if not text.get(key):
            raise ValueError(f"the grid has no {key}")
    environments, methods, seeds = text["environments"], text["methods"], text["seeds"]
    for key in ("base", "environments", "methods", "references"):
        _fits(key, text.get(key, {}), dict)
    for key in ("seeds", "main"):
        _fits(key, text.get(key, []), list)
    for name, fields in [*environments.items(), *methods.items()]:
        _fits(name, fields, dict)
    for names in (environments, methods):
        slugs = [slug(name) for name in names]
        if "" in slugs or len(set(slugs)) < len(slugs):
            raise ValueError(f"names must differ in letters or digits: {', '.join(names)}")
    if len(set(seeds)) < len(seeds) or not all(type(seed) is int for seed in seeds):
        raise ValueError(f"seeds must be different whole numbers, got {seeds}")
    for fields in methods.values():
        _one_of("algo", fields.get("algo"), get_args(Algo))
    for name in text.get("main", ()):
        _one_of("method in main", name, methods)
    for name in text.get("references", ()):
        _one_of("environment in references", name, environments)
    # seeds in the outer loop: every method has its first one early
    runs = [run for seed in seeds for run in _runs(text, seed)]
    return Grid(
        environments=tuple(environments),
        methods={name: method["algo"] for name, method in methods.items()},
        main=tuple(text.get("main", methods)),
        seeds=tuple(seeds),
        references=text.get("references", {}),
        runs=tuple(runs),
    )


def _runs(text: Mapping[str, Any], seed: int) -> Iterator[Run]:
    for environment, its_fields in text["environments"].items():
        for method, fields in text["methods"].items():
            where = fields.get("environments", list(text["environments"]))
            for name in where:
                _one_of(f"environment of {method}", name, text["environments"])
            if environment in where:
                of_method = {key: fields[key] for key in fields if key != "environments"}
                merged = _merge(text.get("base", {}), its_fields, of_method)
                yield _run(environment, method, seed, merged)


def _run(environment: str, method: str, seed: int, fields: Mapping[str, Any]) -> Run:
    if "seed" in fields:
        raise ValueError("a field 'seed' has no place in a grid; name the seeds under 'seeds'")
    config = {"preset": "default", **fields, "seed": seed}
    _one_of("preset", config["preset"], get_args(Preset))
    given: dict[str, Any] = dict(config)
    try:
        if redact_json(config) != config:
            raise ValueError(
                "a grid is copied into its runs' folders: it may hold no key, and no URL may "
                "carry one or a password"
            )
        whole = configure(given.pop("preset"), given.pop("algo"), **given)
        registry.make(whole.env, **whole.options)  # raises for what the environment does not know
    except (TypeError, ValueError) as error:
        raise ValueError(f"{environment}, {method}: {error}") from error
    return Run(environment, method, seed, whole.steps, config)


def _merge(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """Later layers go first; `env_options` are merged by option."""
    merged = {key: value for layer in layers for key, value in layer.items()}
    options = [layer["env_options"] for layer in layers if "env_options" in layer]
    if options:
        merged["env_options"] = {key: value for layer in options for key, value in layer.items()}
    return merged


def _fits(what: str, value: object, kind: type[Any]) -> None:
    if not isinstance(value, kind):
        wanted = "an object" if kind is dict else "a list"
        raise ValueError(f"{what} must be {wanted} in the grid, got {value!r}")


def _one_of(what: str, name: object, valid: Sequence[str] | Mapping[str, Any]) -> None:
    if name not in valid:
        raise ValueError(f"unknown {what} {name!r} in the grid; valid: {', '.join(valid)}")
