"""What looks like a secret is one, at any depth and in whatever spelling; a language model's token is not."""

from __future__ import annotations

from typing import Any

import pytest

from hpc.config import settings_of
from hpc.config.secrets import Secrets, check_visible, is_secret, masked, masked_override
from hpc.errors import ConfigurationError

SECRET = (
    *("token", "HF_TOKEN", "hf-token", "hfToken", "access_tokens", "password", "PGPASSWORD", "db_passwd", "pwd"),
    *("api_key", "apiKey", "API-KEY", "WANDB_API_KEY", "aws_secret_access_key", "client_secret", "private_key"),
    *("credentials", "GOOGLE_APPLICATION_CREDENTIALS", "Authorization", "bearer", "session_cookie", "SENTRY_DSN"),
)
NOT_SECRET = (
    *("tokenizer", "tokens", "max_tokens", "num_tokens", "pad_token", "eos_token", "pad_token_id", "image_token"),
    *("key", "keys", "key_padding", "num_key_value_heads", "author", "keyboard", "compat", "passes", "lr", "patience"),
)


@pytest.mark.parametrize("name", SECRET)
def test_a_key_that_says_so_is_a_secret(name: str) -> None:
    assert is_secret(name)


@pytest.mark.parametrize("name", NOT_SECRET)
def test_other_keys_are_not(name: str) -> None:
    assert not is_secret(name)


CONFIG: dict[Any, Any] = {
    "cluster": {"environment": {"NCCL_DEBUG": "INFO", "HF_TOKEN": "hf_abcdef"}, "setup": ["module load cuda"]},
    "storage": [{"kind": "s3", "credentials": {"id": "someone", "number": 12345}}],
    "url": "https://hf_abcdef@host/x",
    "database": "postgres://me:hunter2@host/x",
    "line": "curl --header Authorization:abc",
    "model": {"pad_token": "<pad>", "max_tokens": 512, "use_auth_token": True, "token": None, "lr": 0.1},
    7: {"password": "x"},
}


def test_values_of_secrets_are_masked_wherever_they_stand() -> None:
    assert masked(CONFIG) == {
        "cluster": {"environment": {"NCCL_DEBUG": "***", "HF_TOKEN": "***"}, "setup": ["module load cuda"]},
        "storage": [{"kind": "s3", "credentials": {"id": "***", "number": "***"}}],
        "url": "***",
        "database": "***",
        "line": "***",
        "model": {"pad_token": "<pad>", "max_tokens": 512, "use_auth_token": True, "token": None, "lr": 0.1},
        7: {"password": "***"},
    }
    assert masked(CONFIG)["model"] is CONFIG["model"]


@pytest.mark.parametrize(
    ("override", "is_hidden"),
    [
        ("lr=0.1", False),
        ("+cluster.environment.NCCL_DEBUG=INFO", True),
        ("cluster.environment={NCCL_DEBUG:INFO}", True),
        ("cluster={environment:{NCCL_DEBUG:INFO}}", True),
        ("cluster=mysite", False),
        ("~cluster.setup", False),
        ("+storage=[{credentials:{id:someone}}]", True),
        ("model.token=abc", True),
        ("lr=0.1,model.token=abc", True),
        ("url=https://hf_abcdef@host/x", True),
        ("model.pad_token=<pad>", False),
        ("model.token=null", True),
    ],
)
def test_what_is_typed_for_a_secret_is_hidden_with_it(override: str, is_hidden: bool) -> None:
    assert Secrets.of(CONFIG).hides_override(override) is is_hidden


def test_an_override_in_a_sentence_is_masked() -> None:
    assert masked_override("+api.token=abc") == "+api.token=***"
    assert masked_override("seed=1") == "seed=1"
    for wrong in (["not-to-be-seen"], {"a": "not-to-be-seen"}, None):
        with pytest.raises(ConfigurationError, match=r"cluster\.environment") as caught:
            settings_of({"cluster": {"environment": {"X": wrong}}})
        assert "not-to-be-seen" not in str(caught.value)


@pytest.mark.parametrize(
    ("visible", "key"),
    [
        ({"experiment": {"name": "run-hf_abcdef"}}, "experiment.name"),
        ({"run_dir": "/runs/hf_abcdef"}, "run_dir"),
        ({"cluster": {"sbatch": {"comment": "hf_abcdef"}}}, "cluster.sbatch.comment"),
        ({"cluster": {"sbatch": {"export": "ALL,MY_API_KEY=abc"}}}, "cluster.sbatch.export"),
        ({"cluster": {"srun": ["--export=ALL,MY_TOKEN=abc"]}}, "cluster.srun.0"),
        ({"cluster": {"setup": ["export MY_TOKEN='abc'"]}}, "cluster.setup.0"),
        ({"cluster": {"setup": ["pip install --index-url https://me:hunter2@host/x y"]}}, "cluster.setup.0"),
    ],
)
def test_what_everybody_sees_is_without_secrets(visible: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{key} must be without secrets.*cluster\.environment") as caught:
        config = {"model": {"token": "hf_abcdef"}, **visible}
        check_visible(config, Secrets.of(config))
    assert not any(secret in str(caught.value) for secret in ("hf_abcdef", "abc", "hunter2"))


def test_a_secret_that_a_setup_line_reads_from_elsewhere_is_none() -> None:
    config = {"cluster": {"setup": ["export HF_TOKEN=$(cat ~/.hf)", 'export A_TOKEN="$B"', "set -x"]}}
    check_visible(config, Secrets.of(config))
