"""Settings: one YAML file with a section per part, and the environment over it.

`TRIMTAB_<SECTION>_<FIELD>` wins over the file, the file over the defaults. Each field says meaning, unit, default and why
in its description. A wrong or unknown setting is refused at start with its file and line, or its variable's name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pydantic
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError as SettingsSourceError

from trimtab import yamlfile
from trimtab.errors import SettingsError

FILE = "trimtab.yaml"

SectionType = TypeVar("SectionType", bound="Section")


class Section(BaseSettings):
    """A part's settings: ``class CollectSettings(Section, name="collect")``."""

    section: ClassVar[str] = ""
    model_config = SettingsConfigDict(extra="forbid", frozen=True)

    def __init_subclass__(cls, name: str, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        cls.section = kwargs.pop("name")
        super().__pydantic_init_subclass__(**kwargs)
        cls.model_config["env_prefix"] = f"TRIMTAB_{cls.section.upper()}_"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment first, then what the file says."""
        return env_settings, init_settings


def load(kind: type[SectionType], file: Path | None = None) -> SectionType:
    """The settings of a section from `file` (default: ``trimtab.yaml`` here, or $TRIMTAB_CONFIG) and the environment.

    Raises `SettingsError`. A file that is named must exist; the default one need not.
    """
    named = file or (Path(os.environ["TRIMTAB_CONFIG"]) if "TRIMTAB_CONFIG" in os.environ else None)
    path = named or Path(FILE)
    document = yamlfile.Document(path, {}, {}) if named is None and not path.exists() else yamlfile.read(path)
    values = _section(document, kind.section)
    try:
        return kind(**values)
    except pydantic.ValidationError as error:
        raise SettingsError(_explain(error, document, kind)) from error
    except SettingsSourceError as error:  # a variable that should hold JSON and does not
        raise SettingsError(f"environment: {error}") from error


def _section(document: yamlfile.Document, section: str) -> dict[str, Any]:
    if document.data is None:
        return {}
    if not isinstance(document.data, dict):
        raise SettingsError(f"{document.path}:1: must hold sections such as '{section}:', not a {type(document.data).__name__}")
    values = document.data.get(section)
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise SettingsError(f"{document.path}:{document.line((section,))}: {section}: must be a mapping of settings")
    return {str(key): value for key, value in values.items()}


def _explain(error: pydantic.ValidationError, document: yamlfile.Document, kind: type[Section]) -> str:
    said = []
    for mistake in error.errors():
        field = str(mistake["loc"][0]) if mistake["loc"] else ""
        variable = f"{kind.model_config['env_prefix']}{field}".upper()
        what = yamlfile.in_words(mistake["type"], mistake["msg"])
        if variable in os.environ:
            said.append(f"{variable}: {what}")
        else:
            where = (kind.section, *mistake["loc"])
            said.append(f"{document.path}:{document.line(where)}: {'.'.join(map(str, where))}: {what}")
    return "\n".join(said)
