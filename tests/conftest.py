"""Fixtures: where the shared test data lies. Tiers: which tests run when.

`python -m pytest -m quick` runs what needs neither data nor compiled kernels, beyond a few; `python -m pytest` all but
the slow ones, which `--all`, `-m`, NPMOBILENET_NO_SKIP, or naming a file or a test takes in. Without a name all of them
run in two processes; `-n 0` keeps them in one.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("NPMOBILENET_BEHIND", "0")  # no test leaves a process behind, but one that says so


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder with real weights, goldens and images (NPMOBILENET_DATA); tests that need it skip without it."""
    folder = os.environ.get("NPMOBILENET_DATA")
    if not folder:
        pytest.skip("NPMOBILENET_DATA is not set: point it at the folder with weights/, golden/ and images/")
    path = Path(folder).resolve()
    if not (path / "weights" / "manifest.json").is_file():
        pytest.fail(f"NPMOBILENET_DATA={folder}: no weights/manifest.json in it")
    return path


# Files and folders of the quick tier; their slow tests, and those that need data, are left out of it.
QUICK = (
    "arithmetic/test_fixedpoint.py", "formats/test_malformed.py",
    "formats/test_weightfile.py", "images/test_images.py", "images/test_labels.py", "images/test_preprocess.py",
    "test_graph.py", "test_structure.py", "tools/test_cut_tflite.py", "zoo/",
)  # fmt: skip
# The slow tests, by the end of "file::name", or of a file: five seconds of a core or more, half of them all compiling.
SLOW = (
    "test_extreme_scales_give_equal_results_or_one_sentence", "test_numba_that_is_told_something_is_asked",
    "test_fast_equals_reference_for_all_that_is_accepted",
    "golden/test_device_causes.py", "golden/test_exchanged_causes.py", "test_memory_does_not_grow",
    "test_lowering_keeps_the_values", "test_rows_that_tiles_leave_over", "test_a_dump_that_lacks_tensors",
    "test_a_short_run_finds_nothing", "test_examples_run", "test_golden_tools_on_extreme_scales",
    "test_a_full_cache_needs_no_numba", "test_numba_of_the_users_own_has_the_same_threads",
    "test_a_kernel_that_is_not_there_is_compiled", "test_what_numba_said_is_asked_again",
    "test_after_a_fork_the_threads_are_known_to_be_gone", "test_the_steps_are_those_of_the_rule",
    "test_one_wrong_bias_bit",
    "test_golden_tools_integer.py::test_a_swapped_scale", "test_nodes_between_float_layers",
    "test_quantize.py::test_every_op_equals_litert", "test_ctrl_c", "test_tiles_without_a_cache_folder",
    "test_swapped_cache_files_are_replaced", "test_depthwise_q.py::test_accumulators",
    "test_planted_faults_are_found", "test_full_disk", "test_usual_slips_are_recognized", "test_explaining_a_run",
    "test_faults_are_drawn_anywhere", "test_settings_of_numba_that_turn_instructions_off",
    "test_images_of_a_batch_have_scales_of_their_own", "test_a_state_survives_signals_and_a_full_disk",
    "test_overhead_takes_a_run_apart", "test_a_damaged_heap_of_strings_takes_no_time", "test_channels_first",
    "test_products_by_every_way", "test_every_op.py::test_every_op", "test_a_first_answer_needs_no_loop_for_threads",
    "test_a_folder_that_can_only_be_read_is_read",
    "test_classify_with_an_empty_cache",
    "test_arm64.py::test_layers", "test_arm64.py::test_other_ops", "test_arm64.py::test_the_shipped_model",
    "test_arm64.py::test_inside_real_files",
    "test_accumulators_times_the_rule_are_the_output", "test_all_pairs_of_values", "test_all_tiles_make_one_object",
    "test_arrays_of_every_dtype", "test_damaged_cache_files_are_replaced",
    "test_damaged_hdf5_files", "test_damaged_tiles_are_replaced",
    "test_every_op_is_derived_under_every_dialect", "test_examples_are_the_same_in_every_set",
    "test_every_node_of_a_real_file", "test_selection.py::test_equals_litert",
    "test_more_operators.py::test_equals_litert",
    "test_dynamic_range.py::test_equals_litert", "test_every_kernel_set_gives_the_same_bits",
    "test_every_integer_equals_litert", "test_every_shift_and_multiplier", "test_arithmetic_docs.py::test_example",
    "test_fast_equals_reference_on_every_zoo_layer", "test_features_of_real_files",
    "test_forms_of_a_task_are_kept_apart", "test_generated_lines",
    "test_generated_pages_are_current", "test_golden_example_prints_what_readme_says", "test_identify",
    "test_interleaving", "test_killed_at_ten_moments",
    "test_int8_in_a_browser_under_every_dialect", "test_the_flowers_page_in_a_browser", "test_other_ops_in_a_browser",
    "test_names_stay_text", "test_the_tour_prints_what_it_says",
    "test_kernels_of_arm_give_the_same_bits", "test_ops_table.py::test_equals_litert",
    "test_ops_table.py::test_fast_equals_reference",
    "test_litert_arm.py::test_the_reference_kernels_are_the_same_everywhere",
    "test_litert_arm.py::test_what_litert_refuses_is_said", "test_litert_arm.py::test_an_unknown_cpu_is_said",
    "test_lesser_instructions_climb_too", "test_lesser_instruction_sets", "test_lesser_instruction_sets_in_floats",
    "test_lesser_instruction_sets_in_integers", "test_lines_take_every_step",
    "test_logits_of_pytorch", "test_float_relatives_run", "test_int8_relatives_run",
    "test_exporting.py::test_every_op", "test_one_scale_for_each_tensor_is_enough_for_v2",
    "test_many.py::test_a_worker_is_killed", "test_many.py::test_evaluate", "test_a_part_that_kills_its_workers",
    "test_nothing_is_left_behind", "test_what_is_left_behind_is_seen", "test_a_cluster_beside_the_local_run",
    "test_fit_on_flowers", "test_nothing_else_opens_a_socket",
    "test_one_wrong_rounding", "test_one_wrong_weight_bit", "test_pieces_touch_what_they_say",
    "test_pieces_of_integers_touch_what_they_say", "test_predict_equals_a_plain_loop",
    "test_golden_tools_cli.py::test_record",
    "test_some_are_planted_again", "test_sums_by_every_way", "test_teachable_machine_of_keras_and_tflite_agree",
    "test_tasks_are_compiled_once", "test_tiles_are_compiled_once",
    "test_tiles_that_end_by_lines", "test_the_page_of_claims_is_current", "test_without_a_cache_everything_works",
)  # fmt: skip


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="run the slow tests, too")


