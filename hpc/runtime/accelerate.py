"""What to write instead of those names of Accelerate that a Runtime does not have.

A name that a Runtime has means what it means to Accelerate (`accelerate.Accelerator`, 1.15). Each of the others is
answered by one sentence where it is used.
"""

from __future__ import annotations

from hpc.errors import ConfigurationError

_ONE_PREPARE = "`prepare` takes models, optimizers, schedulers and loaders alike: write runtime.prepare(...)"
_LOADER = "this is a matter of the DataLoader that you build: ask it, or prepare another one"
_NOT_DIVIDED = "models are divided by strategy=fsdp or strategy=deepspeed only: read runtime.process_index"
_CHECKPOINT = "steps and epochs save when it is due, and resume at the exact next batch"
_HOOKS = "what is saved is what has a state dict: write runtime.register(name, thing)"
_PHASES = 'each trial or phase has a Runtime of its own, which lets go of everything: write Runtime(cfg, name="second")'
_FP8 = "fp8 is not among the precisions: read runtime.settings.strategy.precision"
_DIRECTORY = "everything of a run lies in run_dir: read runtime.directory"
_TRACKERS = "trackers open by themselves and get what runtime.log notes: name them in the setting runtime.trackers"
_LOMO = "LOMO steps inside its backward pass, which leaves nothing to accumulate: use another optimizer"
_OPTIONS = "settings come from the config: read runtime.settings"

INSTEAD = {
    "ao_recipe_handler": _FP8,
    "autocast_handler": _OPTIONS,
    "clear": _PHASES,
    "context_parallel_rank": _NOT_DIVIDED,
    "data_parallel_rank": _NOT_DIVIDED,
    "data_parallel_shard_rank": _NOT_DIVIDED,
    "dataloader_config": _LOADER,
    "ddp_handler": _OPTIONS,
    "deepspeed_plugin": "its options are in the file of strategy.deepspeed_config: read runtime.settings.strategy",
    "deepspeed_ulysses_dl_adapter": _NOT_DIVIDED,
    "delayed_fp8_autocast": _FP8,
    "device_placement": "what is prepared is placed on runtime.device: move other tensors there yourself",
    "dispatch_batches": _LOADER,
    "distributed_type": "how ranks share a step is a setting: read runtime.settings.strategy.name",
    "even_batches": "every rank has equally many batches, and gather_for_metrics leaves out repetitions: leave it out",
    "flag_tensor": "it is set and read between ranks: write runtime.set_trigger() and runtime.check_trigger()",
    "fp8_backend": _FP8,
    "fp8_enabled": _FP8,
    "fp8_recipe_handler": _FP8,
    "free_memory": _PHASES,
    "get_tracker": _TRACKERS + ", or write Runtime(cfg, trackers=[mine])",
    "gradient_state": "the loop owns the window: read runtime.sync_gradients",
    "has_fp8_handler": _FP8,
    "has_lomo_optimizer": _LOMO,
    "init_handler": _OPTIONS,
    "init_trackers": _TRACKERS,
    "is_composable_parallelism_enabled": _NOT_DIVIDED,
    "is_fsdp2": "strategy=fsdp is always torch's fully_shard: read runtime.settings.strategy.name",
    "join_uneven_inputs": (
        "prepared loaders have equally many batches on all ranks, so that nobody waits for ever: leave it out"
    ),
    "load_state": f"{_CHECKPOINT}: leave it out, or write runtime.resume() before a loop of your own",
    "log_with": _TRACKERS,
    "logging_dir": _DIRECTORY,
    "lomo_backward": _LOMO,
    "maybe_context_parallel": _NOT_DIVIDED,
    "msamp_recipe_handler": _FP8,
    "multi_device": "a world of one is no special case: read runtime.num_processes > 1",
    "native_amp": "the forward pass of prepared models runs in strategy.precision: read runtime.mixed_precision",
    "non_blocking": "batches in pinned memory move without blocking: give the DataLoader pin_memory=True",
    "parallelism_config": _NOT_DIVIDED,
    "pipeline_parallel_rank": _NOT_DIVIDED,
    "prepare_data_loader": _ONE_PREPARE,
    "prepare_model": _ONE_PREPARE,
    "prepare_optimizer": _ONE_PREPARE,
    "prepare_scheduler": _ONE_PREPARE,
    "profile": "a profile of some steps is a setting: write runtime.profile.start_step=100 on the command line",
    "profile_handler": "a profile of some steps is a setting: write runtime.profile.start_step=100 on the command line",
    "project_configuration": _DIRECTORY,
    "project_dir": _DIRECTORY,
    "register_for_checkpointing": (
        "what is saved has a name, so that it is found again: write runtime.register(name, thing) for each"
    ),
    "register_load_state_pre_hook": _HOOKS,
    "register_save_state_pre_hook": _HOOKS,
    "rng_types": "each rank's random states are saved and restored: leave it out",
    "save_iteration": "checkpoints are named after their step: read runtime.step",
    "save_model": "weights leave a checkpoint as one file: run `hpc checkpoint export` on run_dir",
    "save_state": f"{_CHECKPOINT}: leave it out, or write runtime.save()",
    "scaler": "losses are scaled where strategy.precision=fp16, and the scale is saved: leave it out",
    "scaler_handler": "losses are scaled where strategy.precision=fp16, and the scale is saved: leave it out",
    "should_save_model": "one rank writes what is the same on all: read runtime.is_main_process",
    "skip_first_batches": f"{_CHECKPOINT}: leave it out",
    "split_batches": "a DataLoader's batch size is that of one rank: divide it where you build the loader",
    "state": "it is in several places: read runtime.world, runtime.settings and runtime.device",
    "step_scheduler_with_optimizer": "a prepared scheduler advances once for each optimizer step: leave it out",
    "te_recipe_handler": _FP8,
    "tensor_parallel_rank": _NOT_DIVIDED,
    "torch_device_mesh": _NOT_DIVIDED,
    "trigger_sync_in_backward": "the last micro-batch of a window exchanges gradients: leave it out",
    "unscale_gradients": "clip_grad_norm_, clip_grad_value_ and optimizer.step() unscale by themselves: leave it out",
    "use_distributed": "a world of one is no special case: read runtime.num_processes > 1",
    "use_seedable_sampler": "the order of samples is a function of the setting seed: leave it out",
    "use_stateful_dataloader": f"{_CHECKPOINT}: leave it out",
    "verify_device_map": "models that are spread over devices by a device map are not trained here: use strategy=fsdp",
}
"""Name -> why a Runtime has none, and what to write."""


class ElsewhereError(ConfigurationError, AttributeError):
    """A Runtime has no such attribute, but Accelerate's Accelerator has."""


def no_attribute(name: str) -> AttributeError:
    """What to raise where a Runtime is asked for a name that it does not have."""
    if name in INSTEAD:
        return ElsewhereError(f"A Runtime has no {name}, which Accelerate has, because {INSTEAD[name]}.")
    return AttributeError(f"'Runtime' object has no attribute {name!r}")
