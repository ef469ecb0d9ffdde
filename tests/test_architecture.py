"""The house: imports run one way, torch stays where it belongs, files stay small."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

LAYERS = [
    {
        "erl_envs.arguments",
        "erl_envs.calls",
        "erl_envs.records",
        "erl_envs.thoughts",
        "erl_envs.parsing",
        "erl_envs.prompting",
        "erl_envs.web",
        "erl_envs.extras",
        "erl_envs.files",
        "erl_envs.locks",
        "erl_envs.output",
        "erl_envs.spaces",
        "erl_envs.packing",
        "erl_envs.asgi",
        "erl_envs.json_rows",
        "erl_envs.task_files",
        "erl_envs.secrets",
    },
    {"erl_envs.options"},
    {"erl_envs.core"},
    {"erl_envs.policies"},
    {"erl_envs.retrieval", "erl_envs.qa_metrics"},
    {"erl_envs.worlds"},
    {"erl_envs.work"},
    {"erl_envs.grid", "erl_envs.checker"},
    {"erl_envs.sokoban.room"},
    {"erl_envs.sokoban.solver"},
    {"erl_envs.sokoban.levels", "erl_envs.sokoban.collections"},
    {"erl_envs.frozenlake", "erl_envs.sokoban", "erl_envs.hotpotqa"},
    {"erl_envs.registry", "erl_envs"},
    {"erl_envs.tasks"},
    {"erl_envs.reflection", "erl_envs.retrieval.__main__"},
    {"erl_envs.rollout"},
    {"erl_envs.eval"},
    {"erl_envs.leaderboard"},
    {"erl_envs.adapters.versions", "erl_envs.adapters.rows"},
    {"erl_envs.adapters"},
    {"erl_envs.serve"},
    {"erl_trainer", "erl_trainer.types", "erl_trainer.bounds", "erl_trainer.processes"},
    {"erl_trainer.config"},
    {"erl_trainer.shards"},
    {"erl_trainer.advantages", "erl_trainer.losses", "erl_trainer.memory"},
    {"erl_trainer.batching", "erl_trainer.forward", "erl_trainer.optimizer"},
    {"erl_trainer.objective", "erl_trainer.context", "erl_trainer.failures", "erl_trainer.origin"},
    {"erl_trainer.erl", "erl_trainer.learner", "erl_trainer.sync", "erl_trainer.actor"},
    {"erl_trainer.checkpoint", "erl_trainer.metrics"},
    {"erl_trainer.train", "erl_trainer.sft", "erl_trainer.trl", "erl_trainer.verl"},
    {"erl_trainer.launch"},
    {"erl_trainer.plots"},
    {"erl_trainer.curves", "erl_trainer.nano"},
    {"erl_trainer.__main__"},
]
"""Lowest first. A module may import from its own layer and from those below; the deepest listed
package that holds a module decides."""

TORCH = {"torch", "transformers", "vllm"}

LEARNS = (
    "erl_trainer.batching",
    "erl_trainer.forward",
    "erl_trainer.launch",
    "erl_trainer.learner",
    "erl_trainer.losses",
    "erl_trainer.nano.pretrain",
    "erl_trainer.objective",
    "erl_trainer.optimizer",
    "erl_trainer.shards",
    "erl_trainer.sync",
)
"""Modules that compute with tensors, and so import torch at their top."""


def modules() -> dict[str, Path]:
    found = {}
    paths = [path for name in ("erl_envs", "erl_trainer") for path in (ROOT / name).rglob("*.py")]
    for path in sorted(paths):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def layer(module: str) -> int:
    whole = module
    while module and (module == whole or "." in module):
        for number, names in enumerate(LAYERS):
            if module in names:
                return number
        module = module.rpartition(".")[0]
    raise AssertionError("no layer")


def imports(path: Path, top_only: bool = False) -> Iterator[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name if name in modules() else node.module for name in inside)


@pytest.mark.parametrize("module", sorted(modules()))
def test_arrows_run_one_way(module: str) -> None:
    for target in imports(modules()[module]):
        if target in ("erl_envs", "erl_trainer") or not target.startswith(("erl_envs", "erl_tr")):
            continue
        assert layer(target) <= layer(module), f"{module} imports {target}, which stands above it"


def test_there_is_no_cycle() -> None:
    graph = {
        module: {
            t
            for t in imports(path)
            if t in modules() and t not in ("erl_envs", "erl_trainer", module)
        }
        for module, path in modules().items()
    }
    # a package's __init__ re-exports its modules; a module importing its own package would be one
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' → '.join([*trail, module])}"
        if module not in done:
            for target in sorted(graph[module]):
                visit(target, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


@pytest.mark.parametrize("module", sorted(modules()))
def test_torch_is_imported_by_the_sampler_and_its_parts_alone(module: str) -> None:
    heavy = {name.partition(".")[0] for name in imports(modules()[module], top_only=True)} & TORCH
    sampler = {f"erl_envs.policies.{name}" for name in ("sampler", "prefill", "kv_cache")}
    assert not heavy or module in sampler or module.startswith(LEARNS)


def test_files_are_small() -> None:
    long = {
        name: count
        for name, path in modules().items()
        if (count := len(path.read_text(encoding="utf-8").splitlines())) > 300
    }
    # the contract is one class; cutting it in two would scatter what belongs together
    assert set(long) <= {"erl_envs.core", "erl_envs.records"}, long
