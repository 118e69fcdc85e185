"""One ONNX model in onnxruntime: rows of features in, outputs in the rows' order out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from tasks.core.errors import BundleError
from tasks.core.ragged import gather
from tasks.encoding.batching import inference_batches
from tasks.inference.bundle import REMEDY
from tasks.inference.cache_names import PAST, PRESENT

if TYPE_CHECKING:
    from tasks.core.arrays import Features, Floats

BATCH_TOKENS = 1024  # padded tokens of one batch: larger ones leave the cache and gain nothing
BATCH_ROWS = 32
MANY_BATCHES = 8  # from which each has a thread of its own: 1.1 times as many texts a second as one after the other on all threads

Cache = dict[
    str, npt.NDArray[np.float32]
]  # keys and values of what a causal model has read, by the names that they go in by


class Collator(Protocol):
    """The part of a problem type that makes model inputs, and keeps what matters of the outputs."""

    batch_tokens: ClassVar[int]

    def collate(self, features: Features, pad_token_id: int) -> dict[str, npt.NDArray[np.int64]]:
        """Features of some rows to one padded batch."""
        ...

    def reduce(self, outputs: Floats, features: Features) -> Floats:
        """What is kept of the batch's outputs, first axis the rows."""
        ...


class OnnxModel:
    """An onnxruntime session on the CPU; safe to call from several threads.

    source   the graph's file, or what reads it, each time that it is asked
    threads  0: one a physical core; never more than there are cores
    bundle   the bundle that it is of, which a BundleError names where onnxruntime refuses it; of a graph of our own that is a bug
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
        # 0 would let onnxruntime pin its threads to cores, which fights with other processes and fails in containers
        options.intra_op_num_threads = self.threads
        options.inter_op_num_threads = 1
        options.enable_mem_pattern = (
            False  # patterns are kept for every shape ever seen, and ours all differ
        )
        options.log_severity_level = 3
        self.bundle = bundle
        graph = str(source) if isinstance(source, Path) else source()
        with self._refusals():
            self.session = onnxruntime.InferenceSession(
                graph, options, providers=["CPUExecutionProvider"]
            )
        self.output_name = output_name
        self.past = [
            (one.name, one.shape[1], one.shape[3])
            for one in self.session.get_inputs()
            if one.name.startswith(PAST)
        ]

    def run(self, batch: Mapping[str, npt.NDArray[np.int64]]) -> Floats:
        """Outputs of one padded batch."""
        with self._refusals():
            outputs: Floats = self.session.run(
                [self.output_name], {**batch, **self.nothing_read(len(batch["input_ids"]))}
            )[0]
        return outputs

    def nothing_read(self, rows: int) -> Cache:
        """What goes into a causal model beside texts that begin; no other model has such inputs."""
        return {
            name: np.zeros((rows, heads, 0, width), np.float32) for name, heads, width in self.past
        }

    def read_on(self, ids: Sequence[int], cache: Cache) -> tuple[Floats, Cache]:
        """(outputs of tokens, (tokens, vocabulary); the cache with them) of one text that the model goes on reading."""
        before = next(iter(cache.values())).shape[2]
        batch = {
            "input_ids": np.asarray([ids], np.int64),
            "attention_mask": np.ones((1, before + len(ids)), np.int64),
        }
        with self._refusals():
            outputs, *present = self.session.run(
                [self.output_name, *(name.replace(PAST, PRESENT) for name in cache)],
                {**batch, **cache},
            )
        return outputs[0], dict(zip(cache, present, strict=True))

    def outputs(self, features: Features, problem: Collator, pad_token_id: int) -> Floats:
        """Outputs in the rows' order, first axis the rows; no rows give no outputs, shaped as the model has them."""
        lengths = np.fromiter(map(len, features["input_ids"]), np.int64, len(features["input_ids"]))
        if not len(lengths):
            return self._nothing()
        places = list(
            inference_batches(lengths, min(BATCH_TOKENS, problem.batch_tokens), BATCH_ROWS)
        )[::-1]  # the longest first
        many = self.threads > 1 and len(places) >= MANY_BATCHES
        model = self.on_one_thread if many else self

        def compute(rows: npt.NDArray[np.int64]) -> Floats:
            chosen = take_rows(features, rows)
            return problem.reduce(model.run(problem.collate(chosen, pad_token_id)), chosen)

        if not many:
            return gather(list(map(compute, places)), places)
        with ThreadPoolExecutor(self.threads) as pool:
            return gather(list(pool.map(compute, places)), places)

    @cached_property
    def on_one_thread(self) -> OnnxModel:
        """The same for calls that come from several threads at once."""
        return OnnxModel(self.source, self.output_name, 1, self.bundle)

    @property
    def output_shape(self) -> list[int | str | None] | None:
        """Of `output_name`, a name or None for each size that is not fixed; None where the graph has no such output."""
        return next(
            (
                list(output.shape)
                for output in self.session.get_outputs()
                if output.name == self.output_name
            ),
            None,
        )

    def _nothing(self) -> Floats:
        shape = self.output_shape or [0]
        return np.zeros(
            (0, *(size if isinstance(size, int) else 0 for size in shape[1:])), np.float32
        )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if self.bundle is None or not (
                type(error).__module__.startswith("onnxruntime.")
                or isinstance(error, ValueError | RuntimeError)
            ):
                raise
            said = " ".join(str(error).split())[:300]
            raise BundleError(
                f"{self.bundle}: onnxruntime cannot run its model: {said}", REMEDY
            ) from error


def take_rows(features: Features, rows: npt.NDArray[np.int64]) -> dict[str, list[Any]]:
    """Features of some rows, in the order asked for."""
    return {name: [values[row] for row in rows] for name, values in features.items()}


def physical_cores() -> int:
    """Cores this process may use, hyper-threads of one core counted once; at least 1."""
    allowed = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    siblings = {_read(Path(topology.format(cpu))) or str(cpu) for cpu in allowed}
    return max(len(siblings), 1)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        return ""
