"""What in a config is nobody else's to read?

cluster.environment        every value
a key that says so         `api_key`, `HF_TOKEN`, `db.password`: at any depth, with everything below it
a text that holds one      a value of such a key inside another text, `NAME=value` with such a name, and
                           `scheme://user:password@host`
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from operator import is_
from pathlib import PurePath
from typing import Any

from hpc.errors import ConfigurationError

MASK = "***"
WORDS = (
    *("password", "passwd", "passphrase", "secret", "credential", "bearer", "authorization", "cookie"),
    *("apikey", "accesskey", "privatekey", "secretkey", "authkey", "signingkey", "encryptionkey", "sshkey"),
    *("apitoken", "accesstoken", "authtoken", "sessiontoken", "refreshtoken", "bearertoken", "idtoken"),
)
"""Anywhere in a key, whatever stands between its words: `aws_secret_access_key`, `apiKey`, `PGPASSWORD`."""
LAST_WORDS = ("token", "pwd", "pat", "dsn")
"""At the end of a key, as words: `hf_token`, not `tokenizer` or `max_tokens`."""
OF_TEXTS = frozenset(
    (
        *("pad", "eos", "bos", "unk", "mask", "sep", "cls", "special", "start", "end", "stop", "begin"),
        *("image", "audio", "video", "max", "min", "num", "per", "each", "new"),
    )
)
"""What a language model calls its tokens: `pad_token`, `image_token`."""
ENVIRONMENT = ("cluster", "environment")
SHORTEST = 6
"""Characters; a shorter secret is not looked for inside other texts, where it may stand by chance."""
ASSIGNED = re.compile(r"([A-Za-z_][\w.-]*)\s*[=:]\s*[\"']?(?![$\"'])[^\s\"']")
WITH_PASSWORD = re.compile(r"\w://[^\s/:@]*:[^\s/@$]+@")

Path = tuple[Any, ...]


@lru_cache(maxsize=4096)
def is_secret(name: str) -> bool:
    """Whether a key says that its value is a secret."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    parts = [part for part in re.split(r"[^a-z0-9]+", words) if part]
    together = "".join(parts)
    if any(word in together for word in WORDS):
        return True
    return bool(parts) and parts[-1] in LAST_WORDS and OF_TEXTS.isdisjoint(parts[:-1])


@lru_cache(maxsize=4096)
def _said_by(text: str) -> str:
    """Which secret a text has by its own words, or ""."""
    if "=" not in text and ":" not in text:
        return ""
    assigned = (match[1] for match in ASSIGNED.finditer(text) if is_secret(match[1]))
    return next(assigned, "") or ("a password" if WITH_PASSWORD.search(text) else "")


@lru_cache(maxsize=4096)
def _overrides(text: str) -> tuple[str, ...]:
    return tuple(re.split(r",(?=[\w+~])", text))


@dataclass(frozen=True)
class Secrets:
    """The secrets of one config.

    Args:
        paths: Where they stand.
        texts: Those that are long enough to be looked for in other texts, by where they stand.
    """

    paths: tuple[Path, ...]
    texts: Mapping[str, str]

    @classmethod
    def of(cls, config: Mapping[Any, Any]) -> Secrets:
        """Those of a config that is plain mappings, lists and values."""
        named = {path: str(value) for path, value in _below(config, (), is_secret) if _is_private(path, value)}
        section = config.get("cluster")
        given = section.get("environment") if isinstance(section, Mapping) else None
        return cls(
            (*named, *(path for path, value in _leaves(given, ENVIRONMENT) if _is_private(path, value))),
            {text: ".".join(map(str, path)) for path, text in named.items() if len(text) >= SHORTEST},
        )

    def held_by(self, text: str) -> str:
        """Which secret stands in a text: its key, or ""."""
        return next((key for secret, key in self.texts.items() if secret in text), "") or _said_by(text)

    def hides(self, path: Path, value: Any) -> bool:
        """Whether a value of a config is nobody else's to read."""
        return _is_private(path, value) or bool(self.held_by(_text(value)))

    def hides_override(self, text: str) -> bool:
        """Whether an override, or several with commas between them, sets what is nobody else's to read."""
        return bool(self.held_by(text)) or ("=" in text and any(map(self._sets_one, _overrides(text))))

    def _sets_one(self, override: str) -> bool:
        key, _, value = override.lstrip("+~").partition("=")
        path = tuple(key.replace("/", ".").split("."))
        if _is_private(path, value) or (path == ENVIRONMENT and value.strip("{} ")):
            return True
        below = any(tuple(map(str, each))[: len(path)] == path for each in self.paths)
        return below and value.lstrip().startswith(("{", "["))


