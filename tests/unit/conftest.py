"""Which unit tests `make check` leaves to `make test`, so that it stays under two minutes: those that are marked, and
these modules, which take some seconds each because they start servers, processes or many runs."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
WITHOUT_SLOW = "not slow"  # the expression of marks with which `make check` chooses
SLOW = {
    "adapters/test_docker_job_tap.py",
    "adapters/test_dockerignore.py",
    "adapters/test_git_odd.py",
    "adapters/test_git_sizes.py",
    "adapters/test_nvml.py",
    "adapters/test_post_receive.py",
    "adapters/test_registries.py",
    "adapters/test_webhooks.py",
    "backup/test_restore.py",
    "cli/test_apps.py",
    "cli/test_doctor.py",
    "cli/test_dry_run.py",
    "cli/test_files.py",
    "cli/test_files_streams.py",
    "cli/test_runs.py",
    "client/test_files.py",
    "client/test_runs.py",
    "daemon/test_timers.py",
    "domain/apps/test_moving_paths.py",
    "domain/apps/test_planner_properties.py",
    "domain/routing/test_passwords.py",
    "domain/runs/test_stage_slots.py",
    "domain/test_secret.py",
    "domain/test_text.py",
    "manifests/test_reader.py",
    "reconcile/test_backoff.py",
    "reconcile/test_box_usage.py",
    "reconcile/test_bugs.py",
    "reconcile/test_crashes.py",
    "reconcile/test_faults.py",
    "reconcile/test_loop.py",
    "reconcile/test_models.py",
    "reconcile/test_moving_paths.py",
    "reconcile/test_rollout.py",
    "runner/test_bugs.py",
    "runner/test_cancel.py",
    "runner/test_crashes.py",
    "runner/test_faults.py",
    "runner/test_gpus.py",
    "runner/test_images.py",
    "runner/test_outputs.py",
    "runner/test_publishing.py",
    "runner/test_release.py",
    "runner/test_runner.py",
    "runner/test_runs.py",
    "runner/test_shares.py",
    "runner/test_waits.py",
    "runner/test_webhook_dispatcher.py",
    "serving/test_batches.py",
    "serving/test_binary_tensors.py",
    "serving/test_call_files.py",
    "serving/test_dispatching.py",
    "serving/test_faults.py",
    "serving/test_hints_elsewhere.py",
    "serving/test_http.py",
    "serving/test_http1.py",
    "serving/test_json_pieces.py",
    "serving/test_json_tensors.py",
    "serving/test_native.py",
    "serving/test_number_lists.py",
    "serving/test_openai.py",
    "serving/test_predict.py",
    "serving/test_preloading.py",
    "serving/test_processes.py",
    "serving/test_readiness.py",
    "serving/test_requests.py",
    "serving/test_results.py",
    "serving/test_streams.py",
    "store/test_codec.py",
    "store/test_guest.py",
    "store/test_keys.py",
    "store/test_queue_machine.py",
    "store/test_rows.py",
    "store/test_shared_file.py",
    "store/test_webhooks.py",
    "tracing/test_sdk.py",
    "web/api/files/test_moves.py",
    "web/api/files/test_views.py",
    "web/api/platform/test_branch_previews.py",
    "web/api/platform/test_signatures.py",
    "web/api/runs/test_given.py",
    "web/api/runs/test_live.py",
    "web/api/runs/test_submission.py",
    "web/api/runs/test_views.py",
    "web/call_files/test_calls.py",
    "web/gateway/test_watch.py",
    "web/objects/test_proxy.py",
    "web/pages/test_advice.py",
    "web/pages/test_languages.py",
    "web/test_access_log.py",
    "web/test_app.py",
    "web/test_connections.py",
    "web/test_fuzz.py",
    "web/test_isolated_json.py",
    "web/test_live_bugs.py",
    "web/test_shares.py",
    "web/test_splice.py",
    "test_fuzz_targets.py",
    "test_linear.py",
    "test_memory.py",
    "test_suite.py",
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Where no slow test is wanted, do not even read these modules: that takes longer than some of the others."""
    return True if config.option.markexpr == WITHOUT_SLOW and _is_slow(collection_path) else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _is_slow(item.path):
            item.add_marker(pytest.mark.slow)


def _is_slow(module: Path) -> bool:
    return module.is_relative_to(HERE) and module.relative_to(HERE).as_posix() in SLOW
