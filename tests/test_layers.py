"""Who may know whom: imports point down, torch stays where training is, few places read the environment."""

from __future__ import annotations

import ast
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import hpc
from tests.conftest import ROOT, FakeSlurm, clean_environment

LAYERS = (
    ("environ",),
    ("errors", "failpoints", "files", "paths"),
    ("say", "project"),
    ("config", "world", "slurm"),
    ("run",),
    ("stop", "submit"),
    ("attempt",),
    ("launch", "connect", "status"),
    ("checkpoint", "report"),
    ("data", "strategy", "tracking"),
    ("runtime",),
    ("task",),
    ("doctor",),
    ("cli",),
)
"""From low to high. Two names in one layer do not know each other; a name is a module or a package of hpc/."""

BELOW_CLI = {name for layer in LAYERS[:-1] for name in layer}
MAY_IMPORT = {
    **{name: {name}.union(*LAYERS[:level]) for level, layer in enumerate(LAYERS) for name in layer},
    "hpc": {"checkpoint", "launch", "world", "runtime"},
    "examples": {"examples", "hpc"} | BELOW_CLI,
    "testing": {"testing"},
    "hydra_plugins": {"hydra_plugins"} | BELOW_CLI,
    "__main__": {"cli"},
    "run.py": {"cli"},
}
"""hpc is what `import hpc` itself runs; the examples use it as a user's program would. testing serves any loop."""

NEEDS_TORCH = (
    *("hpc.checkpoint", "hpc.connect", "hpc.data", "hpc.examples", "hpc.runtime", "hpc.strategy", "hpc.tracking"),
    *("hpc.doctor.allocation", "hpc.launch.notebook", "hpc.task.notebook"),
)
"""At import; everything else is imported on login nodes, where importing torch is most of the waiting."""

READS_ENVIRONMENT = {"hpc.environ", "hpc.run.enter", "hpc.testing.cluster", "hpc.testing.plugin"}
"""The rest is told what it needs, as a mapping. hpc.run.enter is a program of its own; hpc.testing serves any loop."""
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}

NOW, DEFERRED, TYPING = "at import", "deferred", "for type checkers"


@dataclass(frozen=True)
class Import:
    """One name that a module imports.

    Args:
        target: The module, or the package when the name is something inside it.
        when: NOW, DEFERRED (inside a function) or TYPING.
        lines: Where a comment about it stands: the line above, and its own.
    """

    target: str
    when: str
    lines: range


@dataclass(frozen=True)
class Module:
    """One source file.

    Args:
        name: As imported.
        tree: Its syntax.
        deferring: Lines whose comment says that an import is deferred.
    """

    name: str
    tree: ast.Module
    deferring: frozenset[int]

    @property
    def imports(self) -> tuple[Import, ...]:
        """Everything it imports, whenever it does."""
        return tuple(_imports(self.tree, NOW))

    @property
    def entry(self) -> str:
        """What stands for it in LAYERS or MAY_IMPORT."""
        return entry(self.name)


def entry(name: str) -> str:
    """The first name below hpc; a name outside hpc stands for itself."""
    first, *rest = name.split(".")
    if name == "run":
        return "run.py"  # not hpc.run
    return rest[0] if first == "hpc" and rest else first


def _name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


PATHS = {_name(path): path for folder in ("hpc", "hydra_plugins") for path in sorted((ROOT / folder).rglob("*.py"))}
PATHS["run"] = ROOT / "run.py"


def _imports(node: ast.AST, when: str) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            lines = range(child.lineno - 1, (child.end_lineno or child.lineno) + 1)
            yield from (Import(target, when, lines) for target in _targets(child))
        else:
            yield from _imports(child, _when(child, when))


def _when(node: ast.AST, when: str) -> str:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return DEFERRED
    return TYPING if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" else when


