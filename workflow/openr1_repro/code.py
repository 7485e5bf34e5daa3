"""Which code a stage's result depends on, as one digest: what makes Snakemake rerun a stage whose code changed, and no other."""

import ast
import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent


def _file_of(module: str) -> Path | None:
    """The file of a module of this package, None for a name that is not one (a function, say)."""
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((f for f in (path.with_suffix(".py"), path / "__init__.py") if f.exists()), None)


def _imports(tree: ast.AST, package: list[str]) -> Iterator[str]:
    """The modules, or names in modules, that a file of ``package`` imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@functools.cache
def _meaning(path: Path) -> tuple[str, frozenset[str]]:
    """A digest of what the file does (comments, docstrings and layout left out), and the modules that it imports."""
    tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [child for child in body if not _is_text(child)]  # type: ignore[attr-defined]
    package = list(path.parent.relative_to(PACKAGE.parent).parts)
    names = frozenset(name for name in _imports(tree, package) if name.split(".")[0] == PACKAGE.name)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), names


def code_digest(*modules: str) -> str:
    """Digest (12 hex digits) of these modules of the package and of every module of it that they import, however indirectly.

    Comments, docstrings and formatting do not count. ``modules`` are named without the package: ``code_digest("train.grpo")``.
    """
    waiting = [f"{PACKAGE.name}.{module}" for module in modules]
    found: dict[str, str] = {}
    while waiting:
        module = waiting.pop()
        path = _file_of(module)
        if path is None or module in found:
            continue
        found[module], imported = _meaning(path)
        waiting += imported
        waiting += [".".join(module.split(".")[:-1])]  # a package's __init__ runs before its modules
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]