Memo = dict[tuple[int, Path], Any]
"""By identity and place of a tree: what became of it."""


def replaced(
    tree: Any,
    hides: Callable[[Path, Any], bool],
    hide: Callable[[Any], Any],
    path: Path = (),
    memo: Memo | None = None,
) -> Any:
    """A tree in which every value that `hides` names is what `hide` makes of it; what has none of them is shared.

    Args:
        tree: Mappings, lists and values.
        hides: Told where a value stands, and the value.
        hide: Told the value.
        path: Where the tree stands.
        memo: For trees that share parts with others, which live as long as it does.
    """
    if not isinstance(tree, (Mapping, list, tuple)):
        return hide(tree) if hides(path, tree) else tree
    known = None if memo is None else memo.get((id(tree), path))
    if known is not None:
        return known
    items = tree.items() if isinstance(tree, Mapping) else enumerate(tree)
    new = {key: replaced(value, hides, hide, (*path, key), memo) for key, value in items}
    if all(map(is_, new.values(), tree.values() if isinstance(tree, Mapping) else tree)):
        result: Any = tree
    else:
        result = new if isinstance(tree, Mapping) else type(tree)(new.values())
    if memo is not None:
        memo[id(tree), path] = result
    return result


def masked(config: Mapping[Any, Any]) -> dict[Any, Any]:
    """A config as others may see it."""
    return dict(replaced(config, Secrets.of(config).hides, lambda _: MASK))


def masked_override(text: str) -> str:
    """An override as others may see it."""
    return f"{text.partition('=')[0]}={MASK}" if Secrets((), {}).hides_override(text) else text


def holds_secret(name: str, value: str) -> bool:
    """Whether an environment variable of this name and value has a secret in it."""
    return is_secret(name) or bool(WITH_PASSWORD.search(value))


def is_private_key(key: str) -> bool:
    """Whether the value of a dotted key is nobody else's to read."""
    return _is_private(tuple(key.split(".")), "a text")


VISIBLE = (
    *("experiment.name", "run_dir", "hardware.gpu_type", "cluster.partition", "cluster.account", "cluster.qos"),
    *("cluster.constraint", "cluster.gres", "cluster.sbatch", "cluster.srun", "cluster.setup"),
)
"""What everybody sees in the queue, in the process table or in a printed script."""


def check_visible(config: Mapping[Any, Any], secrets: Secrets) -> None:
    """Look at what everybody sees of a job.

    Args:
        config: Of a point.
        secrets: Those of the same config.

    Raises:
        ConfigurationError: A secret stands in it.
    """
    for key in VISIBLE:
        value: Any = config
        for name in key.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        for path, leaf in _leaves(value, tuple(key.split("."))):
            held = secrets.held_by(leaf) if isinstance(leaf, str) else ""
            if held:
                raise ConfigurationError(
                    f"{'.'.join(map(str, path))} must be without secrets, because others can read it, but holds "
                    f"{held}: put it into cluster.environment."
                )


def _is_private(path: Path, value: Any) -> bool:
    if value is None or isinstance(value, bool) or value in ("", MASK):
        return False
    return (len(path) > 2 and path[:2] == ENVIRONMENT) or any(is_secret(str(each)) for each in path)


def _text(value: Any) -> str:
    return (
        str(value) if isinstance(value, (str, PurePath)) else value.decode("latin") if isinstance(value, bytes) else ""
    )


def _below(tree: Any, path: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[Path, Any]]:
    """The values below keys that are wanted."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from (_leaves if is_wanted(str(key)) else partial(_below, is_wanted=is_wanted))(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            yield from _below(value, (*path, number), is_wanted)


def _leaves(tree: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from _leaves(value, (*path, key))
    elif isinstance(tree, (list, tuple)):
        for number, value in enumerate(tree):
            yield from _leaves(value, (*path, number))
    else:
        yield path, tree
