"""Where applications lie: the shipped ones by name, anybody's by folder.

Takes a name or a path, gives the folder that holds the application's `pyproject.toml`. Never loads an
application.
"""

from __future__ import annotations

from pathlib import Path

SHIPPED = Path(__file__).resolve().parent / "apps"


class ApplicationError(Exception):
    """An application cannot be found, loaded or configured; the message says what to change."""


def available() -> list[str]:
    """Names of the shipped applications, sorted, with underscores.

    Their folders have dashes, since Flower accepts no underscore in the name of an application's folder.
    """
    return sorted(path.parent.name.replace("-", "_") for path in SHIPPED.glob("*/pyproject.toml"))


def shipped_folder(folder: str | Path) -> Path | None:
    """The real path of `folder` where it lies below the shipped applications, else None.

    Symbolic links are followed first, so that neither a link nor `..` brings foreign code in.
    """
    real = Path(folder).resolve()
    below = SHIPPED.resolve()
    return real if below in real.parents else None


def resolve(name_or_path: str | Path) -> Path:
    """The folder of an application.

    A bare name is a shipped application (dashes and underscores are the same), anything with a slash is a
    folder.

    Raises:
        ApplicationError: there is no such application; the message lists the shipped ones.
    """
    text = str(name_or_path).strip()
    if text and "/" not in text and text not in (".", ".."):
        for name in available():
            if name == text.replace("-", "_"):
                return SHIPPED / name.replace("_", "-")
        raise ApplicationError(
            f"application {text!r}: no shipped application has this name. Shipped: {', '.join(available())}. "
            "For one of your own write the folder that holds its pyproject.toml, as an absolute path."
        )
    folder = Path(text).expanduser()
    if text and (folder / "pyproject.toml").is_file():
        return folder.resolve()
    raise ApplicationError(
        f"application {text!r}: this folder holds no pyproject.toml. Write a Flower application's folder "
        f"(one that `flwr run` accepts), or a shipped one: {', '.join(available())}."
    )
