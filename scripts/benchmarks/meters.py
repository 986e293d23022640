"""What the training benchmarks measure beside the clock: parts of a step, memory, a matrix product's rate."""

import contextlib
import functools
import time
from collections import defaultdict

import torch
from torch.profiler import ProfilerActivity, profile


class Sections:
    """Seconds of the named parts of a step; `exact` waits for the device at each border."""

    def __init__(self, device):
        self.device, self.exact, self.seconds = device, False, defaultdict(float)

    def now(self):
        if self.exact and self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def __call__(self, name):
        start = self.now()
        yield
        self.seconds[name] += self.now() - start

    def wrap(self, owner, method, name):
        """Count the calls of a method; one that runs inside another counted one must be subtracted later."""
        inner = getattr(owner, method)

        @functools.wraps(inner)
        def counted(*args, **kwargs):
            with self(name):
                return inner(*args, **kwargs)

        setattr(owner, method, counted)

    def take(self):
        seconds, self.seconds = dict(self.seconds), defaultdict(float)
        return seconds


class PeakMemory:
    """Bytes that a step allocates at its peak, beyond what was there before it."""

    def __init__(self, device):
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            self.before = torch.cuda.memory_allocated()
        else:
            self.profiler = profile(activities=[ProfilerActivity.CPU], profile_memory=True)
            self.profiler.start()

    def read(self):
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated() - self.before
        self.profiler.stop()
        # the raw events: those inside an operation are missing from `profiler.events()`
        events = self.profiler.profiler.kineto_results.events()
        changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
        held = peak = 0
        for _, change in changes:
            held += change
            peak = max(peak, held)
        return peak


def resident_bytes(model, teacher, optimizer):
    """Weights, their copy, and the optimizer's state."""
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [*teacher.parameters(), *teacher.buffers()] if teacher else []
    for state in optimizer.state.values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    return sum(tensor.nbytes for tensor in tensors)


def matrix_rate(device, dtype):
    """FLOP a second of a large matrix product: what the step's rate is compared with."""
    size = 8192 if device.type == "cuda" else 1536
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    seconds = []
    for _ in range(8):
        start = time.perf_counter()
        (left @ right)[0, 0].item()
        seconds.append(time.perf_counter() - start)
    return 2 * size**3 / min(seconds)