def _targets(node: ast.Import | ast.ImportFrom) -> list[str]:
    """`from package import module` imports the module; a relative import keeps its dots."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    package = "." * node.level + (node.module or "")
    names = [f"{package}.{alias.name}" for alias in node.names]
    return [name if name in PATHS else package for name in names]


def _read(name: str) -> Module:
    text = PATHS[name].read_text()
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    deferring = {token.start[0] for token in tokens if token.type == tokenize.COMMENT and "deferred" in token.string}
    return Module(name, ast.parse(text), frozenset(deferring))


MODULES = tuple(_read(name) for name in PATHS)
each_module = pytest.mark.parametrize("module", MODULES, ids=PATHS)


def test_every_part_of_hpc_has_exactly_one_place() -> None:
    placed = [name for layer in LAYERS for name in layer]
    assert sorted(set(placed)) == sorted(placed)
    assert set(MAY_IMPORT) == {module.entry for module in MODULES}


@each_module
def test_imports_point_down(module: Module) -> None:
    ours = [each for each in module.imports if each.target in PATHS]
    assert [each.target for each in ours if entry(each.target) not in MAY_IMPORT[module.entry]] == []


@each_module
def test_imports_are_absolute(module: Module) -> None:
    """A relative one would escape the test above."""
    assert [each.target for each in module.imports if each.target.startswith(".")] == []


@each_module
def test_a_deferred_import_says_so(module: Module) -> None:
    deferred = [each for each in module.imports if each.when == DEFERRED]
    assert [each.target for each in deferred if module.deferring.isdisjoint(each.lines)] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    """Types alone may look back: nothing is imported for them when the program runs."""
    graph = {module.name: {each.target for each in module.imports if each.when != TYPING} for module in MODULES}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_import_hpc_runs_nothing_else_of_ours() -> None:
    """Every name is imported when it is asked for: `hpc status` asks for none of them."""
    (package,) = (module for module in MODULES if module.name == "hpc")
    assert {each.target for each in package.imports if each.when == NOW and each.target in PATHS} == set()


def test_submission_does_not_even_defer_torch() -> None:
    """What runs on a login node has no use for it."""
    imports = [each for module in MODULES if module.entry in ("submit", "hydra_plugins") for each in module.imports]
    assert [each.target for each in imports if each.target.startswith(("torch", *NEEDS_TORCH))] == []


LIGHT_PROGRAM = """
import importlib, sys
for name in sys.argv[1:]:
    importlib.import_module(name)
    if "torch" in sys.modules:
        sys.exit(f"importing {name} imports torch")
"""
SCRIPT_PROGRAM = """
import sys
from hpc.cli import main
main(["script", "hardware=8xA100"], standalone_mode=False)
if "torch" in sys.modules:
    sys.exit("`hpc script` imports torch")
"""


STATUS_PROGRAM = """
import sys
import hpc.cli.status
slow = {"hydra", "omegaconf", "submitit", "hpc.run.point", "hpc.say", "hpc.world.resolve"} & {*sys.modules}
if slow:
    sys.exit(f"`hpc status` imports {sorted(slow)}")
"""


def run_program(program: str, *arguments: str, cwd: Path, **environ: str) -> str:
    """What the program complained about, as its own process."""
    command = [sys.executable, "-c", program, *arguments]
    environment = clean_environment(**environ)
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120, check=False)
    return done.stderr if done.returncode else ""


def test_what_a_login_node_imports_is_free_of_torch(tmp_path: Path) -> None:
    names = [module.name for module in MODULES if not module.name.startswith(NEEDS_TORCH)]
    assert {"hpc", "hpc.cli", "hpc.submit.send", "hpc.launch.controller", "hpc.task.entry"} < {*names}
    assert run_program(LIGHT_PROGRAM, *names, cwd=tmp_path) == ""


def test_a_script_is_printed_without_torch(tmp_path: Path, fake_slurm: FakeSlurm) -> None:
    assert run_program(SCRIPT_PROGRAM, cwd=tmp_path, **fake_slurm.environ) == ""


def test_status_waits_for_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    """Importing each of these takes longer than looking at a hundred points."""
    assert run_program(STATUS_PROGRAM, cwd=tmp_path) == ""


def _reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.module == "os" and any(alias.name in ENVIRONMENT for alias in node.names)
    return isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and ast.unparse(node.value) == "os"


def test_the_environment_is_read_in_few_places() -> None:
    readers = {module.name for module in MODULES if any(map(_reads_environment, ast.walk(module.tree)))}
    assert readers == READS_ENVIRONMENT


def test_the_public_names_are_sorted_and_importable() -> None:
    assert sorted(hpc.__all__) == hpc.__all__
    assert [name for name in hpc.__all__ if not hasattr(hpc, name)] == []


def test_what_is_not_public_is_said_to_be_missing() -> None:
    with pytest.raises(AttributeError, match="module 'hpc' has no attribute 'runtimes'"):
        hpc.runtimes  # noqa: B018
