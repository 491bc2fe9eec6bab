"""Reads loracook's imports: what each folder holds and imports, what breaks a rule, a recipe's way through.

    python docs/architecture.py          # print everything; exits with 1 if a rule is broken
    python docs/architecture.py --check  # print only what breaks a rule
    python docs/architecture.py --draw   # also write docs/architecture.svg

Every import counts, those inside functions and under TYPE_CHECKING too. `from package import module` counts
as an import of that module. Modules named only in a string (`import_module`, `python -m`) are not seen.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).parent.parent
FACE = "loracook"
LAYERS = (
    ("cli",),
    (FACE,),  # loracook/__init__.py, the public functions
    ("views",),
    ("results", "sweep"),
    ("runner", "rank"),
    ("planner",),
    ("stages",),
    ("tuning",),
    ("training", "evaluation"),
    ("estimate",),
    ("data",),
    ("data/tokenize",),
    ("data/read", "model"),
    ("report", "hub", "machine"),
    ("recipe", "recipe/rules"),
    ("store",),
    ("errors", "progress", "units"),
)
"""The folders and the files at the top of the package, from top to bottom; imports point down."""
NO_STAGES = {"base"}
"""The module in stages/ that is no stage."""
CARRIERS = {"Recipe", "Plan", "Estimate"}
"""The types of the recipe and of the values that are handed on with it in them."""
WALK_FROM = (
    ("loracook.estimate.estimate", "read_and_estimate"),
    ("loracook.estimate.forecast", "forecast"),
)
"""Where `loracook plan` hands the recipe to."""
LIGHT = {"click", "yaml"}
"""The packages that `pip install loracook` brings: all that light modules may import at their top."""


@dataclass(frozen=True)
class Module:
    """One file of the package, by its dotted name."""

    name: str
    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.path.read_text("utf-8"))

    @property
    def lines(self) -> int:
        """The number of lines in the file."""
        return len(self.path.read_text("utf-8").splitlines())

    @property
    def folder(self) -> str:
        """The folder below the package, as in `data/read`; for a file at the top, the file's own name."""
        if self.path.name == "__main__.py" and self.path.parent.name == FACE:
            return "cli"  # python -m loracook
        inside = self.name.split(".")[1:]
        package = self.path.name == "__init__.py"
        return "/".join(inside if package or len(inside) < 2 else inside[:-1]) or FACE


@dataclass(frozen=True)
class Package:
    """Every module of the package, and what each imports."""

    modules: Mapping[str, Module]

    @cached_property
    def imports(self) -> dict[str, set[str]]:
        """The package's own modules that each module imports anywhere."""
        return {
            name: {target for target, _ in imported_names(module.tree, self.modules)} & set(self.modules)
            for name, module in self.modules.items()
        }

    def folders(self) -> dict[str, list[Module]]:
        """The modules of each folder, in the order of the layers; folders without a layer come last."""
        order = [folder for layer in LAYERS for folder in layer]
        folders: dict[str, list[Module]] = {}
        for module in sorted(self.modules.values(), key=lambda module: module.name):
            folders.setdefault(module.folder, []).append(module)
        return dict(sorted(folders.items(), key=lambda item: _index(order, item[0])))

    def folder_imports(self) -> dict[str, set[str]]:
        """The other folders that each folder imports."""
        return {
            folder: {
                self.modules[target].folder for module in modules for target in self.imports[module.name]
            }
            - {folder}
            for folder, modules in self.folders().items()
        }


def package(root: Path = ROOT / "loracook") -> Package:
    """The package in a folder."""
    modules = {}
    for path in root.rglob("*.py"):
        name = ".".join(path.relative_to(root.parent).with_suffix("").parts).removesuffix(".__init__")
        modules[name] = Module(name, path)
    return Package(modules)


def imported_names(tree: ast.AST, modules: Mapping[str, Module]) -> Iterator[tuple[str, str]]:
    """Each imported module, with the name that the import binds."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, alias.asname or alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in modules else node.module, alias.asname or alias.name


# What the rules say


def unknown_folders(tree: Package) -> list[str]:
    """Folders and top-level files of the package that LAYERS does not list."""
    return [folder for folder in tree.folders() if _height(folder) is None]


def upward_imports(tree: Package) -> list[tuple[str, str]]:
    """Every import of a module that lies in a higher layer, or in another folder of the same layer's row."""
    return [
        (name, target)
        for name, targets in sorted(tree.imports.items())
        for target in sorted(targets)
        if (_height(tree.modules[target].folder) or 0) > (_height(tree.modules[name].folder) or 0)
    ]


