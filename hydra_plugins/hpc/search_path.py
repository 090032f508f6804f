"""Lets every Hydra app of the environment name hpc's groups in its defaults list."""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from hpc.config import register_schema
from hpc.paths import CONF_DIR

register_schema()


class HpcSearchPath(SearchPathPlugin):
    """Adds conf/ to the search path, last: a user's file of the same name wins."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """See Hydra's SearchPathPlugin."""
        search_path.append("hpc", f"file://{CONF_DIR}")
