"""Things that are found, not listed: a package whose files are its members, each under one name.

A registry knows a package and the constant under which each of its files keeps what it is about. So a new member is a file, and
nothing else is edited: `refine.strategy=dgr` is `STRATEGY` of `refinement/strategies/dgr.py`. A member from outside is named as
`package.module:Name`, which only a person can write on the command line: no name that comes from data is ever looked up here.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from dgr_lightning.errors import UserError
from dgr_lightning.hashes import file_hash

T = TypeVar("T")


class Registry(Generic[T]):
    """The members of a package, imported one by one when they are asked for."""

    def __init__(
        self,
        key: str,
        package: str,
        constant: str,
        *,
        folders_only: bool = False,
        is_member: Callable[[Any], bool] = lambda found: True,
    ) -> None:
        """Names the package; nothing is imported.

        Args:
            key: config key whose values are the members' names, such as `refine.strategy`: what messages begin with.
            package: where the members lie, a module or a package each.
            constant: name of the constant that holds a member in its module, such as `STRATEGY`.
            folders_only: every member is a package, so that modules beside them are not members.
            is_member: whether what a name from outside stands for can be one.
        """
        self.key, self._package, self._constant = key, package, constant
        self._folders_only, self._is_member = folders_only, is_member

    def names(self) -> tuple[str, ...]:
        """Returns the names of all members in order: those of their files, with hyphens. Imports nothing of them."""
        spec = find_spec(self._package)
        assert spec is not None and spec.submodule_search_locations is not None, f"{self._package} is no package"
        found = {
            path.stem.replace("_", "-")
            for folder in spec.submodule_search_locations
            for path in Path(folder).iterdir()
            if not path.name.startswith(("_", ".")) and self._may_hold_a_member(path)
        }
        return tuple(sorted(found))

    def is_outside(self, name: str) -> bool:
        """Whether a name is that of a member from outside this project: `package.module:Name`."""
        return ":" in name

    def get(self, name: str) -> T:
        """Returns a member.

        Raises:
            UserError: there is none of that name, or the module that was named does not hold one of it.
        """
        if self.is_outside(name):
            return self._outside(name)
        if name not in self.names():
            raise UserError(f"{self.key}={name}: expected one of {', '.join(self.names())}, or your own package.module:Name.")
        module = import_module(f"{self._package}.{name.replace('-', '_')}")
        member: T = getattr(module, self._constant)
        return member

    def outside_code(self, name: str) -> dict[str, str]:
        """Returns `{"code": …}`, the SHA-256 of the file that a member from outside is named by; {} for the project's own.

        It belongs into every hash that the member's work belongs into: the project's own code is covered by version numbers.

        Raises:
            UserError: there is no such module.
        """
        if not self.is_outside(name):
            return {}
        file = getattr(self._import(name), "__file__", None)
        if file is None:
            raise UserError(f"{self.key}={name}: no file of Python, by whose content it could count.")
        return {"code": file_hash(Path(file))}

    def _may_hold_a_member(self, path: Path) -> bool:
        return (path / "__init__.py").is_file() or (path.suffix == ".py" and not self._folders_only)

    def _outside(self, name: str) -> Any:
        module, attribute = self._import(name), name.partition(":")[2]
        if not hasattr(module, attribute):
            raise UserError(f"{self.key}={name}: {module.__name__} has no {attribute}.")
        member = getattr(module, attribute)
        if not self._is_member(member):
            raise UserError(
                f"{self.key}={name}: a {type(member).__name__} that is no {self._constant}; CONTRIBUTING.md has one."
            )
        return member

    def _import(self, name: str) -> ModuleType:
        module, _, attribute = name.partition(":")
        if not all(part.isidentifier() for part in (*module.split("."), attribute)):
            raise UserError(f"{self.key}={name}: expected package.module:Name.")
        try:
            return import_module(module)
        except ImportError as error:
            raise UserError(
                f"{self.key}={name}: {module} cannot be imported ({error}). Is its folder on PYTHONPATH, or installed?"
            ) from error