# Two processes run the whole suite, a file each at a time (pytest-xdist). Both collect, and leave out what was asked of
# a third, which reports.
_left_out: dict[str, int] = {}  # how many slow tests, by the process that left them out: all of them the same


def whole_suite(config: pytest.Config) -> bool:
    """Whether the command names no file; workers are given all names, and are told."""
    told = getattr(config, "workerinput", {}).get("whole")
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS if told is None else told


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist, where it is installed, looks at its options
def pytest_cmdline_main(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):  # one of the two, which must not start two more
        return
    chosen = getattr(config.option, "numprocesses", 0) is not None or config.option.usepdb
    watched = "coverage" in sys.modules or sys.gettrace() is not None  # it sees this process alone
    if whole_suite(config) and not (chosen or watched or os.cpu_count() == 1):
        config.option.numprocesses, config.option.dist, config.option.loadscopereorder = 2, "loadfile", False


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["whole"] = whole_suite(node.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    _left_out[node.gateway.id] = getattr(node, "workeroutput", {}).get("left_out", 0)


@pytest.hookimpl(tryfirst=True)  # before -m chooses by the markers
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        path = item.path.relative_to(Path(__file__).parent).as_posix()
        if item.nodeid.partition("[")[0].endswith(SLOW) or path.endswith(SLOW):
            item.add_marker("slow")
        elif path.startswith(QUICK) and "data" not in getattr(item, "fixturenames", ()):
            item.add_marker("quick")
    slow = [item for item in items if item.get_closest_marker("slow")]
    asked = config.option.all or config.option.markexpr or os.environ.get("NPMOBILENET_NO_SKIP")
    if whole_suite(config) and not asked:
        _left_out["here"] = len(slow)
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]
    if hasattr(config, "workerinput"):  # the longest files first, so that the processes end together
        counts = Counter(item.path for item in slow)
        items.sort(key=lambda item: -counts[item.path])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: what was left out, and how to get it."""
    reasons = [report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if report.longrepr]
    data = sum("NPMOBILENET_DATA" in reason for reason in reasons)
    tensorflow = sum("tensorflow" in reason.lower() or "[tf]" in reason for reason in reasons)
    rest = len(reasons) - data - tensorflow
    parts = [
        (max(_left_out.values(), default=0), "slow tests (python -m pytest --all)"),
        (data, "that need NPMOBILENET_DATA (a folder of published models and images: CONTRIBUTING.md)"),
        (tensorflow, "that need TensorFlow (pip install -e '.[tf]')"),
        (rest, "for other reasons (-rs lists them)"),
    ]
    left_out = ", ".join(f"{count} {what}" for count, what in parts if count)
    if left_out:
        terminalreporter.write_line(f"left out: {left_out}")


# Reasons to skip that a machine may have; any other skip fails the run where NPMOBILENET_NO_SKIP is set (CI).
MACHINE_REASONS = ("this CPU", "this platform", "this Pillow")
_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(MACHINE_REASONS):
            _skipped.append(f"{report.nodeid}: {reason}")


pytest_collectreport = pytest_runtest_logreport  # a file that skips as a whole


@pytest.hookimpl(tryfirst=True)  # workers send their output after this
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = _left_out.get("here", 0)
    elif _skipped and os.environ.get("NPMOBILENET_NO_SKIP"):
        print("\nskipped, which NPMOBILENET_NO_SKIP forbids:", *_skipped, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
