"""What Triton is told about a version that is an adapter set."""

from __future__ import annotations

import json
from pathlib import Path

from serving_stack.adapters_settings import AdaptersSettings
from serving_stack.serving_settings import ServingSettings
from serving_stack.triton_config import intent_config
from trimtab.cache import cache_folder
from trimtab.settings import load

FORWARDED = "(?i)^x-trimtab-adapter$"
"""The header that becomes a parameter of the request, written as it was sent."""


def edge_config(store: Path, model: str, version: int, serving: ServingSettings, settings: AdaptersSettings | None = None) -> str:
    """The text of `config.pbtxt`: that of a single network, and where adapters come from. `settings` None: as the settings say.

    There is one instance, whatever the settings say: each would hold the adapters once more.
    """
    settings = settings or load(AdaptersSettings)
    popularity = settings.popularity_file or cache_folder() / "adapters" / f"{model}.json"
    parameters = {
        "cache_bytes": settings.memory_mib << 20,
        "source": settings.source or store.absolute(),
        "popularity": popularity.absolute(),
    }
    text = intent_config(model, version, serving.model_copy(update={"instances": 1}))
    for key, value in parameters.items():
        text += f'parameters {{ key: "{key}", value {{ string_value: {json.dumps(str(value), ensure_ascii=False)} }} }}\n'
    return text
