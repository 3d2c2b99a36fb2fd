"""The house stands: floors, rooms, one library a room, no cycles, and sizes that fit a reader's head."""

import ast
import statistics
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "meter"

# Room: floor. A room is a folder of the package, or one of its single modules.
FLOORS = {
    "core": 0,
    "store": 1,
    "journal": 1,
    "allowances": 1,
    "proxy": 1,
    "metrics": 1,
    "logs": 1,
    "settings": 1,
    "datadir": 1,
    "rates": 1,
    "pricelist": 1,
    "web": 2,
    "app": 3,
    "supervisor": 3,
    "cli": 4,
    "__main__": 5,
    "late": -1,
    "__init__": -1,
}
# Rooms that another room of its floor may know: values only, such as the configuration.
SHARED = {"settings", "late", "__init__"}

LIBRARY_ROOMS = {
    "sqlalchemy": {"store"},
    "psycopg": {"store"},
    "httpx": {"proxy", "app"},
    "httptools": {"proxy"},
    "litestar": {"web", "app"},
    "jinja2": {"web"},
    "markupsafe": {"web"},
    "pygal": {"web"},
    "prometheus_client": {"metrics"},
    "limits": {"rates"},
    "redis": {"rates"},
    "uvicorn": {"app", "proxy"},
    "uvloop": {"cli"},
    "click": {"cli"},
    "rich": {"cli"},
    "alembic": {"cli"},
    "genai_prices": {"pricelist"},
    "pydantic": set(),
    "msgspec": set(FLOORS),
}
CORE_FORBIDDEN = {"os", "time", "asyncio", "socket", "logging", "random", "secrets", "threading"}
OPENERS = {"begin", "read", "read_long", "write", "write_long"}
CLOCKS = {"datetime.now", "datetime.utcnow", "datetime.today", "date.today"}

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70
FUNCTION_LINES_MEDIAN_MAX = 10

MODULES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    """Return the room of a module."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def name(path: Path) -> str:
    """Return a module's dotted name."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(path: Path) -> ast.Module:
    """Parse a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def imports(path: Path) -> tuple[str, ...]:
    """Return the dotted names that a module imports."""
    return tuple(_imports(path))


def _imports(path: Path) -> Iterator[str]:
    known = known_names()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            named = {f"{module}.{alias.name}" for alias in node.names}
            # `from meter.store import keys` depends on the module, not on its package.
            yield from named if named <= known else {module}


def own(path: Path) -> set[str]:
    """Return the modules of ours that a module imports."""
    return {imported for imported in imports(path) if imported in known_names() and imported != name(path)}


@cache
def known_names() -> frozenset[str]:
    """Return the dotted names of all modules of ours."""
    return frozenset(name(module) for module in MODULES)


def room_of(dotted: str) -> str:
    """Return the room of a dotted name."""
    parts = dotted.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Yield every function of a module."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count a function's lines."""
    return (node.end_lineno or node.lineno) - node.lineno + 1


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_every_module_has_a_room(path: Path) -> None:
    """A module lives in a room that the plan knows."""
    assert room(path) in FLOORS


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_imports_point_down(path: Path) -> None:
    """A module imports from its own room or from a lower floor, never sideways or up."""
    here = room(path)
    for imported in own(path):
        there = room_of(imported)
        allowed = there == here or FLOORS[there] < FLOORS[here] or there in SHARED
        assert allowed, f"{name(path)} imports {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_one_library_one_room(path: Path) -> None:
    """A third-party library is known in its one room."""
    for imported in imports(path):
        library = imported.split(".")[0]
        if library in LIBRARY_ROOMS:
            assert room(path) in LIBRARY_ROOMS[library], f"{name(path)} imports {library}"


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) == "core"], ids=name)
def test_the_core_is_pure(path: Path) -> None:
    """The core reaches for no clock, no randomness, no I/O, and no library but msgspec."""
    for imported in imports(path):
        assert imported.split(".")[0] not in CORE_FORBIDDEN, f"{name(path)} imports {imported}"
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call):
            assert ast.unparse(node.func) not in CLOCKS, f"{name(path)} asks what time it is"


def test_no_cycles() -> None:
    """No module needs itself by way of others."""
    graph = {name(path): own(path) for path in MODULES}
    done: set[str] = set()

    def visit(module: str, trail: tuple[str, ...]) -> None:
        assert module not in trail, f"cycle: {' -> '.join((*trail, module))}"
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*trail, module))
            done.add(module)

    for module in graph:
        visit(module, ())


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "cli"], ids=name)
def test_no_imports_inside_functions(path: Path) -> None:
    """What a module depends on stands at its top."""
    for function in functions(path):
        inner = [node for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
        assert not inner, f"{name(path)}.{function.name} imports inside"


@pytest.mark.parametrize("path", [path for path in MODULES if room(path) != "store"], ids=name)
def test_only_the_store_opens_transactions(path: Path) -> None:
    """Nobody outside the store opens a transaction, but for Alembic's own commands."""
    if name(path) == "meter.cli.migrations":
        return
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            opens = node.func.attr in {
                "begin",
                "write",
                "read",
                "write_long",
                "read_long",
            } and "database" in ast.unparse(node.func.value)
            assert not opens, f"{name(path)}: {ast.unparse(node)}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_no_module_level_mutable_state(path: Path) -> None:
    """A module's own names are constants, functions and classes."""
    mutable = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
    for node in tree(path).body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, mutable):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            written = ast.unparse(target)
            assert written in {written.upper(), "__all__"}, f"{name(path)}: {written}"


@pytest.mark.parametrize("path", MODULES, ids=name)
def test_sizes(path: Path) -> None:
    """A module has at most 400 lines, a function at most 70, and a docstring says what the module is for."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MODULE_LINES_MAX
    for function in functions(path):
        assert length(function) <= FUNCTION_LINES_MAX, f"{name(path)}.{function.name}"
    assert ast.get_docstring(tree(path)), f"{name(path)} has no docstring"


def test_functions_are_small() -> None:
    """Half of all functions have at most ten lines."""
    lengths = [length(function) for path in MODULES for function in functions(path)]
    assert statistics.median(lengths) <= FUNCTION_LINES_MEDIAN_MAX


def test_every_table_test_of_the_core_has_its_module() -> None:
    """Every module of the core has a test file of its name, and no test file is left behind."""
    modules = {path.stem for path in (PACKAGE / "core").glob("*.py")} - {"__init__"}
    tests = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "core").glob("test_*.py")}
    # These are values only: what uses them tests them.
    assert modules - tests <= {"clock"}
    assert tests <= modules