def circles(imports: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules (or folders) that import each other, directly or through others."""
    return [sorted(group) for group in _components(imports) if len(group) > 1 or group & imports[min(group)]]


def named_stages(tree: Package) -> list[tuple[str, str]]:
    """Imports of a stage's module by anything but the list of stages: others use the Protocol."""
    registry = f"{FACE}.stages"
    stages = {name for name in tree.modules if name.startswith(f"{registry}.")}
    stages -= {f"{registry}.{module}" for module in NO_STAGES}
    return [
        (name, target)
        for name, targets in sorted(tree.imports.items())
        if name != registry
        for target in sorted(targets & stages)
    ]


def heavy_imports(tree: Package) -> list[tuple[str, str]]:
    """Third-party packages other than LIGHT that importing the public face or a command would import."""
    todo = [name for name in tree.modules if name == FACE or name.startswith(f"{FACE}.cli")]
    reached: set[str] = set()
    heavy = []
    while todo:
        name = todo.pop()
        if name in reached:
            continue
        reached.add(name)
        imports = {target for target, _ in imported_names(_at_import(tree.modules[name].tree), tree.modules)}
        parents = {target.rpartition(".")[0] for target in imports}
        todo += (imports | parents) & set(tree.modules)
        others = {target.split(".")[0] for target in imports} - set(sys.stdlib_module_names) - LIGHT - {FACE}
        heavy += [(name, other) for other in others]
    return sorted(heavy)


def _at_import(tree: ast.Module) -> ast.Module:
    """The statements that run on import: none under TYPE_CHECKING, none inside functions."""
    return ast.Module(list(_outer(tree.body)), type_ignores=[])


def _outer(nodes: Iterable[ast.AST]) -> Iterator[ast.stmt]:
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            yield from _outer(node.orelse)
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _outer(ast.iter_child_nodes(node))


def _height(folder: str) -> int | None:
    """The layer of a folder, 0 at the bottom; None if it has none."""
    return next((height for height, layer in enumerate(reversed(LAYERS)) if folder in layer), None)


def _index(order: list[str], folder: str) -> int:
    return order.index(folder) if folder in order else len(order)


def _components(graph: Mapping[str, set[str]]) -> Iterator[set[str]]:
    """The strongly connected components of a graph (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []

    def visit(node: str) -> Iterator[set[str]]:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(graph[node] & set(graph)):
            if target not in index:
                yield from visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            yield group

    for node in sorted(graph):
        if node not in index:
            yield from visit(node)


# The way of a recipe through the code


@dataclass
class Walk:
    """The modules that a recipe enters, in the order of their first call.

    A call is followed when the recipe, or a value of CARRIERS that holds it, is an argument or the object
    whose method is called. Sections (`recipe["train"]`) and what is made of them are not the recipe. A folder
    that is entered by its face (`data.prepare(recipe)`) counts as one module: what lies behind is its own
    matter. Calls through a Protocol are not seen.
    """

    tree: Package
    entered: list[str] = field(default_factory=list)
    _called: set[tuple[str, str]] = field(default_factory=set)

    def follow(self, module: str, function: str) -> Walk:
        """Go through a function, and through those that it hands the recipe to."""
        if (module, function) in self._called:
            return self
        self._called.add((module, function))
        definition = _definition(self.tree.modules[module], function)
        if definition is None:
            return self
        if module not in self.entered:
            self.entered.append(module)
        if isinstance(definition, ast.ClassDef):
            return self
        names = _recipes(definition)
        for call in (node for node in ast.walk(definition) if isinstance(node, ast.Call)):
            for target in self._targets(call, names, (module, function)):
                self.follow(*target)
        return self

    def _targets(self, call: ast.Call, names: set[str], caller: tuple[str, str]) -> Iterator[tuple[str, str]]:
        module, owner = caller[0], caller[1].rpartition(".")[0]
        if isinstance(call.func, ast.Attribute) and _is_recipe(call.func.value, names):
            yield f"{FACE}.recipe.recipe", f"Recipe.{call.func.attr}"
        handed = [*call.args, *(keyword.value for keyword in call.keywords)]
        if any(_is_recipe(value, names) for value in handed):
            if ast.unparse(call.func).startswith("self.") and owner:
                yield module, f"{owner}.{ast.unparse(call.func).removeprefix('self.')}"
            else:
                yield from self._resolved(module, ast.unparse(call.func).split("."))

    def _resolved(self, module: str, parts: list[str]) -> Iterator[tuple[str, str]]:
        """The module and the function that a dotted name means in a module, re-exports followed."""
        first, *rest = parts
        if _definition(self.tree.modules[module], ".".join(parts)):
            yield module, ".".join(parts)
            return
        for target, name in imported_names(self.tree.modules[module].tree, self.tree.modules):
            if name != first or target not in self.tree.modules:
                continue
            original = _original(self.tree.modules[module].tree, first)
            if rest and self.tree.modules[target].path.name == "__init__.py":  # the face of a folder
                if target not in self.entered:
                    self.entered.append(target)
                return
            inner = [original, *rest] if _definition(self.tree.modules[target], original) else rest
            if inner and target != module:
                yield from self._resolved(target, inner)
            return


def recipe_walk(tree: Package) -> list[str]:
    """The modules that a recipe enters on its way through `loracook plan`."""
    walk = Walk(tree)
    for module, function in WALK_FROM:
        if module in tree.modules:
            walk.follow(module, function)
    return walk.entered


def _definition(module: Module, name: str) -> ast.FunctionDef | ast.ClassDef | None:
    body: Iterable[ast.stmt] = module.tree.body
    node: ast.FunctionDef | ast.ClassDef | None = None
    for part in name.split("."):
        node = next(
            (
                inner
                for inner in body
                if isinstance(inner, ast.FunctionDef | ast.ClassDef) and inner.name == part
            ),
            None,
        )
        if node is None:
            return None
        body = node.body
    return node


def _recipes(definition: ast.FunctionDef) -> set[str]:
    """The local names that hold the recipe: its parameters, by name or type, and names assigned from them."""
    names = {"recipe"}
    for node in ast.walk(definition):
        if isinstance(node, ast.arg) and node.annotation is not None:
            names |= {node.arg} if CARRIERS & set(ast.unparse(node.annotation).split(" | ")) else set()
    for node in ast.walk(definition):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            pairs = _assigned(node.targets[0], node.value)
            names |= {target.id for target, value in pairs if _is_recipe(value, names)}
    if definition.args.args and definition.args.args[0].arg == "self":
        names -= {"self"}
    return names


def _assigned(target: ast.expr, value: ast.expr) -> list[tuple[ast.Name, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = zip(target.elts, value.elts, strict=False)
        return [(left, right) for left, right in pairs if isinstance(left, ast.Name)]
    return [(target, value)] if isinstance(target, ast.Name) else []


def _is_recipe(value: ast.expr, names: set[str]) -> bool:
    if isinstance(value, ast.Attribute):
        return value.attr == "recipe"
    return isinstance(value, ast.Name) and value.id in names


def _original(tree: ast.Module, bound: str) -> str:
    """The name that an import of `x as bound` has where it is defined."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if (alias.asname or alias.name) == bound:
                    return alias.name
    return bound


# What is printed and drawn


def report(tree: Package) -> Iterator[str]:
    """Modules, lines and imports by folder from top to bottom, then what breaks a rule."""
    for folder, modules in tree.folders().items():
        below = ", ".join(name for name in tree.folders() if name in tree.folder_imports()[folder])
        lines = sum(module.lines for module in modules)
        yield f"{folder}: {_plural(len(modules), 'module')}, {lines:,} lines; imports {below or 'nothing'}"
        if len(modules) > 1:
            yield from (f"  {module.lines:5}  {module.name.removeprefix('loracook.')}" for module in modules)
    arrows = sum(len(targets) for targets in tree.folder_imports().values())
    total = sum(module.lines for module in tree.modules.values())
    yield ""
    counts = [_plural(len(tree.folders()), "folder"), _plural(arrows, "arrow")]
    yield f"total: {_plural(len(tree.modules), 'module')}, {total:,} lines; {', '.join(counts)}"
    entered = recipe_walk(tree)
    yield f"a recipe in `plan` enters {_plural(len(entered), 'module')}: " + " → ".join(
        name.removeprefix("loracook.") for name in entered
    )
    yield from broken_rules(tree) or [
        "no circle, no upward import, no unknown folder, no heavy import, no stage named"
    ]


def broken_rules(tree: Package) -> list[str]:
    """One line for everything that breaks a rule of the architecture."""
    return [
        *(f"unknown folder: {folder}; list it in LAYERS" for folder in unknown_folders(tree)),
        *(f"circle: {' ↔ '.join(circle)}" for circle in circles(tree.imports)),
        *(f"upward import: {name} → {target}" for name, target in upward_imports(tree)),
        *(f"stage imported by its name: {name} → {target}" for name, target in named_stages(tree)),
        *(
            f"heavy import at the top of a light module: {name} → {other}"
            for name, other in heavy_imports(tree)
        ),
    ]


ROW, BOX, GAP, WIDTH = 64, 34, 16, 640


def picture(tree: Package) -> str:
    """The folders as an SVG, one layer a row, with the imports that do not follow from others."""
    shown = {folder for layer in LAYERS for folder in layer if folder in tree.folder_imports()}
    rows = [[folder for folder in layer if folder in shown] for layer in LAYERS]
    places = {
        folder: (WIDTH * (column + 1) / (len(row) + 1), ROW * number + ROW / 2)
        for number, row in enumerate(rows)
        for column, folder in enumerate(row)
    }
    arrows = [_arrow(*arrow, places) for arrow in sorted(_reduced(tree.folder_imports(), shown))]
    boxes = [_box(folder, place) for folder, place in places.items()]
    style = (
        "rect{fill:#fff7e6;stroke:#b4690e;rx:6}text{font:14px sans-serif;text-anchor:middle;fill:#222}"
        "path{fill:none;stroke:#888;stroke-width:1.2;marker-end:url(#end)}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {ROW * len(rows)}" role="img">',
            "<title>The folders of loracook; each imports only from those below it</title>",
            f"<style>{style}</style>",
            '<defs><marker id="end" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0,0 8,4 0,8Z" style="fill:#888;stroke:none"/></marker></defs>',
            *arrows,
            *boxes,
            "</svg>",
            "",
        ]
    )


