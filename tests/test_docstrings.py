"""Every public module, class and function of the library says what it is."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / 'mmcrrcd').rglob('*.py'))


def undocumented(node: ast.AST, name: str) -> list[str]:
    """The public definitions in a module or class that have no docstring; what a function defines is its own."""
    found = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.If, ast.Try)):
            found += undocumented(child, name)
        elif isinstance(child, (ast.ClassDef, ast.FunctionDef)) and not child.name.startswith('_'):
            assigned = any(isinstance(line, ast.Assign) and line.targets[0].id == '__doc__' for line in child.body
                           if isinstance(getattr(line, 'targets', [None])[0], ast.Name))
            if not assigned and not ast.get_docstring(child):
                found.append(f'{name}.{child.name}')
            if isinstance(child, ast.ClassDef):
                found += undocumented(child, f'{name}.{child.name}')
    return found


@pytest.mark.parametrize('file', FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_every_public_definition_has_a_docstring(file):
    tree = ast.parse(file.read_text(encoding='utf-8'))
    assert ast.get_docstring(tree), 'the module has none'
    assert not undocumented(tree, file.stem)
