"""An ONNX model in onnxruntime: rows of features in, outputs in the same order out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tasks.core.errors import BundleError
from tasks.core.ragged import gather
from tasks.encoding.batching import inference_batches
from tasks.inference.bundle import REMEDY
from tasks.inference.cache_names import PAST, PRESENT

if TYPE_CHECKING:
    from tasks.core.arrays import Columns, Features, Floats
    from tasks.encoding.encoder import Collator

BATCH_TOKENS = 1024  # padded tokens per batch: larger batches leave the CPU cache and gain nothing
BATCH_ROWS = 32
# from this many batches on, each runs on one thread of its own: 1.1 times the texts a second of
# running them one after another on all threads
MANY_BATCHES = 8

# the KV cache of what a causal model has read, by the names of the graph's inputs
Cache = dict[str, npt.NDArray[np.float32]]


class OnnxModel:
    """An onnxruntime session on the CPU; safe to call from several threads.

    source   path of the graph, or a function that reads its bytes (may be called more than once)
    threads  0: one per physical core; capped at the number of cores
    bundle   its directory: an error of onnxruntime becomes a BundleError that names it. None for a
             graph that we have just made: there an error is a bug and is raised as it is
    """

    def __init__(
        self,
        source: Path | Callable[[], bytes],
        output_name: str,
        threads: int = 0,
        bundle: Path | None = None,
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self.source, self.threads = source, min(threads, os.cpu_count() or 1) or physical_cores()
        # 0 would make onnxruntime pin its threads to cores: slow beside other processes, and an
        # error in containers
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        # memory patterns are kept for every input shape ever run, and our shapes all differ
        options.enable_mem_pattern = False
        options.log_severity_level = 3
        self.bundle = bundle
        graph = str(source) if isinstance(source, Path) else source()
        with self._onnxruntime_errors():
            self.session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        self.output_name = output_name
        self.past = [
            (tensor.name, tensor.shape[1], tensor.shape[3])
            for tensor in self.session.get_inputs()
            if tensor.name.startswith(PAST)
        ]

    def run(self, batch: Mapping[str, npt.NDArray[np.int64]]) -> Floats:
        """Outputs of one padded batch."""
        with self._onnxruntime_errors():
            outputs: Floats = self.session.run(
                [self.output_name], {**batch, **self.empty_cache(len(batch["input_ids"]))}
            )[0]
        return outputs

    def empty_cache(self, rows: int) -> Cache:
        """An empty KV cache for `rows` texts; an empty dict for a model without cache inputs."""
        return {
            name: np.zeros((rows, heads, 0, width), np.float32) for name, heads, width in self.past
        }

    def run_with_cache(self, ids: Sequence[int], cache: Cache) -> tuple[Floats, Cache]:
        """Read more tokens of one text: (their outputs, (tokens, vocabulary); the grown cache)."""
        past = next(iter(cache.values())).shape[2]
        batch = {
            "input_ids": np.asarray([ids], np.int64),
            "attention_mask": np.ones((1, past + len(ids)), np.int64),
        }
        with self._onnxruntime_errors():
            outputs, *present = self.session.run(
                [self.output_name, *(name.replace(PAST, PRESENT) for name in cache)],
                {**batch, **cache},
            )
        return outputs[0], dict(zip(cache, present, strict=True))

    def outputs(self, features: Features, collator: Collator, pad_token_id: int) -> Floats:
        """Outputs in the rows' order, first axis the rows; of no rows, an empty array.

        Its other axes are those of the model's output, 0 where they are not fixed.
        """
        lengths = np.fromiter(map(len, features["input_ids"]), np.int64, len(features["input_ids"]))
        if not len(lengths):
            return self._no_outputs()
        budget = min(BATCH_TOKENS, collator.batch_tokens)
        batches = list(inference_batches(lengths, budget, BATCH_ROWS))[::-1]  # longest first
        many = self.threads > 1 and len(batches) >= MANY_BATCHES
        model = self.single_threaded if many else self

        def compute(rows: npt.NDArray[np.int64]) -> Floats:
            batch = take_rows(features, rows)
            return collator.reduce(model.run(collator.collate(batch, pad_token_id)), batch)

        if not many:
            return gather(list(map(compute, batches)), batches)
        with ThreadPoolExecutor(self.threads) as pool:
            return gather(list(pool.map(compute, batches)), batches)

    @cached_property
    def single_threaded(self) -> OnnxModel:
        """The same model with one intra-op thread, for calls from several threads at once."""
        return OnnxModel(self.source, self.output_name, 1, self.bundle)

    @property
    def output_shape(self) -> list[int | str | None] | None:
        """Shape of `output_name`, a name or None per dynamic axis; None if there is none."""
        return next(
            (
                list(output.shape)
                for output in self.session.get_outputs()
                if output.name == self.output_name
            ),
            None,
        )

    def _no_outputs(self) -> Floats:
        shape = self.output_shape or [0]
        sizes = (size if isinstance(size, int) else 0 for size in shape[1:])
        return np.zeros((0, *sizes), np.float32)

    @contextmanager
    def _onnxruntime_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.bundle is None or not (
                type(error).__module__.startswith("onnxruntime.")
                or isinstance(error, ValueError | RuntimeError)
            ):
                raise
            reason = " ".join(str(error).split())[:300]
            raise BundleError(
                f"{self.bundle}: onnxruntime cannot run its model: {reason}", REMEDY
            ) from error


def take_rows(features: Columns, rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Columns or features of the given rows, in the given order."""
    return {name: [values[row] for row in rows] for name, values in features.items()}


def physical_cores() -> int:
    """Physical cores this process may use (hyper-threads of a core count once); at least 1."""
    allowed = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    siblings = {_read(Path(topology.format(cpu))) or str(cpu) for cpu in allowed}
    return max(len(siblings), 1)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