def _reduced(graph: Mapping[str, set[str]], shown: set[str]) -> Iterator[tuple[str, str]]:
    """The arrows between folders that no way down through other folders replaces."""
    down = {
        folder: {target for target in graph[folder] & shown if _is_below(target, folder)} for folder in shown
    }

    def below(folder: str) -> set[str]:
        return down[folder].union(*map(below, down[folder]))

    for folder in shown:
        indirect = set[str]().union(*map(below, down[folder]))
        yield from ((folder, target) for target in graph[folder] & shown - indirect)


def _is_below(folder: str, other: str) -> bool:
    return (_height(folder) or 0) < (_height(other) or 0)


def _arrow(start: str, end: str, places: Mapping[str, tuple[float, float]]) -> str:
    (left, top), (right, bottom) = places[start], places[end]
    if top == bottom:
        side = 1 if left < right else -1
        return f'<path d="M{left + side * _width(start) / 2:g},{top:g} H{right - side * _width(end) / 2:g}"/>'
    top, bottom = (top + BOX / 2, bottom - BOX / 2) if top < bottom else (top - BOX / 2, bottom + BOX / 2)
    bulge = 0 if bottom - top < ROW else min(30 * round((bottom - top) / ROW), 230)
    middle = (left + right) / 2 + bulge
    curve = f"C{middle:g},{top + 30:g} {middle:g},{bottom - 30:g} {right:g},{bottom:g}"
    return f'<path d="M{left:g},{top:g} {curve}"/>'


def _width(folder: str) -> float:
    return 8.5 * len(folder) + 2 * GAP


def _box(folder: str, place: tuple[float, float]) -> str:
    width, (across, down) = _width(folder), place
    corner = f'x="{across - width / 2:g}" y="{down - BOX / 2:g}" width="{width:g}" height="{BOX}"'
    return f'<g><rect {corner}/><text x="{across:g}" y="{down + 5:g}">{folder}</text></g>'


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


if __name__ == "__main__":
    tree = package()
    print("\n".join(broken_rules(tree) if "--check" in sys.argv[1:] else report(tree)))
    if "--draw" in sys.argv[1:]:
        (ROOT / "docs" / "architecture.svg").write_text(picture(tree), "utf-8")
    sys.exit(bool(broken_rules(tree)))
